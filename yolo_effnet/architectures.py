"""The backbones as data: their scaling, taps, neck widths and default weights. Pure Python, no torch."""

import math
from dataclasses import dataclass

from yolo_effnet.families import HEAD_CHANNELS, LITE, V2, V2_L, V2_M, V2_S, V2_XL, B, Family, Stage


def round_channels(channels: int, width_coefficient: float, divisor: int = 8, guard: float = 0.9) -> int:
    """Scale a channel count and round it to the nearest multiple of `divisor`, losing 10 % at most.

    Ultralytics' `make_divisible` rounds up instead and would give other widths for B2, B4, B5 and B6.

    Args:
        channels (int): Channels of B0.
        width_coefficient (float): Width of the variant relative to B0, > 0.
        divisor (int): The result is a multiple of it.
        guard (float): Share of the scaled count that rounding must leave; 0 rounds to nearest, as EfficientNetV2 does.

    Returns:
        (int): Scaled channel count.

    References:
        EfficientNet, https://arxiv.org/abs/1905.11946, section 3.3.
    """
    scaled = channels * width_coefficient
    rounded = max(divisor, int(scaled + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < guard * scaled else rounded


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


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A backbone and the YOLOv8 neck that is scaled with it.

    Attributes:
        variant (str): The backbone in the names of models, such as `effb0`.
        train_size (int): Side in pixels of the images that the ImageNet weights were trained on.
        drop_path (float): Rate of stochastic depth at the last block. It grows with the variant, as Ultralytics' own
            recipes regularise a large model more: on B0, 0.2 costs accuracy in short training from random weights.
        neck_channels (tuple[int, int, int]): Widths of the neck at P3, P4 and P5.
        neck_repeats (int): Bottlenecks in each C2f of the neck.
        weights (str): Full timm tag of the default ImageNet weights; empty where there are none.
        parameters (int): Parameters of the detection model with 80 classes, held to the built model by a test.
        gflops (float): GFLOPs of that model at 640 px as `model.info()` counts them, held likewise.
    """

    variant: str
    train_size: int
    drop_path: float
    neck_channels: tuple[int, int, int]
    neck_repeats: int
    weights: str
    parameters: int
    gflops: float


@dataclass(frozen=True, kw_only=True)
class EfficientNet(Architecture):
    """A variant of EfficientNet, EfficientNet-Lite or EfficientNetV2, built from our blocks.

    Attributes:
        family (Family): What it is scaled from.
        width_coefficient (float): Channels relative to those of the family.
        depth_coefficient (float): Blocks relative to those of the family.
        dropout (float): Rate before the classifier.
    """

    family: Family
    width_coefficient: float
    depth_coefficient: float
    dropout: float

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

    @property
    def taps(self) -> tuple[int, int, int]:
        """Return the stages that end at P3/8, P4/16 and P5/32, which are also their rows in the model YAML."""
        stages = self.family.stages
        starts = [i for i, stage in enumerate(stages, start=1) if stage.stride == 2]  # of P2, P3, P4 and P5
        return (starts[2] - 1, starts[3] - 1, len(stages))


@dataclass(frozen=True, kw_only=True)
class TimmNet(Architecture):
    """A backbone of timm with a name of its own here, as a `TimmBackbone` row.

    Attributes:
        title (str): Its name as the field writes it.
        channels (tuple[int, int, int, int]): Channels of its feature maps at P2/4, P3/8, P4/16 and P5/32.
        paper (str): Where it was published.
    """

    title: str
    channels: tuple[int, int, int, int]
    paper: str

    @property
    def timm_name(self) -> str:
        """Return timm's name of the architecture."""
        return self.variant


def _efficientnet(family, name, width, depth, size, dropout, drop_path, neck, repeats, tag, parameters, gflops):
    return EfficientNet(
        variant=family.prefix + name,
        train_size=size,
        drop_path=drop_path,
        neck_channels=neck,
        neck_repeats=repeats,
        weights=f"tf_{family.timm}{name}.{tag}",
        parameters=parameters,
        gflops=gflops,
        family=family,
        width_coefficient=width,
        depth_coefficient=depth,
        dropout=dropout,
    )


_EFFICIENTNETS = (
    (B, "b0", 1.0, 1.0, 224, 0.2, 0.0, (64, 128, 256), 1, "ns_jft_in1k", 5_692_220, 12.8),
    (B, "b1", 1.0, 1.1, 240, 0.2, 0.05, (96, 192, 384), 1, "ns_jft_in1k", 9_960_736, 20.4),
    (B, "b2", 1.1, 1.2, 260, 0.3, 0.05, (128, 256, 512), 1, "ns_jft_in1k", 13_668_130, 28.4),
    (B, "b3", 1.2, 1.4, 300, 0.3, 0.1, (160, 320, 544), 2, "ns_jft_in1k", 21_369_832, 47.2),
    (B, "b4", 1.4, 1.8, 380, 0.4, 0.1, (192, 384, 576), 2, "ns_jft_in1k", 31_294_920, 68.0),
    (B, "b5", 1.6, 2.2, 456, 0.4, 0.15, (224, 448, 608), 2, "ns_jft_in1k", 45_612_400, 96.5),
    (B, "b6", 1.8, 2.6, 528, 0.5, 0.15, (256, 512, 640), 3, "ns_jft_in1k", 66_992_856, 143.7),
    (B, "b7", 2.0, 3.1, 600, 0.5, 0.2, (320, 640, 640), 3, "ns_jft_in1k", 100_112_848, 218.6),
    (LITE, "lite0", 1.0, 1.0, 224, 0.2, 0.0, (64, 128, 256), 1, "in1k", 5_055_680, 12.3),
    (LITE, "lite1", 1.0, 1.1, 240, 0.2, 0.05, (96, 192, 384), 1, "in1k", 7_583_232, 18.4),
    (LITE, "lite2", 1.1, 1.2, 260, 0.3, 0.05, (128, 256, 512), 1, "in1k", 10_823_520, 26.1),
    (LITE, "lite3", 1.2, 1.4, 300, 0.3, 0.1, (160, 320, 544), 2, "in1k", 17_688_512, 44.0),
    (LITE, "lite4", 1.4, 1.8, 380, 0.3, 0.1, (192, 384, 576), 2, "in1k", 25_702_272, 63.1),
    (V2, "b0", 1.0, 1.0, 192, 0.2, 0.0, (64, 128, 256), 1, "in1k", 7_609_296, 18.8),
    (V2, "b1", 1.0, 1.1, 192, 0.2, 0.05, (96, 192, 384), 1, "in1k", 10_341_012, 28.0),
    (V2, "b2", 1.1, 1.2, 208, 0.3, 0.05, (128, 256, 512), 1, "in1k", 14_670_078, 37.1),
    (V2, "b3", 1.2, 1.4, 240, 0.3, 0.1, (160, 320, 544), 2, "in21k_ft_in1k", 23_517_414, 58.3),
    (V2_S, "s", 1.0, 1.0, 300, 0.2, 0.1, (192, 384, 576), 2, "in21k_ft_in1k", 34_112_528, 91.1),
    (V2_M, "m", 1.0, 1.0, 384, 0.3, 0.15, (256, 512, 640), 3, "in21k_ft_in1k", 79_662_260, 178.7),
    (V2_L, "l", 1.0, 1.0, 384, 0.4, 0.2, (320, 640, 640), 3, "in21k_ft_in1k", 154_387_040, 343.6),
    (V2_XL, "xl", 1.0, 1.0, 384, 0.4, 0.2, (320, 640, 640), 3, "in21k_ft_in1k", 244_012_056, 450.9),
)
_SMALL, _MIDDLE, _LARGE = (48, 96, 192), (64, 128, 256), (96, 192, 384)
_GHOSTNET = "GhostNet, Han et al. 2020, https://arxiv.org/abs/1911.11907"
_MOBILENET_V1 = "MobileNets, Howard et al. 2017, https://arxiv.org/abs/1704.04861"
_MOBILENET_V2 = "MobileNetV2, Sandler et al. 2018, https://arxiv.org/abs/1801.04381"
_MOBILENET_V3 = "MobileNetV3, Howard et al. 2019, https://arxiv.org/abs/1905.02244"
_TITLES = {
    "ghostnet": "GhostNet",
    "mobilenetv1": "MobileNetV1",
    "mobilenetv2": "MobileNetV2",
    "mobilenetv3_large": "MobileNetV3-Large",
}
_TIMM_NETS = (
    ("ghostnet_050", _GHOSTNET, (12, 20, 40, 80), 224, _SMALL, "", 1_587_508, 5.0),
    ("ghostnet_100", _GHOSTNET, (24, 40, 80, 160), 224, _MIDDLE, "in1k", 2_920_644, 8.0),
    ("ghostnet_130", _GHOSTNET, (32, 52, 104, 208), 224, _LARGE, "", 5_323_836, 13.4),
    ("mobilenetv1_100", _MOBILENET_V1, (128, 256, 512, 1024), 224, _MIDDLE, "ra4_e3600_r224_in1k", 6_203_072, 16.4),
    ("mobilenetv1_100h", _MOBILENET_V1, (128, 256, 512, 1024), 224, _MIDDLE, "ra4_e3600_r224_in1k", 6_203_072, 16.4),
    ("mobilenetv1_125", _MOBILENET_V1, (160, 320, 640, 1280), 224, _LARGE, "ra4_e3600_r224_in1k", 10_484_048, 26.5),
    ("mobilenetv2_035", _MOBILENET_V2, (8, 16, 32, 112), 224, _SMALL, "", 1_600_656, 5.3),
    ("mobilenetv2_050", _MOBILENET_V2, (16, 16, 48, 160), 224, _SMALL, "lamb_in1k", 1_857_312, 6.0),
    ("mobilenetv2_075", _MOBILENET_V2, (24, 24, 72, 240), 224, _MIDDLE, "", 3_072_912, 9.2),
    ("mobilenetv2_100", _MOBILENET_V2, (24, 32, 96, 320), 224, _MIDDLE, "ra_in1k", 3_905_984, 10.8),
    ("mobilenetv2_110d", _MOBILENET_V2, (24, 32, 104, 352), 224, _MIDDLE, "ra_in1k", 4_904_864, 13.0),
    ("mobilenetv2_120d", _MOBILENET_V2, (32, 40, 112, 384), 224, _LARGE, "ra_in1k", 7_987_520, 21.2),
    ("mobilenetv2_140", _MOBILENET_V2, (32, 48, 136, 448), 224, _LARGE, "ra_in1k", 7_522_048, 19.5),
    ("mobilenetv3_large_075", _MOBILENET_V3, (24, 32, 88, 720), 224, _MIDDLE, "", 4_296_096, 9.6),
    ("mobilenetv3_large_100", _MOBILENET_V3, (24, 40, 112, 960), 224, _MIDDLE, "miil_in21k_ft_in1k", 5_806_704, 11.3),
    (
        "mobilenetv3_large_150d",
        _MOBILENET_V3,
        (40, 64, 168, 1440),
        256,
        _LARGE,
        "ra4_e3600_r256_in1k",
        17_216_488,
        28.6,
    ),
)


def _timm_net(name, paper, channels, size, neck, tag, parameters, gflops):
    model, _, width = name.rpartition("_")
    return TimmNet(
        variant=name,
        train_size=size,
        drop_path=0.0,
        neck_channels=neck,
        neck_repeats=1,
        weights=f"{name}.{tag}" if tag else "",
        parameters=parameters,
        gflops=gflops,
        title=f"{_TITLES[model]}-{width}",
        channels=channels,
        paper=paper,
    )


ARCHITECTURES: dict[str, Architecture] = {
    a.variant: a for a in [*(_efficientnet(*row) for row in _EFFICIENTNETS), *(_timm_net(*row) for row in _TIMM_NETS)]
}
