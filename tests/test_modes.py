"""Ultralytics' own trainer, validator, predictor and exporter on our models."""

import copy
import csv
import os
import pickle
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from trainings import interrupt
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import DEFAULT_CFG
from ultralytics.utils.torch_utils import ModelEMA

import yolo_effnet

QUICK = {"imgsz": 64, "batch": 4, "workers": 0, "plots": False, "verbose": False, "device": "cpu"}


@pytest.fixture(scope="module")
def trained(tiny_data, tmp_path_factory):
    """A model trained for two epochs by the Python API; returns the YOLO object and its run's folder."""
    model = YOLO("yolov8-effb0.yaml")
    model.train(data=tiny_data, epochs=2, pretrained=False, project=tmp_path_factory.mktemp("runs"), **QUICK)
    return model, Path(model.trainer.save_dir)


def run(code: str, **env) -> str:
    """Run Python code in a new process from another folder and return what it printed."""
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **env},
        cwd=os.environ["YOLO_CONFIG_DIR"],
        text=True,
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("name", [*yolo_effnet.model_names(), "yolov8-effb0-dw", "yolov8-mobilenetv2_100-p2-dw"])
def test_every_model_takes_a_training_step(name):
    model = DetectionModel(yolo_effnet.model_config(name), nc=2, verbose=False)
    model.args = DEFAULT_CFG
    batch = {
        "img": torch.rand(2, 3, 64, 64),
        "batch_idx": torch.tensor([0.0, 1.0]),
        "cls": torch.tensor([[0.0], [1.0]]),
        "bboxes": torch.tensor([[0.5, 0.5, 0.4, 0.4], [0.4, 0.4, 0.3, 0.3]]),
    }
    loss, _ = model(batch)
    loss.sum().backward()
    missing = [k for k, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_training_writes_a_checkpoint_that_a_new_process_loads(trained):
    _model, folder = trained
    best = folder / "weights" / "best.pt"
    code = (
        "import sys, torch; from ultralytics import YOLO\n"
        f"model = YOLO(r'{best}'); torch.manual_seed(0)\n"
        "print(float(model.model(torch.rand(1, 3, 64, 64))[0].sum()))"
    )
    torch.manual_seed(0)
    with torch.no_grad():
        here = float(YOLO(best).model(torch.rand(1, 3, 64, 64))[0].sum())
    assert float(run(code).split()[-1]) == pytest.approx(here, rel=1e-4)


def test_restricted_loading_validates(trained, tiny_data):
    best = trained[1] / "weights" / "best.pt"
    code = (
        "from ultralytics import YOLO\n"
        f"metrics = YOLO(r'{best}').val(data=r'{tiny_data}', imgsz=64, batch=2, workers=0, plots=False, device='cpu')\n"
        "print('mAP50', metrics.box.map50)"
    )
    assert "mAP50" in run(code, ULTRALYTICS_SAFE_LOAD="1")


def test_val_gives_what_the_training_logged(learned):
    best, data = learned
    with open(best.parent.parent / "results.csv", encoding="utf-8") as file:
        logged = max(float(row["metrics/mAP50-95(B)"]) for row in csv.DictReader(file))
    assert logged > 0.3
    assert YOLO(best).val(data=data, split="val", **QUICK).box.map == pytest.approx(logged, abs=0.02)


def test_predict_keeps_the_shapes_of_pictures(trained):
    model = YOLO(trained[1] / "weights" / "best.pt")
    results = model.predict([np.zeros((48, 80, 3), dtype=np.uint8)] * 2, imgsz=64, verbose=False, device="cpu")
    assert [result.orig_shape for result in results] == [(48, 80)] * 2


def test_resume_goes_on_after_an_interruption(tiny_data, tmp_path):
    model = YOLO("yolov8-effb0.yaml")
    interrupt(model, "on_train_epoch_start", data=tiny_data, epochs=3, pretrained=False, project=tmp_path, **QUICK)
    resumed = YOLO(Path(model.trainer.save_dir) / "weights" / "last.pt")
    resumed.train(resume=True)
    assert resumed.trainer.start_epoch == 1
    lines = (Path(resumed.trainer.save_dir) / "results.csv").read_text().splitlines()
    assert [line.split(",")[0].strip() for line in lines[1:]] == ["1", "2", "3"]


def test_freeze_8_freezes_exactly_the_backbone(tiny_data, tmp_path):
    model = YOLO("yolov8-effb0.yaml")
    frozen = []

    def collect(trainer):
        frozen.extend(k for k, p in trainer.model.named_parameters() if not p.requires_grad)

    model.add_callback("on_train_start", collect)
    model.train(data=tiny_data, epochs=1, pretrained=False, freeze=8, project=tmp_path, **QUICK)
    rows = {int(name.split(".")[1]) for name in frozen if ".dfl" not in name}
    assert rows == set(range(8))
    every = {k for k, _ in model.trainer.model.named_parameters() if int(k.split(".")[1]) < 8}
    assert {k for k in frozen if ".dfl" not in k} == every
    assert {"model.0.conv.weight", "model.1.0.depthwise.conv.weight", "model.7.0.project.bn.weight"} <= every
    assert "model.8.cv1.conv.weight" not in frozen


def test_copies_pickles_and_ema_keep_the_numbers():
    model = DetectionModel(yolo_effnet.model_config("yolov8-effb0"), verbose=False).eval()
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = model(x)[0]
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), ModelEMA(model).ema):
            torch.testing.assert_close(other(x)[0], expected)
        half = copy.deepcopy(model).to(torch.bfloat16)
        assert half(x.to(torch.bfloat16))[0].dtype == torch.bfloat16
        with torch.autocast("cpu", torch.bfloat16):
            assert model(x)[0].isfinite().all()
    fused = copy.deepcopy(model).fuse(verbose=False)
    with torch.no_grad():
        torch.testing.assert_close(copy.deepcopy(fused)(x)[0], fused(x)[0])


