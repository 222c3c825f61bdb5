"""Models of Ultralytics, from a YAML and back to its rows, and what they cost."""

import copy
from collections.abc import Sequence

import torch
from torch import nn
from ultralytics.engine.model import Model
from ultralytics.nn.tasks import DetectionModel, parse_model, yaml_model_load
from ultralytics.utils.torch_utils import get_flops, get_num_params


def build(config: dict | str, channels: int) -> nn.Module:
    """Return the detector of a model YAML, as dict or path, with random weights, for images of so many channels."""
    return DetectionModel(config, ch=channels, verbose=False).eval()


def count(name: str) -> tuple[int, float]:
    """Return parameters and GFLOPs at 640 pixels of a detection model by name, without drawing a weight of it.

    Ultralytics counts them. It is one of ours or of Ultralytics with outputs at strides 8, 16 and 32, without `.yaml`.
    """
    model = DetectionModel.__new__(DetectionModel)  # whose __init__ computes, which tensors without data cannot
    nn.Module.__init__(model)
    with torch.device("meta"):
        model.model, model.save = parse_model(yaml_model_load(f"{name}.yaml"), 3, verbose=False)
    model.stride = model.model[-1].stride = torch.tensor([8.0, 16.0, 32.0])
    return get_num_params(model), get_flops(model, 640)


def network(source):
    """Return the model inside a YOLO object, and anything else as it is."""
    return source.model if isinstance(source, Model) else source


def explicit_rows(model: nn.Module, channels: Sequence[int | None]) -> list[list]:
    """Return the rows of a built `DetectionModel` with its widths and repeats written out, in place of multiples.

    `channels` are the output channels of every row, None where it gives no map.
    """
    d = model.yaml
    scale, scales = d.get("scale"), d.get("scales") or {}
    depth = scales[scale or next(iter(scales))][0] if scales else d.get("depth_multiple", 1.0)
    rows = []
    for i, row in enumerate([*d["backbone"], *d["head"]]):
        f, n, name, args = copy.deepcopy(row)
        n = max(round(n * depth), 1) if n > 1 else n
        if args and isinstance(args[0], int) and not name.startswith("nn.") and name not in ("Concat", "Index"):
            args[0] = channels[i] or args[0]
        if name == "C3k2" and scales and scale in ("m", "l", "x"):
            args[1:2] = [True]
        if name == "A2C2f" and scales and scale in ("l", "x"):
            args += [True, 1.2]
        rows.append([f, n, name, args])
    return rows
