"""The benchmark at toy size: it fills every column, and its peers are peers."""

import csv
import re

import pytest
import torch
from matplotlib.image import imread
from ultralytics.utils.torch_utils import get_flops

from yolo_effnet import cli
from yolo_effnet.tools import benchmark
from yolo_effnet.zoo.table import ARCHITECTURES

FOUR = ["yolov8-effb0", "yolov8n", "torchvision-b0", "timm-b0"]


@pytest.mark.filterwarnings("ignore")  # torch's exporter warns of its own age, at every step
def test_every_column_is_filled(tmp_path, capsys):
    options = ["--imgsz", "64", "--repeats", "1", "--output", str(tmp_path)]
    runtimes = ["pytorch", "train", "onnx", "openvino"]
    assert cli.main(["benchmark", "--models", *FOUR, "--runtimes", *runtimes, *options]) == 0
    with open(tmp_path / "benchmark.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["runtime"], row["model"]) for row in rows] == [(r, m) for r in runtimes for m in FOUR]
    for row in rows:
        assert all(row.values())
        assert min(float(row[k]) for k in ("parameters", "gflops", "milliseconds", "ratio", "megabytes")) > 0
        assert row["reference"] == (FOUR[0] if row["model"] == "yolov8n" else "torchvision-b0")
        assert float(row["ratio"]) == 1 or row["model"] != row["reference"]
    out = capsys.readouterr().out
    assert all(f"{model:<16}{runtime}" in out for model in FOUR for runtime in runtimes)
    for name in ("parameters.png", "gflops.png"):
        assert imread(tmp_path / name).std() > 0


def test_profile_sets_each_row_beside_the_limits(tmp_path, capsys):
    options = ["--imgsz", "64", "--repeats", "1", "--output", str(tmp_path)]
    assert cli.main(["benchmark", "--models", "yolov8-effb0", "timm-b0", "--profile", *options]) == 0
    limits, ours, peer = capsys.readouterr().out.partition("limits: ")[2].split("\n\n")
    assert all(float(value) > 0 for value in re.findall(r"([\d.]+) G", limits))
    counted = get_flops(benchmark.build("yolov8-effb0"), 64)
    for text, rows in ((ours, 22), (peer, 18)):
        columns = [line.split()[-6:] for line in text.splitlines() if re.match(r"(\d+ \w+|all) ", line)]
        assert len(columns) == rows + 1
        milliseconds, gflop, megabytes, compute, memory, speed = map(float, columns[-1])
        assert min(milliseconds, megabytes, compute, memory, speed) > 0
        assert 0.9 * counted < gflop <= counted + 0.01  # which counts activations and BatchNorm too
        assert sum(float(row[0]) for row in columns[:-1]) == pytest.approx(milliseconds, abs=0.2)


@pytest.mark.filterwarnings("ignore")
def test_int8_is_smaller(tiny_data, tmp_path):
    options = ["--imgsz", "64", "--repeats", "1", "--output", str(tmp_path), "--data", str(tiny_data)]
    models = ["yolov8-efflite0", "yolov8-ghostnet_100-dw"]
    assert cli.main(["benchmark", "--models", *models, "--runtimes", "openvino", "openvino-int8", *options]) == 0
    with open(tmp_path / "benchmark.csv", encoding="utf-8") as file:
        size = {(row["model"], row["runtime"]): float(row["megabytes"]) for row in csv.DictReader(file)}
    for name in models:
        assert size[name, "openvino-int8"] < 0.6 * size[name, "openvino"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="TensorRT may be there")
def test_a_runtime_that_fails_loses_no_other(tmp_path, caplog):
    output = tmp_path / "results"
    options = ["--imgsz", "64", "--repeats", "1", "--output", str(output)]
    line = ["benchmark", "--models", *FOUR[:2], *options, "--runtimes"]
    assert cli.main([*line, "pytorch", "engine"]) == 0
    assert "engine, 64 pixels, batch 1: " in caplog.text
    assert len((output / "benchmark.csv").read_text().splitlines()) == 3
    assert cli.main([*line, "engine"]) == 2


@pytest.mark.parametrize(
    ("peer", "variant"),
    [
        ("torchvision", "b0"),
        ("torchvision", "b2"),
        ("timm", "b0"),
        ("timm", "lite1"),
        ("timm", "v2b0"),
        ("timm", "v2m"),
        ("timm", "ghostnet_100"),
    ],
)
def test_peers_have_the_same_backbone_and_neck(peer, variant):
    model = benchmark.build(f"{peer}-{variant}")
    assert (
        sum(p.numel() for p in model.parameters())
        == (ARCHITECTURES.get(f"eff{variant}") or ARCHITECTURES[variant]).parameters
    )
    assert model.stride.tolist() == [8, 16, 32]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--models", "yolov8-effb0", "torchvision-b9"],
            "no model 'torchvision-b9' to measure; choose from yolov8-effb0",
        ),
        (["--models", "yolov8n", "--imgsz", "100"], "imgsz must be a multiple of 32 >= 32, got 100"),
        (["--models", "yolov8n", "--batch", "0"], "batch must be an integer >= 1, got 0"),
        (
            ["--models", "yolov8n", "--runtimes", "pytorch", "onx"],
            "no runtime 'onx' to measure in; choose",
        ),
        (["--models", "yolov8n", "--runtimes", "torchscript-fp16"], "after a format stands nothing or -int8"),
        (["--models", "yolov8n", "--runtimes", "pytorch-int8"], "no runtime 'pytorch-int8' to measure in"),
        (["--models", "yolov8n", "--runtimes", "onnx-int8"], "onnx-int8 needs a data set to calibrate on, --data"),
        (["--models", "yolov8n", "--repeats", "0"], "repeats must be an integer >= 1, got 0"),
    ],
)
def test_wrong_values_are_named(options, message, tmp_path, capsys):
    assert cli.main(["benchmark", *options, "--output", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
