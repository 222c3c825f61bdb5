"""Grafts that leave out residual blocks of their backbone."""

import pictures
import pytest
import torch
from donors import QUICK, checkpoint, output, rebuilt
from ultralytics import YOLO
from ultralytics.utils.torch_utils import get_flops

import yolo_effnet
from yolo_effnet import cli
from yolo_effnet.nn.origin import TRAINED, note
from yolo_effnet.nn.stages import EfficientNetStage


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return pictures.draw("detect", tmp_path_factory.mktemp("images"), train=16, val=2)


def blocks(model) -> list[int]:
    return [len(row) for row in model.model if isinstance(row, EfficientNetStage)]


@pytest.mark.parametrize(
    ("donor", "backbone", "taps"),
    [
        ("yolov8n", "yolov8-efflite0", "narrow"),
        ("yolov8n-p2", "yolov8-effb0", "wide"),
        ("yolov8n-seg", "yolov8-effv2b0", "narrow"),
        ("yolo26n-p6", "yolo26-efflite0", "wide"),
    ],
)
def test_a_graft_costs_no_more_than_it_may(donor, backbone, taps, images, tmp_path, caplog):
    giver = checkpoint(donor, tmp_path)
    whole = yolo_effnet.graft(giver, backbone, images, taps=taps, **QUICK).model
    limit = 0.85 * get_flops(whole, 640)
    short = yolo_effnet.graft(
        giver, backbone, images, tmp_path / "short.pt", taps=taps, max_gflops=limit, **QUICK
    ).model
    assert 0.9 * limit < get_flops(short, 640) <= limit
    assert sum(blocks(short)) < sum(blocks(whole)) - 1
    assert "blocks stay, R2" in caplog.text
    x = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(output(rebuilt(short), x), output(YOLO(tmp_path / "short.pt").model, x))
    assert "backbone_weights" not in short.yaml  # which have blocks that it has not


def test_blocks_that_add_nothing_go_first_and_cost_nothing(images, tmp_path):
    source = YOLO(checkpoint("yolov8-efflite0", tmp_path))
    note(source.model, backbone=TRAINED)
    for row in (2, 3, 4, 5, 6):
        for block in list(source.model.model[row])[1:]:
            torch.nn.init.constant_(block.project.bn.weight, 0 if row in (4, 6) else 3)
            torch.nn.init.zeros_(block.project.bn.bias)
    donor = checkpoint("yolov8n", tmp_path)
    whole = yolo_effnet.graft(donor, source, images, **QUICK).model
    short = yolo_effnet.graft(donor, source, images, max_gflops=10.1, **QUICK).model
    assert blocks(whole) == [1, 2, 2, 3, 3, 4, 1]
    assert blocks(short) == [1, 2, 2, 1, 3, 1]  # the last stage does not stride
    x = torch.rand(2, 3, 64, 64)
    y = x
    for row in range(7):
        x, y = whole.model[row](x), short.model[row](y)
    torch.testing.assert_close(y, x, rtol=1e-3, atol=1e-3)


def test_a_graft_that_is_light_enough_stays_as_it_is(images, tmp_path):
    donor = checkpoint("yolov8n", tmp_path)
    options = {**QUICK, "number": 2}
    plain = yolo_effnet.graft(donor, "yolov8-efflite0", images, **options).model.state_dict()
    light = yolo_effnet.graft(donor, "yolov8-efflite0", images, max_gflops=12.3, **options).model.state_dict()
    assert plain.keys() == light.keys()
    assert all(torch.equal(tensor, light[key]) for key, tensor in plain.items())


def test_the_last_stage_may_be_enough(images, tmp_path):
    donor = checkpoint("yolov8n", tmp_path)
    light = yolo_effnet.graft(donor, "yolov8-efflite0", images, max_gflops=11.8, **QUICK).model
    assert blocks(light) == [1, 2, 2, 3, 3, 4]


@pytest.mark.parametrize(
    ("backbone", "limit", "message"),
    [
        ("yolov8-efflite0", 8, r"with yolov8-efflite0 has 12\.2\d GFLOPs, and 8\.\d\d without any residual block"),
        ("yolov8-mobilenetv2_100", 5, "without any residual block"),
        ("yolov8-efflite0", 0, "max_gflops must be a number above 0, got 0"),
        ("yolov8-efflite0", "9", "max_gflops must be a number above 0, got '9'"),
    ],
)
def test_what_cannot_be_is_one_clear_error(backbone, limit, message, images, tmp_path):
    with pytest.raises(ValueError, match=message):
        yolo_effnet.graft(checkpoint("yolov8n", tmp_path), backbone, images, max_gflops=limit, **QUICK)


def test_the_command_and_a_training(images, tmp_path):
    line = ["graft", checkpoint("yolov8n", tmp_path), "yolov8-efflite0", "--images", str(images), "--number", "4"]
    line += ["--imgsz", "64", "--max-gflops", "9", "--match", "2", "-o", str(tmp_path / "short.pt"), "--allow-random"]
    assert cli.main(line) == 0
    model = YOLO(tmp_path / "short.pt")
    before = blocks(model.model)
    model.train(data=images, project=tmp_path, **{**pictures.LEARNING, "epochs": 1})
    assert blocks(YOLO(model.trainer.last).model) == before
