"""The YAML that each model name stands for, written from the architecture table."""

from collections.abc import Iterable

import yaml

from yolo_effnet.zoo.architectures import Architecture, EfficientNet, TimmNet
from yolo_effnet.zoo.names import CLASSIFICATION, PYRAMIDS, RELU6, SERIES, TASKS, Model, find_model
from yolo_effnet.zoo.rows import Rows, add_neck_and_head, add_stages, add_timm_net, stage_args
from yolo_effnet.zoo.table import scale

_CLASSES = {"-pose": 1, CLASSIFICATION: 1000}
_LITE = "https://blog.tensorflow.org/2020/03/higher-accuracy-on-vision-models-with-efficientnet-lite.html"
_END2END = "end2end: True # whether to use end-to-end mode\nreg_max: 1 # DFL bins\n"
_RELU6_KEY = "activation: torch.nn.ReLU6() # of backbone, neck and head\n"
_KEYPOINTS = "kpt_shape: [17, 3] # number of keypoints, number of dims (2 for x,y or 3 for x,y,visible)\n"
_PADDING = "padding: # of the backbone's strided convolutions: same, symmetric, or empty for that of the weights\n"
_DROP_PATH = "drop_path: {rate} # stochastic depth of the backbone, growing linearly from 0 over its {blocks} blocks\n"
_TEMPLATE = """\
# Ultralytics {series} {task} with {article} {title} backbone{outputs}
# Backbone: {paper}
{notes}
# Parameters
nc: {nc} # number of classes
{keys}backbone_weights:{weights} # timm tag or file of the ImageNet weights that training starts from; empty for none

backbone:
  # [from, repeats, module, args]
{rows}
{backbone}
head:
  # [from, repeats, module, args]
{head}"""


def _backbone_keys(model: Model) -> str:
    """Return the top-level keys that belong to the backbone."""
    architecture = model.architecture
    if isinstance(architecture, TimmNet):
        return ""  # its name decides about padding, its row about stochastic depth
    # The authors' rate for a classifier of any size.
    rate = 0.2 if model.task == CLASSIFICATION else architecture.drop_path
    blocks = sum(stage.repeats for stage in architecture.stages)
    relu6 = architecture.family.lite or model.activation == RELU6
    return _RELU6_KEY * relu6 + _DROP_PATH.format(rate=rate, blocks=blocks) + _PADDING


def _row_comment(architecture: Architecture) -> str:
    """Return what the arguments of the backbone's rows are."""
    if isinstance(architecture, TimmNet):
        return "  # TimmBackbone: [name of timm's model], Index: [channels, index of the feature map]"
    modules = ", ".join(dict.fromkeys(stage_args(stage)[0] for stage in architecture.stages))
    se = "" if architecture.stages[-1].se_ratio else ", se_ratio"
    return f"  # EfficientNetStem: [c2, kernel, stride], {modules}: [c2, kernel, stride, expand_ratio{se}]"


def render(model: Model, notes: Iterable[str] = ()) -> str:
    """Return the YAML text of a model, with further `notes` in its header."""
    architecture, rows = model.architecture, Rows()
    levels = PYRAMIDS[model.pyramid]
    if isinstance(architecture, TimmNet):
        ends = add_timm_net(rows, architecture, range(levels[0], 6))
    else:
        ends = add_stages(rows, architecture)
    if model.task == CLASSIFICATION and isinstance(architecture, EfficientNet):
        task, outputs = "image classification", ""
        header = ["Head: EfficientNet's own, so that ImageNet weights cover the whole model"]
        backbone = rows.take()
        rows.add(f"[-1, 1, Classifier, [{architecture.head_channels}, nc, {architecture.dropout}]]", "{i}")
    else:
        task = TASKS[model.task][1]
        outputs = f", P{levels[0]}/{2 ** levels[0]} - P{levels[-1]}/{2 ** levels[-1]} outputs"
        page = f"https://docs.ultralytics.com/models/{model.series}"
        widths = "with its widths and repeats" if model.letter else "neck widths scaled with the backbone"
        header = [f"Neck and head: {SERIES[model.series]}{model.letter}, {page}, {widths}"]
        if model.neck:
            header.append("Light neck: depthwise-separable convolutions for its dense 3x3 ones")
        backbone = add_neck_and_head(rows, model, ends)
    if isinstance(architecture, EfficientNet) and architecture.family.lite:
        header.append(f"Lite: no squeeze-and-excite, and ReLU6, for CPUs, NPUs and int8, {_LITE}")
    if model.activation == RELU6:
        header.append("ReLU6 in place of SiLU, for int8 devices, but not inside squeeze-and-excite")
    return _TEMPLATE.format(
        series=SERIES[model.series],
        task=task,
        article="an" if architecture.title.startswith("E") else "a",
        title=architecture.title,
        outputs=outputs,
        paper=architecture.paper,
        notes="".join(f"# {note}\n" for note in [*header, *notes]),
        nc=_CLASSES.get(model.task, 80),
        keys=(_END2END if model.series == "yolo26" else "")
        + (_KEYPOINTS if model.task == "-pose" else "")
        + _backbone_keys(model),
        weights=f" {architecture.weights}".rstrip(),
        rows=_row_comment(architecture),
        backbone=backbone,
        head=rows.take(),
    )


def model_yaml(name: str) -> str:
    """Return the YAML text of a model by a name that `find_model` knows, for some the one that `models/` holds."""
    model = find_model(name)
    if model.series + model.letter != "yolov8" or model.suffix:
        return render(model)
    millions, gflops = model.architecture.parameters / 1e6, model.architecture.gflops
    return render(model, [f"{millions:.1f}M parameters, {gflops:.1f} GFLOPs at 640 pixels with 80 classes"])


def model_config(name: str) -> dict:
    """Return the YAML of a model as a dict, ready for `DetectionModel(model_config(name))`.

    Args:
        name (str): A name as `model_names()` gives them, with or without a scale letter and `.yaml`.

    Raises:
        ValueError: If there is no model of that name.
    """
    return yaml.safe_load(model_yaml(name))


def scaled_yaml(task: str, width: float = 1.0, depth: float = 1.0) -> str:
    """Return the YAML text of a model for a task, by its suffix in names, whose EfficientNet `scale` gives."""
    return render(Model("yolov8", scale(width, depth), task), ["Scaled from EfficientNet-B0"])
