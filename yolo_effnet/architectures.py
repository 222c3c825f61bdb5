"""The EfficientNet family as data: stages, scaling, taps, neck widths and default weights. Pure Python, no torch."""

import math
from dataclasses import dataclass
from typing import NamedTuple


class Stage(NamedTuple):
    """One row of the paper's Table 1: a chain of MBConv blocks whose first block strides.

    References:
        EfficientNet, https://arxiv.org/abs/1905.11946, Table 1.
    """

    kernel: int
    stride: int
    expand_ratio: int
    channels: int
    repeats: int


B0_STEM_CHANNELS = 32
B0_HEAD_CHANNELS = 1280
B0_STAGES = (
    Stage(3, 1, 1, 16, 1),
    Stage(3, 2, 6, 24, 2),
    Stage(5, 2, 6, 40, 2),
    Stage(3, 2, 6, 80, 3),
    Stage(5, 1, 6, 112, 3),
    Stage(5, 2, 6, 192, 4),
    Stage(3, 1, 6, 320, 1),
)
TAPS = (3, 5, 7)  # the stages that end at P3/8, P4/16 and P5/32, which are also their rows in the model YAML


def round_channels(channels: int, width_coefficient: float, divisor: int = 8) -> int:
    """Scale a channel count and round it to the nearest multiple of `divisor`, losing 10 % at most.

    Ultralytics' `make_divisible` rounds up instead and would give other widths for B2, B4, B5 and B6.

    Args:
        channels (int): Channels of B0.
        width_coefficient (float): Width of the variant relative to B0, > 0.
        divisor (int): The result is a multiple of it.

    Returns:
        (int): Scaled channel count.

    References:
        EfficientNet, https://arxiv.org/abs/1905.11946, section 3.3.
    """
    scaled = channels * width_coefficient
    rounded = max(divisor, int(scaled + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * scaled else rounded


def round_repeats(repeats: int, depth_coefficient: float) -> int:
    """Scale a number of blocks and round it up.

    Args:
        repeats (int): Blocks of the B0 stage.
        depth_coefficient (float): Depth of the variant relative to B0, > 0.

    Returns:
        (int): Scaled number of blocks.

    References:
        EfficientNet, https://arxiv.org/abs/1905.11946, section 3.3.
    """
    return math.ceil(repeats * depth_coefficient)


@dataclass(frozen=True)
class Architecture:
    """One EfficientNet variant and the YOLOv8 neck that is scaled with it.

    Attributes:
        variant (str): Name in the file-name grammar, `b0` .. `b7`.
        width_coefficient (float): Channels relative to B0.
        depth_coefficient (float): Blocks relative to B0.
        train_size (int): Side in pixels of the images that the ImageNet weights were trained on.
        dropout (float): Rate before the classifier.
        drop_path (float): Rate of stochastic depth at the last block. It grows with the variant, as Ultralytics' own
            recipes regularise a large model more: on B0, 0.2 costs accuracy in short training from random weights.
        neck_channels (tuple[int, int, int]): Widths of the neck at P3, P4 and P5.
        neck_repeats (int): Bottlenecks in each C2f of the neck.
        weights (str): Full timm tag of the default ImageNet weights.
        parameters (int): Parameters of the detection model with 80 classes, held to the built model by a test.
        gflops (float): GFLOPs of that model at 640 px as `model.info()` counts them, held likewise.
        lite (bool): Whether it is an EfficientNet-Lite: no squeeze-and-excite, ReLU6, and stem, first stage, last stage
            and head as small as those of B0.
    """

    variant: str
    width_coefficient: float
    depth_coefficient: float
    train_size: int
    dropout: float
    drop_path: float
    neck_channels: tuple[int, int, int]
    neck_repeats: int
    weights: str
    parameters: int
    gflops: float
    lite: bool = False

    @property
    def title(self) -> str:
        """Return the name of the variant as the field writes it, such as `B0` or `Lite0`."""
        return self.variant.capitalize()

    @property
    def stem_channels(self) -> int:
        """Return the output channels of the stem."""
        return B0_STEM_CHANNELS if self.lite else round_channels(B0_STEM_CHANNELS, self.width_coefficient)

    @property
    def head_channels(self) -> int:
        """Return the channels of the convolution between the last stage and the classifier."""
        return B0_HEAD_CHANNELS if self.lite else round_channels(B0_HEAD_CHANNELS, self.width_coefficient)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Return the seven stages with this variant's channels and repeats."""
        return tuple(
            stage._replace(
                channels=round_channels(stage.channels, self.width_coefficient),
                repeats=stage.repeats
                if self.lite and stage in (B0_STAGES[0], B0_STAGES[-1])
                else round_repeats(stage.repeats, self.depth_coefficient),
            )
            for stage in B0_STAGES
        )


_TABLE = (
    ("b0", 1.0, 1.0, 224, 0.2, 0.0, (64, 128, 256), 1, "tf_efficientnet_b0.ns_jft_in1k", 5_692_220, 12.8),
    ("b1", 1.0, 1.1, 240, 0.2, 0.05, (96, 192, 384), 1, "tf_efficientnet_b1.ns_jft_in1k", 9_960_736, 20.4),
    ("b2", 1.1, 1.2, 260, 0.3, 0.05, (128, 256, 512), 1, "tf_efficientnet_b2.ns_jft_in1k", 13_668_130, 28.4),
    ("b3", 1.2, 1.4, 300, 0.3, 0.1, (160, 320, 544), 2, "tf_efficientnet_b3.ns_jft_in1k", 21_369_832, 47.2),
    ("b4", 1.4, 1.8, 380, 0.4, 0.1, (192, 384, 576), 2, "tf_efficientnet_b4.ns_jft_in1k", 31_294_920, 68.0),
    ("b5", 1.6, 2.2, 456, 0.4, 0.15, (224, 448, 608), 2, "tf_efficientnet_b5.ns_jft_in1k", 45_612_400, 96.5),
    ("b6", 1.8, 2.6, 528, 0.5, 0.15, (256, 512, 640), 3, "tf_efficientnet_b6.ns_jft_in1k", 66_992_856, 143.7),
    ("b7", 2.0, 3.1, 600, 0.5, 0.2, (320, 640, 640), 3, "tf_efficientnet_b7.ns_jft_in1k", 100_112_848, 218.6),
    ("lite0", 1.0, 1.0, 224, 0.2, 0.0, (64, 128, 256), 1, "tf_efficientnet_lite0.in1k", 5_055_680, 12.3, True),
    ("lite1", 1.0, 1.1, 240, 0.2, 0.05, (96, 192, 384), 1, "tf_efficientnet_lite1.in1k", 7_583_232, 18.4, True),
    ("lite2", 1.1, 1.2, 260, 0.3, 0.05, (128, 256, 512), 1, "tf_efficientnet_lite2.in1k", 10_823_520, 26.1, True),
    ("lite3", 1.2, 1.4, 300, 0.3, 0.1, (160, 320, 544), 2, "tf_efficientnet_lite3.in1k", 17_688_512, 44.0, True),
    ("lite4", 1.4, 1.8, 380, 0.3, 0.1, (192, 384, 576), 2, "tf_efficientnet_lite4.in1k", 25_702_272, 63.1, True),
)
ARCHITECTURES = {row[0]: Architecture(*row) for row in _TABLE}
