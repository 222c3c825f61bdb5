"""Where the weights of a model come from: those of its backbone, and those of its neck and head. Decided here alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn
from ultralytics.utils.torch_utils import intersect_dicts

from yolo_effnet.arguments import Start
from yolo_effnet.nn.backbone import BackboneRow, backbone_rows, image_convolution

# Words and not an Enum, since checkpoints hold them.
RANDOM, IMAGENET, TRAINED, DONOR = "random", "imagenet", "trained", "donor"


class Origin(NamedTuple):
    """Where most tensors of each part of a model come from.

    Attributes:
        backbone (str): `random`, `imagenet`, or `trained` for those of a checkpoint.
        rest (str): Of neck and head: `random`, `trained`, or `donor` for those of a graft that has not learnt yet.
    """

    backbone: str = RANDOM
    rest: str = RANDOM

    @property
    def start(self) -> Start:
        """From what a training of the model starts."""
        return _STARTS[self]


_STARTS = {
    **{Origin(RANDOM, rest): Start.RANDOM for rest in (RANDOM, TRAINED, DONOR)},
    Origin(IMAGENET, RANDOM): Start.IMAGENET,
    Origin(IMAGENET, TRAINED): Start.IMAGENET,
    Origin(IMAGENET, DONOR): Start.GRAFTED,
    Origin(TRAINED, RANDOM): Start.BACKBONE,
    Origin(TRAINED, DONOR): Start.GRAFTED,
    Origin(TRAINED, TRAINED): Start.TRAINED,
}


def random_tensors(rows: list[BackboneRow]) -> tuple[int, int]:
    """Return how many of the learnt tensors of a backbone are at their random initial values, and how many it has."""
    totals = [len(row.transferable()) for row in rows]
    return sum(n if row.random is None else row.random for row, n in zip(rows, totals, strict=True)), sum(totals)


def origin(model: nn.Module) -> Origin:
    """Return where the weights of a model with a backbone of ours come from."""
    rows = backbone_rows(model)
    random, total = random_tensors(rows)
    noted = Origin(*vars(rows[0]).get("origin") or _before_it_was_noted(model, rows))
    if 2 * random > total:
        return noted._replace(backbone=RANDOM)
    return noted._replace(backbone=TRAINED) if noted.backbone == RANDOM else noted  # by hand, from a state dict


def _before_it_was_noted(model: nn.Module, rows: list[BackboneRow]) -> Origin:
    """Return the origin by what a checkpoint of an earlier version says."""
    if any(vars(row).get("trained") for row in rows):
        return Origin(TRAINED, TRAINED)
    grafted = (getattr(model, "yaml", None) or {}).get("graft")
    return Origin(IMAGENET, DONOR if grafted else RANDOM)


def note(model: nn.Module, backbone: str | None = None, rest: str | None = None) -> None:
    """Note where all weights of the backbone of a model come from, or of its neck and head, or of both."""
    before = origin(model)
    rows = backbone_rows(model)
    if backbone is not None:
        for row in rows:
            row.random = len(row.transferable()) if backbone == RANDOM else 0
    rows[0].origin = tuple(Origin(backbone or before.backbone, rest or before.rest))


def _fitting_share(model: nn.Module, source: nn.Module, rows: list[BackboneRow]) -> float:
    """Return the share of the tensors of neck and head for which a source has one of that name and shape."""
    ours = {id(tensor) for row in rows for tensor in row.state_dict(keep_vars=True).values()}
    rest = {name: tensor for name, tensor in model.state_dict(keep_vars=True).items() if id(tensor) not in ours}
    return len(intersect_dicts(rest, source.state_dict())) / max(len(rest), 1)


@contextmanager
def noting_load(model: nn.Module, source: nn.Module) -> Iterator[None]:
    """Note what the `with` block loads from `source`: a part comes from there if more than half of its tensors do.

    Pixel statistics and the convolution of the image are carried to another number of channels as well.
    """
    rows, theirs = backbone_rows(model), backbone_rows(source)
    before, counts = origin(model), [row.random for row in rows]
    rest_fits = _fitting_share(model, source, rows) > 0.5  # before Ultralytics rebuilds branches of the head
    for row in rows:
        row.random = None
    yield
    known = origin(source) if theirs else Origin(TRAINED, TRAINED)
    same = len(rows) == len(theirs)
    arrived = total = 0
    for i, (row, count) in enumerate(zip(rows, counts, strict=True)):
        number = len(row.transferable())
        left = number if row.random is None else row.random
        there = random_tensors([theirs[i]])[0] if same else 0
        row.random = min(left, number if count is None else count) + min(number - left, there)
        arrived, total = arrived + number - left, total + number
    rows[0].origin = tuple(
        Origin(known.backbone if 2 * arrived > total else before.backbone, known.rest if rest_fits else before.rest)
    )
    if theirs:
        _carry_channels(rows[0], theirs[0])


def note_rows(model: nn.Module, source: nn.Module) -> None:
    """Note, for a training that may follow, what a model did not get from the one that it was loaded from.

    Ultralytics keeps rows of a classifier by the names of classes, so a tensor may be known in part. The note is in the
    model, because Ultralytics sends that to the processes of several GPUs.
    """
    theirs, found = source.state_dict(), {}
    for name, tensor in model.state_dict().items():
        other = theirs.get(name)
        if not tensor.is_floating_point() or not tensor.ndim:
            continue
        if other is None or other.shape[1:] != tensor.shape[1:]:
            found[name] = torch.ones(len(tensor), dtype=torch.bool)
        elif not torch.equal(other := other.to(tensor), tensor):
            rows = {row.cpu().numpy().tobytes() for row in other}
            found[name] = torch.tensor([row.cpu().numpy().tobytes() not in rows for row in tensor])
    vars(model)["new_rows"] = {name: rows for name, rows in found.items() if rows.any()}


def take_new_rows(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return what `note_rows` noted, tensors by name and whether each of their rows is new, and forget it."""
    return vars(model).pop("new_rows", {})


def _carry_channels(row: Any, source: Any) -> None:
    """Carry pixel statistics and the convolution of the image, of first rows, to another number of channels.

    For one channel the filters are summed, for others they are repeated at a share of their size, as timm does.
    """
    here, there = row.mean.shape[1], source.mean.shape[1]
    if here == there:
        return
    (name, conv), (other_name, other) = image_convolution(row), image_convolution(source)
    if name != other_name or conv.shape[:1] != other.shape[:1] or conv.shape[2:] != other.shape[2:]:
        return
    statistics = [tensor.flatten().tolist() for tensor in (source.mean, source.std)]
    row.set_statistics(*(s if len(s) in (1, 3) else sum(s) / len(s) for s in statistics))
    filters = other.detach().to(conv)
    if here == 1:
        filters = filters.sum(1, keepdim=True)
    else:
        filters = filters[:, [i % there for i in range(here)]] * (there / here)
    conv.data.copy_(filters)
