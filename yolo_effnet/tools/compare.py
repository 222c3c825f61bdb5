"""Models in PyTorch and as exported files, by turns: size, time, accuracy, and how far outputs are from PyTorch's."""

import csv
import re
import shutil
import tempfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
import ultralytics
from ultralytics import ASSETS, YOLO
from ultralytics.utils import LOGGER, TQDM
from ultralytics.utils.files import file_size
from ultralytics.utils.torch_utils import get_flops

from yolo_effnet.checks import check_value, why
from yolo_effnet.tools.formats import PYTORCH, Format, parse_format
from yolo_effnet.tools.models import Model, open_models
from yolo_effnet.tools.timing import ModelFile, by_turns, letterboxed, parse_device, peak

_PICTURE = ASSETS / "bus.jpg"
_HALF_BY_CALL = (PYTORCH, "torchscript")  # files of other formats say themselves that they are of float16


@dataclass
class Row:
    """One row of the result; what could not be measured is None, and `reason` says why.

    Attributes:
        model (str): Name of the model, or of its file.
        format (str): `pytorch`, or what was asked for, such as `onnx,int8=True`.
        device (str): Device.
        threads (int): Threads of PyTorch on the CPU.
        imgsz (int): Height and width of the pictures in pixels.
        batch (int): Pictures at once.
        parameters (int): Parameters.
        gflops (float): GFLOPs of one picture as `model.info()` counts them.
        file (str): The `.pt`, or the exported file or folder.
        megabytes (float): Its size.
        memory (float): Peak MiB of what PyTorch allocates for one picture; None of exported files.
        milliseconds (float): Median time of a call, divided by its pictures.
        ratio (float): The same relative to the first row: the first model in PyTorch.
        accuracy (float): mAP50-95, of masks or keypoints where the model gives these, or top-1; of trained models.
        change (float): The same less that of the model in PyTorch.
        difference (float): Largest difference from PyTorch's output, relative to the largest output.
        reason (str): Why something is missing.
        versions (str): Of PyTorch and Ultralytics.
    """

    model: str
    format: str
    device: str
    threads: int
    imgsz: int
    batch: int
    parameters: int
    gflops: float
    file: str = ""
    megabytes: float | None = None
    memory: float | None = None
    milliseconds: float | None = None
    ratio: float | None = None
    accuracy: float | None = None
    change: float | None = None
    difference: float | None = None
    reason: str = ""
    versions: str = f"torch {torch.__version__} ultralytics {ultralytics.__version__}"


def _has_float16(file: Path) -> bool:
    import onnx

    return any(weight.data_type == onnx.TensorProto.FLOAT16 for weight in onnx.load(file).graph.initializer)


