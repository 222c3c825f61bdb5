"""Random backbones of timm and ours, and their features, for several test files."""

import copy
import itertools
from pathlib import Path

import numpy as np
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from ultralytics import YOLO
from ultralytics.nn.modules import Conv
from ultralytics.utils.torch_utils import fuse_conv_and_bn

import yolo_effnet
from yolo_effnet.nn import stages
from yolo_effnet.nn.timm_backbone import TimmBackbone
from yolo_effnet.zoo.table import ARCHITECTURES


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


def settle(model: nn.Module) -> nn.Module:
    """Let BatchNorm take its statistics from pictures, so that deep random networks neither fade nor explode."""
    norms = {m: m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)}
    for m in norms:
        m.momentum = 1.0
    with torch.no_grad():
        model.train()((torch.rand(4, 3, 96, 96) - 0.45) / 0.22)  # pixels as ImageNet's weights expect them
    for m, momentum in norms.items():
        m.momentum = momentum
        m.running_var.clamp_(min=m.running_var.mean() / 2)  # other pictures may vary more
    return model.eval()


def fused(module: nn.Module) -> nn.Module:
    """Return `module` as Ultralytics' `fuse()` leaves it."""
    module = copy.deepcopy(module).eval()
    for m in module.modules():
        if isinstance(m, Conv):
            m.conv = fuse_conv_and_bn(m.conv, m.bn)
            del m.bn
            m.forward = m.forward_fuse
    return module


def tensors(module: nn.Module) -> list[torch.Tensor]:
    """Return parameters and BatchNorm statistics in order of definition, which both libraries share."""
    skip = ("num_batches_tracked", "mean", "std")
    return [v for k, v in module.state_dict().items() if k.rpartition(".")[2] not in skip]


def backbone(model) -> nn.ModuleList:
    """Return the backbone's layers of a detection model."""
    kinds = (stages.EfficientNetStem, stages.EfficientNetStage, TimmBackbone)
    return nn.ModuleList(itertools.takewhile(lambda layer: isinstance(layer, kinds), model.model))


def features(model, x: torch.Tensor) -> list[torch.Tensor]:
    """Return P3, P4 and P5 as the backbone rows of a detection model compute them."""
    width, maps = x.shape[-1], {}
    with torch.no_grad():
        for layer in backbone(model):
            x = layer(x)
            for y in x.values() if isinstance(x, dict) else [x]:
                maps[width // y.shape[-1]] = y
    return [maps[stride] for stride in (8, 16, 32)]


def reference(tag: str, file: Path, half: bool = False) -> nn.Module:
    """Return timm's classifier of `tag` with random weights, after it saved them to `file`.

    With `half`, they are numbers that half precision holds exactly, as Ultralytics rounds checkpoints to it.
    """
    model = randomize(timm.create_model(tag, pretrained=False), scale=0.1).eval()
    if "v2_" in tag:
        settle(model)
    if half:
        model.half().float()
    if file.suffix == ".safetensors":
        save_file(model.state_dict(), file)
    else:
        torch.save(model.state_dict(), file)
    return model


def config_of(tag: str) -> dict:
    """Return the model dict of the tag's variant with these weights."""
    name = tag.partition(".")[0]
    (variant,) = (
        a.variant for a in ARCHITECTURES.values() if a.timm_name.removeprefix("tf_") == name.removeprefix("tf_")
    )
    return {**yolo_effnet.model_config(f"yolov8-{variant}"), "backbone_weights": tag}


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
        error = ((a - b).abs().max() / b.abs().max()).item()
        assert error < tolerance, f"{error:.1e} of the largest value"


def features_of_file(file: Path, image: np.ndarray, fused: bool) -> list[np.ndarray]:
    """Return P3, P4 and P5 of a checkpoint, in a process that knows no more than its path."""
    model = YOLO(file).model.eval()
    if fused:
        model.fuse(verbose=False)
    return [x.numpy() for x in features(model, torch.from_numpy(image))]
