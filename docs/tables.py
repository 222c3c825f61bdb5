"""Write what follows from the code, tables of these pages and the YAMLs in `models/`: `python docs/tables.py`."""

import csv
import re
from pathlib import Path

from yolo_effnet.arguments import ARGUMENTS
from yolo_effnet.checks import is_number
from yolo_effnet.zoo.configs import model_yaml
from yolo_effnet.zoo.names import model_names
from yolo_effnet.zoo.table import ARCHITECTURES

PAGES = Path(__file__).parent
PEERS = (  # of Ultralytics, 80 classes, counted by `model.info()` at 640 pixels: name, parameters, GFLOPs
    "yolov8n | 3.2M | 8.9",
    "yolov8s | 11.2M | 28.8",
    "yolov8m | 25.9M | 79.3",
    "yolov8l | 43.7M | 165.7",
    "yolov8x | 68.2M | 258.5",
)
# ImageNet top-1 of the default weights, from timm's results-imagenet.csv, which has no row for some of them.
TOP1 = {
    "effb0": "78.67", "effb1": "81.39", "effb2": "82.38", "effb3": "84.06", "effb4": "85.16", "effb5": "86.09",
    "effb6": "86.46", "effb7": "86.84",
    "efflite0": "74.83", "efflite1": "76.64", "efflite2": "77.46", "efflite3": "79.81", "efflite4": "81.53",
    "effv2b0": "78.36", "effv2b1": "79.46", "effv2b2": "80.19", "effv2b3": "82.67", "effv2s": "84.29",
    "effv2m": "86.00", "effv2l": "86.80", "effv2xl": "86.75",
    "ghostnet_100": "73.98",
    "mobilenetv2_050": "65.95", "mobilenetv2_100": "72.98", "mobilenetv2_110d": "75.06", "mobilenetv2_120d": "77.30",
    "mobilenetv2_140": "76.52",
    "mobilenetv3_large_100": "77.92",
}  # fmt: skip


def models() -> str:
    """Return the table of all backbones with their default weights, and of YOLOv8's own models."""
    lines = ["| model | parameters | GFLOPs | neck P3/P4/P5 | default weights | top-1 |", "|---|---|---|---|---|---|"]
    for name, architecture in zip(model_names(), ARCHITECTURES.values(), strict=True):
        size = f"{architecture.parameters / 1e6:.1f}M | {architecture.gflops:.1f}"
        neck = "/".join(map(str, architecture.neck_channels))
        weights = f"`{architecture.weights}`" if architecture.weights else "none"
        lines.append(f"| {name} | {size} | {neck} | {weights} | {TOP1.get(architecture.variant, '')} |")
    return "\n".join([*lines, *(f"| {peer} | | | |" for peer in PEERS)])


def necks() -> str:
    """Return what backbones cost with the neck of each letter, relative to Ultralytics' model of it."""
    from yolo_effnet.host.written_out import count

    peers = [peer.split(" | ") for peer in PEERS]
    lines = [
        "| | " + " | ".join(name for name, _, _ in peers) + " |",
        "|---" * (len(peers) + 1) + "|",
        "| Ultralytics' own | " + " | ".join(f"{parameters}, {gflops}" for _, parameters, gflops in peers) + " |",
    ]
    for variant in ("efflite0", "efflite2", "efflite4", "effb0", "effb2", "effb4", "effv2s"):
        cells = []
        for name, parameters, gflops in peers:
            ours = count(f"{name}-{variant}")
            cells.append(f"{ours[0] / 1e6 / float(parameters[:-1]):.2f}, {ours[1] / float(gflops):.2f}")
        lines.append(f"| {variant} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cost() -> str:
    """Return what `benchmarks/cost.py` measured, relative to YOLOv8's own models."""
    with open(PAGES.parent / "benchmarks" / "cost.csv", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["format"] == "openvino"]
    lines = ["| neck and head of | backbone | parameters | GFLOPs | OpenVINO time |", "|---|---|---|---|---|"]
    for row in rows:
        letter, _, backbone = row["model"].partition("-")
        if not backbone:
            own = row
            size = f"{int(row['parameters']) / 1e6:.1f}M | {float(row['gflops']):.1f}"
            lines.append(f"| {letter} | its own | {size} | 1 |")
            continue
        parameters, gflops = (float(row[key]) / float(own[key]) for key in ("parameters", "gflops"))
        time = f"{float(row['ratio']):.2f}" if row["ratio"] else ""
        lines.append(f"| | {backbone} | {parameters:.2f} | {gflops:.2f} | {time} |")
    return "\n".join(lines)


def arguments() -> str:
    """Return the table of the arguments of a training."""
    lines = ["| argument | what it is | values | default |", "|---|---|---|---|"]
    for argument in ARGUMENTS.values():
        named = {start.value: value for start, value in argument.by_start.items()}
        default = (
            []
            if argument.default is None
            else [f"{argument.default:g}" if is_number(argument.default) else str(argument.default)]
        )
        default += [
            f"{value} from {', '.join(s for s, v in named.items() if v == value)}"
            for value in dict.fromkeys(named.values())
        ]
        lines.append(f"| `{argument.name}` | {argument.help} | {argument.accepted} | {'; '.join(default)} |")
    return "\n".join(lines)


TABLES = {"models": models, "necks": necks, "cost": cost, "arguments": arguments}
MARKED = re.compile(r"(<!-- table: (\w+), written by docs/tables\.py -->\n).*?(<!-- end of table -->)", re.DOTALL)


def filled(text: str) -> str:
    """Return the text of a page with a new table between each pair of markers."""
    return MARKED.sub(lambda match: match[1] + TABLES[match[2]]() + "\n" + match[3], text)


def main() -> None:
    """Rewrite the tables of all pages, and the YAMLs."""
    for page in sorted(PAGES.glob("*.md")):
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
    for file in PAGES.parent.glob("models/*.yaml"):
        file.write_text(model_yaml(file.stem), encoding="utf-8")


if __name__ == "__main__":
    main()
