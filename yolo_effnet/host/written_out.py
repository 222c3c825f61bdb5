"""Models of Ultralytics, from a YAML and back to its rows."""

import copy
from collections.abc import Sequence

from torch import nn
from ultralytics.engine.model import Model
from ultralytics.nn.tasks import DetectionModel, yaml_model_load


def build(config: dict | str, channels: int) -> nn.Module:
    """Return the detector of a model YAML, as dict or path, with random weights, for images of so many channels."""
    config = config if isinstance(config, dict) else yaml_model_load(config)
    return DetectionModel(config, ch=channels, verbose=False).eval()


def network(source):
    """Return the model inside a YOLO object, and anything else as it is."""
    return source.model if isinstance(source, Model) else source


def explicit_rows(model: nn.Module, channels: Sequence[int | None]) -> list[list]:
    """Return the rows of a built model with its widths and repeats written out, in place of multiples.

    Args:
        model (nn.Module): A `DetectionModel` of Ultralytics.
        channels (Sequence[int | None]): Output channels of every row, None where it gives no map.
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
