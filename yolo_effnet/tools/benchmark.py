"""Latency and training cost of our models beside their peers, interleaved in one run."""

import csv
import re
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import timm
import torch
import ultralytics
from ultralytics import YOLO
from ultralytics.nn.autobackend import AutoBackend
from ultralytics.nn.tasks import DetectionModel, parse_model
from ultralytics.utils import DEFAULT_CFG, TQDM
from ultralytics.utils.torch_utils import get_flops

from yolo_effnet.zoo.architectures import EfficientNet
from yolo_effnet.zoo.configs import model_config
from yolo_effnet.zoo.families import B
from yolo_effnet.zoo.names import model_names, parse_name
from yolo_effnet.zoo.table import ARCHITECTURES

TRAIN = "train"  # stands among the runtimes for a training step in PyTorch
INT8 = "int8"  # stands after an export format
_PEERS = ("torchvision", "timm")
# The names of peers are those of the variants, without `eff`.
_VARIANTS = {variant.removeprefix("eff"): architecture for variant, architecture in ARCHITECTURES.items()}
MODELS = [
    *model_names(),
    *model_names("-dw"),
    *(f"yolov8{scale}" for scale in "nsmlx"),
    *(f"torchvision-{variant}" for variant, a in _VARIANTS.items() if isinstance(a, EfficientNet) and a.family is B),
    *(f"timm-{variant}" for variant in _VARIANTS),
]
DEFAULT = [name for name in MODELS if re.search(r"-(eff)?b\d$|^yolov8[nsmlx]$", name)]


def _peer_config(architecture: EfficientNet) -> dict:
    """Return our model dict with Ultralytics' own `TorchVision` row in place of our backbone."""
    config, taps = model_config(f"yolov8-{architecture.variant}"), architecture.taps
    channels = [config["backbone"][i][3][0] for i in taps]
    # TorchVision has the paper's only, but timm's takes its place for the others.
    name = f"efficientnet_{architecture.variant.removeprefix('eff') if architecture.family is B else 'b0'}"
    backbone = [[-1, 1, "TorchVision", [channels[-1], name, None, True, 3, True]]]
    backbone += [[0, 1, "Index", [c, tap + 1]] for c, tap in zip(channels, taps, strict=True)]
    shift = taps[-1] - len(taps)
    rows = {-1: -1, **{tap: i for i, tap in enumerate(taps, start=1)}}

    def moved(f):
        return [moved(i) for i in f] if isinstance(f, list) else rows.get(f, f - shift)

    rest = [[moved(f), *row] for f, *row in config["backbone"][taps[-1] + 1 :]]
    head = [[moved(f), *row] for f, *row in config["head"]]
    return {**config, "backbone": backbone + rest, "head": head, "drop_path": 0.0}


def build(name: str) -> DetectionModel:
    """Return the detection model `name` of `MODELS` with random weights."""
    peer, _, variant = name.partition("-")
    if peer not in _PEERS:
        return YOLO(f"{name}.yaml").model
    architecture = _VARIANTS[variant]
    if peer == "torchvision":
        return DetectionModel(_peer_config(architecture), verbose=False)
    model = YOLO(f"yolov8-{architecture.variant}.yaml").model
    if isinstance(architecture, EfficientNet):
        rows, saved = parse_model(_peer_config(architecture), 3, verbose=False)
        for i in range(1, 1 + len(architecture.taps)):
            rows[i].index = i + 1
        rows[-1].stride = model.stride
        model.model, model.save = rows, saved
    features = timm.create_model(architecture.timm_name, features_only=True, pretrained=False)
    for attribute in ("i", "f", "type", "np"):
        setattr(features, attribute, getattr(model.model[0], attribute))
    model.model[0] = features
    return model


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


def _peak(call, device: torch.device) -> float:
    """Return the most MiB that PyTorch holds during a call beyond those before it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        call()
    held = peak = 0
    for event in sorted(profile.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak / 2**20


def synchronize(device: torch.device) -> None:
    """Wait until `device` has done what it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(call, device: torch.device) -> float:
    """Return the time that a call takes on `device`."""
    synchronize(device)
    start = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - start


