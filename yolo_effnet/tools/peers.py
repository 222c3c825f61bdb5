"""The models that can be measured: ours, YOLOv8, and the same backbones in torchvision and timm with our neck."""

import re

import timm
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel, parse_model

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
