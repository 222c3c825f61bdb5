"""Backbones scaled by coefficients of one's own. Pure Python, no torch."""

import math
from dataclasses import replace

from yolo_effnet.checks import check_values
from yolo_effnet.zoo.architectures import EfficientNet, round_channels
from yolo_effnet.zoo.families import B
from yolo_effnet.zoo.table import ARCHITECTURES

# Bases of depth, width and resolution at compound coefficient 1: https://arxiv.org/abs/1905.11946, section 3.3.
ALPHA, BETA, GAMMA = 1.2, 1.1, 1.15
DETECTION_SIZE, CLASSIFICATION_SIZE = 640, 224  # images of B0, in pixels: Ultralytics' default and the paper's


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
    above = next((i for i, other in enumerate(sizes) if other > size), len(sizes))
    if above == 0:
        nearest, neck = family[0], [round_channels(c, math.sqrt(size), 16) for c in family[0].neck_channels]
    elif above == len(sizes):
        nearest, neck = family[-1], family[-1].neck_channels
    else:
        below = above - 1
        t = math.log(size / sizes[below]) / math.log(sizes[above] / sizes[below])
        ends = zip(family[below].neck_channels, family[above].neck_channels, strict=True)
        neck = [round_channels(1, a + t * (b - a), 32) for a, b in ends]
        nearest = family[above if t > 0.5 else below]
    return replace(
        nearest,
        variant="eff",
        width_coefficient=width_coefficient,
        depth_coefficient=depth_coefficient,
        neck_channels=tuple(neck),
        weights="",
    )


def compound(phi: float) -> tuple[float, float]:
    """Return width and depth relative to those of B0 of the paper's compound coefficient.

    Each step of one doubles the operations. B1 to B7 are such models with coefficients rounded by hand.

    Args:
        phi (float): The compound coefficient, from -4 to 10; 0 is B0.

    Raises:
        ValueError: If it is outside its range.

    References:
        EfficientNet, https://arxiv.org/abs/1905.11946, equation 3 and section 3.3.
    """
    check_values("EfficientNet", phi=phi)
    return round(BETA**phi, 3), round(ALPHA**phi, 3)


def suggested_size(phi: float, base: int = DETECTION_SIZE) -> int:
    """Return the side in pixels of images for a compound coefficient, a multiple of 32.

    Args:
        phi (float): The compound coefficient.
        base (int): Size of the images for B0.

    References:
        EfficientNet, https://arxiv.org/abs/1905.11946, equation 3 and section 3.3.
    """
    return max(32, round(base * GAMMA**phi / 32) * 32)
