"""Formats of the command line, such as `onnx,int8=True`, held to what Ultralytics' exporter takes before it runs."""

from dataclasses import dataclass

import torch
from ultralytics.cfg import get_cfg, smart_value
from ultralytics.engine.exporter import export_formats, validate_args
from ultralytics.utils import DEFAULT_CFG

from yolo_effnet.checks import check_value, is_integer, why

PYTORCH = "pytorch"
_OF_NMS = {"conf", "iou", "max_det", "agnostic_nms"}
_OF_INT8 = {"data", "split", "fraction"}
_UNCALIBRATED = ("coreml", "mnn")  # their int8 is that of weights, which takes no pictures
_ALWAYS_INT8 = ("axelera", "deepx", "edgetpu", "hailo", "imx", "qnn", "xilinx")  # also where nobody says so


@dataclass(frozen=True)
class Format:
    """A format and its options.

    Attributes:
        text (str): As it was written.
        name (str): `pytorch`, or an export format of Ultralytics.
        options (dict): Arguments of the export but for pixels and batch.
        imgsz (int | None): Side of the pictures in pixels, where the format has its own.
        batch (int): Pictures at once.
        half (bool): Whether float16 was asked for.
    """

    text: str
    name: str
    options: dict
    imgsz: int | None
    batch: int
    half: bool


def parse_format(text: str, device: torch.device, data: str | None = None, batch: int = 1) -> Format:
    """Return a format of the command line, with options after commas.

    Args:
        text (str): Such as `onnx`, `openvino,int8=True`, `torchscript,imgsz=320` or `pytorch,batch=8`.
        device (torch.device): Where it is to run.
        data (str | None): Data set that calibrates int8 where no option `data` names another.
        batch (int): Pictures at once where no option `batch` says otherwise.

    Raises:
        ValueError: If there is no such format, or it does not take an option or its value.
    """
    name, *words = text.split(",")
    table = export_formats()
    keys = {**dict(zip(table["Argument"], table["Arguments"], strict=True)), PYTORCH: ["batch", "half"]}
    del keys["-"]
    if name not in keys:
        known = ", ".join([PYTORCH, *(key for key in keys if key != PYTORCH)])
        raise ValueError(f"no format '{name}'; choose from {known}; options follow after commas: onnx,int8=True")
    if wrong := [word for word in words if "=" not in word]:
        raise ValueError(f"format '{text}': write option=value, such as onnx,int8=True, got '{wrong[0]}'")
    given = {key: smart_value(value) for key, value in (word.split("=", 1) for word in words)}
    try:
        args = get_cfg(DEFAULT_CFG, {"batch": batch, "data": None, "device": None, **given})
        precision = getattr(args, "quantize", None)  # newer releases turn int8 and half into it
        half = precision == 16 or bool(getattr(args, "half", False))
        int8 = precision in (8, "w8a16") or bool(getattr(args, "int8", False)) or name in _ALWAYS_INT8
        if name != PYTORCH:
            validate_args(name, args, keys[name])
    except (AssertionError, SyntaxError, TypeError, ValueError) as error:
        raise ValueError(f"format '{text}': {why(error)}") from error
    allowed = {*keys[name], "imgsz"} | ({"int8", "half"} if "quantize" in keys[name] else set())
    allowed |= (_OF_NMS if given.get("nms") else set()) | (_OF_INT8 if int8 else set())
    wrong = next((key for key in given if key not in allowed), None)
    uncalibrated = int8 and name not in _UNCALIBRATED and not given.setdefault("data", data)
    on_cpu = half and name in (PYTORCH, "torchscript") and device.type == "cpu"
    for is_wrong, remedy in (
        ("device" in given, "all run on one device; give --device instead of device="),
        (wrong, f"'{wrong}' does nothing there; its options are {', '.join(sorted(allowed))}"),
        (given.get("half") and given.get("int8"), "a file is of float16 or of int8, not of both"),
        (on_cpu, f"float16 of {name} needs a GPU, --device 0"),
        (uncalibrated, "int8 needs a data set to calibrate on, --data coco8.yaml for example"),
    ):
        if is_wrong:
            raise ValueError(f"format '{text}': {remedy}")
    for key in ("imgsz", "batch"):
        check_value(f"format '{text}': {key}", given.get(key, 1), lambda v: is_integer(v) and v >= 1, "an integer >= 1")
    imgsz, batch = given.pop("imgsz", None), given.pop("batch", batch)
    return Format(text, name, given, imgsz, batch, half)
