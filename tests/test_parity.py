"""Backbones against timm: with the same weights the same feature maps, borders included."""

import pytest
import timm
import torch
from backbones import assert_equal, backbone, features, fused, randomize, settle, tensors
from torch import nn
from ultralytics.nn.tasks import DetectionModel

import yolo_effnet
from yolo_effnet.nn.settings import set_padding
from yolo_effnet.nn.timm_backbone import TimmBackbone
from yolo_effnet.zoo.architectures import EfficientNet
from yolo_effnet.zoo.table import ARCHITECTURES

OURS = [variant for variant, a in ARCHITECTURES.items() if isinstance(a, EfficientNet)]
# What timm has beside the backbones that have a name here: normalisation other than BatchNorm or before convolutions,
# several branches, TensorFlow's padding, maps in NHWC, a first map that it leaves out, a wrapper.
TIMM = [
    *(variant for variant in ARCHITECTURES if variant not in OURS),
    *("resnet50", "resnetv2_50", "densenet121", "repvgg_a0", "hrnet_w18", "convnext_atto", "fastvit_t8"),
    *("tf_mobilenetv3_large_100", "tf_efficientnet_b0", "mambaout_femto", "mobilevit_xxs", "resnest14d", "dla46_c"),
    "sam2_hiera_tiny",
]


def timm_name(variant: str, padding: str) -> str:
    return ARCHITECTURES[variant].timm_name.removeprefix("" if padding == "same" else "tf_")


@pytest.mark.parametrize(
    ("variant", "padding"),  # timm has V2-B0 to V2-B3 with TensorFlow's only
    [(v, p) for p in ("same", "symmetric") for v in OURS if timm.is_model(timm_name(v, p))],
)
def test_features_equal_those_of_timm(variant, padding):
    name = timm_name(variant, padding)
    reference = settle(randomize(timm.create_model(name, features_only=True, pretrained=False)))
    for m in reference.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.eps = 1e-3
    model = DetectionModel({**yolo_effnet.model_config(f"yolov8-{variant}"), "padding": padding}, verbose=False)
    ours = backbone(model.eval())
    for source, target in zip(tensors(reference), tensors(ours), strict=True):
        assert source.shape == target.shape
        target.copy_(source)

    image = torch.rand(2, 3, 64, 96)
    stem = ours[0]
    with torch.no_grad():
        expected = reference((image - stem.mean) / stem.std)[2:]
    assert_equal(features(model, image), expected)


@pytest.mark.parametrize("name", TIMM)
def test_every_map_of_a_timm_backbone_equals_timms(name):
    """With the tensors of timm's model by its names, and after the folding of BatchNorm."""
    reference = settle(randomize(timm.create_model(name, features_only=True, pretrained=False)))
    ours = TimmBackbone(3, 1, name).eval()
    theirs = {k.removeprefix("model."): v for k, v in reference.state_dict().items()}
    names = ours.timm_names()
    for key, target in ours.state_dict().items():
        layer, _, attribute = key.rpartition(".")
        if layer:
            target.copy_(theirs[f"{names[layer]}.{attribute}".lstrip(".")])
    # In double precision, as a deep random network makes 1e-4 of the rounding of single precision.
    image = torch.rand(2, 3, 64, 96, dtype=torch.float64)
    reference.double(), ours.double()
    with torch.no_grad():
        expected = reference((image - ours.mean) / ours.std)
    wanted = [expected[m.index] for m in ours.maps]
    wanted = [x if x.shape[1] == m.channels else x.permute(0, 3, 1, 2) for x, m in zip(wanted, ours.maps, strict=True)]
    for module in (ours, fused(ours)):
        with torch.no_grad():
            got = module(image)
        assert list(got) == [m.index for m in ours.maps]
        assert [64 // x.shape[2] for x in got.values()] == [m.stride for m in ours.maps]
        assert_equal(got.values(), wanted, 1e-8)


def test_initial_weights_of_inverted_bottlenecks_are_as_in_our_blocks():
    body = TimmBackbone(3, 1, "mobilenetv2_100").body
    assert body.blocks[4][1].conv_dw.conv.weight.std().item() == pytest.approx((3 * 9) ** -0.5 / 3, rel=0.1)
    assert body.blocks[4][1].conv_pw.conv.weight.std().item() == pytest.approx((3 * 96) ** -0.5 / 3, rel=0.1)
    assert body.blocks[4][1].conv_pwl.conv.weight.std().item() == pytest.approx((3 * 576) ** -0.5, rel=0.1)
    torch.manual_seed(0)
    theirs = timm.create_model("resnet18", features_only=True, pretrained=False, out_indices=[1, 2, 3, 4])
    torch.manual_seed(0)
    assert torch.equal(TimmBackbone(3, 1, "resnet18").body.conv1.conv.weight, theirs.conv1.weight)


@pytest.mark.parametrize("name", ["ghostnet_100", "mobilenetv3_large_100", "tf_mobilenetv3_large_100", "resnet50"])
def test_every_batchnorm_of_a_timm_backbone_folds(name):
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fused(TimmBackbone(3, 1, name)).modules())


@pytest.mark.parametrize("variant", OURS)
def test_the_other_padding_differs(variant):
    """A reference that could not tell the paddings apart would prove nothing."""
    config = yolo_effnet.model_config(f"yolov8-{variant}")
    layers = DetectionModel(config, verbose=False).eval().model[:4]
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        same = layers(image)
        set_padding(layers, "symmetric")
        assert (layers(image) - same).abs().max() > 1e-3 * same.abs().max()
