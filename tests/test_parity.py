"""The backbone against timm: with the same weights, the same P3, P4 and P5, borders included."""

import pytest
import timm
import torch
from backbones import assert_equal, features, randomize, tensors
from torch import nn
from ultralytics.nn.tasks import DetectionModel

import yolo_effnet
from yolo_effnet.architectures import ARCHITECTURES
from yolo_effnet.blocks import set_padding


@pytest.mark.parametrize("variant", ARCHITECTURES)
@pytest.mark.parametrize(("prefix", "padding"), [("tf_", "same"), ("", "symmetric")])
def test_features_equal_those_of_timm(variant, prefix, padding):
    reference = timm.create_model(f"{prefix}efficientnet_{variant}", features_only=True, pretrained=False).eval()
    randomize(reference)
    for m in reference.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.eps = 1e-3
    model = DetectionModel({**yolo_effnet.model_config(f"yolov8-eff{variant}"), "padding": padding}, verbose=False)
    ours = model.eval().model[:8]
    for source, target in zip(tensors(reference), tensors(ours), strict=True):
        assert source.shape == target.shape
        target.copy_(source)

    image = torch.rand(2, 3, 64, 96)
    stem = ours[0]
    with torch.no_grad():
        expected = reference((image - stem.mean) / stem.std)[2:]
    assert_equal(features(model, image), expected)


@pytest.mark.parametrize("variant", ARCHITECTURES)
def test_the_other_padding_differs(variant):
    """A reference that could not tell the paddings apart would prove nothing."""
    config = yolo_effnet.model_config(f"yolov8-eff{variant}")
    layers = DetectionModel(config, verbose=False).eval().model[:4]
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        same = layers(image)
        set_padding(layers, "symmetric")
        assert (layers(image) - same).abs().max() > 1e-3 * same.abs().max()
