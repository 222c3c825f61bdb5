"""YOLOv8's larger models with lighter backbones under their necks, on COCO: accuracy beside time.

    python benchmarks/coco.py --donors yolov8s yolov8m yolov8l yolov8x \
        --backbones efflite0 efflite2 efflite4 effb2 effb4 --device 0

Ultralytics downloads the data set and the donors. Each pair is grafted and matched on training pictures, whose labels
are not read, then validated by Ultralytics; a donor and its grafts are timed by turns. A run that was stopped goes on
where it was, given the same words again, and what failed is tried again. Nothing here trains on labels.
"""

import argparse
import csv
import json
import os
import sys
import tempfile
from pathlib import Path

import torch
import ultralytics
from ultralytics import YOLO
from ultralytics.data.utils import check_det_dataset
from ultralytics.utils import LOGGER
from ultralytics.utils.torch_utils import get_flops, get_num_params

from yolo_effnet import graft
from yolo_effnet.checks import check_value, is_integer, why
from yolo_effnet.grafting.taps import AUTO, TAPS
from yolo_effnet.tools import compare
from yolo_effnet.tools.formats import PYTORCH, parse_format
from yolo_effnet.tools.timing import parse_device

VERSIONS = f"torch {torch.__version__} ultralytics {ultralytics.__version__}"


def label_of(word: str) -> str:
    """Return what to call a donor or a backbone: its name, or that of its file."""
    return Path(word).stem if word.endswith((".pt", ".yaml", ".yml")) else Path(word).name


def labels(words: list[str], what: str) -> dict[str, str]:
    """Return words by their labels; a ValueError names two of one label."""
    found: dict[str, str] = {}
    for word in words:
        if label_of(word) in found:
            raise ValueError(f"two {what} are called {label_of(word)}: {found[label_of(word)]} and {word}")
        found[label_of(word)] = word
    return found


