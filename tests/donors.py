"""Donors of grafts, with random weights."""

import torch
from ultralytics import YOLO

QUICK = {"number": 16, "imgsz": 64, "allow_random": True}  # options of a graft


def checkpoint(name: str, folder, names=(), channels: int = 3) -> str:
    """Return a checkpoint of a model with lively random weights, and class names where `names` gives them."""
    torch.manual_seed(1)
    model = YOLO(f"{name}.yaml").model
    if channels != 3:
        model = type(model)({**model.yaml, "channels": channels}, ch=channels, verbose=False)
    model.names = {i: f"kind {i}" for i in range(model.yaml["nc"])} | dict(names)
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
