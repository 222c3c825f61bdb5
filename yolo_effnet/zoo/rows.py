"""The rows of a model YAML, as text: stages or timm backbone, neck and head."""

import itertools
import math

from yolo_effnet.zoo.architectures import EfficientNet, TimmNet
from yolo_effnet.zoo.families import Stage
from yolo_effnet.zoo.names import PYRAMIDS, SCALES, TASKS, Model

# Of Ultralytics' models before scaling: channels of the neck, and repeats of its blocks.
_CHANNELS = {2: 128, 3: 256, 4: 512, 5: 1024, 6: 1024}
_REPEATS = {"yolov8": 3, "yolo26": 2}
_SIZES = {2: "xsmall", 3: "small", 4: "medium", 5: "large", 6: "xlarge"}


class Rows:
    """Rows of a model YAML, as lines of text that know their index."""

    def __init__(self):
        self.index, self.lines = -1, []

    def add(self, row: str, comment: str = "") -> int:
        """Append a row, with `{i}` in its comment replaced by its index, which is returned."""
        self.index += 1
        self.lines.append(f"  - {row}" + (f" # {comment}".format(i=self.index) if comment else ""))
        return self.index

    def take(self) -> str:
        """Return the text of the rows since the last call."""
        text, self.lines = "\n".join(self.lines) + "\n", []
        return text


def stage_args(stage: Stage) -> tuple[str, str]:
    """Return module and arguments of a stage's row."""
    args = f"{stage.channels}, {stage.kernel}, {stage.stride}, {stage.expand_ratio}"
    if stage.fused:
        return "FusedStage", args
    return "EfficientNetStage", args + ("" if stage.se_ratio else ", 0")


def add_stages(rows: Rows, architecture: EfficientNet) -> dict[int, int]:
    """Add stem and stages; return the row at which each level of the pyramid ends."""
    level = 1
    ends = {level: rows.add(f"[-1, 1, EfficientNetStem, [{architecture.stem_channels}, 3, 2]]", "{i}-P1/2")}
    for stage in architecture.stages:
        level += stage.stride == 2
        label = f"{{i}}-P{level}/{2**level}" if stage.stride == 2 else "{i}"
        module, args = stage_args(stage)
        ends[level] = rows.add(f"[-1, {stage.repeats}, {module}, [{args}]]", label)
    return ends


def add_timm_net(rows: Rows, architecture: TimmNet, levels: range) -> dict[int, int]:
    """Add the row of timm's backbone and one for each level that is taken from it, and return these."""
    rows.add(f"[-1, 1, TimmBackbone, [{architecture.timm_name}]]", "{i}")
    # The maps are those of P1/2 to P5/32; P5 stands last, where the neck goes on.
    channels = dict(zip(range(2, 6), architecture.channels, strict=True))
    return {
        level: rows.add(f"[0, 1, Index, [{channels[level]}, {level - 1}]]", f"{{i}}-P{level}/{2**level}")
        for level in levels
    }


def neck_widths(model: Model) -> dict[int, int]:
    """Return the neck's channels at each level, those of the letter or in the proportions of Ultralytics' models."""
    if model.letter:
        _, width, largest = SCALES[model.series][model.letter]
        channels = {**_CHANNELS, 5: 768} if model.pyramid == "-p6" else _CHANNELS
        return {level: math.ceil(min(c, largest) * width / 8) * 8 for level, c in channels.items()}
    p3, p4, p5 = model.architecture.neck_channels
    widths = {3: p3, 4: p4, 5: p5}
    if model.pyramid == "-p2":
        return {2: p3 // 2, **widths}
    if model.pyramid == "-p6":
        return {**widths, 5: min(3 * p3, p5), 6: p5}
    return widths


def add_neck_and_head(rows: Rows, model: Model, ends: dict[int, int]) -> str:
    """Add SPPF, PAN neck and head; return the text of the rows that Ultralytics counts to the backbone."""
    widths, levels, v8 = neck_widths(model), PYRAMIDS[model.pyramid], model.series == "yolov8"
    depth = SCALES[model.series][model.letter][0] if model.letter else model.architecture.neck_repeats / 3
    n = max(1, round(_REPEATS[model.series] * depth))
    conv, block = ("SeparableConv", "C2fSeparable") if model.neck else ("Conv", "C2f" if v8 else "C3k2")

    kind = "C2" if v8 and model.letter and model.pyramid == "-p6" and not model.neck else block  # as in yolov8-p6.yaml

    def add_block(level: int, label: str) -> int:
        attention = not v8 and bool(label) and level == levels[-1]  # on the way up, as in YOLO26
        args = ", False" * (kind == "C2") if v8 else ", True" + ", 0.5, True" * attention
        return rows.add(f"[-1, {1 if attention else n}, {kind}, [{widths[level]}{args}]]", label)

    top = widths[levels[-1]]
    if model.pyramid == "-p6":
        rows.add(f"[-1, 1, {conv}, [{top}, 3, 2]]", "{i}-P6/64")
        rows.add(f"[-1, {n}, {block}, [{top}, True]]")
    if v8:
        inner = {levels[-1]: rows.add(f"[-1, 1, SPPF, [{top}, 5]]", "{i}")}
    else:
        rows.add(f"[-1, 1, SPPF, [{top}, 5, 3, {model.pyramid != '-p6'}]]", "{i}")
        inner = {levels[-1]: rows.add(f"[-1, {n}, C2PSA, [{top}]]", "{i}")}
    backbone = rows.take()

    for level in levels[-2::-1]:
        rows.add('[-1, 1, nn.Upsample, [None, 2, "nearest"]]')
        rows.add(f"[[-1, {ends[level]}], 1, Concat, [1]]", f"cat backbone P{level}")
        lowest = level == levels[0]
        inner[level] = add_block(level, "{i}" + (f" (P{level}/{2**level}-{_SIZES[level]})" if lowest else ""))
        rows.lines.append("")
    outputs = [inner[levels[0]]]
    for below, level in itertools.pairwise(levels):
        rows.add(f"[-1, 1, {conv}, [{widths[below]}, 3, 2]]")
        rows.add(f"[[-1, {inner[level]}], 1, Concat, [1]]", f"cat head P{level}")
        outputs.append(add_block(level, f"{{i}} (P{level}/{2**level}-{_SIZES[level]})"))
        rows.lines.append("")
    _, _, module, args = TASKS[model.task]
    module += "" if v8 or not model.task else "26"
    args = args.format(p3=widths[3])
    rows.add(f"[{outputs}, 1, {module}, [{args}]]", f"{module}({', '.join(f'P{level}' for level in levels)})")
    return backbone
