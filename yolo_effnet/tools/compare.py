"""A trained model beside its exported files: size, latency, accuracy, and how far outputs are from PyTorch's."""

import csv
import shutil
import statistics
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import cv2
import numpy as np
import torch
from ultralytics import ASSETS, YOLO
from ultralytics.cfg import smart_value
from ultralytics.data.augment import LetterBox
from ultralytics.nn.autobackend import AutoBackend
from ultralytics.utils import LOGGER, TQDM

from yolo_effnet.checkpoints import open_checkpoint
from yolo_effnet.checks import why
from yolo_effnet.tools.calls import check_numbers, parse_device, seconds, size_on_disk

PYTORCH = "pytorch"


@dataclass
class Row:
    """One row of the result; what could not be measured is None, and `reason` says why.

    Attributes:
        format (str): `pytorch`, or what was asked for, such as `onnx,int8=True`.
        file (str): The exported file or folder.
        megabytes (float): Its size.
        milliseconds (float): Median time of one picture.
        accuracy (float): mAP50-95, of masks or keypoints where the model gives these, or top-1.
        change (float): The same less that of PyTorch.
        difference (float): Largest difference from PyTorch's output, relative to the largest output.
        reason (str): Why something is missing.
    """

    format: str
    file: str = ""
    megabytes: float | None = None
    milliseconds: float | None = None
    accuracy: float | None = None
    change: float | None = None
    difference: float | None = None
    reason: str = ""


def letterboxed(file: str | Path, size: int) -> np.ndarray:
    """Return the RGB pixels of a picture, `(size, size, 3)`."""
    return LetterBox((size, size))(image=cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB))


class ModelFile:
    """A model file in its runtime, with the RGB pixels of one picture, `(H, W, 3)`."""

    def __init__(self, file: str, pixels: np.ndarray, device: torch.device):
        self.backend = AutoBackend(str(file), device=device, fp16=False, verbose=False)
        x = torch.from_numpy(pixels).to(device).permute(2, 0, 1)[None].contiguous().float() / 255
        self.x = x.half() if self.backend.fp16 else x

    def __call__(self) -> torch.Tensor:
        """Return the first raw output."""
        with torch.inference_mode():
            output = self.backend(self.x)
        while isinstance(output, (list, tuple)):
            output = output[0]
        return torch.as_tensor(output).float()


def parse_format(text: str) -> tuple[str, dict]:
    """Return name and options of a format such as `onnx,int8=True`.

    Raises:
        ValueError: If an option has no value.
    """
    name, *options = text.split(",")
    if wrong := [option for option in options if "=" not in option]:
        raise ValueError(f"format '{text}': write option=value, such as onnx,int8=True, got '{wrong[0]}'")
    return name, {key: smart_value(value) for key, value in (option.split("=", 1) for option in options)}


def _export(weights: Path, text: str, imgsz: int, device: str, data: str | None, folder: Path) -> str:
    """Return the file of one format, which lies in a folder of its own: some overwrite each other."""
    name, options = parse_format(text)
    if data and options.keys() & {"int8", "quantize"}:
        options.setdefault("data", data)
    folder.mkdir(parents=True, exist_ok=True)
    copy = Path(shutil.copy(weights, folder / weights.name))
    try:
        return str(YOLO(copy).export(format=name, imgsz=imgsz, device=device, **options))
    finally:
        copy.unlink()


def _score(file: str, task: str, data: str, imgsz: int, device: str) -> float:
    """Return mAP50-95, or top-1, of a model file; square pictures, as most exported files take no others."""
    options = {"imgsz": imgsz, "rect": False, "batch": 1, "workers": 0, "plots": False, "verbose": False}
    metrics = YOLO(file, task=task).val(data=data, device=device, **options).results_dict
    return float([value for name, value in metrics.items() if "mAP50-95" in name or "top1" in name][-1])


def _time(calls: dict[str, ModelFile], device: torch.device, repeats: int) -> dict[str, float]:
    """Return the median milliseconds of each call, taken by turns."""
    times = {name: [] for name in calls}
    for _ in TQDM(range(repeats), desc="latency"):
        for name, call in calls.items():
            call()  # its weights left the caches while the others ran
            times[name] += [seconds(call, device) for _ in range(2)]
    return {name: round(statistics.median(values) * 1e3, 2) for name, values in times.items()}


