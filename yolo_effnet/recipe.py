"""How a model of ours is trained: pure functions of arguments and epoch. Stdlib only."""

import math
from dataclasses import field, make_dataclass
from typing import Any

from yolo_effnet.arguments import FEW_UPDATES, RECIPE

STEPS = 4  # in which pictures grow
FULL_SIZE = 0.2  # of the epochs at the end, at full size
SMALLEST_NBS = 16  # pictures to an update of the weights, to which `min_updates` goes down
SURE = 0.3  # confidence of a graft's donor in pictures of what it knows (docs/results.md)
KEEPING = 0.25  # learning rate, relative to Ultralytics', with which a small training keeps what was known
SMALL_BATCH = 2  # pictures per device, up to which `freeze_bn=auto` fixes statistics, at no loss (docs/results.md)
_Values: Any = make_dataclass("_Values", [(a.name, object, field(default=a.default)) for a in RECIPE], frozen=True)


class Recipe(_Values):
    """How one training differs from Ultralytics' own. Its attributes are the arguments in `arguments.RECIPE`.

    References:
        Training with smaller images first: EfficientNetV2, https://arxiv.org/abs/2104.00298, section 4.
    """

    def __init__(self, **values):
        """Take values by their names, each in its range, and Ultralytics' behaviour for the others."""
        super().__init__(**values)
        for argument in RECIPE:
            argument.check(getattr(self, argument.name))

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
