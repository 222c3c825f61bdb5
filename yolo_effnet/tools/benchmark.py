"""Latency and training cost of our models beside their peers, interleaved in one run."""

import csv
import itertools
import statistics
import tempfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import timm
import torch
import ultralytics
from ultralytics.engine.exporter import export_formats
from ultralytics.utils import LOGGER, TQDM
from ultralytics.utils.torch_utils import get_flops

from yolo_effnet.checks import why
from yolo_effnet.tools.calls import INT8, Inference, Training, check_numbers, parse_device, seconds
from yolo_effnet.tools.peers import DEFAULT, MODELS, build, reference_of
from yolo_effnet.zoo.architectures import EfficientNet
from yolo_effnet.zoo.names import parse_name

__all__ = ["DEFAULT", "MODELS", "TRAIN", "Measurement", "build", "measure", "plot", "run"]

TRAIN = "train"  # stands among the runtimes for a training step in PyTorch


@dataclass
class Measurement:
    """One row of the result.

    Attributes:
        model (str): A name of `MODELS`.
        runtime (str): `pytorch`, `train`, or an export format of Ultralytics.
        device (str): Device.
        threads (int): Threads of PyTorch on the CPU.
        imgsz (int): Height and width of the images in pixels.
        batch (int): Images at once.
        parameters (int): Parameters.
        gflops (float): GFLOPs of one image as `model.info()` counts them.
        milliseconds (float): Median time of a call, or of forward pass, loss and backward pass in training.
        reference (str): The model that `ratio` relates to: the `torchvision` or `timm` peer of the same size, else the
            first.
        ratio (float): Time relative to the reference.
        megabytes (float): Peak of what PyTorch allocates per image, in training or inference; of an exported model the
            size on disk.
        versions (str): Of PyTorch, Ultralytics and timm.
    """

    model: str
    runtime: str
    device: str
    threads: int
    imgsz: int
    batch: int
    parameters: int
    gflops: float
    milliseconds: float
    reference: str
    ratio: float
    megabytes: float
    versions: str


def measure(
    models: list[str],
    runtime: str,
    imgsz: int,
    batch: int,
    device: torch.device,
    repeats: int = 10,
    half: bool = False,
    data: str | None = None,
) -> list[Measurement]:
    """Time `models` by turns, and return one row for each.

    Args:
        models (list[str]): Names of `MODELS`.
        runtime (str): `pytorch`, `train`, or an export format of Ultralytics such as `onnx`, `openvino`, `engine`, with
            `-int8` after it for int8.
        imgsz (int): Height and width of the images, a multiple of 32.
        batch (int): Images at once.
        device (torch.device): Where to run.
        repeats (int): Turns of each model: a call to warm up and two that are timed.
        half (bool): Infer in float16, where the runtime can.
        data (str | None): Data set that calibrates int8.
    """
    shape = (batch, 3, imgsz, imgsz)
    calls, sizes, threads = {}, {}, torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        for name in models:
            model = build(name)
            sizes[name] = sum(p.numel() for p in model.parameters()), get_flops(model, imgsz)
            if runtime == TRAIN:
                calls[name] = Training(model, shape, device)
            else:
                calls[name] = Inference(model, name, runtime, Path(folder), shape, device, half, data)
        torch.set_num_threads(threads)  # an export leaves another number
        times = {name: [] for name in models}
        for _ in TQDM(range(repeats), desc=f"{runtime} {imgsz} px, batch {batch}"):
            for name, call in calls.items():
                call()  # a model's weights left the caches while the others ran
                times[name] += [seconds(call, device) for _ in range(2)]
    medians = {name: statistics.median(values) * 1e3 for name, values in times.items()}
    return [
        Measurement(
            model=name,
            runtime=runtime,
            device=torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
            threads=threads,
            imgsz=imgsz,
            batch=batch,
            parameters=sizes[name][0],
            gflops=round(sizes[name][1], 1),
            milliseconds=round(medians[name], 2),
            reference=reference_of(name, models),
            ratio=round(medians[name] / medians[reference_of(name, models)], 3),
            megabytes=round(calls[name].megabytes, 1),
            versions=f"torch {torch.__version__} ultralytics {ultralytics.__version__} timm {timm.__version__}",
        )
        for name in models
    ]


