"""What a lighter backbone costs under YOLOv8's neck of each letter: time beside YOLOv8's own model, by turns.

    taskset -c 0 python benchmarks/cost.py

Weights are random, so this measures time and size alone; `coco.py` measures accuracy.
"""

import argparse
import csv
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

from yolo_effnet.tools import compare

BACKBONES = {
    "n": ["efflite0", "mobilenetv3_large_100"],
    "s": ["efflite0", "efflite1", "efflite2", "effb0", "effb2", "effv2b0"],
    "m": ["efflite0", "efflite2", "efflite4", "effb2", "effb4", "effv2s"],
    "l": ["efflite2", "efflite4", "effb4", "effv2s"],
    "x": ["efflite4", "effb4", "effb5", "effv2s"],
}
_DRAWN = {
    "": ("YOLOv8's own backbone", "silver"),
    "efflite0": ("EfficientNet-Lite0", "C0"),
    "efflite2": ("EfficientNet-Lite2", "C1"),
    "efflite4": ("EfficientNet-Lite4", "C2"),
}
COLUMNS = [
    "model", "format", "threads", "imgsz", "parameters", "gflops", "milliseconds", "ratio", "versions", "reason",
]  # fmt: skip


def measure(letter: str, formats: list[str], **options) -> list[compare.Row]:
    """Return the rows of the models of a letter, with ratios to YOLOv8's own in the same format."""
    stock = f"yolov8{letter}"
    names = [stock, *(f"{stock}-{backbone}" for backbone in BACKBONES[letter])]
    with tempfile.TemporaryDirectory() as folder:  # the exported files are of random weights
        rows = compare.run(names, formats, output=folder, **options)
    own = {row.format: row.milliseconds for row in rows if row.model == stock}
    ratios = [row.milliseconds and own[row.format] and round(row.milliseconds / own[row.format], 3) for row in rows]
    return [replace(row, ratio=ratio) for row, ratio in zip(rows, ratios, strict=True)]


def plot(rows: list[compare.Row], file: Path) -> None:
    """Draw the time of YOLOv8's own models and of the light backbones by letter, relative to the former."""
    from matplotlib.figure import Figure

    shown = next((row.format for row in rows if row.format != compare.PYTORCH), compare.PYTORCH)
    rows = [row for row in rows if row.format == shown and row.ratio]
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    letters = list(dict.fromkeys(row.model.partition("-")[0] for row in rows))
    for backbone, (label, color) in _DRAWN.items():
        for i, letter in enumerate(letters):
            drawn = [row for row in rows if row.model.startswith(letter) and row.model.partition("-")[2] in _DRAWN]
            for j, row in enumerate(drawn):
                if row.model.partition("-")[2] == backbone:
                    bar = axes.bar(i + 0.25 * (j - (len(drawn) - 1) / 2), row.ratio, 0.23, color=color, label=label)
                    axes.bar_label(bar, [f"{row.ratio:.2f}" if backbone else "1"], fontsize="small")
                    label = None  # once in the legend
    axes.set(ylabel="time relative to YOLOv8's own")
    axes.set_xticks(range(len(letters)), [f"neck and head\nof {letter}" for letter in letters])
    axes.set_title(f"{shown}, {rows[0].imgsz} pixels, threads: {rows[0].threads}")
    axes.margins(y=0.25)
    axes.legend(loc="upper right", ncols=2)
    figure.savefig(file, dpi=120)


def main() -> None:
    """Read the command line, measure letter by letter, and write a CSV and a plot."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--letters", nargs="+", choices=BACKBONES, default=list(BACKBONES), help="(default: all)")
    parser.add_argument("--formats", nargs="+", default=["openvino"], metavar="NAME", help="(default: openvino)")
    parser.add_argument("--imgsz", type=int, default=640, help="side of the pictures in pixels (default: 640)")
    parser.add_argument("--repeats", type=int, default=10, help="turns, of two timed calls (default: 10)")
    parser.add_argument("--output", type=Path, default=Path("cost"), help="folder to write to")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    rows = []
    for letter in args.letters:
        rows += measure(letter, args.formats, imgsz=args.imgsz, repeats=args.repeats)
        with open(args.output / "cost.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(map(asdict, rows))
        plot(rows, args.output / "cost.png")


if __name__ == "__main__":
    main()