def plot(rows: list[Row], file: Path) -> None:
    """Draw accuracy against latency, a point for each format."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for row in rows:
        if row.milliseconds is not None and row.accuracy is not None:
            axes.plot(row.milliseconds, row.accuracy, marker="o")
            axes.annotate(row.format, (row.milliseconds, row.accuracy), xytext=(4, 4), textcoords="offset points")
    axes.set(xlabel="milliseconds per picture", ylabel="mAP50-95 or top-1")
    figure.savefig(file, dpi=120)


def run(
    weights: str | Path,
    formats: list[str],
    data: str | None = None,
    imgsz: int | None = None,
    device: str = "cpu",
    repeats: int = 10,
    output: str | Path = "comparison",
) -> list[Row]:
    """Export a trained model, run each file in its own runtime, print a table, and write a CSV and a plot.

    A format that cannot be exported or run gets its reason in its row, and the others go on.

    Args:
        weights (str | Path): A trained `.pt`.
        formats (list[str]): Formats of `yolo export`, with options after commas, such as `openvino,int8=True`.
        data (str | None): Data set to validate each file on, and to calibrate int8; None leaves accuracy out.
        imgsz (int | None): Side of the pictures in pixels; by default that of the training.
        device (str): `cpu`, or the number of a GPU.
        repeats (int): Turns of each file: a call to warm up and two that are timed.
        output (str | Path): Folder to write to; the exported files stay there.

    Raises:
        ValueError: If the model cannot be loaded, or a value is out of its range, before anything is exported.
    """
    weights, output = Path(weights), Path(output)
    if weights.suffix != ".pt" or not weights.is_file():
        raise ValueError(f"'{weights}' is no trained .pt file")
    for text in formats:
        parse_format(text)
    model = open_checkpoint(weights, "model")
    imgsz, task, where = imgsz or model.overrides.get("imgsz", 640), model.task, parse_device(device)
    check_numbers([imgsz], repeats=repeats)
    output.mkdir(parents=True, exist_ok=True)
    pixels = letterboxed(ASSETS / "bus.jpg", imgsz)
    rows, calls = [Row(PYTORCH, str(weights)), *map(Row, formats)], {}
    for row in TQDM(rows, desc="formats"):
        try:
            if row.format != PYTORCH:
                row.file = _export(weights, row.format, imgsz, device, data, output / row.format.replace(",", "-"))
            row.megabytes = round(size_on_disk(Path(row.file)), 1)
            calls[row.format] = ModelFile(row.file, pixels, where)
            found, wanted = calls[row.format](), calls[PYTORCH]()
            if found.shape == wanted.shape:
                row.difference = float((found - wanted).abs().max() / wanted.abs().max())
            if data:
                row.accuracy = round(_score(row.file, task, data, imgsz, device), 4)
                row.change = round(row.accuracy - rows[0].accuracy, 4)
        except Exception as error:
            if row.format == PYTORCH:
                raise
            row.reason = why(error)
            LOGGER.warning(f"{row.format}: {row.reason}")
            calls.pop(row.format, None)
    medians = _time(calls, where, repeats)
    for row in rows:
        row.milliseconds = medians.get(row.format)
    with open(output / "comparison.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(map(asdict, rows))
    if data:
        plot(rows, output / "comparison.png")
    _print(rows)
    print(f"{imgsz} pixels, {where}, medians of {2 * repeats} calls; written to {output}")
    return rows


def _print(rows: list[Row]) -> None:
    """Print the table."""

    def cell(value: float | None, style: str) -> str:
        return "-" if value is None else format(value, style)

    width = max(len(row.format) for row in rows) + 2
    print(f"{'format':<{width}}{'MB':>8}{'ms':>10}{'mAP':>9}{'change':>9}{'difference':>12}")
    for row in rows:
        cells = (cell(row.megabytes, ".1f"), cell(row.milliseconds, ".1f"), cell(row.accuracy, ".4f"))
        more = (cell(row.change, "+.4f"), cell(row.difference, ".0e"))
        line = "{:>8}{:>10}{:>9}{:>9}{:>12}".format(*cells, *more)
        print(f"{row.format:<{width}}{line}  {row.reason}".rstrip())
