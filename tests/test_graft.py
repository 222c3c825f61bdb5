"""Other backbones under trained necks and heads."""

import copy
import subprocess
import sys

import numpy as np
import pictures
import pytest
import torch
from ultralytics import YOLO
from ultralytics.nn.modules import Conv
from ultralytics.nn.tasks import DetectionModel

import yolo_effnet
from yolo_effnet import cli
from yolo_effnet.grafting.pictures import find


def checkpoint(name: str, folder) -> str:
    """Return a checkpoint of a model with lively random weights."""
    torch.manual_seed(1)
    model = YOLO(f"{name}.yaml").model
    model.names = {i: f"kind {i}" for i in range(model.yaml["nc"])}
    for m in model.modules():
        if isinstance(m, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(m.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(m.running_var, 0.5, 1.5)
            torch.nn.init.uniform_(m.weight, 0.8, 1.2)
    file = folder / f"{name}.pt"
    torch.save({"model": model.eval(), "train_args": {}}, file)
    return str(file)


def output(model, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        y = model.eval()(x)
    while isinstance(y, (list, tuple)):
        y = y[0]
    return y


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A data set of which 16 pictures are to train on."""
    return pictures.draw("detect", tmp_path_factory.mktemp("images"), train=16, val=2)


QUICK = {"number": 16, "imgsz": 64, "allow_random": True}


@pytest.mark.parametrize("name", ["yolov8-effb0", "yolov8-efflite0-seg", "yolo26-effb0", "yolov8-effb0-p6"])
def test_the_donors_own_backbone_gives_its_output_back(name, images, tmp_path):
    donor = checkpoint(name, tmp_path)
    grafted = yolo_effnet.graft(donor, donor, images, **{**QUICK, "imgsz": 128})
    x = torch.rand(2, 3, 128, 128)
    wanted = output(YOLO(donor).model, x)
    error = (output(grafted.model, x) - wanted).abs().max() / wanted.abs().max()
    assert error < 1e-4


@pytest.mark.parametrize("scale", "nsmlx")
def test_a_donor_of_every_size(scale, images, tmp_path):
    """Its neck and head are kept but for what takes the backbone's maps; the YAML builds the result without it."""
    donor = checkpoint(f"yolov8{scale}", tmp_path)
    yolo_effnet.graft(donor, "yolov8-effb0", images, tmp_path / "grafted.pt", **{**QUICK, "number": 2})
    (tmp_path / f"yolov8{scale}.pt").unlink()
    grafted = YOLO(tmp_path / "grafted.pt").model
    again = DetectionModel(copy.deepcopy(grafted.yaml), verbose=False)
    again.load_state_dict(grafted.state_dict())
    x = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(output(again, x), output(grafted, x))
    assert grafted.names[0] == "kind 0"
    assert set(grafted.yaml["graft"]) == {"donor", "backbone", "pictures", "imgsz", "seed", "fit"}


@pytest.mark.parametrize(
    ("donor", "backbone"),
    [
        ("yolov8n-seg", "yolov8-effb0"),
        ("yolov8n-pose", "yolov8-effb1"),
        ("yolov8n-obb", "yolov8-effv2b0"),
        ("yolov8n-p2", "yolov8-efflite0"),
        ("yolov8n-p6", "yolov8-effb0"),
        ("yolo26n", "yolo26-effb0"),
        ("yolov8n", "yolov8-mobilenetv2_100"),
        ("yolov8-effb0", "yolov8-effb3"),
    ],
)
def test_every_task_pyramid_and_series(donor, backbone, images, tmp_path):
    giver = checkpoint(donor, tmp_path)
    grafted = yolo_effnet.graft(giver, backbone, images, **{**QUICK, "number": 2})
    assert torch.isfinite(output(grafted.model, torch.rand(1, 3, 64, 64))).all()
    assert type(grafted.model.model[-1]) is type(YOLO(giver).model.model[-1])
    grafted.model.fuse(verbose=False)
    assert not any(isinstance(m, Conv) and hasattr(m, "bn") for m in grafted.model.modules())


def test_a_detector_detects_before_training_and_matching_helps(learned, tmp_path):
    """Pictures of one data set, no label; the backbone is another that has learnt them, of Lite0."""
    best, data = learned
    other = YOLO("yolov8-efflite0.yaml")
    other.train(data=data, project=tmp_path, **pictures.LEARNING)
    options = {"number": 64, "imgsz": 64}
    validate = {"data": data, "imgsz": 64, "workers": 0, "plots": False, "verbose": False, "device": "cpu"}
    solved = yolo_effnet.graft(best, other.trainer.best, data, **options)
    assert solved.val(**validate).box.map50 > 0.3
    again = yolo_effnet.graft(best, other.trainer.best, data, **options)
    for a, b in zip(solved.model.state_dict().values(), again.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    matched = yolo_effnet.graft(best, other.trainer.best, data, tmp_path / "matched.pt", match=20, **options)
    first, last = matched.model.yaml["graft"]["error"]
    assert last < first
    stem = matched.model.model[0].conv
    start, seen = stem.weight.detach().clone(), []
    matched.add_callback("on_train_start", lambda t: seen.append(t.model.model[0].conv.weight.detach().clone()))
    matched.train(data=data, project=tmp_path, **{**pictures.LEARNING, "epochs": 1, "pretrained": True})
    torch.testing.assert_close(seen[0].float(), start.float())  # ImageNet weights are not loaded over it


@pytest.mark.parametrize(
    ("donor", "backbone", "message"),
    [
        ("yolov8n", "yolov8-effb0-dw", "its light neck is its own; take yolov8-effb0"),
        ("yolov8n", "yolov8-effb0-cls", "its head is its own; take yolov8-effb0"),
        ("yolov8n", "yolov8-effb0-seg", "is not what donor 'yolov8n.pt' is; take yolov8-effb0"),
        ("yolov8n", "yolo26-effb0", "has another neck than donor 'yolov8n.pt'; take yolov8-effb0"),
        ("yolov8n", "yolov8-effb9", "'yolov8-effb9' is neither a file nor a model of yolo_effnet"),
        ("yolov8n-cls", "yolov8-effb0", "donor 'yolov8n-cls.pt' has a head Classify"),
        ("yolov8-effb0-dw", "yolov8-effb0", "has a light neck"),
    ],
)
def test_what_cannot_be_is_one_clear_error(donor, backbone, message, images, tmp_path):
    with pytest.raises(ValueError, match=message):
        yolo_effnet.graft(checkpoint(donor, tmp_path), backbone, images, **QUICK)


def test_wrong_files_numbers_and_pictures(images, tmp_path, caplog):
    donor = checkpoint("yolov8n", tmp_path)
    for wrong, message in {
        "yolov8n.yaml": "is a model YAML, whose weights are random; give a trained .pt",
        "yolov8n.onnx": "is no checkpoint; give a trained .pt",
    }.items():
        with pytest.raises(ValueError, match=message):
            yolo_effnet.graft(wrong, "yolov8-effb0", images, **QUICK)
    for options, message in (
        ({"imgsz": 100}, "imgsz must be a multiple of 32, got 100"),
        ({"match": -1}, "match must be a number of steps >= 0, got -1"),
        ({"number": 0}, "number of pictures must be an integer >= 1, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            yolo_effnet.graft(donor, "yolov8-effb0", images, **{**QUICK, **options})
    with pytest.raises(ValueError, match="no pictures in"):
        yolo_effnet.graft(donor, "yolov8-effb0", str(tmp_path / "nowhere" / "*.jpg"), **QUICK)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="none of 1 pictures can be read"):
        yolo_effnet.graft(donor, "yolov8-effb0", tmp_path / "broken.png", **QUICK)
    yolo_effnet.graft(donor, "yolov8-effb0", images, **{**QUICK, "number": 2})
    assert "2 pictures are few" in caplog.text
    assert "AGPL-3.0" in caplog.text


def test_without_weights_it_goes_on_only_when_told_to(images, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(RuntimeError, match="HF_HUB_OFFLINE is set"):
        yolo_effnet.graft(checkpoint("yolov8n", tmp_path), "yolov8-effb0", images, number=2, imgsz=64)


def test_pictures_are_chosen_evenly(images):
    folder = images.parent / "images" / "train"
    assert find(images, 4) == find(folder, 4) == find(str(folder / "*.png"), 4)
    assert len(find([folder], 99)) == 16
    assert np.unique(find(images, 7)).size == 7


def test_the_command(images, tmp_path, capsys):
    donor = checkpoint("yolov8n", tmp_path)
    line = ["graft", donor, "yolov8-effb0", "--images", str(images), "-o", str(tmp_path / "b0.pt"), "--allow-random"]
    assert cli.main([*line, "--number", "2", "--imgsz", "64"]) == 0
    assert f"trains with model={tmp_path / 'b0.pt'}" in capsys.readouterr().out
    code = "import sys; from ultralytics import YOLO; print(YOLO(sys.argv[1]).model.yaml['graft']['donor'])"
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "b0.pt"], cwd=tmp_path, text=True, capture_output=True, check=True
    )
    assert done.stdout.strip() == "yolov8n.pt"
