"""The convolutions of a grafted neck that take a map of the backbone, and what their counterparts in the donor give."""

import copy
from dataclasses import dataclass

import torch
from torch import nn
from ultralytics.nn.modules import Concat, Conv

from yolo_effnet.grafting.anatomy import Anatomy, sources, watched
from yolo_effnet.grafting.donor import Donor

_PASSING = (Concat, nn.Upsample)  # rows that only carry a map on


@dataclass(frozen=True)
class Seam:
    """A convolution whose weights are solved for.

    Attributes:
        row (int): Its row in the grafted model.
        donor_row (int): The row of the donor that stands for that one.
        name (str): Its `Conv` inside that row, such as `cv1`.
        kept (tuple[tuple[slice, slice], ...]): Input channels that come from the donor's own rows, here and there.
    """

    row: int
    donor_row: int
    name: str
    kept: tuple[tuple[slice, slice], ...]


def run(model: nn.Module, x: torch.Tensor, last: int) -> dict[int, torch.Tensor]:
    """Return what rows up to `last` give for images `x`, `(B, C, H, W)` in [0, 1], if it or a later row takes it."""
    outputs: dict[int, torch.Tensor] = {}
    for layer in list(model.model)[: last + 1]:
        if layer.f != -1:
            taken = [x if f == layer.i - 1 else outputs[f] for f in sources(layer)]
            x = taken if isinstance(layer.f, list) else taken[0]
        x = layer(x)
        if layer.i in model.save or layer.i == last:
            outputs[layer.i] = x
    return outputs


def head_inputs(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """Return the maps that the head of a model takes for images `x`, `(B, C, H, W)` in [0, 1]."""
    rows = sources(model.model[-1])
    outputs = run(model, x, max(rows))
    return [outputs[row] for row in rows]


def _first_convolutions(layer: nn.Module, channels: int, what: str) -> list[str]:
    """Return the names of the `Conv` of a row that take its input; the row itself has an empty name."""
    x, layer = torch.zeros(1, channels, 8, 8), copy.deepcopy(layer).eval()
    with torch.no_grad(), watched({n: m for n, m in layer.named_modules() if isinstance(m, nn.Conv2d)}) as seen:
        layer(x)
    names = [name for name, (taken, _) in seen.items() if taken is x]
    owners = [name.rpartition(".")[0] for name in names]
    if not owners or not all(isinstance(m := layer.get_submodule(o), Conv) and m.conv.groups == 1 for o in owners):
        raise ValueError(f"{what} takes the backbone's map by {names}, not by dense convolutions with BatchNorm")
    return owners


def _segments(model: nn.Module, anatomy: Anatomy) -> list[list[tuple[int, bool]]]:
    """Return what the channels of every row's output are: numbers of them, and whether these are a backbone's."""
    segments: list[list[tuple[int, bool]]] = []
    for layer, channels in zip(model.model, anatomy.channels, strict=True):
        if layer.i >= anatomy.start and isinstance(layer, _PASSING):
            joined: list[tuple[int, bool]] = []
            for width, foreign in (segment for f in sources(layer) for segment in segments[f]):
                if foreign and joined and joined[-1][1]:  # two maps of a backbone stand where one does, or two do
                    width += joined.pop()[0]
                joined.append((width, foreign))
            segments.append(joined)
        else:
            segments.append([(channels or 0, layer.i < anatomy.start)])
    return segments


def find_seams(donor: Donor, model: nn.Module, anatomy: Anatomy) -> list[list[Seam]]:
    """Return the convolutions of a grafted model that take its backbone's maps, row by row in the order they run.

    Raises:
        ValueError: If a row takes such a map otherwise than by dense convolutions.
    """
    ours, theirs = _segments(model, anatomy), _segments(donor.model, donor.anatomy)
    shift = anatomy.start - donor.anatomy.start
    seams = []
    for layer in list(model.model)[anatomy.start : -1]:
        (source, *others) = sources(layer)
        if isinstance(layer, _PASSING) or others or not any(foreign for _, foreign in ours[source]):
            continue
        donor_row = layer.i - shift
        counterpart = sources(donor.model.model[donor_row])[0]
        kept, here, there = [], 0, 0
        for (width, foreign), (width_there, _) in zip(ours[source], theirs[counterpart], strict=True):
            if not foreign:
                kept.append((slice(here, here + width), slice(there, there + width)))
            here, there = here + width, there + width_there
        names = _first_convolutions(layer, here, f"row {layer.i} ({type(layer).__name__})")
        seams.append([Seam(layer.i, donor_row, name, tuple(kept)) for name in names])
    return seams
