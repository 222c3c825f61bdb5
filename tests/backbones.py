"""Random backbones of timm and ours, and their features, for several test files."""

from pathlib import Path

import numpy as np
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from ultralytics import YOLO

import yolo_effnet


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


def tensors(module: nn.Module) -> list[torch.Tensor]:
    """Return parameters and BatchNorm statistics in order of definition, which both libraries share."""
    skip = ("num_batches_tracked", "mean", "std")
    return [v for k, v in module.state_dict().items() if k.rpartition(".")[2] not in skip]


def features(model, x: torch.Tensor) -> list[torch.Tensor]:
    """Return P3, P4 and P5 as the backbone rows of a detection model compute them."""
    outputs = []
    with torch.no_grad():
        for layer in model.model[:8]:
            x = layer(x)
            outputs.append(x)
    return [outputs[i] for i in (3, 5, 7)]


def reference(tag: str, file: Path, half: bool = False) -> nn.Module:
    """Return timm's classifier of `tag` with random weights, after it saved them to `file`.

    With `half`, they are numbers that half precision holds exactly, as Ultralytics rounds checkpoints to it.
    """
    model = randomize(timm.create_model(tag, pretrained=False), scale=0.1).eval()
    if half:
        model.half().float()
    if file.suffix == ".safetensors":
        save_file(model.state_dict(), file)
    else:
        torch.save(model.state_dict(), file)
    return model


def config_of(tag: str) -> dict:
    """Return the model dict of the tag's variant with these weights and their padding."""
    variant = tag.partition(".")[0].rpartition("_")[2]
    padding = "same" if tag.startswith("tf_") else "symmetric"
    config = yolo_effnet.model_config(f"yolov8-eff{variant}")
    return {**config, "weights": tag, "padding": padding}


def expected(classifier: nn.Module, tag: str, image: torch.Tensor) -> list[torch.Tensor]:
    """Return timm's P3, P4 and P5 of properly normalised pixels."""
    config = timm.get_pretrained_cfg(tag)
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (config.mean, config.std))
    with torch.no_grad():
        _, maps = classifier.forward_intermediates((image - mean) / std, indices=[2, 3, 4])
    return maps


def assert_equal(got, wanted, tolerance=1e-4):
    for a, b in zip(got, wanted, strict=True):
        assert a.shape == b.shape
        assert ((a - b).abs().max() / b.abs().max()).item() < tolerance


def features_of_file(file: Path, image: np.ndarray, fused: bool) -> list[np.ndarray]:
    """Return P3, P4 and P5 of a checkpoint, in a process that knows no more than its path."""
    model = YOLO(file).model.eval()
    if fused:
        model.fuse(verbose=False)
    return [x.numpy() for x in features(model, torch.from_numpy(image))]
