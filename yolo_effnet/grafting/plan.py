"""The YAML of a grafted model: rows of the new backbone, then the donor's neck and head with all widths written out."""

import copy

from torch import nn
from ultralytics.nn.modules import SPPF

from yolo_effnet import arguments
from yolo_effnet.grafting.anatomy import Anatomy, sources
from yolo_effnet.grafting.donor import Donor

_SILU = "torch.nn.SiLU()"
ACTIVATIONS = {"relu6": "torch.nn.ReLU6()", "relu": "torch.nn.ReLU()"}  # that small devices compute in int8
_OF_BACKBONE = ("drop_path", "padding", *arguments.OLD_WEIGHTS_KEYS, *(a.name for a in arguments.KEYS))
_OF_DONOR = ("activation", "reg_max", "end2end", "kpt_shape")


def explicit_rows(model: nn.Module, anatomy: Anatomy) -> list[list]:
    """Return the rows of a built model with its widths and repeats written out, in place of multiples.

    Args:
        model (nn.Module): A `DetectionModel` of Ultralytics.
        anatomy (Anatomy): What its rows are.
    """
    d = model.yaml
    scale, scales = d.get("scale"), d.get("scales") or {}
    depth = scales[scale or next(iter(scales))][0] if scales else d.get("depth_multiple", 1.0)
    rows = []
    for i, row in enumerate([*d["backbone"], *d["head"]]):
        f, n, name, args = copy.deepcopy(row)
        n = max(round(n * depth), 1) if n > 1 else n
        if args and isinstance(args[0], int) and not name.startswith("nn.") and name not in ("Concat", "Index"):
            args[0] = anatomy.channels[i] or args[0]
        if name == "C3k2" and scales and scale in ("m", "l", "x"):
            args[1:2] = [True]
        if name == "A2C2f" and scales and scale in ("l", "x"):
            args += [True, 1.2]
        rows.append([f, n, name, args])
    return rows


def _fitted(row: list, layer: SPPF, c1: int) -> list:
    """Return an SPPF row that has the inner width and the shortcut of `layer` with an input of `c1` channels."""
    f, n, name, args = row
    hidden, added = layer.cv1.conv.out_channels, getattr(layer, "add", False)
    projected = getattr(layer, "project", None) is not None
    if name == "SPPF" and c1 // 2 == hidden and not added:
        return row
    act = not isinstance(layer.cv1.act, nn.Identity)
    args = [args[0], hidden, layer.m.kernel_size, getattr(layer, "n", 3), bool(added or projected), act]
    return [f, n, "FittedSPPF", args]


def grafted_yaml(donor: Donor, config: dict, backbone: nn.Module, anatomy: Anatomy, activation: str | None) -> dict:
    """Return the YAML of the grafted model as a dict, which builds without donor.

    Args:
        donor (Donor): Whose neck and head it has.
        config (dict): The YAML of the backbone's model.
        backbone (nn.Module): That model, built.
        anatomy (Anatomy): What its rows are.
        activation (str | None): That of neck and head, one of `ACTIVATIONS`; by default the donor's.

    Raises:
        ValueError: If the backbone has no map at a level that the neck takes.
    """
    theirs = donor.anatomy
    levels = sorted(theirs.taps)
    if missing := [level for level in levels if anatomy.tap(level) is None]:
        raise ValueError(
            f"donor '{donor.name}' takes maps at strides {[2**level for level in levels]}, and the backbone has none "
            f"at {[2**level for level in missing]}; take its name with {donor.pyramid or 'a pyramid'} in it"
        )
    shift = anatomy.start - theirs.start
    head = donor.head
    rows = explicit_rows(backbone, anatomy)[: anatomy.start]
    for layer, row in list(zip(donor.model.model, explicit_rows(donor.model, theirs), strict=True))[theirs.start :]:
        taken = [f + shift if f >= theirs.start else anatomy.tap(theirs.levels[f]) for f in sources(layer)]
        if layer.i != head.i:  # whose maps distillation finds by their numbers
            taken = [-1 if f == len(rows) - 1 else f for f in taken]
        row[0] = taken if isinstance(layer.f, list) else taken[0]
        if isinstance(layer, SPPF):
            c1 = anatomy.channels[anatomy.start - 1] if layer.i == theirs.start else layer.cv1.conv.in_channels
            row = _fitted(row, layer, c1)
        rows.append(row)
    args = ["nc", *rows[-1][3][1:]]
    if hasattr(head, "npr"):
        args[2] = head.npr
    rows[-1][3] = args
    d = {"nc": head.nc, "names": dict(donor.model.names)}
    d |= {key: donor.model.yaml[key] for key in _OF_DONOR if donor.model.yaml.get(key) is not None}
    d |= {key: config[key] for key in _OF_BACKBONE if key in config}
    if activation:
        d["activation"] = ACTIVATIONS[activation]
    act = config.get("backbone_activation") or config.get("activation")
    if (act or _SILU) != (d.get("activation") or _SILU):
        d["backbone_activation"] = act or _SILU
    if (channels := donor.model.yaml.get("channels", 3)) != 3:
        d["channels"] = channels
    split = len(donor.model.yaml["backbone"]) + shift  # as in the donor, which may count SPPF to its backbone
    return {**d, "backbone": rows[: max(split, anatomy.start)], "head": rows[max(split, anatomy.start) :]}
