"""Random backbones, and their features, for several test files."""

import torch
from torch import nn


def randomize(model: nn.Module, scale: float = 1.0) -> nn.Module:
    """Draw BatchNorm layers and biases afresh, at a scale that keeps activations near one.

    A small `scale` shrinks convolutions before BatchNorm and its statistics alike, so that its eps matters.
    """
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.uniform_(m.running_mean, -0.2 * scale, 0.2 * scale)
            nn.init.uniform_(m.running_var, 0.5 * scale**2, 1.5 * scale**2)
            nn.init.uniform_(m.weight, 0.8, 1.2)
            nn.init.uniform_(m.bias, -0.2, 0.2)
        elif isinstance(m, nn.Conv2d) and m.bias is None:
            m.weight.data *= scale
        elif isinstance(m, nn.Conv2d):
            nn.init.normal_(m.bias, std=0.5)
    return model


def features(model, x: torch.Tensor) -> list[torch.Tensor]:
    """Return P3, P4 and P5 as the backbone rows of a detection model compute them."""
    outputs = []
    with torch.no_grad():
        for layer in model.model[:8]:
            x = layer(x)
            outputs.append(x)
    return [outputs[i] for i in (3, 5, 7)]
