"""Model names and the YAML that each stands for, written from the architecture table."""

import difflib
import re
import sys
from pathlib import Path

import yaml

from yolo_effnet.architectures import ARCHITECTURES, TAPS, Architecture

_GRAMMAR = re.compile(r"yolov8-eff(?P<variant>[^.]*)(\.ya?ml)?$")

_TEMPLATE = """\
# Ultralytics YOLOv8 object detection with an EfficientNet-{VARIANT} backbone, P3/8 - P5/32 outputs
# Backbone: EfficientNet, Tan and Le 2019, https://arxiv.org/abs/1905.11946
# Neck and head: YOLOv8, https://docs.ultralytics.com/models/yolov8, neck widths scaled with the backbone
# {millions:.1f}M parameters, {gflops:.1f} GFLOPs at 640 pixels with 80 classes

# Parameters
nc: 80 # number of classes
drop_path: {drop_path} # stochastic depth of the backbone, growing linearly from 0 over its {blocks} blocks
padding: same # of the backbone's strided convolutions: same (TensorFlow) or symmetric (PyTorch)
weights: {weights} # timm tag of the ImageNet weights that training starts from; empty for none
weights_file: # .safetensors or .pth file that stands in for their download

backbone:
  # [from, repeats, module, args]
  # EfficientNetStem: [c2, kernel, stride], EfficientNetStage: [c2, kernel, stride, expand_ratio]
{backbone}
head:
  # [from, repeats, module, args]
{head}"""


def _neck_and_head(architecture: Architecture) -> list[str]:
    """Return YOLOv8's PAN neck and head; rows 0-8 are the backbone and its SPPF."""
    p3, p4, p5 = architecture.neck_channels
    n = architecture.neck_repeats
    tap3, tap4, _ = TAPS
    return [
        '[-1, 1, nn.Upsample, [None, 2, "nearest"]]',
        f"[[-1, {tap4}], 1, Concat, [1]] # cat backbone P4",
        f"[-1, {n}, C2f, [{p4}]] # 11",
        "",
        '[-1, 1, nn.Upsample, [None, 2, "nearest"]]',
        f"[[-1, {tap3}], 1, Concat, [1]] # cat backbone P3",
        f"[-1, {n}, C2f, [{p3}]] # 14 (P3/8-small)",
        "",
        f"[-1, 1, Conv, [{p3}, 3, 2]]",
        "[[-1, 11], 1, Concat, [1]] # cat head P4",
        f"[-1, {n}, C2f, [{p4}]] # 17 (P4/16-medium)",
        "",
        f"[-1, 1, Conv, [{p4}, 3, 2]]",
        "[[-1, 8], 1, Concat, [1]] # cat head P5",
        f"[-1, {n}, C2f, [{p5}]] # 20 (P5/32-large)",
        "",
        "[[14, 17, 20], 1, Detect, [nc]] # Detect(P3, P4, P5)",
    ]


def _backbone(architecture: Architecture) -> list[str]:
    """Return the rows of stem, stages and SPPF."""
    level = 1
    rows = [f"[-1, 1, EfficientNetStem, [{architecture.stem_channels}, 3, 2]] # 0-P1/2"]
    for i, (kernel, stride, expand_ratio, channels, repeats) in enumerate(architecture.stages, start=1):
        level += stride == 2
        label = f"{i}-P{level}/{2**level}" if stride == 2 else f"{i}"
        rows.append(f"[-1, {repeats}, EfficientNetStage, [{channels}, {kernel}, {stride}, {expand_ratio}]] # {label}")
    return [*rows, f"[-1, 1, SPPF, [{architecture.neck_channels[-1]}, 5]] # 8"]


def model_names() -> list[str]:
    """Return the names of all models, without `.yaml`."""
    return [f"yolov8-eff{variant}" for variant in ARCHITECTURES]


def parse_name(name: str) -> Architecture | None:
    """Return the architecture of a model name, or None where the name does not follow our grammar.

    Args:
        name (str): `yolov8-eff<variant>`, with or without `.yaml`.

    Raises:
        ValueError: If the name follows the grammar but there is no such variant.
    """
    match = _GRAMMAR.fullmatch(name)
    if not match:
        return None
    if match["variant"] not in ARCHITECTURES:
        raise ValueError(f"'{name}' is neither a file nor a model of yolo_effnet; its models are {suggest(name)}")
    return ARCHITECTURES[match["variant"]]


def suggest(name: str) -> str:
    """Return all model names as text, with those closest to `name` first."""
    names = model_names()
    close = difflib.get_close_matches(name.removesuffix(".yaml"), names, n=3)
    return ", ".join([*close, *(n for n in names if n not in close)])


def model_yaml(name: str) -> str:
    """Return the YAML text of a model, the one that `models/` holds.

    Args:
        name (str): A name from `model_names()`, with or without `.yaml`.

    Raises:
        ValueError: If there is no model of that name.
    """
    architecture = parse_name(name)
    if architecture is None:
        raise ValueError(f"'{name}' is not a model of yolo_effnet; its models are {suggest(name)}")

    def block(rows: list[str]) -> str:
        return "\n".join(f"  - {row}" if row else "" for row in rows) + "\n"

    return _TEMPLATE.format(
        VARIANT=architecture.variant.upper(),
        millions=architecture.parameters / 1e6,
        gflops=architecture.gflops,
        drop_path=architecture.drop_path,
        weights=architecture.weights,
        blocks=sum(stage.repeats for stage in architecture.stages),
        backbone=block(_backbone(architecture)),
        head=block(_neck_and_head(architecture)),
    )


def model_config(name: str) -> dict:
    """Return the YAML of a model as a dict, ready for `DetectionModel(model_config(name))`.

    Args:
        name (str): A name from `model_names()`, with or without `.yaml`.

    Raises:
        ValueError: If there is no model of that name.
    """
    return yaml.safe_load(model_yaml(name))


def write_models(folder: Path) -> None:
    """Write the YAML of every model into `folder`."""
    for name in model_names():
        (folder / f"{name}.yaml").write_text(model_yaml(name), encoding="utf-8")


if __name__ == "__main__":  # python -m yolo_effnet.configs models
    write_models(Path(sys.argv[1]))
