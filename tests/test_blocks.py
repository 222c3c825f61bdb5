"""Blocks on their own: shapes, fusing, padding, statistics, layouts, errors."""

import copy
import math

import pytest
import torch
from backbones import backbone, features, randomize, settle
from torch import nn
from ultralytics.nn.tasks import DetectionModel

import yolo_effnet
from yolo_effnet.nn.blocks import FusedMBConv, MBConv, SqueezeExcite
from yolo_effnet.nn.layers import StridedConv
from yolo_effnet.nn.settings import set_drop_path, set_padding
from yolo_effnet.nn.stages import EfficientNetStage, EfficientNetStem, FusedStage


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(64, 64), (65, 64), (47, 33)])
@pytest.mark.parametrize("padding", ["same", "symmetric"])
def test_stem_and_stage_round_sizes_up(channels, size, padding):
    model = nn.Sequential(EfficientNetStem(channels, 16), EfficientNetStage(16, 24, 2, 5, 2)).eval()
    set_padding(model, padding)
    out = model(torch.rand(1, channels, *size))
    assert out.shape == (1, 24, *(math.ceil(math.ceil(s / 2) / 2) for s in size))


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("size", [(32, 32), (32, 31), (31, 32), (31, 31)])
def test_same_padding_is_that_of_tensorflow(kernel, size):
    conv = StridedConv(4, 4, kernel, g=4).eval()
    x = torch.rand(2, 4, *size)
    total = [(math.ceil(s / 2) - 1) * 2 + kernel - s for s in size]  # TensorFlow's rule
    (top, left), (bottom, right) = [t // 2 for t in total], [t - t // 2 for t in total]
    padded = nn.functional.pad(x, (left, right, top, bottom))
    expected = nn.functional.conv2d(padded, conv.conv.weight, stride=2, groups=4)
    torch.testing.assert_close(conv.convolve(x), expected)


@pytest.mark.parametrize("padding", ["same", "symmetric"])
@pytest.mark.parametrize("size", [(64, 64), (47, 33)])
@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")  # but Ultralytics' exports still trace
def test_tracing_gives_the_same_numbers(padding, size):
    model = randomize(nn.Sequential(EfficientNetStem(3, 8), MBConv(8, 16, 5, 2))).eval()
    set_padding(model, padding)
    x = torch.rand(1, 3, *size)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.trace(model, x)(x), model(x))


