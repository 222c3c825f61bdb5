"""The families of EfficientNet as data: their stages before scaling. Pure Python, no torch."""

from dataclasses import dataclass
from typing import NamedTuple


class Stage(NamedTuple):
    """One row of the paper's Table 1: a chain of blocks whose first one strides.

    Attributes:
        kernel (int): Kernel size.
        stride (int): Stride of the first block.
        expand_ratio (int): Channels inside a block relative to its input.
        channels (int): Output channels.
        repeats (int): Blocks.
        se_ratio (float): Squeezed channels relative to the block's input; 0 for no squeeze-and-excite.
        fused (bool): Whether the blocks are FusedMBConv instead of MBConv.

    References:
        EfficientNet, https://arxiv.org/abs/1905.11946, Table 1.
        EfficientNetV2, https://arxiv.org/abs/2104.00298, Table 4.
    """

    kernel: int
    stride: int
    expand_ratio: int
    channels: int
    repeats: int
    se_ratio: float = 0.25
    fused: bool = False


@dataclass(frozen=True)
class Family:
    """What the variants of a family have in common.

    Attributes:
        title (str): Its name, to which that of the variant is added.
        prefix (str): That of its variants' names here.
        timm (str): That of timm's names for it, after `tf_` and without the variant.
        stem_channels (int): Output channels of the stem before scaling.
        stages (tuple[Stage, ...]): The stages before scaling.
        paper (str): Where it was published.
        lite (bool): Whether it has ReLU6 for SiLU, and a stem, first stage, last stage and head that are not scaled.
        guard (float): What rounding leaves of a channel count at least.
    """

    title: str
    prefix: str
    timm: str
    stem_channels: int
    stages: tuple[Stage, ...]
    paper: str
    lite: bool = False
    guard: float = 0.9


HEAD_CHANNELS = 1280
_PAPER = "EfficientNet, Tan and Le 2019, https://arxiv.org/abs/1905.11946"
_PAPER_V2 = "EfficientNetV2, Tan and Le 2021, https://arxiv.org/abs/2104.00298"
_B0_STAGES = (
    Stage(3, 1, 1, 16, 1),
    Stage(3, 2, 6, 24, 2),
    Stage(5, 2, 6, 40, 2),
    Stage(3, 2, 6, 80, 3),
    Stage(5, 1, 6, 112, 3),
    Stage(5, 2, 6, 192, 4),
    Stage(3, 1, 6, 320, 1),
)
_V2_B0_STAGES = (
    Stage(3, 1, 1, 16, 1, 0, fused=True),
    Stage(3, 2, 4, 32, 2, 0, fused=True),
    Stage(3, 2, 4, 48, 2, 0, fused=True),
    Stage(3, 2, 4, 96, 3),
    Stage(3, 1, 6, 112, 5),
    Stage(3, 2, 6, 192, 8),
)


def _v2_stages(channels: tuple[int, ...], repeats: tuple[int, ...]) -> tuple[Stage, ...]:
    """Return the stages of a model that is not scaled from another, kernel and expansion as in those of B0."""
    pattern = (*_V2_B0_STAGES, Stage(3, 1, 6, 0, 0))  # of a seventh stage, where there is one
    return tuple(s._replace(channels=c, repeats=r) for s, c, r in zip(pattern, channels, repeats, strict=False))


def _v2(stem_channels: int, stages: tuple[Stage, ...], guard: float = 0.9) -> Family:
    return Family("EfficientNetV2", "effv2", "efficientnetv2_", stem_channels, stages, _PAPER_V2, guard=guard)


B = Family("EfficientNet", "eff", "efficientnet_", 32, _B0_STAGES, _PAPER)
LITE = Family(
    "EfficientNet", "eff", "efficientnet_", 32, tuple(s._replace(se_ratio=0) for s in _B0_STAGES), _PAPER, lite=True
)
V2 = _v2(32, _V2_B0_STAGES, guard=0.0)
V2_S = _v2(24, _v2_stages((24, 48, 64, 128, 160, 256), (2, 4, 4, 6, 9, 15)))
V2_M = _v2(24, _v2_stages((24, 48, 80, 160, 176, 304, 512), (3, 5, 5, 7, 14, 18, 5)))
V2_L = _v2(32, _v2_stages((32, 64, 96, 192, 224, 384, 640), (4, 7, 7, 10, 19, 25, 7)))
V2_XL = _v2(32, _v2_stages((32, 64, 96, 192, 256, 512, 640), (4, 8, 8, 16, 24, 32, 8)))
