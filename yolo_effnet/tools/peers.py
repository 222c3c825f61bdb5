"""The models that can be measured: ours, YOLOv8, and the same backbones in torchvision and timm with our neck."""

import re

import timm
import torch
from torch import nn
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel, parse_model, yaml_model_load
from ultralytics.utils.torch_utils import get_flops, get_num_params

from yolo_effnet.zoo.architectures import EfficientNet
from yolo_effnet.zoo.configs import model_config
from yolo_effnet.zoo.families import B
from yolo_effnet.zoo.names import model_names
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
    config, taps = model_config(f"yolov8-{architecture.variant}"), architecture.taps
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
        for i in range(1, 1 + len(architecture.taps)):
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


def count(name: str) -> tuple[int, float]:
    """Return parameters and GFLOPs at 640 pixels of a detection model by name, as Ultralytics counts them.

    No weight is drawn, which takes most of the time of a large model.

    Args:
        name (str): A model of ours or of Ultralytics with outputs at strides 8, 16 and 32, without `.yaml`.
    """
    model = DetectionModel.__new__(DetectionModel)  # whose __init__ computes, which tensors without data cannot
    nn.Module.__init__(model)
    with torch.device("meta"):
        model.model, model.save = parse_model(yaml_model_load(f"{name}.yaml"), 3, verbose=False)
    model.stride = model.model[-1].stride = torch.tensor([8.0, 16.0, 32.0])
    return get_num_params(model), get_flops(model, 640)


def print_sizes(letter: str) -> None:
    """Print what every backbone costs with the neck of a letter, beside YOLOv8's model of it; each as it is counted."""
    peer = f"yolov8{letter}"
    theirs = count(peer)
    print(f"{'model':<31}{'parameters':>12}{'GFLOPs@640':>12}  relative to {peer}")
    for name in [peer, *model_names(series=peer)]:
        ours = count(name)
        ratios = ", ".join(f"{a / b:.2f}" for a, b in zip(ours, theirs, strict=True))
        print(f"{name:<31}{ours[0] / 1e6:>11.1f}M{ours[1]:>12.1f}  {ratios}", flush=True)
