"""The YAML that each model name stands for, written from the architecture table."""

import itertools
import sys
from pathlib import Path

import yaml

from yolo_effnet.architectures import Architecture
from yolo_effnet.names import CLASSIFICATION, PYRAMIDS, SERIES, TASKS, Model, find_model, model_names

_SIZES = {2: "xsmall", 3: "small", 4: "medium", 5: "large", 6: "xlarge"}

_CLASSES = {"-pose": 1, CLASSIFICATION: 1000}
_LITE = "https://blog.tensorflow.org/2020/03/higher-accuracy-on-vision-models-with-efficientnet-lite.html"
_END2END = "end2end: True # whether to use end-to-end mode\nreg_max: 1 # DFL bins\n"
_RELU6 = "activation: torch.nn.ReLU6() # of backbone, neck and head\n"
_KEYPOINTS = "kpt_shape: [17, 3] # number of keypoints, number of dims (2 for x,y or 3 for x,y,visible)\n"
_TEMPLATE = """\
# Ultralytics {series} {task} with an EfficientNet-{title} backbone{outputs}
# Backbone: EfficientNet, Tan and Le 2019, https://arxiv.org/abs/1905.11946
{notes}
# Parameters
nc: {nc} # number of classes
{keys}drop_path: {drop_path} # stochastic depth of the backbone, growing linearly from 0 over its {blocks} blocks
padding: same # of the backbone's strided convolutions: same (TensorFlow) or symmetric (PyTorch)
weights: {weights} # timm tag of the ImageNet weights that training starts from; empty for none
weights_file: # .safetensors or .pth file that stands in for their download

backbone:
  # [from, repeats, module, args]
  # EfficientNetStem: [c2, kernel, stride], EfficientNetStage: [c2, kernel, stride, expand_ratio{se}]
{backbone}
head:
  # [from, repeats, module, args]
{head}"""


class _Rows:
    """Rows of a model YAML, as lines of text that know their index."""

    def __init__(self):
        self.index, self.lines = -1, []

    def add(self, row: str, comment: str = "") -> int:
        """Append a row, with `{i}` in its comment replaced by its index, which is returned."""
        self.index += 1
        self.lines.append(f"  - {row}" + (f" # {comment}".format(i=self.index) if comment else ""))
        return self.index

    def end_paragraph(self) -> None:
        self.lines.append("")

    def take(self) -> str:
        """Return the text of the rows since the last call."""
        text, self.lines = "\n".join(self.lines) + "\n", []
        return text


def _add_backbone(rows: _Rows, architecture: Architecture) -> dict[int, int]:
    """Add stem and stages; return the row at which each level of the pyramid ends."""
    level = 1
    ends = {level: rows.add(f"[-1, 1, EfficientNetStem, [{architecture.stem_channels}, 3, 2]]", "{i}-P1/2")}
    for kernel, stride, expand_ratio, channels, repeats in architecture.stages:
        level += stride == 2
        label = f"{{i}}-P{level}/{2**level}" if stride == 2 else "{i}"
        args = f"{channels}, {kernel}, {stride}, {expand_ratio}{', 0' * architecture.lite}"
        ends[level] = rows.add(f"[-1, {repeats}, EfficientNetStage, [{args}]]", label)
    return ends


