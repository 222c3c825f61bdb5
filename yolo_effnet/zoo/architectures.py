"""What a backbone is: its scaling, and the neck that goes with it. Pure Python, no torch."""

import math
from dataclasses import dataclass

from yolo_effnet.zoo.families import HEAD_CHANNELS, Family, Stage


def round_channels(channels: int, width_coefficient: float, divisor: int = 8, guard: float = 0.9) -> int:
    """Scale a channel count and round it to the nearest multiple of `divisor`, losing 10 % at most.

    Ultralytics' `make_divisible` rounds up instead and would give other widths for B2, B4, B5 and B6.

    Args:
        channels (int): Channels of B0.
        width_coefficient (float): Width of the variant relative to B0, > 0.
        divisor (int): The result is a multiple of it.
        guard (float): Share of the scaled count that rounding must leave; 0 rounds to nearest, as EfficientNetV2 does.

    References:
        EfficientNet, https://arxiv.org/abs/1905.11946, section 3.3.
    """
    scaled = channels * width_coefficient
    rounded = max(divisor, int(scaled + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < guard * scaled else rounded


def round_repeats(repeats: int, depth_coefficient: float) -> int:
    """Scale the number of blocks of a B0 stage by the depth relative to B0, > 0, and round up, as in section 3.3."""
    return math.ceil(repeats * depth_coefficient)


@dataclass(frozen=True, kw_only=True)
class _Architecture:
    """A backbone and the YOLOv8 neck that is scaled with it.

    Attributes:
        variant (str): The backbone in the names of models, such as `effb0`.
        train_size (int): Side in pixels of the images that the ImageNet weights were trained on.
        drop_path (float): Rate of stochastic depth at the last block. It grows with the variant, as Ultralytics' own
            recipes regularise a large model more: on B0, 0.2 costs accuracy in short training from random weights.
        neck_channels (tuple[int, ...]): Widths of the neck at P3, P4 and P5.
        neck_repeats (int): Bottlenecks in each C2f of the neck.
        weights (str): Full timm tag of the default ImageNet weights; empty where there are none.
        parameters (int): Parameters of the detection model with 80 classes, held to the built model by a test.
        gflops (float): GFLOPs of that model at 640 px as `model.info()` counts them, held likewise.
    """

    variant: str
    train_size: int
    drop_path: float
    neck_channels: tuple[int, ...]
    neck_repeats: int
    weights: str
    parameters: int
    gflops: float


@dataclass(frozen=True, kw_only=True)
class EfficientNet(_Architecture):
    """A variant of EfficientNet, EfficientNet-Lite or EfficientNetV2, built from our blocks.

    Attributes:
        family (Family): What it is scaled from.
        width_coefficient (float): Channels relative to those of the family.
        depth_coefficient (float): Blocks relative to those of the family.
        dropout (float): Rate before the classifier.
        package (str): Package of the index that holds the default weights as a file; empty where there is none.
    """

    family: Family
    width_coefficient: float
    depth_coefficient: float
    dropout: float
    package: str = ""

    @property
    def title(self) -> str:
        """Return its name as the field writes it, such as `EfficientNet-B0`, `EfficientNetV2-S`."""
        name = self.variant.removeprefix(self.family.prefix)
        name = name.capitalize() if self.family.lite else name.upper()
        scale = f" (width {self.width_coefficient}, depth {self.depth_coefficient})"
        return self.family.title + (f"-{name}" if name else scale)

    @property
    def paper(self) -> str:
        """Return where it was published."""
        return self.family.paper

    @property
    def timm_name(self) -> str:
        """Return timm's name of the architecture with TensorFlow's padding."""
        return f"tf_{self.family.timm}{self.variant.removeprefix(self.family.prefix)}"

    def _scale(self, channels: int) -> int:
        return round_channels(channels, self.width_coefficient, guard=self.family.guard)

    @property
    def stem_channels(self) -> int:
        """Return the output channels of the stem."""
        channels = self.family.stem_channels
        return channels if self.family.lite else self._scale(channels)

    @property
    def head_channels(self) -> int:
        """Return the channels of the convolution between the last stage and the classifier."""
        return HEAD_CHANNELS if self.family.lite else self._scale(HEAD_CHANNELS)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Return the stages with this variant's channels and repeats."""
        stages = self.family.stages
        fixed = (0, len(stages) - 1) if self.family.lite else ()
        return tuple(
            stage._replace(
                channels=self._scale(stage.channels),
                repeats=stage.repeats if i in fixed else round_repeats(stage.repeats, self.depth_coefficient),
            )
            for i, stage in enumerate(stages)
        )


@dataclass(frozen=True, kw_only=True)
class TimmNet(_Architecture):
    """A backbone of timm with a name of its own here, as a `TimmBackbone` row.

    Attributes:
        title (str): Its name as the field writes it.
        channels (tuple[int, ...]): Channels of its feature maps at P2/4, P3/8, P4/16 and P5/32.
        paper (str): Where it was published.
    """

    title: str
    channels: tuple[int, ...]
    paper: str

    @property
    def timm_name(self) -> str:
        """Return timm's name of the architecture."""
        return self.variant


Architecture = EfficientNet | TimmNet
