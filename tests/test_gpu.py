"""On a GPU: the faster ways of training are those of the plain layers, and Ultralytics' own GPU paths work.

Without a GPU, the CUDA branch runs on tensors without values, which tells shapes, dtypes and layouts.
"""

import copy
import os
import subprocess
import sys

import pictures
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from ultralytics import YOLO

import yolo_effnet
from yolo_effnet.nn import kernels

gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.filterwarnings("ignore"),  # of the libraries of a GPU
]
MODELS = ["yolov8-effb0", "yolov8-efflite0", "yolov8-effv2s", "yolov8-ghostnet_100"]


def on_gpu(test):
    for mark in gpu:
        test = mark(test)
    return test


class Context:
    """What autograd gives the two passes of a function; its engine does not run without a device."""

    def save_for_backward(self, *tensors):
        """Keep tensors for the backward pass."""
        self.saved_tensors = tensors


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_the_cuda_branch_keeps_shapes_dtypes_and_layouts(layout, dtype):
    """Half precision from convolutions under autocast, parameters of BatchNorm in single precision."""
    with FakeTensorMode(), torch.no_grad():
        bn, context = nn.BatchNorm2d(16, device="cuda"), Context()
        x = torch.empty(2, 16, 8, 12, device="cuda", dtype=dtype).to(memory_format=layout)
        y = kernels._NormSiLU.forward(
            context, x, bn.weight, bn.bias, bn.running_mean, bn.running_var, bn.momentum, bn.eps
        )
        gradients = kernels._NormSiLU.backward(context, torch.empty_like(y))
        plain = nn.functional.silu(bn(x))
    facts = [(t.shape, t.dtype, t.device.type, t.stride()) for t in (y, *gradients[:3])]
    parameters = (bn.weight.shape, torch.float32, "cuda", (1,))
    assert facts == [
        (plain.shape, plain.dtype, "cuda", plain.stride()),
        (x.shape, dtype, "cuda", x.stride()),
        parameters,
        parameters,
    ]


def test_on_a_gpu_the_faster_ways_run_only_where_asked_for():
    from yolo_effnet.nn import gate

    class OnGPU:
        device = torch.device("cuda")

    assert not gate.is_wanted_on_device(OnGPU)
    with yolo_effnet.fast_paths(True, cuda=True):
        assert gate.is_wanted_on_device(OnGPU)


def gradients(model, x, fast: bool, half: bool) -> torch.Tensor:
    """Return all gradients of a smooth function of the model's outputs as one vector."""
    model = copy.deepcopy(model)
    torch.manual_seed(0)
    scaler = torch.amp.GradScaler("cuda", enabled=half)
    with yolo_effnet.fast_paths(fast, cuda=True):
        with torch.autocast("cuda", enabled=half):
            outputs = model(x)
        maps = [y.float() for y in outputs.values() if isinstance(y, torch.Tensor)]
        loss = sum((y * torch.randn_like(y)).mean() for y in maps)
        scaler.scale(loss).backward()
    grads = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    return grads.double() / scaler.get_scale()


@on_gpu
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("name", MODELS)
def test_a_step_of_mixed_precision_loses_what_the_plain_layers_lose(name, layout, monkeypatch):
    """Half precision moves gradients; the faster ways must not move them further."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.manual_seed(0)
    model = YOLO(f"{name}.yaml").model.cuda().train().to(memory_format=layout)
    x = torch.rand(8, 3, 128, 128, device="cuda").to(memory_format=layout)
    wanted = gradients(model, x, fast=False, half=False)
    errors = {}
    for fast, half in ((True, False), (False, True), (True, True)):
        errors[fast, half] = ((gradients(model, x, fast, half) - wanted).norm() / wanted.norm()).item()
    print(name, layout, errors)
    assert errors[True, False] < 0.1 * errors[False, True]
    assert errors[True, True] < 1.3 * errors[False, True]


@on_gpu
def test_hooks_fire_on_a_gpu():
    model = YOLO("yolov8-effb0.yaml").model.cuda().train()
    counts = []
    for fast in (True, False):
        network, fired = copy.deepcopy(model), []
        for name, m in network.named_modules():
            m.register_forward_hook(lambda *_, name=name, fired=fired: fired.append(name))
        with yolo_effnet.fast_paths(fast, cuda=True):
            network(torch.rand(2, 3, 64, 64, device="cuda"))
        counts.append(sorted(fired))
    assert counts[0] == counts[1]


DISTRIBUTED = """
import torch
from torch.nn.parallel import DistributedDataParallel
from ultralytics import YOLO
import yolo_effnet
torch.distributed.init_process_group("nccl", init_method="tcp://127.0.0.1:29533", rank=0, world_size=1)
yolo_effnet.fast_paths(True, cuda=True)
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