def _widths(model: Model) -> dict[int, int]:
    """Return the neck's channels at each level of the model's pyramid, in the proportions of Ultralytics' models."""
    p3, p4, p5 = model.architecture.neck_channels
    widths = {3: p3, 4: p4, 5: p5}
    if model.pyramid == "-p2":
        return {2: p3 // 2, **widths}
    if model.pyramid == "-p6":
        return {**widths, 5: min(3 * p3, p5), 6: p5}
    return widths


def _add_neck_and_head(rows: _Rows, model: Model, ends: dict[int, int]) -> str:
    """Add SPPF, PAN neck and head; return the text of the rows that Ultralytics counts to the backbone."""
    widths, levels, v8 = _widths(model), PYRAMIDS[model.pyramid], model.series == "yolov8"
    n = model.architecture.neck_repeats if v8 else max(1, round(model.architecture.neck_repeats * 2 / 3))

    def add_block(level: int, label: str) -> int:
        if v8:
            return rows.add(f"[-1, {n}, C2f, [{widths[level]}]]", label)
        attention = label and level == levels[-1]  # on the way up, as in YOLO26
        return rows.add(
            f"[-1, {1 if attention else n}, C3k2, [{widths[level]}, True{', 0.5, True' * attention}]]", label
        )

    top = widths[levels[-1]]
    if model.pyramid == "-p6":
        rows.add(f"[-1, 1, Conv, [{top}, 3, 2]]", "{i}-P6/64")
        rows.add(f"[-1, {n}, {'C2f' if v8 else 'C3k2'}, [{top}, True]]")
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
        rows.end_paragraph()
    outputs = [inner[levels[0]]]
    for below, level in itertools.pairwise(levels):
        rows.add(f"[-1, 1, Conv, [{widths[below]}, 3, 2]]")
        rows.add(f"[[-1, {inner[level]}], 1, Concat, [1]]", f"cat head P{level}")
        outputs.append(add_block(level, f"{{i}} (P{level}/{2**level}-{_SIZES[level]})"))
        rows.end_paragraph()
    _, module, args = TASKS[model.task]
    module += "" if v8 or not model.task else "26"
    args = args.format(p3=widths[3])
    rows.add(f"[{outputs}, 1, {module}, [{args}]]", f"{module}({', '.join(f'P{level}' for level in levels)})")
    return backbone


def model_yaml(name: str) -> str:
    """Return the YAML text of a model; that of a detection model is the one that `models/` holds.

    Args:
        name (str): A name as `model_names()` gives them, with or without `.yaml`.

    Raises:
        ValueError: If there is no model of that name.
    """
    model = find_model(name)
    architecture, rows = model.architecture, _Rows()
    ends = _add_backbone(rows, architecture)
    if model.task == CLASSIFICATION:
        task, outputs = "image classification", ""
        notes = ["Head: EfficientNet's own, so that ImageNet weights cover the whole model"]
        backbone = rows.take()
        rows.add(f"[-1, 1, Classifier, [{architecture.head_channels}, nc, {architecture.dropout}]]", "{i}")
    else:
        task, levels = TASKS[model.task][0], PYRAMIDS[model.pyramid]
        outputs = f", P{levels[0]}/{2 ** levels[0]} - P{levels[-1]}/{2 ** levels[-1]} outputs"
        page = f"https://docs.ultralytics.com/models/{model.series}"
        notes = [f"Neck and head: {SERIES[model.series]}, {page}, neck widths scaled with the backbone"]
        backbone = _add_neck_and_head(rows, model, ends)
    if architecture.lite:
        notes.append(f"Lite: no squeeze-and-excite, and ReLU6, for CPUs, NPUs and int8, {_LITE}")
    if model.name in model_names():
        millions, gflops = architecture.parameters / 1e6, architecture.gflops
        notes.append(f"{millions:.1f}M parameters, {gflops:.1f} GFLOPs at 640 pixels with 80 classes")
    return _TEMPLATE.format(
        series=SERIES[model.series],
        task=task,
        title=architecture.title,
        outputs=outputs,
        notes="".join(f"# {note}\n" for note in notes),
        nc=_CLASSES.get(model.task, 80),
        se=", se_ratio" * architecture.lite,
        keys=_RELU6 * architecture.lite
        + (_END2END if model.series == "yolo26" else "")
        + (_KEYPOINTS if model.task == "-pose" else ""),
        # The authors' rate for a classifier of any size.
        drop_path=0.2 if model.task == CLASSIFICATION else architecture.drop_path,
        weights=architecture.weights,
        blocks=sum(stage.repeats for stage in architecture.stages),
        backbone=backbone,
        head=rows.take(),
    )


def model_config(name: str) -> dict:
    """Return the YAML of a model as a dict, ready for `DetectionModel(model_config(name))`.

    Args:
        name (str): A name as `model_names()` gives them, with or without `.yaml`.

    Raises:
        ValueError: If there is no model of that name.
    """
    return yaml.safe_load(model_yaml(name))


def write_models(folder: Path) -> None:
    """Write the YAML of every detection model of the paper, and of the smallest of each further family."""
    for model in map(find_model, model_names()):
        if model.architecture.variant == "lite0" or not model.architecture.lite:
            (folder / f"{model.name}.yaml").write_text(model_yaml(model.name), encoding="utf-8")


if __name__ == "__main__":  # python -m yolo_effnet.configs models
    write_models(Path(sys.argv[1]))