def parse_device(text: str) -> torch.device:
    """Return the device of the command line: `cpu`, `mps`, or the number of a GPU."""
    return torch.device(f"cuda:{text}" if text.isdigit() else text)


class _Inference:
    """A model in a runtime, as `yolo predict` runs it."""

    def __init__(
        self,
        model: DetectionModel,
        name: str,
        runtime: str,
        folder: Path,
        shape: tuple,
        device: torch.device,
        half: bool,
        data: str | None,
    ):
        source = model.eval()
        if runtime != "pytorch":
            exporter = YOLO("yolov8n.yaml")
            model.args, model.task, model.pt_path = exporter.model.args, "detect", str(folder / f"{name}.pt")
            exporter.model = model
            name, _, precision = runtime.partition("-")
            options = {"int8": True, "data": data} if precision == INT8 else {"half": True} if half else {}
            source = exporter.export(format=name, imgsz=shape[-1], batch=shape[0], device=str(device), **options)
        self.backend = AutoBackend(source, device=device, fp16=half, verbose=False)
        self.x = torch.rand(shape, device=device, dtype=torch.float16 if self.backend.fp16 else torch.float32)
        if runtime == "pytorch":
            self()
            self.megabytes = _peak(self, device) / shape[0]
        else:
            path = Path(source)
            files = [path] if path.is_file() else path.rglob("*")
            self.megabytes = sum(file.stat().st_size for file in files if file.is_file()) / 2**20

    def __call__(self) -> None:
        with torch.inference_mode():
            self.backend(self.x)


class _Training:
    """Forward pass, loss and backward pass as Ultralytics' trainer computes them: on a GPU mixed and channels_last."""

    def __init__(self, model: DetectionModel, shape: tuple, device: torch.device):
        self.model, self.device = model.train().to(device), device
        model.args = DEFAULT_CFG
        if device.type == "cuda":
            model.to(memory_format=torch.channels_last)
        boxes = 4
        generator = torch.Generator().manual_seed(0)
        self.batch = {
            "img": torch.rand(shape, generator=generator),
            "batch_idx": torch.arange(shape[0]).float().repeat_interleave(boxes),
            "cls": torch.zeros(shape[0] * boxes, 1),
            "bboxes": torch.rand(shape[0] * boxes, 4, generator=generator) * 0.3 + 0.3,
        }
        self.batch = {k: v.to(device) for k, v in self.batch.items()}
        self()  # the first gradients and statistics stay
        self.megabytes = _peak(self, device) / shape[0]

    def __call__(self) -> None:
        with torch.autocast(self.device.type, enabled=self.device.type == "cuda"):
            loss = self.model(self.batch)[0]
        loss.sum().backward()
        self.model.zero_grad(set_to_none=True)


def _reference(name: str, models: list[str]) -> str:
    variant = name.partition("-")[2].partition("-")[0].removeprefix("eff")
    return next((peer for peer in (f"{p}-{variant}" for p in _PEERS) if peer in models), models[0])


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
                calls[name] = _Training(model, shape, device)
            else:
                calls[name] = _Inference(model, name, runtime, Path(folder), shape, device, half, data)
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
            reference=_reference(name, models),
            ratio=round(medians[name] / medians[_reference(name, models)], 3),
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
    """
    if unknown := [name for name in models if name not in MODELS]:
        raise ValueError(f"no model '{unknown[0]}' to measure; choose from {', '.join(MODELS)}")
    for size in imgsz:
        if size < 32 or size % 32:
            raise ValueError(f"imgsz must be a multiple of 32 >= 32, got {size}")
    for name, value in [("repeats", repeats), *(("batch", images) for images in batch)]:
        if value < 1:
            raise ValueError(f"{name} must be an integer >= 1, got {value}")
    if not data and (quantised := [runtime for runtime in runtimes if runtime.endswith(f"-{INT8}")]):
        raise ValueError(f"{quantised[0]} needs a data set to calibrate on, --data coco8.yaml for example")
    device = parse_device(device)
    rows = [
        row
        for runtime in runtimes
        for size in imgsz
        for images in batch
        for row in measure(models, runtime, size, images, device, repeats, half, data)
    ]
    output.mkdir(parents=True, exist_ok=True)
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
