"""Backbones scaled by coefficients of one's own. Pure Python, no torch."""

import bisect
import math
from dataclasses import replace
from typing import Any

from yolo_effnet.checks import check_values
from yolo_effnet.zoo.architectures import EfficientNet, round_channels
from yolo_effnet.zoo.families import B
from yolo_effnet.zoo.table import ARCHITECTURES


def scale(width_coefficient: float, depth_coefficient: float) -> EfficientNet:
    """Return EfficientNet-B0 scaled by coefficients of one's own.

    Its neck grows with the operations of the backbone, width squared times depth, as those of B0 to B7 do: with B2's
    coefficients it is B2. A smaller one than B0 has a neck narrower than B0's by the square root of that product.

    Args:
        width_coefficient (float): Channels relative to B0, from 0.25 to 5.
        depth_coefficient (float): Blocks relative to B0, from 0.25 to 8.

    Raises:
        ValueError: If a coefficient is outside its range.
    """
    check_values("EfficientNet", width=width_coefficient, depth=depth_coefficient)
    family = [a for a in ARCHITECTURES.values() if isinstance(a, EfficientNet) and a.family is B]
    for known in family:
        if (known.width_coefficient, known.depth_coefficient) == (width_coefficient, depth_coefficient):
            return known
    size = width_coefficient**2 * depth_coefficient
    sizes = [a.width_coefficient**2 * a.depth_coefficient for a in family]
    above = bisect.bisect_right(sizes, size)
    if above == 0:
        nearest, neck = family[0], [round_channels(c, math.sqrt(size), 16) for c in family[0].neck_channels]
    elif above == len(sizes):
        nearest, neck = family[-1], list(family[-1].neck_channels)
    else:
        below = above - 1
        t = math.log(size / sizes[below]) / math.log(sizes[above] / sizes[below])
        ends = zip(family[below].neck_channels, family[above].neck_channels, strict=True)
        neck = [round_channels(1, a + t * (b - a), 32) for a, b in ends]
        nearest = family[above if t > 0.5 else below]
    own: dict[str, Any] = {"width_coefficient": width_coefficient, "depth_coefficient": depth_coefficient}
    return replace(nearest, variant="eff", neck_channels=tuple(neck), weights="", **own)
