"""How a backbone is trained beside neck and head: pure functions of arguments and epoch. Stdlib only."""

import math
from dataclasses import dataclass, fields, replace

from yolo_effnet.checks import is_number

STEPS = 4  # in which pictures grow
FULL_SIZE = 0.2  # of the epochs at the end, at full size
SMALL_BATCH = 2  # pictures per device, up to which `freeze_bn=auto` fixes statistics, at no loss (docs/training.md)
_ACCEPTED = {
    "backbone_lr_ratio": (lambda v: is_number(v) and 0 <= v <= 1, "a number from 0 to 1"),
    "freeze_epochs": (
        lambda v: is_number(v) and v >= 0 and (v < 1 or v == int(v)),
        "a number of epochs, or a share of them below 1",
    ),
    "freeze_bn": (lambda v: isinstance(v, bool) or v == "auto", "True, False or auto"),
    "progressive": (lambda v: is_number(v) and 0 <= v <= 1, "a share of imgsz from 0 to 1"),
}


@dataclass(frozen=True)
class Recipe:
    """How the backbone of one training is treated.

    Attributes:
        backbone_lr_ratio (float): Learning rate of the backbone relative to that of neck and head, 0 to 1.
        freeze_epochs (float): Epochs at the start in which the backbone does not learn, or their share below 1.
        freeze_bn (bool | str): Whether the statistics of the backbone's BatchNorm stay as they are; `auto` for small
            batches only.
        progressive (float): Size of the first pictures relative to `imgsz`; 0 and 1 for full size throughout.

    References:
        Training with smaller images first: EfficientNetV2, https://arxiv.org/abs/2104.00298, section 4.
    """

    backbone_lr_ratio: float = 1.0
    freeze_epochs: float = 0
    freeze_bn: bool | str = False
    progressive: float = 0.0

    def __post_init__(self):
        """Check the values.

        Raises:
            ValueError: If one is out of its range.
        """
        for field in fields(self):
            check(field.name, getattr(self, field.name))

    def decided(self, batch: int) -> "Recipe":
        """Return the recipe for batches of so many pictures per device; below 1 where Ultralytics finds it later."""
        return replace(self, freeze_bn=1 <= batch <= SMALL_BATCH) if self.freeze_bn == "auto" else self

    def is_frozen(self, epoch: int, epochs: int) -> bool:
        """Return whether the backbone does not learn in an epoch, counted from 0, of `epochs`."""
        share = self.freeze_epochs * epochs if self.freeze_epochs < 1 else self.freeze_epochs
        return epoch < math.ceil(share)

    def growth(self, epoch: int, epochs: int) -> float:
        """Return how far pictures have grown in an epoch, counted from 0: 0 at first, 1 at full size."""
        if self.progressive in (0, 1):
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


ARGUMENTS = tuple(field.name for field in fields(Recipe))


def check(name: str, value) -> None:
    """Check the value of an argument of the recipe.

    Raises:
        ValueError: If it is out of its range.
    """
    accepts, accepted = _ACCEPTED[name]
    if not accepts(value):
        raise ValueError(f"{name} must be {accepted}, got {value!r}")
