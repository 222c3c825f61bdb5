"""The trained detector that gives neck and head."""

import copy
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn
from ultralytics.nn.modules import Conv

from yolo_effnet.checkpoints import open_checkpoint
from yolo_effnet.grafting.anatomy import Anatomy, anatomy
from yolo_effnet.host.written_out import network
from yolo_effnet.nn.neck import SeparableConv
from yolo_effnet.zoo import names
from yolo_effnet.zoo.rows import neck_widths

HEADS = {
    "Detect": "", "Segment": "-seg", "Pose": "-pose", "OBB": "-obb",
    "Segment26": "-seg", "Pose26": "-pose", "OBB26": "-obb",
}  # fmt: skip


def mode_of(model: nn.Module) -> str:
    """Return Ultralytics' name of the task of a detector, such as `detect`."""
    return names.TASKS[HEADS[type(model.model[-1]).__name__]][0]


@dataclass(frozen=True)
class Donor:
    """A detector whose neck and head are kept.

    Attributes:
        name (str): What it is called in logs.
        model (nn.Module): The model of Ultralytics, a copy in float32 and eval mode.
        anatomy (Anatomy): What its rows are.
    """

    name: str
    model: nn.Module
    anatomy: Anatomy

    @property
    def head(self) -> nn.Module:
        """Return its last row."""
        return self.model.model[-1]

    @property
    def series(self) -> str:
        """Return `yolo26` for a head of YOLO26, which is end to end, else `yolov8`."""
        return "yolo26" if self.head.reg_max == 1 else "yolov8"

    @property
    def task(self) -> str:
        """Return the suffix of the task in the names of models."""
        return HEADS[type(self.head).__name__]

    @property
    def mode(self) -> str:
        """Return Ultralytics' name of the task, such as `detect`."""
        return mode_of(self.model)

    @property
    def pyramid(self) -> str:
        """Return the suffix of the pyramid in the names of models."""
        strides = [int(s) for s in self.head.stride]
        return "-p2" if strides[0] == 4 else "-p6" if strides[-1] == 64 else ""

    def has_letter(self, model: names.Model) -> bool:
        """Return whether its neck is that of the letter of a model: by its own, or else by its widths."""
        if scales := self.model.yaml.get("scales"):
            return model.letter == (self.model.yaml.get("scale") or next(iter(scales)))
        widths = neck_widths(replace(model, pyramid=self.pyramid))
        return [widths[level] for level in names.PYRAMIDS[self.pyramid]] == [
            self.anatomy.channels[f] for f in self.head.f
        ]


def load(source, what: str) -> tuple[str, nn.Module]:
    """Return name and model of a trained detector, a copy of it in float32 and eval mode.

    Args:
        source (str | Path | YOLO | nn.Module): Ultralytics' name of a checkpoint, which it downloads, the path of one,
            a YOLO object or its model.
        what (str): What to call it in an error.

    Raises:
        ValueError: If it cannot be loaded, is not a checkpoint of a model in PyTorch, or is fused or quantized.
    """
    if isinstance(source, (str, Path)):
        name = Path(source).name
        if Path(source).suffix != ".pt":
            kind = "a model YAML, whose weights are random" if name.endswith((".yaml", ".yml")) else "no checkpoint"
            raise ValueError(f"{what} '{source}' is {kind}; give a trained .pt file, as before any export")
        source = open_checkpoint(source, what)
    else:
        path = getattr(source, "ckpt_path", None) or getattr(source, "pt_path", None)
        name = Path(path).name if path else type(source).__name__
    model = network(source)
    if not (isinstance(model, nn.Module) and isinstance(getattr(model, "yaml", None), dict)):
        raise ValueError(f"{what} '{name}' holds no model of Ultralytics but {type(model).__name__}")
    if any(isinstance(m, Conv) and not hasattr(m, "bn") for m in model.modules()):
        raise ValueError(f"{what} '{name}' is fused; load it again, and give it before it predicts or is exported")
    if any(type(m).__module__.startswith("modelopt.") for m in model.modules()):
        raise ValueError(
            f"{what} '{name}' was trained with quantize=8; give what it was before that, and quantize the graft"
        )
    return name, copy.deepcopy(model).float().eval().requires_grad_(False)


def load_detector(source, what: str) -> tuple[str, nn.Module]:
    """Return name and model as `load` does, of a detector with a head that is known.

    Raises:
        ValueError: If it has another one, or as in `load`.
    """
    name, model = load(source, what)
    kind = type(model.model[-1] if isinstance(getattr(model, "model", None), nn.Sequential) else model).__name__
    if kind not in HEADS:
        raise ValueError(f"{what} '{name}' has a head {kind}; heads that are known are {', '.join(HEADS)}")
    return name, model


def load_donor(source) -> Donor:
    """Return a trained detector, from what `load` takes.

    Raises:
        ValueError: If it is no detector whose neck and head can be kept.
    """
    name, model = load_detector(source, "donor")
    head = model.model[-1]
    strides = torch.as_tensor(getattr(head, "stride", 0)).tolist()
    if strides not in ([8, 16, 32], [4, 8, 16, 32], [8, 16, 32, 64]):
        raise ValueError(f"donor '{name}' has outputs at strides {strides}, not at 8, 16 and 32, or 4 or 64 besides")
    if any(isinstance(m, SeparableConv) for m in model.modules()):
        raise ValueError(f"donor '{name}' has a light neck (-dw), whose rows have no counterpart to be solved for")
    if model.yaml.get("channels", 3) not in (1, 3):
        raise ValueError(f"donor '{name}' takes images of {model.yaml['channels']} channels, not of 3 or 1")
    return Donor(name, model, anatomy(model, f"donor '{name}'"))