def test_stem_normalises_pixels():
    stem = EfficientNetStem(3, 8)
    plain = EfficientNetStem(3, 8, mean=0, std=1)
    plain.conv.weight = stem.conv.weight
    x = torch.rand(2, 3, 32, 32)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalised = (x - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    torch.testing.assert_close(stem(x), plain(normalised))
    assert {"mean", "std"} <= set(stem.state_dict())


def test_stem_spreads_statistics_over_other_channel_counts():
    assert EfficientNetStem(1, 8).mean.flatten().tolist() == pytest.approx([0.449])
    assert EfficientNetStem(4, 8).std.flatten().tolist() == pytest.approx([0.226] * 4)
    assert EfficientNetStem(2, 8, mean=0.5, std=0.5).mean.flatten().tolist() == [0.5, 0.5]


def test_a_fused_block_is_one_or_two_convolutions():
    """Of EfficientNetV2's paper, Figure 2; its code gives a block without expansion one convolution."""
    two, one, gated = FusedMBConv(16, 24, s=2), FusedMBConv(16, 16, expand_ratio=1), FusedMBConv(16, 16, se_ratio=0.5)
    assert (two.expand.conv.kernel_size, two.expand.conv.out_channels, two.project.conv.kernel_size) == (
        (3, 3),
        64,
        (1, 1),
    )
    assert isinstance(one.expand, nn.Identity)
    assert one.project.conv.kernel_size == (3, 3)
    assert isinstance(one.project.act, nn.SiLU)
    assert isinstance(two.project.act, nn.Identity)
    assert gated.se.reduce.out_channels == 8  # of the 16 block-input channels
    assert [block.expand.conv.stride for block in FusedStage(8, 16, 2, 3, 2)] == [(2, 2), (1, 1)]
    x = torch.rand(1, 16, 17, 32)
    assert (two(x).shape, one(x).shape, gated(x).shape) == ((1, 24, 9, 16), x.shape, x.shape)


def test_first_stage_has_no_expansion():
    block = MBConv(16, 16, expand_ratio=1)
    assert isinstance(block.expand, nn.Identity)
    assert block.se.reduce.out_channels == 4  # of the 16 block-input channels


def test_squeeze_is_relative_to_the_block_input():
    assert MBConv(24, 40, expand_ratio=6).se.reduce.out_channels == 6
    assert isinstance(MBConv(24, 40, se_ratio=0).se, nn.Identity)


def test_initial_weights_are_as_large_as_those_of_dense_3x3_convolutions():
    block = MBConv(48, 48)
    for layer, fan_in in ((block.expand, 9 * 48), (block.depthwise, 9 * 9), (block.project, 288)):
        assert layer.conv.weight.std().item() == pytest.approx((3 * fan_in) ** -0.5, rel=0.1)


@pytest.mark.parametrize(("name", "count"), [("yolov8-effb1", 23), ("yolov8-effv2b1", 27)])
def test_drop_path_grows_over_the_real_number_of_blocks(name, count):
    model = DetectionModel({**yolo_effnet.model_config(name), "drop_path": 0.2}, verbose=False)
    blocks = [m for m in model.modules() if isinstance(m, (MBConv, FusedMBConv))]
    assert len(blocks) == count
    for i, block in enumerate(blocks):
        assert block.drop_path is None or block.drop_path.p == pytest.approx(0.2 * i / count)


@pytest.mark.parametrize("kind", [MBConv, FusedMBConv])
def test_drop_path_drops_whole_images_in_training_only(kind):
    block = randomize(kind(8, 8, drop_path=0.5))
    x = torch.rand(64, 8, 4, 4)
    with torch.no_grad():
        kept = (block(x) - x).flatten(1).any(1)
        assert 10 < kept.sum() < 54
        assert (block.eval()(x) - x).flatten(1).any(1).all()
    set_drop_path(block, 0.0)
    assert (block.train()(x) - x).flatten(1).any(1).all()


@pytest.mark.parametrize("name", [*yolo_effnet.model_names(), "yolov8-effb0-dw", "yolov8-ghostnet_100-p2-dw"])
def test_fuse_folds_every_batchnorm(name):
    model = settle(randomize(DetectionModel(yolo_effnet.model_config(name), verbose=False)))
    x = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        before = [*features(model, x), model(x)[0]]
        model.fuse(verbose=False)
        after = [*features(model, x), model(x)[0]]
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    for a, b in zip(before, after, strict=True):
        assert ((a - b).abs().max() / a.abs().max()).item() < 1e-4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_close(dtype):
    model = randomize(nn.Sequential(EfficientNetStem(3, 16), EfficientNetStage(16, 24, 2, 3, 2))).eval()
    x = torch.rand(1, 3, 47, 64)
    with torch.no_grad():
        expected, got = model(x), copy.deepcopy(model).to(dtype)(x.to(dtype))
    assert got.dtype == dtype
    torch.testing.assert_close(got.float(), expected, atol=0.05 * expected.abs().max().item(), rtol=0)


def test_training_step_with_one_image_and_odd_size():
    model = nn.Sequential(EfficientNetStem(3, 8), EfficientNetStage(8, 16, 2, 5, 2))
    model(torch.rand(1, 3, 47, 33)).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_cpu_activations_are_channels_last():
    model = nn.Sequential(EfficientNetStem(3, 8), EfficientNetStage(8, 16, 1, 3, 2))
    assert model(torch.rand(2, 3, 32, 32)).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", ["yolov8-effb0", "yolov8-effv2b0", "yolov8-ghostnet_100"])
def test_batchnorm_has_ultralytics_eps_and_a_momentum_of_its_own(name):
    model = DetectionModel(yolo_effnet.model_config(name), verbose=False)
    rows = len(backbone(model))
    for layers, momentum in ((model.model[:rows], 0.1), (model.model[rows:], 0.03)):
        norms = [m for m in layers.modules() if isinstance(m, nn.BatchNorm2d)]
        assert {(m.eps, m.momentum) for m in norms} == {(1e-3, momentum)}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MBConv(8, 8, s=3), r"MBConv: s must be 1 or 2, got 3"),
        (lambda: MBConv(8, 8, k=4), r"MBConv: k must be an odd integer >= 1, got 4"),
        (lambda: MBConv(8, 8, drop_path=1), r"drop_path must be a number from 0 to below 1, got 1"),
        (lambda: MBConv(8, "8"), r"c2 must be an integer >= 1, got '8'"),
        (lambda: FusedMBConv(8, 8, 4), r"FusedMBConv: k must be an odd integer >= 1, got 4"),
        (lambda: FusedStage(8, 8, 0), r"FusedStage: n must be an integer >= 1, got 0"),
        (lambda: EfficientNetStage(8, 8, 0), r"EfficientNetStage: n must be an integer >= 1, got 0"),
        (lambda: EfficientNetStage(8, 8, expand_ratio=0.5), r"expand_ratio must be a number >= 1, got 0.5"),
        (lambda: EfficientNetStage(8, 8, se_ratio=2), r"se_ratio must be a number from 0 .* to 1, got 2"),
        (lambda: EfficientNetStem(3, 8, s=1), r"EfficientNetStem: s must be 2, got 1"),
        (lambda: EfficientNetStem(3, 8, std=0), r"std must be .* above 0, got 0"),
        (lambda: EfficientNetStem(3, 8, mean="rgb"), r"mean must be a number or one number per channel, got 'rgb'"),
        (lambda: SqueezeExcite(8, 16), r"c2 must equal the input channels 8.*c2=16"),
        (lambda: SqueezeExcite(8, 8, 0), r"se_ratio be above 0.*se_ratio=0"),
        (lambda: set_padding(nn.Identity(), "valid"), r"padding must be same or symmetric, got 'valid'"),
        (lambda: set_drop_path(nn.Identity(), -1), r"drop_path must be .*, got -1"),
    ],
)
def test_bad_values_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
