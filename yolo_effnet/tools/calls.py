"""What is timed: an inference in a runtime, or a training step, and how time and memory are taken."""

import time
from pathlib import Path

import torch
from ultralytics import YOLO
from ultralytics.nn.autobackend import AutoBackend
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import DEFAULT_CFG

INT8 = "int8"  # stands after an export format


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


def size_on_disk(path: Path) -> float:
    """Return the MiB of a file, or of all files in a folder."""
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file()) / 2**20


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


def check_numbers(imgsz: list[int], **counts: int) -> None:
    """Check sides of pictures in pixels, and numbers of what is to be measured.

    Raises:
        ValueError: If one is out of its range.
    """
    for size in imgsz:
        if size < 32 or size % 32:
            raise ValueError(f"imgsz must be a multiple of 32 >= 32, got {size}")
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name} must be an integer >= 1, got {value}")


def parse_device(text: str) -> torch.device:
    """Return the device of the command line: `cpu`, `mps`, or the number of a GPU."""
    return torch.device(f"cuda:{text}" if text.isdigit() else text)


class Inference:
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
            self.megabytes = size_on_disk(Path(source))

    def __call__(self) -> None:
        """Infer once."""
        with torch.inference_mode():
            self.backend(self.x)


class Training:
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
        """Compute loss and gradients once."""
        with torch.autocast(self.device.type, enabled=self.device.type == "cuda"):
            loss = self.model(self.batch)[0]
        loss.sum().backward()
        self.model.zero_grad(set_to_none=True)
