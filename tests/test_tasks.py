"""Every task of Ultralytics on our models, by its own command, and EfficientNet's classifier against timm's."""

import csv

import pictures
import pytest
import timm
import torch
from backbones import assert_equal, randomize, reference, settle, tensors
from commands import yolo
from PIL import Image
from ultralytics import ASSETS, YOLO
from ultralytics.data.augment import classify_transforms

import yolo_effnet
from yolo_effnet import cli
from yolo_effnet.zoo.architectures import EfficientNet
from yolo_effnet.zoo.table import ARCHITECTURES


@pytest.mark.parametrize(
    ("task", "name", "metric"),
    [
        ("detect", "yolov8-effb0-p6", "metrics/mAP50(B)"),
        ("detect", "yolo26-effb0", "metrics/mAP50(B)"),
        ("detect", "yolov8-effv2b0", "metrics/mAP50(B)"),
        ("detect", "yolov8-ghostnet_100-dw", "metrics/mAP50(B)"),
        ("segment", "yolov8-effb0-seg", "metrics/mAP50(M)"),
        ("pose", "yolov8-effb0-pose", "metrics/mAP50(P)"),
        ("obb", "yolov8n-effb0-obb", "metrics/mAP50(B)"),
        ("classify", "yolov8-effb0-cls", "metrics/accuracy_top1"),
        ("segment", "yolo26-effb0-seg", "metrics/mAP50(M)"),
        ("pose", "yolo26-effb0-pose-p2", "metrics/mAP50(P)"),
    ],
)
def test_the_metric_of_the_task_rises(task, name, metric, tmp_path):
    data = pictures.draw(task, tmp_path, train=64, val=16)
    options = {"model": f"{name}.yaml", "data": data, "project": tmp_path / "runs", **pictures.LEARNING}
    yolo(task, "train", *(f"{k}={v}" for k, v in options.items()), folder=tmp_path)
    (file,) = tmp_path.rglob("results.csv")
    with file.open() as lines:
        values = [float({k.strip(): v for k, v in row.items()}[metric]) for row in csv.DictReader(lines)]
    assert max(values) > max(0.3, values[0] + 0.2)
    best = YOLO(file.parent / "weights" / "best.pt")
    assert best.task == task
    assert best.predict(ASSETS / "bus.jpg", imgsz=64, verbose=False, device="cpu")[0].orig_shape == (1080, 810)


@pytest.fixture(params=["tf_efficientnet_b0.ns_jft_in1k", "efficientnet_b2.ra_in1k"])
def classifier(request, tmp_path):
    """Return timm's model of a tag with random weights, and a checkpoint that `load_backbone_weights` made of them."""
    tag = request.param
    theirs = reference(tag, tmp_path / f"{tag}.safetensors")
    config = yolo_effnet.model_config(f"yolov8-effb{tag.partition('_b')[2][0]}-cls")
    config["padding"] = "same" if tag.startswith("tf_") else "symmetric"
    (tmp_path / "model.yaml").write_text(str(config))
    ours = YOLO(tmp_path / "model.yaml")
    report = yolo_effnet.load_backbone_weights(ours, tmp_path / f"{tag}.safetensors")
    assert report.tensors == len([k for k in theirs.state_dict() if not k.endswith("num_batches_tracked")])
    torch.save({"model": ours.model, "train_args": {"task": "classify", "imgsz": 224}}, tmp_path / "model.pt")
    return theirs, tmp_path / "model.pt"


def test_logits_and_top1_are_those_of_timm(classifier, tmp_path):
    theirs, file = classifier
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (theirs.default_cfg["mean"], theirs.default_cfg["std"]))
    for picture in sorted(ASSETS.glob("*.jpg")):
        pixels = classify_transforms(224)(Image.open(picture)).unsqueeze(0)
        model = YOLO(file)
        with torch.no_grad():
            expected = theirs((pixels - mean) / std)
            assert_equal([model.model.eval()(pixels)[1]], [expected])
        result = model.predict(picture, imgsz=224, verbose=False, device="cpu")[0]
        assert result.probs.top1 == int(expected.argmax())
        printed = yolo("predict", "task=classify", f"model={file}", f"source={picture}", folder=tmp_path)
        assert result.names[result.probs.top1] in printed
    assert model.names[0] == "tench"


@pytest.mark.parametrize("variant", [variant for variant, a in ARCHITECTURES.items() if isinstance(a, EfficientNet)])
def test_every_classifier_is_that_of_timm(variant):
    """The same tensors in the same order, the dropout of the paper, and with them the same logits."""
    name = ARCHITECTURES[variant].timm_name
    theirs = settle(randomize(timm.create_model(name, pretrained=False, num_classes=10)))
    model = YOLO(f"yolov8-{variant}-cls.yaml").model
    assert model.model[-1].drop.p == ARCHITECTURES[variant].dropout
    ours = type(model)({**model.yaml, "nc": 10}, verbose=False).eval()
    for source, target in zip(tensors(theirs), tensors(ours), strict=True):
        target.copy_(source)
    for m in ours.modules():
        if isinstance(m, torch.nn.BatchNorm2d):
            m.eps = 1e-3
    image = torch.rand(1, 3, 64, 96)
    stem = ours.model[0]
    with torch.no_grad():
        assert_equal([ours(image)[1]], [theirs((image - stem.mean) / stem.std)])


def test_weights_command_writes_a_classifier_that_predicts(tmp_path):
    tag = "tf_efficientnet_b1.ns_jft_in1k"
    theirs = reference(tag, tmp_path / "weights.pth")
    file = tmp_path / "b1.pt"
    assert (
        cli.main(["weights", "yolov8-effb1-cls", "-o", str(file), "--backbone-weights", str(tmp_path / "weights.pth")])
        == 0
    )
    model = YOLO(file)
    assert (model.task, model.overrides["imgsz"], model.names[999]) == ("classify", 256, "toilet paper")
    assert torch.equal(model.model.model[-1].linear.weight, theirs.classifier.weight)


def test_other_classes_keep_a_random_last_layer(tmp_path):
    tag = "tf_efficientnet_b0.ns_jft_in1k"
    theirs = reference(tag, tmp_path / "weights.pth")
    model = YOLO("yolov8-effb0-cls.yaml").model
    model = type(model)({**model.yaml, "nc": 3}, verbose=False)
    before = model.model[-1].linear.weight.clone()
    yolo_effnet.load_backbone_weights(model, tmp_path / "weights.pth")
    assert torch.equal(model.model[-1].linear.weight, before)
    assert torch.equal(model.model[-1].conv.conv.weight, theirs.conv_head.weight)
    assert model.names == {0: "0", 1: "1", 2: "2"}


def test_a_thousand_classes_of_ones_own_keep_their_names(tmp_path):
    tag = "tf_efficientnet_b0.ns_jft_in1k"
    reference(tag, tmp_path / "weights.pth")
    model = YOLO("yolov8-effb0-cls.yaml").model
    model.names = {i: f"mine {i}" for i in range(1000)}
    yolo_effnet.load_backbone_weights(model, tmp_path / "weights.pth")
    assert model.names[7] == "mine 7"