def _family(name: str) -> str:
    model = parse_name(name)
    if model is None:
        peer, _, variant = name.partition("-")
        return f"{peer} with the same neck" if variant else "YOLOv8"
    architecture = model.architecture
    if isinstance(architecture, EfficientNet):
        family = architecture.family.title + "-Lite" * architecture.family.lite
    else:
        family = architecture.title.rpartition("-")[0]
    return f"yolo_effnet {family}" + ", light neck" * bool(model.neck)


def plot(rows: list[Measurement], x: str, file: Path) -> None:
    """Draw time against `x`, a field of `Measurement`: a panel per runtime and shape, a line per family."""
    from matplotlib.figure import Figure

    panels = list(dict.fromkeys((row.runtime, row.imgsz, row.batch) for row in rows))
    figure = Figure(figsize=(6 * len(panels), 4.5), layout="constrained")
    for panel, axes in zip(panels, figure.subplots(1, len(panels), squeeze=False)[0], strict=True):
        own = [row for row in rows if (row.runtime, row.imgsz, row.batch) == panel]
        for family in dict.fromkeys(_family(row.model) for row in own):
            line = sorted((getattr(r, x), r.milliseconds) for r in own if _family(r.model) == family)
            axes.plot(*zip(*line, strict=True), marker="o", label=family)
        axes.set(xscale="log", yscale="log", xlabel=x, ylabel="milliseconds")
        axes.set_title(f"{panel[0]}, {panel[1]} px, batch {panel[2]}, {own[0].device}, {own[0].threads} threads")
        axes.legend()
    figure.savefig(file, dpi=120)


def run(
    models: list[str],
    runtimes: list[str],
    imgsz: list[int],
    batch: list[int],
    device: str,
    repeats: int,
    half: bool,
    data: str | None,
    output: Path,
) -> list[Measurement]:
    """Measure every combination, print a table, and write `benchmark.csv` and two plots into the folder `output`.

    Raises:
        ValueError: If a value is outside its range, before anything is measured.
        RuntimeError: If nothing can be measured.
    """
    if unknown := [name for name in models if name not in MODELS]:
        raise ValueError(f"no model '{unknown[0]}' to measure; choose from {', '.join(MODELS)}")
    check_numbers(imgsz, repeats=repeats, batch=min(batch))
    known = ("pytorch", TRAIN, *export_formats()["Argument"][1:])
    if unknown := [runtime for runtime in runtimes if runtime.partition("-")[0] not in known]:
        raise ValueError(f"no runtime '{unknown[0]}' to measure in; choose from {', '.join(known)}")
    wrong = [r for r in runtimes if r.partition("-")[1:] not in (("", ""), ("-", INT8)) or r == f"pytorch-{INT8}"]
    if wrong:
        raise ValueError(f"no runtime '{wrong[0]}' to measure in; after a format stands nothing or -{INT8}")
    if not data and (quantised := [runtime for runtime in runtimes if runtime.endswith(f"-{INT8}")]):
        raise ValueError(f"{quantised[0]} needs a data set to calibrate on, --data coco8.yaml for example")
    device = parse_device(device)
    output.mkdir(parents=True, exist_ok=True)
    rows = []
    for runtime, size, images in itertools.product(runtimes, imgsz, batch):
        try:
            rows += measure(models, runtime, size, images, device, repeats, half, data)
        except Exception as error:  # the others are not lost
            LOGGER.warning(f"{runtime}, {size} pixels, batch {images}: {why(error)}")
    if not rows:
        raise RuntimeError("nothing could be measured")
    with open(output / "benchmark.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Measurement)])
        writer.writeheader()
        writer.writerows(map(asdict, rows))
    for x in ("parameters", "gflops"):
        plot(rows, x, output / f"{x}.png")
    print(f"{rows[0].device}, {rows[0].threads} threads, {rows[0].versions}, medians of {2 * repeats} calls")
    width = max(len(row.model) for row in rows) + 2
    print(f"{'model':<{width}}{'runtime':<14}{'px':>5}{'batch':>6}{'params':>9}{'GFLOPs':>8}{'ms':>10}{'MB':>8}  ratio")
    for row in rows:
        print(
            f"{row.model:<{width}}{row.runtime:<14}{row.imgsz:>5}{row.batch:>6}{row.parameters / 1e6:>8.1f}M"
            f"{row.gflops:>8.1f}{row.milliseconds:>10.1f}{row.megabytes:>8.1f}  {row.ratio:.2f} x {row.reference}"
        )
    print(f"written to {output}: benchmark.csv, parameters.png, gflops.png")
    return rows
