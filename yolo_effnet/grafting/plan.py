"""The YAML of a grafted model: rows of the new backbone, then the donor's neck and head with all widths written out."""

from torch import nn
from ultralytics.nn.modules import SPPF, Concat

from yolo_effnet import arguments
from yolo_effnet.grafting.anatomy import sources
from yolo_effnet.grafting.donor import Donor
from yolo_effnet.grafting.new_backbone import Backbone
from yolo_effnet.grafting.taps import tapped_rows
from yolo_effnet.host.written_out import explicit_rows

_SILU = "torch.nn.SiLU()"
_OF_BACKBONE = ("drop_path", "padding", *arguments.OLD_WEIGHTS_KEYS, *(a.name for a in arguments.KEYS))
_OF_DONOR = ("activation", "reg_max", "end2end", "kpt_shape")


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


def grafted_yaml(donor: Donor, backbone: Backbone, taps: str, activation: str | None) -> dict:
    """Return the YAML of the grafted model as a dict, which builds without donor.

    `taps` is as in `tapped_rows`; the activation of neck and head is one of `ACTIVATIONS`, by default the donor's.

    Raises:
        ValueError: If the backbone has no map at a level that the neck takes, or no wide one where it is to.
    """
    theirs, anatomy, config = donor.anatomy, backbone.anatomy, backbone.model.yaml
    levels = sorted(theirs.taps)
    if missing := [level for level in levels if anatomy.tap(level) is None]:
        raise ValueError(
            f"donor '{donor.name}' takes maps at strides {[2**level for level in levels]}, and the backbone has none "
            f"at {[2**level for level in missing]}; take its name with {donor.pyramid or 'a pyramid'} in it"
        )
    rows, maps = tapped_rows(backbone, levels, taps)
    head, neck = donor.head, list(donor.model.model)[theirs.start :]
    top, *others = maps[5]
    if isinstance(neck[0], SPPF) and others:
        rows.append([[top, *others], 1, "Concat", [1]])
        top = len(rows) - 1
    start = len(rows)
    shift = start - theirs.start
    for layer, row in zip(neck, explicit_rows(donor.model, theirs.channels)[theirs.start :], strict=True):
        taken = []
        for f in sources(layer):
            if f >= theirs.start:
                taken.append(f + shift)
            elif isinstance(layer, Concat):  # which takes the two maps of a donor with taps, too
                taken += [row for row in maps[theirs.levels[f]] if row not in taken]
            else:
                taken.append(top if layer is neck[0] else next(iter(maps[theirs.levels[f]])))
        if layer.i != head.i:  # whose maps distillation finds by their numbers
            taken = [-1 if f == len(rows) - 1 else f for f in taken]
        row[0] = taken if isinstance(layer.f, list) else taken[0]
        if isinstance(layer, SPPF):
            c1 = sum(maps[5].values()) if layer is neck[0] else layer.cv1.conv.in_channels
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
        d["activation"] = arguments.ACTIVATIONS[activation]
    act = config.get("backbone_activation") or config.get("activation")
    if (act or _SILU) != (d.get("activation") or _SILU):
        d["backbone_activation"] = act or _SILU
    if (channels := donor.model.yaml.get("channels", 3)) != 3:
        d["channels"] = channels
    split = len(donor.model.yaml["backbone"]) + shift  # as in the donor, which may count SPPF to its backbone
    return {**d, "backbone": rows[: max(split, start)], "head": rows[max(split, start) :]}
