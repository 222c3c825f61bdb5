"""Measure the package on one GPU and write a report: training, latency, TensorRT.

    python benchmarks/gpu_report.py --output gpu_report.md

Each section stands for itself: one that fails leaves its reason in the report, and the others go on.
"""

import argparse
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch
import ultralytics
from peers import reference_of, save
from training_step import Step
from ultralytics import YOLO

import yolo_effnet
from yolo_effnet.tools import compare
from yolo_effnet.tools.timing import by_turns, peak

MODELS = ["yolov8-effb0", "yolov8-efflite0", "yolov8-effv2s", "yolov8-ghostnet_100"]
PEERS = ["yolov8n", "torchvision-b0", "timm-b0"]


def training(device: torch.device, quick: bool, until: float) -> Iterator[str]:
    """Yield a table of training steps, interleaved."""
    images, size, turns = (2, 64, 2) if quick else (32, 640, 10)
    yield f"{images} images of {size} pixels, autocast, medians of {2 * turns} interleaved steps.\n"
    yield "| model | layout | images/s | MiB |"
    yield "|---|---|---|---|"
    layouts = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
    for name in MODELS:
        if time.monotonic() > until:
            yield f"| {name} | no time left | | |"
            return
        steps = {}
        for kind, layout in layouts.items():
            model = YOLO(f"{name}.yaml").model.to(device).to(memory_format=layout)
            steps[kind] = Step(model, (images, 3, size, size), device)
            steps[kind]()
        memory = {kind: peak(step, device) for kind, step in steps.items()}
        for kind, milliseconds in by_turns(steps, device, turns).items():
            yield f"| {name} | {kind} | {images / milliseconds * 1e3:.0f} | {memory[kind]:.0f} |"


def latency(device: torch.device, quick: bool, until: float) -> Iterator[str]:
    """Yield times as `yolo-effnet benchmark` takes them, in half precision on a GPU."""
    yield "| model | batch | ms | ratio to |"
    yield "|---|---|---|---|"
    names = [*PEERS, *MODELS]
    size, repeats = (64, 2) if quick else (640, 10)
    number = str(device.index or 0) if device.type == "cuda" else str(device)
    for batch in (1, 2) if quick else (1, 32):
        if time.monotonic() > until:
            yield f"| batch {batch}: no time left | | | |"
            return
        text = "pytorch,half=True" if device.type == "cuda" else "pytorch"
        with tempfile.TemporaryDirectory() as folder:
            files = [save(name, Path(folder)) for name in names]
            options = {"imgsz": size, "batch": batch, "device": number, "repeats": repeats, "output": Path(folder)}
            rows = compare.run(files, [text], **options)
        times = {row.model: row.milliseconds * batch for row in rows if row.format == text}
        for name, milliseconds in times.items():
            reference = reference_of(name, names)
            yield f"| {name} | {batch} | {milliseconds:.2f} | {milliseconds / times[reference]:.2f} x {reference} |"


def tensorrt(device: torch.device, quick: bool, until: float) -> Iterator[str]:
    """Yield what TensorRT makes of models that were trained on the drawn shapes: mAP and latency by precision."""
    import tensorrt

    yield f"TensorRT {tensorrt.__version__}, 160 pixels, validation pictures of the drawn shapes.\n"
    yield "| model | precision | mAP50-95 | inference, ms per image |"
    yield "|---|---|---|---|"
    with tempfile.TemporaryDirectory() as folder:
        data = Path(__file__).parents[1] / "examples" / "shapes.yaml"
        options = {"data": data, "imgsz": 160, "device": device.index or 0, "plots": False}
        for name in MODELS[:2]:
            model = YOLO(f"{name}.yaml")
            model.train(epochs=5, pretrained=False, project=folder, batch=32, **options)
            best = model.trainer.best
            for precision in ({}, {"half": True}, {"int8": True}):
                if time.monotonic() > until:
                    yield f"| {name} | no time left | | |"
                    return
                export = {"format": "engine", "imgsz": 160, "device": device.index or 0, "data": str(data)}
                for kind, file in (("PyTorch", best), ("TensorRT", None)):
                    if kind == "PyTorch" and precision:
                        continue
                    file = file or YOLO(best).export(**export, **precision)
                    result = YOLO(file).val(**options, batch=1)
                    words = f"{kind} {next(iter(precision), 'float')}"
                    yield f"| {name} | {words} | {result.box.map:.4f} | {result.speed['inference']:.2f} |"


def tests(device: torch.device, quick: bool, until: float) -> Iterator[str]:
    """Yield the closing line of the tests that need a GPU."""
    folder = Path(__file__).parents[1]
    seconds = max(10.0, until - time.monotonic())
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/test_gpu.py"]
    done = subprocess.run(command, cwd=folder, text=True, capture_output=True, check=False, timeout=seconds)
    yield "```text"
    yield from done.stdout.strip().splitlines()[-15:]
    yield "```"


SECTIONS = {
    "training": ("Training", training),
    "latency": ("Latency in PyTorch", latency),
    "tensorrt": ("TensorRT", tensorrt),
    "tests": ("Tests", tests),
}


def main() -> int:
    """Write the report and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("gpu_report.md"), help="the report to write")
    parser.add_argument(
        "--minutes", type=float, default=8, help="sections that no longer fit are left out (default: 8)"
    )
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="(default: all)")
    parser.add_argument("--device", default="cuda:0", help="cuda:0, or cpu to try the script itself")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the script itself")
    args = parser.parse_args()
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("gpu_report: PyTorch finds no CUDA device; --device cpu --quick tries the script itself", file=sys.stderr)
        return 2
    until = time.monotonic() + 60 * args.minutes
    place = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    lines = [
        f"# yolo_effnet {yolo_effnet.__version__} on {place}\n",
        f"torch {torch.__version__}, Ultralytics {ultralytics.__version__}\n",
    ]
    for name in args.sections:
        title, section = SECTIONS[name]
        lines.append(f"\n## {title}\n")
        try:
            for line in section(device, args.quick, until):
                lines.append(line)
        except Exception as error:
            lines.append(f"\n{type(error).__name__}: {error}\n")
            traceback.print_exc()
        args.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"written to {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
