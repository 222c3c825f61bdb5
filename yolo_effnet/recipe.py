"""How a model of ours is trained: pure functions of arguments and epoch. Stdlib only."""

import math
from dataclasses import dataclass, fields

from yolo_effnet.checks import is_number

STEPS = 4  # in which pictures grow
FULL_SIZE = 0.2  # of the epochs at the end, at full size
SMALLEST_NBS = 16  # pictures to an update of the weights, to which `min_updates` goes down
FEW_UPDATES = 1000  # of the weights: a small training
SURE = 0.3  # confidence of a graft's donor in pictures of what it knows (docs/training.md)
KEEPING = 0.25  # learning rate, relative to Ultralytics', with which a small training keeps what was known
SMALL_BATCH = 2  # pictures per device, up to which `freeze_bn=auto` fixes statistics, at no loss (docs/training.md)
_ACCEPTED = {
    "lr_ratio": (lambda v: v == "auto" or (is_number(v) and v > 0), "a number above 0, or auto"),
    "backbone_lr_ratio": (lambda v: is_number(v) and 0 <= v <= 1, "a number from 0 to 1"),
    "freeze_epochs": (
        lambda v: is_number(v) and v >= 0 and (v < 1 or v == int(v)),
        "a number of epochs, or a share of them below 1",
    ),
    "freeze_bn": (lambda v: isinstance(v, bool) or v == "auto", "True, False or auto"),
    "progressive": (lambda v: is_number(v) and 0 <= v <= 1, "a share of imgsz from 0 to 1"),
    "min_updates": (lambda v: is_number(v) and v >= 0, "a number of updates of the weights"),
}


@dataclass(frozen=True)
class Recipe:
    """How one training differs from Ultralytics' own.

    Attributes:
        lr_ratio (float | str): Learning rate relative to the one that Ultralytics chooses or is given, above 0; `auto`
            for one that keeps what a graft knows.
        backbone_lr_ratio (float): Learning rate of the backbone relative to that of neck and head, 0 to 1.
        freeze_epochs (float): Epochs at the start in which the backbone does not learn, or their share below 1.
        freeze_bn (bool | str): Whether the statistics of the backbone's BatchNorm stay as they are; `auto` for small
            batches only.
        progressive (float): Size of the first pictures relative to `imgsz`; 0 and 1 for full size throughout.
        min_updates (float): Updates of the weights that a training has at least, if 16 pictures, or a batch if that is
            more, give so many; 0 for Ultralytics' nominal batch of 64.

    References:
        Training with smaller images first: EfficientNetV2, https://arxiv.org/abs/2104.00298, section 4.
    """

    lr_ratio: float | str = 1.0
    backbone_lr_ratio: float = 1.0
    freeze_epochs: float = 0
    freeze_bn: bool | str = False
    progressive: float = 0.0
    min_updates: float = 0

    def __post_init__(self):
        """Check the values.

        Raises:
            ValueError: If one is out of its range.
        """
        for field in fields(self):
            check(field.name, getattr(self, field.name))

    @property
    def grows(self) -> bool:
        """Return whether pictures grow during the training."""
        return self.progressive not in (0, 1)

    def fixes_statistics(self, batch: int) -> bool:
        """Return whether the statistics of BatchNorm stay as they are, for batches of so many pictures per device."""
        return batch <= SMALL_BATCH if self.freeze_bn == "auto" else bool(self.freeze_bn)

    def is_frozen(self, epoch: int, epochs: int) -> bool:
        """Return whether the backbone does not learn in an epoch, counted from 0, of `epochs`."""
        share = self.freeze_epochs * epochs if self.freeze_epochs < 1 else self.freeze_epochs
        return epoch < math.ceil(share)

    def growth(self, epoch: int, epochs: int) -> float:
        """Return how far pictures have grown in an epoch, counted from 0: 0 at first, 1 at full size."""
        if not self.grows:
            return 1.0
        growing = epochs - max(1, round(FULL_SIZE * epochs))
        return 1.0 if epoch >= growing else (STEPS - 1) * epoch // growing / (STEPS - 1)

    def size(self, epoch: int, epochs: int, imgsz: int, stride: int) -> int:
        """Return the side of pictures in an epoch, in pixels, a multiple of `stride`."""
        growth = self.growth(epoch, epochs)
        if growth == 1:
            return imgsz
        share = self.progressive + (1 - self.progressive) * growth
        return min(max(round(share * imgsz / stride), 1) * stride, imgsz)

    def nominal_batch(self, nbs: int, batch: int, pictures: int, epochs: float) -> int:
        """Return the pictures to an update of the weights: `nbs`, halved until there are enough updates.

        Args:
            nbs (int): Ultralytics' nominal batch size.
            batch (int): Pictures in a batch of all devices, which is never divided.
            pictures (int): Pictures of an epoch.
            epochs (float): Epochs of the training; 0 where their number is not known yet.
        """
        least = max(SMALLEST_NBS, batch)
        while nbs > least and pictures * epochs < self.min_updates * nbs:
            nbs = max(nbs // 2, least)
        return nbs


def keeping_rate(confidence: float, updates: float) -> float:
    """Return the learning rate, relative to Ultralytics', that `lr_ratio=auto` stands for.

    Args:
        confidence (float): How sure a graft's donor is of what the pictures show, 0 to 1; 0 where nothing is known.
        updates (float): Updates of the weights in the whole training.
    """
    return KEEPING if confidence >= SURE and updates < FEW_UPDATES else 1.0


ARGUMENTS = tuple(field.name for field in fields(Recipe))


def check(name: str, value) -> None:
    """Check the value of an argument of the recipe.

    Raises:
        ValueError: If it is out of its range.
    """
    accepts, accepted = _ACCEPTED[name]
    if not accepts(value):
        raise ValueError(f"{name} must be {accepted}, got {value!r}")
