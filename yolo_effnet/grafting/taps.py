"""What a grafted neck takes from its backbone: outputs of stages, and the wide maps inside their last blocks."""

import inspect

from ultralytics.nn.modules import Concat, Index

from yolo_effnet.grafting.anatomy import sources
from yolo_effnet.grafting.new_backbone import Backbone
from yolo_effnet.host.written_out import explicit_rows
from yolo_effnet.nn.stages import EfficientNetStage
from yolo_effnet.nn.timm_backbone import TimmBackbone
from yolo_effnet.nn.timm_models import wide_maps

AUTO, NARROW, WIDE = TAPS = "auto", "narrow", "wide"


def _narrow_rows(layers: list) -> dict[int, int]:
    """Return the row that gives the narrow map, for each row that picks the wide one beside it, or joins them."""
    narrow: dict[int, int] = {}
    outputs: dict[int, int] = {}  # of a `TimmBackbone`, by stride
    for layer in layers:
        first, *others = sources(layer)
        if isinstance(layer, Index) and getattr(layers[first], "tap_channels", None):
            narrow[layer.i] = first
        elif isinstance(layer, Index) and isinstance(layers[first], TimmBackbone):
            (known,) = (m for m in layers[first].maps if m.index == layer.index)
            if known.module is None:
                outputs[known.stride] = layer.i
            elif known.stride in outputs:
                narrow[layer.i] = outputs[known.stride]
        elif isinstance(layer, Concat):
            row = narrow.get(first, first)
            before = sources(layers[row]) if first != row else []
            if {narrow.get(f, f) for f in others if f not in before} == {row}:
                narrow[layer.i] = row
    return narrow


def _tap(layer, args: list, number: int) -> None:
    """Make the arguments of a row those of a tapped one: `tap` is the last, after `number` others."""
    *defaults, _ = (p.default for p in inspect.signature(type(layer)).parameters.values())
    args += [*defaults[len(defaults) - number + len(args) :], True]


def tapped_rows(backbone: Backbone, levels: list[int], taps: str) -> tuple[list[list], dict[int, dict[int, int]]]:
    """Return the rows of a backbone, and for each level the rows that give its maps, with their channels.

    The narrow map, which is the output of a stage, comes first, and the wide one last where it is taken. Between them
    is what that stage takes, if it is of the same size: EfficientNet has two stages at stride 16, and two at 32.

    Args:
        backbone (Backbone): Of which taps that it has already are forgotten.
        levels (list[int]): Those of the pyramid, 3 for P3/8, that the neck takes; the backbone has a map at each.
        taps (str): `narrow` for outputs alone, `wide` for the other maps too, `auto` for those if there are any.

    Raises:
        ValueError: If `taps` is `wide` and there is no wide map.
    """
    anatomy = backbone.anatomy
    layers = list(backbone.model.model)[: anatomy.start]
    narrow = _narrow_rows(layers)
    ends = {narrow.get(row, row): level for level in levels if (row := anatomy.tap(level)) is not None}
    rows, moved, maps, tapped = [], {-1: -1}, {}, {}
    for layer, (_, n, name, args) in zip(layers, explicit_rows(backbone.model, anatomy.channels), strict=False):
        if layer.i in narrow:
            moved[layer.i] = moved[narrow[layer.i]]
            continue
        taken = [-1 if moved[f] == len(rows) - 1 else moved[f] for f in sources(layer)]
        rows.append([taken if isinstance(layer.f, list) else taken[0], n, name, args])
        moved[layer.i] = last = len(rows) - 1
        if isinstance(layer, EfficientNetStage):
            del args[5:]
        elif isinstance(layer, TimmBackbone):
            del args[2:]
        level = ends.get(layer.i)
        if level is None:
            continue
        maps[level] = {last: anatomy.channels[layer.i]}
        if taps == NARROW:
            continue
        if isinstance(layer, EfficientNetStage) and layer[-1].has_wide_map:
            _tap(layer, args, 5)
            before = {moved[f]: anatomy.channels[f] for f in sources(layer) if f >= 0 and anatomy.levels[f] == level}
            tapped[level] = last, layer[-1].project.conv, before
        elif isinstance(layer, Index) and isinstance(source := layers[sources(layer)[0]], TimmBackbone):
            wide = next((m for m in wide_maps(source.name) if m.stride == 2**level), None)
            if wide is None:
                continue
            row = moved[source.i]
            if rows[row][3][2:] != [True]:
                _tap(source, rows[row][3], 2)
            rows.append([row, 1, "Index", [wide.channels, wide.index]])
            maps[level][last + 1] = wide.channels
    for level, (row, conv, before) in tapped.items():  # after the backbone, whose rows have the same numbers as without
        rows += [[row, 1, "Index", [conv.in_channels, 0]], [row, 1, "Index", [conv.out_channels, 1]]]
        maps[level] = {len(rows) - 1: conv.out_channels, **before, len(rows) - 2: conv.in_channels}
    if taps == WIDE and not any(len(taken) > 1 for taken in maps.values()):
        raise ValueError(
            f"taps={taps} needs a backbone of EfficientNetStage or FusedStage rows, or one of timm with wide maps, as "
            f"mobilenetv2_100 has, not '{backbone.name}'"
        )
    return rows, maps
