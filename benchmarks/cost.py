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
_DRAWN = {"": "YOLOv8's own backbone", "efflite0": "Lite0", "efflite2": "Lite2", "efflite4": "Lite4"}
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
    """Draw time by letter, a line for each of YOLOv8's own backbone and the light ones, in the first other format."""
    from matplotlib.figure import Figure

    shown = next((row.format for row in rows if row.format != compare.PYTORCH), compare.PYTORCH)
    rows = [row for row in rows if row.format == shown and row.milliseconds]
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    letters = list(dict.fromkeys(row.model[6] for row in rows))
    for backbone, label in _DRAWN.items():
        own = [row for row in rows if row.model.partition("-")[2] == backbone]
        own = sorted(own, key=lambda row: letters.index(row.model[6]))
        x, y = [letters.index(row.model[6]) for row in own], [row.milliseconds for row in own]
        axes.plot(x, y, "o-", label=label, color=None if backbone else "black")
        for row, at in zip(own, x, strict=True):
            if backbone and row.ratio:
                place = {"xytext": (6, -4), "textcoords": "offset points", "fontsize": "small"}
                axes.annotate(f"{row.ratio:.2f}", (at, row.milliseconds), **place)
    axes.set(yscale="log", ylabel="milliseconds per picture", xlabel="neck and head of")
    axes.set_xticks(range(len(letters)), [f"yolov8{letter}" for letter in letters])
    axes.set_title(f"Time and its ratio to YOLOv8's own: {shown}, {rows[0].imgsz} pixels, {rows[0].threads} thread(s)")
    axes.legend()
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
