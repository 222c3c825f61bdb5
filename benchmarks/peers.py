"""Ours beside YOLOv8, and beside the same backbones of torchvision and timm with our neck.

python benchmarks/peers.py --formats pytorch onnx openvino
"""

import argparse
import csv
import re
import tempfile
from pathlib import Path

import timm
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel, parse_model

from yolo_effnet.tools import compare
from yolo_effnet.tools.formats import PYTORCH
from yolo_effnet.zoo.architectures import EfficientNet
from yolo_effnet.zoo.configs import model_config
from yolo_effnet.zoo.families import B
from yolo_effnet.zoo.names import model_names, parse_name
from yolo_effnet.zoo.rows import Rows, add_stages
from yolo_effnet.zoo.table import ARCHITECTURES

_PEERS = ("torchvision", "timm")
# The names of peers are those of the variants, without `eff`.
_VARIANTS = {variant.removeprefix("eff"): architecture for variant, architecture in ARCHITECTURES.items()}
MODELS = [
    *model_names(),
    *model_names("-dw"),
    *model_names("-relu6"),
    *(f"yolov8{scale}" for scale in "nsmlx"),
    *(f"torchvision-{variant}" for variant, a in _VARIANTS.items() if isinstance(a, EfficientNet) and a.family is B),
    *(f"timm-{variant}" for variant in _VARIANTS),
]
DEFAULT = [name for name in MODELS if re.search(r"-(eff)?b\d$|^yolov8[nsmlx]$", name)]


def _peer_config(architecture: EfficientNet) -> dict:
    """Return our model dict with Ultralytics' own `TorchVision` row in place of our backbone."""
    config, ends = model_config(f"yolov8-{architecture.variant}"), add_stages(Rows(), architecture)
    taps = [ends[level] for level in (3, 4, 5)]
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
        for i in (1, 2, 3):  # the maps at P3, P4 and P5
            rows[i].index = i + 1
        rows[-1].stride = model.stride
        model.model, model.save = rows, saved
    features = timm.create_model(architecture.timm_name, features_only=True, pretrained=False)
    for attribute in ("i", "f", "type", "np"):
        setattr(features, attribute, getattr(model.model[0], attribute))
    model.model[0] = features
    return model


def reference_of(name: str, models: list[str]) -> str:
    """Return the model among `models` that another is compared with: its peer, or else the first."""
    variant = name.partition("-")[2].partition("-")[0].removeprefix("eff")
    return next((peer for peer in (f"{p}-{variant}" for p in _PEERS) if peer in models), models[0])


def save(name: str, folder: Path) -> Path:
    """Write the `.pt` of a model of `MODELS`, and return it."""
    yolo = YOLO("yolov8n.yaml")
    yolo.model = build(name)
    yolo.save(folder / f"{name}.pt")
    return folder / f"{name}.pt"


def family_of(name: str) -> str:
    """Return what to call the line of a model in a plot."""
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


def plot(rows: list[compare.Row], x: str, file: Path) -> None:
    """Draw time against `x`, a field of a row: a panel per format, a line per family."""
    from matplotlib.figure import Figure

    rows = [row for row in rows if row.milliseconds]
    panels = list(dict.fromkeys((row.format, row.imgsz, row.batch) for row in rows))
    figure = Figure(figsize=(6 * len(panels), 4.5), layout="constrained")
    for panel, axes in zip(panels, figure.subplots(1, len(panels), squeeze=False)[0], strict=True):
        own = [row for row in rows if (row.format, row.imgsz, row.batch) == panel]
        for family in dict.fromkeys(family_of(row.model) for row in own):
            line = sorted((getattr(r, x), r.milliseconds) for r in own if family_of(r.model) == family)
            axes.plot(*zip(*line, strict=True), marker="o", label=family)
        axes.set(xscale="log", yscale="log", xlabel=x, ylabel="milliseconds")
        axes.set_title(f"{panel[0]}, {panel[1]} px, batch {panel[2]}, {own[0].device}, {own[0].threads} threads")
        axes.legend()
    figure.savefig(file, dpi=120)


def run(models: list[str], formats: list[str], output: Path, **options) -> list[compare.Row]:
    """Measure models of `MODELS` as `yolo-effnet benchmark` does; print and write times relative to their peers.

    Args:
        models (list[str]): Names of `MODELS`.
        formats (list[str]): As in `yolo-effnet benchmark`.
        output (Path): Folder to write `peers.csv` and two plots to, besides what the command writes.
        **options: Of `compare.run`.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = [save(name, Path(folder)) for name in models]
        rows = compare.run(files, formats, output=output, **options)
    times = {(row.model, row.format): row.milliseconds for row in rows}
    lines = [("model", "format", "imgsz", "batch", "milliseconds", "reference", "ratio", "memory")]
    for row in rows:
        reference = reference_of(row.model, models)
        if row.milliseconds and times[reference, row.format]:
            ratio = round(row.milliseconds / times[reference, row.format], 3)
            cells = (row.model, row.format, row.imgsz, row.batch, row.milliseconds, reference, ratio)
            lines.append((*cells, "" if row.memory is None else row.memory))
    with open(output / "peers.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(lines)
    for x in ("parameters", "gflops"):
        plot(rows, x, output / f"{x}.png")
    for line in lines:
        print("{:<32}{:<24}{:>6}{:>6}{:>14}  {:<20}{:>8}{:>8}".format(*line))
    return rows


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=DEFAULT, metavar="NAME", help="B0 to B7 ..")
    parser.add_argument("--formats", nargs="+", default=[PYTORCH], metavar="NAME", help="(default: pytorch)")
    parser.add_argument("--imgsz", type=int, default=640, help="side of the pictures in pixels (default: 640)")
    parser.add_argument("--batch", type=int, default=1, help="pictures at once (default: 1)")
    parser.add_argument("--device", default="cpu", help="cpu, or the number of a GPU (default: cpu)")
    parser.add_argument("--repeats", type=int, default=10, help="turns, of two timed calls (default: 10)")
    parser.add_argument("--output", type=Path, default=Path("peers"), help="folder to write to")
    run(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
