"""Donors of grafts, with random weights."""

import copy
from pathlib import Path

import torch
from ultralytics import YOLO

from yolo_effnet.host.heads import Seen, watch

QUICK = {"number": 16, "imgsz": 64, "allow_random": True}  # options of a graft


def checkpoint(name: str, folder, names=(), channels: int = 3) -> str:
    """Return a checkpoint of a model with lively random weights, and class names where `names` gives them."""
    torch.manual_seed(1)
    model = YOLO(f"{name}.yaml").model
    if channels != 3:
        model = type(model)({**model.yaml, "channels": channels}, ch=channels, verbose=False)
    model.names = {i: f"kind {i}" for i in range(model.yaml["nc"])} | dict(names)
    if hasattr(model.model[-1], "kpt_shape"):
        model.kpt_shape = model.model[-1].kpt_shape  # as in trained ones
    for m in model.modules():
        if isinstance(m, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(m.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(m.running_var, 0.5, 1.5)
            torch.nn.init.uniform_(m.weight, 0.8, 1.2)
    file = folder / f"{name}.pt"
    torch.save({"model": model.eval(), "train_args": {}}, file)
    return str(file)


def output(model, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        y = model.eval()(x)
    while isinstance(y, (list, tuple)):
        y = y[0]
    return y


def rebuilt(model: torch.nn.Module) -> torch.nn.Module:
    """Return a model that the YAML of another builds alone, with the weights of that one."""
    again = type(model)(copy.deepcopy(model.yaml), verbose=False)
    again.load_state_dict(model.state_dict())
    return again


def seen(model, x: torch.Tensor) -> Seen:
    """Return what the head of a model takes and gives for images."""
    noted = Seen()
    handles = watch(model.model[-1], noted)
    output(model, x)
    for handle in handles:
        handle.remove()
    return noted


def teacher(name: str, folder: Path) -> str:
    """Return a checkpoint with random weights that sees something in every picture."""
    file = checkpoint(name, folder)
    held = torch.load(file, weights_only=False)
    model = held["model"].eval()
    noted = seen(model, torch.rand(2, 3, 64, 64) / 3)
    for branch, scores in noted.branches.items():
        for level, found in scores.items() if branch.endswith("cv3") else ():
            last = getattr(model.model[-1], branch)[level][-1]
            last.weight.data *= 2 / found.std()
            last.bias.data = (last.bias.data - found.mean()) * 2 / found.std() - 4
    torch.save(held, file)
    return file
