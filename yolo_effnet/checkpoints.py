"""Checkpoints as Ultralytics reads them."""

from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn
from ultralytics import YOLO

from yolo_effnet.checks import why


def open_checkpoint(source: str | Path, what: str) -> YOLO:
    """Return the trained model of a `.pt`, or of a name that Ultralytics downloads; a ValueError calls it `what`."""
    try:
        return YOLO(source)
    except Exception as error:  # of pickle, zip, the network or the file system
        raise ValueError(f"{what} '{source}' is no checkpoint that Ultralytics can load ({why(error)})") from error


def check_output(file: str | Path, *sources) -> None:
    """Check the path of a checkpoint to write, and make its folder, before anything is computed for it.

    Raises:
        ValueError: If it is not called `.pt`, or is a folder or one of the files that it is made of.
        OSError: If its folder cannot be made.
    """
    file = Path(file)
    if file.suffix != ".pt":
        raise ValueError(f"the checkpoint to write must be called .pt, got '{file}'")
    if file.is_dir():
        raise ValueError(f"the checkpoint to write, '{file}', is a folder")
    for source in sources:
        if isinstance(source, (str, Path)) and file.is_file() and Path(source).is_file() and file.samefile(source):
            raise ValueError(f"the checkpoint to write, '{file}', is what it is made of; give it another name")
    file.parent.mkdir(parents=True, exist_ok=True)


def save_checkpoint(model: nn.Module, file: str | Path, **train_args) -> None:
    """Write a model as `YOLO.save` does, but in full precision: half of it would cost its features three digits.

    From its `train_args`, such as `task` and `imgsz`, `YOLO` takes over what it needs.
    """
    torch.save({"model": model, "train_args": train_args, "version": version("ultralytics")}, file)