def test_info_counts_the_model():
    model = YOLO("yolov8-effb0.yaml")
    _, parameters, _, gflops = model.info(verbose=True)
    assert (parameters, round(gflops, 1)) == (5_692_220, 12.8)


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channel_counts(channels):
    model = DetectionModel(yolo_effnet.model_config("yolov8-effb0"), ch=channels, verbose=False).eval()
    assert model.model[0].mean.shape == (1, channels, 1, 1)
    assert model(torch.rand(1, channels, 64, 64))[0].isfinite().all()


@pytest.mark.filterwarnings("ignore")  # torch's exporter warns of its own age, at every step
def test_onnx_export_is_clean_and_equal(trained):
    """The graph holds no BatchNorm, and no Pad outside a Conv, and ONNX Runtime gives PyTorch's numbers."""
    model = YOLO(trained[1] / "weights" / "best.pt")
    file = model.export(format="onnx", imgsz=64, simplify=True)
    graph = onnx.load(file).graph
    assert not {"BatchNormalization", "Pad"} & {node.op_type for node in graph.node}
    attributes = [a for node in graph.node if node.op_type == "Conv" for a in node.attribute]
    assert [0, 0, 1, 1] in [list(a.ints) for a in attributes if a.name == "pads"]
    x = torch.rand(1, 3, 64, 64)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    got = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    network = YOLO(trained[1] / "weights" / "best.pt").model.eval()
    with torch.no_grad():
        expected = network(x)[0].numpy()
    assert np.abs(got - expected).max() / np.abs(expected).max() < 1e-4
    assert not any(isinstance(m, nn.BatchNorm2d) for m in copy.deepcopy(network).fuse(verbose=False).modules())


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "SGD"},
        {"optimizer": "AdamW"},
        {"optimizer": "MuSGD"},
        {"multi_scale": 0.5},
        {"rect": True},
        {"cache": "disk"},
        {"single_cls": True},
        {"amp": True},
        {"distill_model": "yolov8n.pt"},
        {"distill_model": "yolov8-effb1.pt"},
    ],
    ids=str,
)
def test_training_options(options, tiny_data, tmp_path):
    if "distill_model" in options:
        if not hasattr(DEFAULT_CFG, "distill_model"):
            pytest.skip("this version of Ultralytics does not distill")
        options = {"distill_model": str(tmp_path / options["distill_model"])}
        YOLO(Path(options["distill_model"]).with_suffix(".yaml").name).save(options["distill_model"])
    model = YOLO("yolov8-effb0.yaml")
    before = model.model.model[0].conv.weight.clone()
    model.train(data=tiny_data, epochs=1, pretrained=False, project=tmp_path, **QUICK, **options)
    after = YOLO(model.trainer.last).model.float().model[0].conv.weight
    assert after.isfinite().all()
    assert not torch.equal(after, before)


@pytest.fixture
def video(tmp_path):
    """A bright square that moves over a dark field, eight pictures long."""
    file = tmp_path / "video.avi"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"MJPG"), 8, (64, 64))
    for i in range(8):
        picture = np.full((64, 64, 3), 30, np.uint8)
        picture[16:44, 8 + 2 * i : 36 + 2 * i] = (0, 200, 220)
        writer.write(picture)
    writer.release()
    return file


def test_predict_takes_pictures_folders_and_videos(learned, video):
    model, folder = YOLO(learned[0]), learned[1].parent / "images" / "val"
    options = {"imgsz": 64, "conf": 0.05, "verbose": False, "device": "cpu"}
    assert len(model.predict(folder, batch=3, **options)) == 16
    assert len(model.predict(sorted(folder.iterdir())[:2], **options)) == 2
    assert len(list(model.predict(video, stream=True, **options))) == 8


@pytest.mark.parametrize("tracker", ["bytetrack.yaml", "botsort.yaml"])
def test_track_keeps_the_identity(tracker, learned, video):
    pytest.importorskip("lap")
    options = {"imgsz": 64, "conf": 0.05, "verbose": False, "device": "cpu", "tracker": tracker}
    tracked = [r.boxes.id for r in YOLO(learned[0]).track(video, **options) if r.boxes.id is not None]
    assert len(tracked) >= 6
    assert set.intersection(*({int(i) for i in ids} for ids in tracked))


def test_tune(tiny_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {"epochs": 1, "iterations": 2, "project": tmp_path, "pretrained": False, "val": False, **QUICK}
    space = {"lr0": (1e-4, 1e-2), "backbone_lr_ratio": (0.05, 1.0)}
    YOLO("yolov8-effb0.yaml").tune(data=str(tiny_data), space=space, backbone_lr_ratio=0.5, **options)
    (file,) = tmp_path.rglob("best_hyperparameters.yaml")
    assert "backbone_lr_ratio" in file.read_text()


@pytest.mark.filterwarnings("ignore")  # torch's exporter warns of its own age
def test_benchmark(learned, tmp_path, monkeypatch):
    from ultralytics.utils.benchmarks import benchmark

    monkeypatch.chdir(tmp_path)
    table = benchmark(model=learned[0], data=learned[1], imgsz=64, device="cpu", format="onnx")
    assert "ONNX" in str(table)
    assert "nan" not in str(table).lower()
