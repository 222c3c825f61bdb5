"""The table against the paper, timm and the published counts."""

import pytest
import timm

from yolo_effnet.architectures import ARCHITECTURES, TAPS, round_channels, round_repeats

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
}


def test_the_table_holds_the_families():
    assert list(ARCHITECTURES) == list(GOLDEN)


@pytest.mark.parametrize("variant", GOLDEN)
def test_blocks_taps_and_necks_are_the_published_ones(variant):
    architecture = ARCHITECTURES[variant]
    blocks, taps, train_size, neck, repeats = GOLDEN[variant]
    assert sum(stage.repeats for stage in architecture.stages) == blocks
    assert tuple(architecture.stages[tap - 1].channels for tap in TAPS) == taps
    assert architecture.train_size == train_size
    assert (architecture.neck_channels, architecture.neck_repeats) == (neck, repeats)


@pytest.mark.parametrize("variant", GOLDEN)
def test_stages_equal_those_of_timm(variant):
    architecture = ARCHITECTURES[variant]
    reference = timm.create_model(f"tf_efficientnet_{variant}", features_only=False, pretrained=False)
    assert architecture.stem_channels == reference.conv_stem.out_channels
    assert architecture.head_channels == reference.conv_head.out_channels
    assert architecture.lite == (not any("se.conv_reduce" in name for name in reference.state_dict()))
    for stage, blocks in zip(architecture.stages, reference.blocks, strict=True):
        depthwise = blocks[0].conv_dw
        project = blocks[0].conv_pwl if stage.expand_ratio > 1 else blocks[0].conv_pw
        assert stage.repeats == len(blocks)
        assert stage.channels == project.out_channels
        assert stage.kernel == depthwise.kernel_size[0]
        assert stage.stride == depthwise.stride[0]
    assert timm.get_pretrained_cfg(architecture.weights).input_size[-1] == architecture.train_size


@pytest.mark.parametrize(
    ("channels", "width", "expected"), [(32, 1.0, 32), (32, 1.1, 32), (112, 1.1, 120), (320, 1.4, 448), (24, 0.4, 16)]
)
def test_round_channels_goes_to_nearest_and_loses_a_tenth_at_most(channels, width, expected):
    assert round_channels(channels, width) == expected


def test_round_repeats_goes_up():
    assert [round_repeats(n, 1.1) for n in (1, 2, 3, 4)] == [2, 3, 4, 5]