def replace_text(file: Path, text: str) -> None:
    """Write a file as a whole or not at all, also where the run is killed."""
    part = file.with_name(f"{file.name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, file)


class Finished:
    """What was measured so far, in a file of the output folder.

    Attributes:
        size (dict): Parameters and GFLOPs by model.
        accuracy (dict): mAP50-95 and mAP50 of boxes by model.
        time (dict): By donor, milliseconds and device by model and format, of one measurement by turns.
    """

    def __init__(self, file: Path, settings: dict, words: dict[str, str]):
        """Read what is there.

        Args:
            file (Path): The file.
            settings (dict): What all figures in it have in common.
            words (dict[str, str]): Donors and backbones by their labels.

        Raises:
            ValueError: If the file is of a run with other settings, or of another donor or backbone of that name.
        """
        old = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        for kind, asked in (("settings", settings), ("words", words)):
            for key, value in asked.items():
                if old.get(kind, {}).get(key, value) != value:
                    was = f"{key} {old[kind][key]}, not {value}"
                    raise ValueError(f"'{file.parent}' was measured with {was}; give another --output")
        self.file, self.settings, self.words = file, settings, {**old.get("words", {}), **words}
        self.size, self.accuracy, self.time = (old.get(key, {}) for key in ("size", "accuracy", "time"))

    def save(self) -> None:
        """Write all that is here."""
        replace_text(self.file, json.dumps({k: v for k, v in vars(self).items() if k != "file"}, indent=1))


class Study:
    """Donors and their grafts, measured one after the other.

    Args:
        args (argparse.Namespace): Of the command line.

    Raises:
        ValueError: If a word cannot be what it is to be, or the folder has figures of other settings.
    """

    def __init__(self, args: argparse.Namespace):
        for name, least in (("imgsz", 32), ("number", 1), ("match", 0)):
            accepted = f"an integer >= {least}"
            check_value(name, getattr(args, name), lambda v, least=least: is_integer(v) and v >= least, accepted)
        where = parse_device(args.device)
        self.formats = list(dict.fromkeys([PYTORCH, *args.formats]))
        for text in self.formats:
            if "data" in parse_format(text, where, args.data).options:
                raise ValueError(
                    f"format '{text}': accuracy here is that of float; measure int8 by yolo-effnet benchmark"
                )
        self.donors, self.backbones = labels(args.donors, "donors"), labels(args.backbones, "backbones")
        try:
            check_det_dataset(args.data)
        except Exception as error:  # of YAML, of the file system or of a download
            raise ValueError(f"data '{args.data}' cannot be read ({why(error)})") from error
        self.args = args
        place = torch.cuda.get_device_name(where) if where.type == "cuda" else str(where)
        settings = {name: getattr(args, name) for name in ("data", "imgsz", "number", "match", "taps")}
        settings |= {"device": place, "threads": torch.get_num_threads(), "versions": VERSIONS}
        self.output = args.output.resolve()
        (self.output / "weights").mkdir(parents=True, exist_ok=True)
        words = {**{f"donor {k}": v for k, v in self.donors.items()}, **self.backbones}
        self.done = Finished(self.output / "finished.json", settings, words)
        self.done.save()
        self.reasons: dict[str, str] = {}  # why something is missing, by model; not kept, so that it is tried again

    def models(self, donor: str) -> list[str]:
        """Return the labels of a donor and of its grafts."""
        return [donor, *(f"{donor}-{backbone}" for backbone in self.backbones)]

    def graft(self, donor: Path, backbone: str, file: Path) -> None:
        """Write a graft."""
        word = backbone if backbone.endswith((".pt", ".yaml", ".yml")) else f"yolov8-{backbone}"
        options = {name: getattr(self.args, name) for name in ("number", "imgsz", "match", "taps", "device")}
        part = file.with_name(f"{file.stem}.part.pt")
        graft(donor, word, self.args.data, part, **options)
        os.replace(part, file)  # what is there under its name is whole

    def validate(self, model: str, file: Path) -> None:
        """Count and validate a model."""
        yolo = YOLO(file)
        size = [get_num_params(yolo.model), round(get_flops(yolo.model, 640), 1)]
        options = {"data": self.args.data, "imgsz": self.args.imgsz, "device": self.args.device, "plots": False}
        with tempfile.TemporaryDirectory() as folder:  # instead of `runs` where the user is
            box = yolo.val(project=folder, name="val", verbose=False, **options).box
        self.done.size[model], self.done.accuracy[model] = size, [round(float(v), 4) for v in (box.map, box.map50)]

    def time(self, donor: str, files: dict[str, Path]) -> None:
        """Time a donor and its grafts by turns."""
        options = {"imgsz": self.args.imgsz, "device": self.args.device, "output": self.output / "files" / donor}
        rows = compare.run(list(files.values()), self.formats, **options)
        times: dict[str, dict[str, float]] = {model: {} for model in files}
        for model, row in zip([m for m in files for _ in self.formats], rows, strict=True):
            if row.milliseconds is not None:
                times[model][row.format] = row.milliseconds
            else:
                self.reasons.setdefault(model, f"{row.format}: {row.reason}")
        self.done.time[donor] = {**self.done.time.get(donor, {}), **times}

    def cell(self, model: str, what: str, call, *words):
        """Run a step of a model; a failure is kept as its reason, and what is finished is written."""
        LOGGER.info(f"\n{model}: {what}")
        try:
            return call(*words)
        except Exception as error:  # the others are not lost
            self.reasons[model] = f"{what}: {why(error)}"
            LOGGER.warning(f"{model}, {self.reasons[model]}")
            return None
        finally:
            self.done.save()
            self.write()

    def run(self) -> list[dict]:
        """Measure all that is missing, write a table after each step and a plot, and return the table's rows."""
        for donor, word in self.donors.items():
            name = word if word.endswith(".pt") else f"{word}.pt"
            found = self.cell(donor, "weights", lambda name=name: Path(YOLO(name).ckpt_path).resolve())
            if not found:
                self.reasons |= dict.fromkeys(self.models(donor)[1:], "no donor")
                continue
            files = {donor: found}
            for model, backbone in zip(self.models(donor), (None, *self.backbones.values()), strict=True):
                file = files.get(model) or self.output / "weights" / f"{model}.pt"
                if backbone and not file.is_file():
                    self.cell(model, "graft", self.graft, found, backbone, file)
                if file.is_file():
                    files[model] = file
                if model in files and model not in self.done.accuracy:
                    self.cell(model, "validation", self.validate, model, file)
            known = self.done.time.get(donor, {})
            if not all(text in known.get(model, {}) for model in files for text in self.formats):
                self.cell(donor, "time", self.time, donor, files)  # of all, since times compare within a run
        return self.write()

    def rows(self) -> list[dict]:
        """Return a row of the table for each model, with None for what is missing."""
        rows = []
        for donor in self.donors:
            of_donor = self.done.time.get(donor, {}).get(donor, {})
            for model in self.models(donor):
                size, accuracy = (kind.get(model, [None, None]) for kind in (self.done.size, self.done.accuracy))
                row = dict(zip(("model", "parameters", "gflops"), (model, *size), strict=True))
                row |= dict(zip(("mAP50-95", "mAP50"), accuracy, strict=True))
                for text in self.formats:
                    ms = self.done.time.get(donor, {}).get(model, {}).get(text)
                    ratio = round(ms / of_donor[text], 3) if ms and of_donor.get(text) else None
                    row |= {f"{text}, ms": ms, f"{text}, ratio": ratio}
                rows.append({**row, "reason": self.reasons.get(model, "")})
        return rows

    def write(self) -> list[dict]:
        """Write table and plot of what is there, and return the rows."""
        rows = self.rows()
        part = self.output / "coco.csv.part"
        with open(part, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        os.replace(part, self.output / "coco.csv")
        lines = ["| " + " | ".join(rows[0]) + " |", "|---" * len(rows[0]) + "|"]
        for row in rows:
            cells = ("" if v is None else str(v).replace("|", "/") for v in row.values())
            lines.append("| " + " | ".join(cells) + " |")
        told = ", ".join(f"{key} {value}" for key, value in self.done.settings.items())
        replace_text(self.output / "coco.md", "\n".join([*lines, "", f"Grafts learnt no label. {told}.", ""]))
        self.plot(rows)
        return rows

    def plot(self, rows: list[dict]) -> None:
        """Draw accuracy against time, a panel per format: each donor is joined by a line to each of its grafts."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7 * len(self.formats), 5), layout="constrained")
        by_model = {row["model"]: row for row in rows}
        for text, axes in zip(self.formats, figure.subplots(1, len(self.formats), squeeze=False)[0], strict=True):
            for donor in self.donors:
                found = [(by_model[model][f"{text}, ms"], by_model[model]["mAP50-95"]) for model in self.models(donor)]
                marks = {m: p for m, p in zip(self.models(donor), found, strict=True) if None not in p}
                color = axes.plot([], [])[0].get_color()
                for model, (x, y) in marks.items():
                    axes.plot(x, y, "s" if model == donor else "o", color=color)
                    if model != donor and donor in marks:
                        axes.plot(*zip(marks[donor], (x, y), strict=True), color=color, linewidth=1)
                    axes.annotate(model, (x, y), xytext=(4, 4), textcoords="offset points", fontsize="small")
            axes.margins(x=0.2)  # for the names
            axes.set(xlabel=f"milliseconds per picture, {text}", ylabel=f"mAP50-95 on {label_of(self.args.data)}")
        figure.savefig(self.output / "coco.part.png", dpi=120)
        os.replace(self.output / "coco.part.png", self.output / "coco.png")


def main() -> int:
    """Read the command line, run, and return the exit status: 1 where a figure is missing."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--donors", nargs="+", required=True, metavar="NAME", help="yolov8s .. or trained .pt files")
    parser.add_argument(
        "--backbones", nargs="+", required=True, metavar="NAME", help="efflite0 .., or model YAMLs and .pt files"
    )
    parser.add_argument("--data", default="coco.yaml", metavar="YAML", help="(default: coco.yaml)")
    parser.add_argument("--imgsz", type=int, default=640, help="side of the pictures in pixels (default: 640)")
    parser.add_argument("--number", type=int, default=1024, help="training pictures to graft on (default: 1024)")
    parser.add_argument("--match", type=int, default=1000, help="gradient steps after the graft (default: 1000)")
    parser.add_argument("--taps", choices=TAPS, default=AUTO, help="(default: %(default)s)")
    parser.add_argument(
        "--formats", nargs="*", default=["openvino"], metavar="NAME",
        help="to time besides pytorch, as in yolo-effnet benchmark (default: openvino)",
    )  # fmt: skip
    parser.add_argument("--device", default="cpu", help="cpu, mps, or the number of a GPU (default: cpu)")
    parser.add_argument("--output", type=Path, default=Path("coco"), help="folder to write to (default: coco)")
    try:
        study = Study(parser.parse_args())
        rows = study.run()
    except (ValueError, OSError) as error:
        print(f"coco: {error}", file=sys.stderr)
        return 2
    print((study.output / "coco.md").read_text(encoding="utf-8"))
    print(f"written to {study.output}: coco.csv, coco.md, coco.png and the models")
    return int(any(row["reason"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
