"""On a GPU: training, exports and the benchmark work as Ultralytics has them."""

import os
import subprocess
import sys

import pictures
import pytest
import torch
from ultralytics import YOLO

from yolo_effnet.nn import gate

gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.filterwarnings("ignore"),  # of the libraries of a GPU
]


def on_gpu(test):
    for mark in gpu:
        test = mark(test)
    return test


def test_the_faster_ways_run_on_a_cpu_alone():
    assert gate.is_allowed(torch.rand(1))
    assert not gate.is_allowed(torch.rand(1, device="meta"))


DISTRIBUTED = """
import torch
from torch.nn.parallel import DistributedDataParallel
from ultralytics import YOLO
import yolo_effnet
torch.distributed.init_process_group("nccl", init_method="tcp://127.0.0.1:29533", rank=0, world_size=1)
model = DistributedDataParallel(YOLO("yolov8-effb0.yaml").model.cuda().train(), device_ids=[0])
with torch.autocast("cuda"):
    outputs = model(torch.rand(2, 3, 64, 64, device="cuda"))
outputs = outputs.values() if isinstance(outputs, dict) else outputs
sum(o.float().square().mean() for o in outputs if isinstance(o, torch.Tensor)).backward()
assert any(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
torch.distributed.destroy_process_group()
"""


@on_gpu
def test_a_step_of_distributed_training_on_one_device():
    done = subprocess.run([sys.executable, "-c", DISTRIBUTED], text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model that was trained on the GPU, and its data set."""
    folder = tmp_path_factory.mktemp("gpu")
    data = pictures.draw("detect", folder, train=64, val=16)
    model = YOLO("yolov8-effb0.yaml")
    model.train(data=data, project=folder, **{**pictures.LEARNING, "device": 0})
    return model.trainer.best, data


@on_gpu
def test_training_with_compilation(tiny_data, tmp_path):
    options = {"imgsz": 64, "batch": 4, "workers": 0, "plots": False, "device": 0, "pretrained": False}
    assert YOLO("yolov8-effb0.yaml").train(data=tiny_data, epochs=1, project=tmp_path, compile=True, **options)


@on_gpu
@pytest.mark.parametrize("precision", [{"half": True}, {"int8": True}], ids=["half", "int8"])
def test_tensorrt(trained, precision):
    pytest.importorskip("tensorrt")
    best, data = trained
    options = {"data": data, "imgsz": 64, "plots": False, "workers": 0, "device": 0}
    wanted = YOLO(best).val(**options).box.map
    file = YOLO(best).export(format="engine", imgsz=64, device=0, data=str(data), **precision)
    assert YOLO(file).val(**options, batch=1).box.map == pytest.approx(wanted, abs=0.05)


@on_gpu
def test_benchmark(tmp_path):
    words = [
        "benchmark",
        "yolov8n",
        "yolov8-effb0",
        "--formats",
        "pytorch,half=True",
        "--device",
        "0",
        "--imgsz",
        "128",
    ]
    code = f"import sys; from yolo_effnet.cli import main; sys.exit(main({[*words, '--output', str(tmp_path)]!r}))"
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "benchmark.csv").is_file()
