"""The table against the paper, timm and the published counts."""

import pytest
import timm
import torch
from torch import nn

from yolo_effnet.nn.timm_models import feature_maps
from yolo_effnet.zoo.architectures import EfficientNet, TimmNet, round_channels, round_repeats
from yolo_effnet.zoo.rows import Rows, add_stages
from yolo_effnet.zoo.table import ARCHITECTURES, scale

# Blocks, channels of the taps, neck widths and C2f repeats: the published family and the agreed necks.
GOLDEN = {
    "b0": (16, (40, 112, 320), 224, (64, 128, 256), 1),
    "b1": (23, (40, 112, 320), 240, (96, 192, 384), 1),
    "b2": (23, (48, 120, 352), 260, (128, 256, 512), 1),
    "b3": (26, (48, 136, 384), 300, (160, 320, 544), 2),
    "b4": (32, (56, 160, 448), 380, (192, 384, 576), 2),
    "b5": (39, (64, 176, 512), 456, (224, 448, 608), 2),
    "b6": (45, (72, 200, 576), 528, (256, 512, 640), 3),
    "b7": (55, (80, 224, 640), 600, (320, 640, 640), 3),
    "lite0": (16, (40, 112, 320), 224, (64, 128, 256), 1),
    "lite1": (21, (40, 112, 320), 240, (96, 192, 384), 1),
    "lite2": (21, (48, 120, 352), 260, (128, 256, 512), 1),
    "lite3": (24, (48, 136, 384), 300, (160, 320, 544), 2),
    "lite4": (30, (56, 160, 448), 380, (192, 384, 576), 2),
    "v2b0": (21, (48, 112, 192), 192, (64, 128, 256), 1),
    "v2b1": (27, (48, 112, 192), 192, (96, 192, 384), 1),
    "v2b2": (28, (56, 120, 208), 208, (128, 256, 512), 1),
    "v2b3": (32, (56, 136, 232), 240, (160, 320, 544), 2),
    "v2s": (40, (64, 160, 256), 300, (192, 384, 576), 2),
    "v2m": (57, (80, 176, 512), 384, (256, 512, 640), 3),
    "v2l": (79, (96, 224, 640), 384, (320, 640, 640), 3),
    "v2xl": (100, (96, 256, 640), 384, (320, 640, 640), 3),
}


TIMM_NETS = [variant for variant, a in ARCHITECTURES.items() if isinstance(a, TimmNet)]


def test_the_table_holds_the_families():
    assert [k for k, a in ARCHITECTURES.items() if isinstance(a, EfficientNet)] == [f"eff{name}" for name in GOLDEN]
    assert TIMM_NETS


@pytest.mark.parametrize("variant", GOLDEN)
def test_blocks_taps_and_necks_are_the_published_ones(variant):
    architecture = ARCHITECTURES[f"eff{variant}"]
    blocks, taps, train_size, neck, repeats = GOLDEN[variant]
    assert sum(stage.repeats for stage in architecture.stages) == blocks
    ends = add_stages(Rows(), architecture)
    assert tuple(architecture.stages[ends[level] - 1].channels for level in (3, 4, 5)) == taps
    assert architecture.train_size == train_size
    assert (architecture.neck_channels, architecture.neck_repeats) == (neck, repeats)


@pytest.mark.parametrize("variant", GOLDEN)
def test_stages_equal_those_of_timm(variant):
    architecture = ARCHITECTURES[f"eff{variant}"]
    with torch.device("meta"):
        reference = timm.create_model(architecture.timm_name, pretrained=False)
    assert architecture.stem_channels == reference.conv_stem.out_channels
    assert architecture.head_channels == reference.conv_head.out_channels
    for stage, blocks in zip(architecture.stages, reference.blocks, strict=True):
        first, last = (blocks[0], blocks[-1])
        convs = [m for m in first.modules() if isinstance(m, nn.Conv2d)]
        (spatial,) = (conv for conv in convs if conv.kernel_size != (1, 1))
        gates = [m for m in first.modules() if hasattr(m, "conv_reduce")]
        assert stage.repeats == len(blocks)
        assert stage.channels == next(m for m in [*last.modules()][::-1] if isinstance(m, nn.Conv2d)).out_channels
        assert (stage.kernel, stage.stride) == (spatial.kernel_size[0], spatial.stride[0])
        assert stage.fused == (spatial.groups == 1)
        squeezed = round(stage.se_ratio * convs[0].in_channels)
        assert [gate.conv_reduce.out_channels for gate in gates] == ([squeezed] if squeezed else [])
    acts = {type(m) for m in reference.modules()} & {nn.SiLU, nn.ReLU, nn.ReLU6, nn.GELU, nn.Hardswish}
    assert acts == {nn.ReLU6 if architecture.family.lite else nn.SiLU}
    assert timm.get_pretrained_cfg(architecture.weights).input_size[-1] == architecture.train_size


@pytest.mark.parametrize(
    ("channels", "width", "expected"), [(32, 1.0, 32), (32, 1.1, 32), (112, 1.1, 120), (320, 1.4, 448), (24, 0.4, 16)]
)
def test_round_channels_goes_to_nearest_and_loses_a_tenth_at_most(channels, width, expected):
    assert round_channels(channels, width) == expected


def test_round_repeats_goes_up():
    assert [round_repeats(n, 1.1) for n in (1, 2, 3, 4)] == [2, 3, 4, 5]


@pytest.mark.parametrize("variant", TIMM_NETS)
def test_channels_of_timms_backbones_are_its_own(variant):
    architecture = ARCHITECTURES[variant]
    assert tuple(m.channels for m in feature_maps(variant)) == architecture.channels
    assert [(m.stride, m.index) for m in feature_maps(variant)] == [(4, 1), (8, 2), (16, 3), (32, 4)]
    if architecture.weights:
        assert timm.get_pretrained_cfg(architecture.weights).input_size[-1] == architecture.train_size
    else:
        assert not timm.list_models(f"{variant}.*", pretrained=True)


@pytest.mark.parametrize("name", [f"effb{i}" for i in range(8)])
def test_a_scale_of_the_paper_is_its_model(name):
    known = ARCHITECTURES[name]
    assert scale(known.width_coefficient, known.depth_coefficient) is known


def test_other_scales_lie_between():
    own = scale(1.3, 1.6)  # between B3 and B4
    assert own.stem_channels == 40
    assert [stage.channels for stage in own.stages] == [24, 32, 56, 104, 144, 248, 416]
    assert [stage.repeats for stage in own.stages] == [2, 4, 4, 5, 5, 7, 2]
    assert own.neck_channels == (192, 352, 576)
    assert (own.weights, own.train_size) == ("", ARCHITECTURES["effb4"].train_size)
    small, large = scale(0.5, 0.5), scale(4.0, 5.0)
    assert small.neck_channels < ARCHITECTURES["effb0"].neck_channels
    assert large.neck_channels == ARCHITECTURES["effb7"].neck_channels


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: scale(0.1, 1), r"width must be a number from 0.25 to 5, got 0.1"),
        (lambda: scale(1, 9), r"depth must be a number from 0.25 to 8, got 9"),
        (lambda: scale(float("nan"), 1), r"width must be .*, got nan"),
    ],
)
def test_impossible_scales_name_the_range(build, message):
    with pytest.raises(ValueError, match=message):
        build()