def _export(weights: Path, kind: Format, row: Row, device: str, folder: Path) -> Path:
    """Export in a folder of its own, where nothing of the user's is, and return the file after its copy to `folder`."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name).resolve()
        copy = Path(shutil.copy(weights, place / f"{row.model}.pt"))
        options = {"format": kind.name, "imgsz": row.imgsz, "batch": row.batch, "device": device, **kind.options}
        file = Path(YOLO(copy).export(**options)).resolve().relative_to(place)
        copy.unlink()
        if kind.half and kind.name == "onnx" and not _has_float16(place / file):  # older releases only log it
            raise ValueError("this release of Ultralytics exports float16 of onnx on a GPU only, --device 0")
        shutil.copytree(place, folder, dirs_exist_ok=True)
    return folder / file


def _score(file: Path, kind: Format, row: Row, task: str, data: str, device: str) -> float:
    """Return mAP50-95, or top-1, of a model file; square pictures, as most exported files take no others."""
    options = {"imgsz": row.imgsz, "batch": row.batch, "rect": False, "workers": 0, "plots": False, "verbose": False}
    if kind.half and kind.name in _HALF_BY_CALL:
        options["half"] = True
    with tempfile.TemporaryDirectory() as folder:  # instead of `runs` where the user is
        metrics = YOLO(file, task=task).val(data=data, device=device, project=folder, name="val", **options)
    return float([value for name, value in metrics.results_dict.items() if "mAP50-95" in name or "top1" in name][-1])


def _load(
    model: Model, kinds: list[Format], rows: list[Row], data: str | None, device: str, output: Path, scratch: Path
) -> dict[tuple[str, str], ModelFile]:
    """Return what runs of a model by the names of its row, and fill all of its rows but the time."""
    where, weights, outputs, calls = parse_device(device), model.file, {}, {}
    if weights is None:
        weights = scratch / f"{model.label}.pt"
        model.yolo.save(weights)
    for kind, row in zip(kinds, rows, strict=True):
        try:
            own = kind.name == PYTORCH
            folder = output / re.sub(r"[^\w.=-]+", "-", kind.text)
            file = weights if own else _export(weights, kind, row, device, folder)
            row.file = "" if own and model.file is None else str(file)
            row.megabytes = round(file_size(file), 1)
            pixels = letterboxed(_PICTURE, row.imgsz, model.channels)
            call = ModelFile(file, pixels, where, kind.half and kind.name in _HALF_BY_CALL, row.batch)
            found = call()[:1]
            calls[row.model, row.format] = call
            if own:
                row.memory = round(peak(call, where) / row.batch, 1)
            if row.imgsz not in outputs:
                outputs[row.imgsz] = ModelFile(weights, pixels, where)()
            if found.shape == (wanted := outputs[row.imgsz]).shape:
                row.difference = float((found - wanted).abs().max() / wanted.abs().max())
            if data and model.file:
                row.accuracy = round(_score(file, kind, row, model.yolo.task, data, device), 4)
                if rows[0].accuracy is not None:
                    row.change = round(row.accuracy - rows[0].accuracy, 4)
        except Exception as error:  # the others are not lost
            row.reason = why(error)
            LOGGER.warning(f"{row.model}, {row.format}: {row.reason}")
    return calls


def plot(rows: list[Row], file: Path) -> None:
    """Draw accuracy against time, or time against GFLOPs where no row has accuracy: a colour for each format."""
    from matplotlib.figure import Figure

    scored = any(row.accuracy is not None for row in rows)
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for text in dict.fromkeys(row.format for row in rows):
        own = [row for row in rows if row.format == text and row.milliseconds is not None]
        points = [(r.milliseconds, r.accuracy, r.model) if scored else (r.gflops, r.milliseconds, r.model) for r in own]
        points = sorted(point for point in points if None not in point and (scored or point[0] > 0))
        axes.plot([p[0] for p in points], [p[1] for p in points], "o" if scored else "o-", label=text)
        for x, y, model in points:
            axes.annotate(model, (x, y), xytext=(4, 4), textcoords="offset points", fontsize="small")
    if scored:
        axes.set(xlabel="milliseconds per picture", ylabel="mAP50-95 or top-1")
    else:
        axes.set(xscale="log", yscale="log", xlabel="GFLOPs", ylabel="milliseconds per picture")
    axes.legend()
    figure.savefig(file, dpi=120)


_COLUMNS = {
    "model": ("model", ""), "format": ("format", ""), "px": ("imgsz", "d"), "batch": ("batch", "d"),
    "params": ("parameters", ",d"), "GFLOPs": ("gflops", ".1f"), "MB": ("megabytes", ".1f"),
    "ms": ("milliseconds", ".1f"), "ratio": ("ratio", ".2f"), "mAP": ("accuracy", ".4f"),
    "change": ("change", "+.4f"), "difference": ("difference", ".0e"), "": ("reason", ""),
}  # fmt: skip


def _print(rows: list[Row]) -> None:
    """Print the table."""
    values = [[(getattr(row, field), style) for field, style in _COLUMNS.values()] for row in rows]
    table = [list(_COLUMNS), *(["-" if v is None else format(v, style) for v, style in line] for line in values)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    numbers = [bool(style) for _, style in _COLUMNS.values()]
    for line in table:
        cells = zip(line, widths, numbers, strict=True)
        print("  ".join(cell.rjust(width) if number else cell.ljust(width) for cell, width, number in cells).rstrip())


def run(
    models: str | Path | list[str | Path],
    formats: list[str],
    data: str | None = None,
    imgsz: int | None = None,
    batch: int = 1,
    device: str = "cpu",
    repeats: int = 10,
    output: str | Path = "benchmark",
) -> list[Row]:
    """Export models, run each file in its own runtime by turns, print a table, and write a CSV and a plot.

    What cannot be exported, run or validated gets its reason in its row, and the others go on. The exported files stay
    in `output`, in a folder of each format; any other file there stays as it is.

    Args:
        models (str | Path | list): Trained `.pt` files, and names and YAMLs of models, whose weights are random.
        formats (list[str]): `pytorch` and formats of `yolo export`, with options after commas, such as
            `openvino,int8=True` or `onnx,imgsz=320`. Float PyTorch is measured in any case.
        data (str | None): Data set to validate trained models on, and to calibrate int8; None leaves accuracy out.
        imgsz (int | None): Side of the pictures in pixels; by default that of the training, or 640.
        batch (int): Pictures at once.
        device (str): `cpu`, `mps`, or the number of a GPU.
        repeats (int): Turns of each file: a call to warm up and two that are timed.
        output (str | Path): Folder to write to.

    Raises:
        ValueError: If a model cannot be loaded, or a value is out of its range, before anything is exported.
        RuntimeError: If nothing can be measured.
    """
    for name, value in (("repeats", repeats), ("batch", batch)):
        check_value(name, value, lambda v: v >= 1, "an integer >= 1")
    where, output, threads = parse_device(device), Path(output), torch.get_num_threads()
    kinds = [parse_format(text, where, data, batch) for text in dict.fromkeys([PYTORCH, *formats])]
    opened = open_models([str(word) for word in ([models] if isinstance(models, (str, Path)) else models)])
    place = torch.cuda.get_device_name(where) if where.type == "cuda" else str(where)
    rows, calls = [], {}
    for model in opened:
        parameters = sum(p.numel() for p in model.yolo.model.parameters())
        for kind in kinds:
            size = model.imgsz(kind.imgsz or imgsz)
            gflops = round(get_flops(model.yolo.model, size), 2)
            rows.append(Row(model.label, kind.text, place, threads, size, kind.batch, parameters, gflops))
        if data:
            model.check_data(data)
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        for model in TQDM(opened, desc="models"):
            own = [row for row in rows if row.model == model.label]
            calls |= _load(model, kinds, own, data, device, output, Path(scratch))
        if not calls:
            raise RuntimeError(f"nothing could be measured; {rows[0].model}: {rows[0].reason}")
        torch.set_num_threads(threads)  # an export leaves another number
        medians = by_turns(calls, where, repeats)
    for row in rows:
        if (row.model, row.format) in calls:
            row.milliseconds = round(medians[row.model, row.format] / row.batch, 2)
            row.ratio = round(row.milliseconds / rows[0].milliseconds, 3) if rows[0].milliseconds else None
    with open(output / "benchmark.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(map(asdict, rows))
    plot(rows, output / "benchmark.png")
    _print(rows)
    calls = f"medians of {2 * repeats} calls, milliseconds of one picture"
    print(f"{place}, {threads} threads, {rows[0].versions}, {calls}")
    print(f"written to {output}: benchmark.csv, benchmark.png and the exported files")
    return rows
