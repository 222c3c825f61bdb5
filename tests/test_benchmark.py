"""The laboratory at toy size: it fills every column, and its peers are peers."""

import csv
import re
import sys

import gpu_report
import peers
import pytest
import roofline
import training_step
from matplotlib.image import imread
from ultralytics.utils.torch_utils import get_flops

from yolo_effnet.zoo.table import ARCHITECTURES

FOUR = ["yolov8-effb0", "yolov8n", "torchvision-b0", "timm-b0"]
QUICK = ["--imgsz", "64", "--repeats", "1"]


def main(monkeypatch, script, *words) -> int | None:
    """Run a script in this process with a command line, and return its exit status."""
    monkeypatch.setattr(sys, "argv", [script.__name__, *map(str, words)])
    return script.main()


@pytest.mark.filterwarnings("ignore")  # torch's exporter warns of its own age, at every step
def test_peers_beside_ours(tmp_path, monkeypatch, capsys):
    main(monkeypatch, peers, "--models", *FOUR, "--formats", "torchscript", *QUICK, "--output", tmp_path)
    with open(tmp_path / "peers.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["model"], row["format"]) for row in rows] == [(m, f) for m in FOUR for f in ("pytorch", "torchscript")]
    for row in rows:
        assert min(float(row["milliseconds"]), float(row["ratio"])) > 0
        assert row["reference"] == (FOUR[0] if row["model"] == "yolov8n" else "torchvision-b0")
        assert float(row["ratio"]) == 1 or row["model"] != row["reference"]
        assert (float(row["memory"]) > 0) if row["format"] == "pytorch" else (row["memory"] == "")
    assert "torchvision-b0" in capsys.readouterr().out
    for name in ("parameters.png", "gflops.png"):
        assert imread(tmp_path / name).std() > 0


def test_roofline_sets_each_row_beside_the_limits(monkeypatch, capsys):
    main(monkeypatch, roofline, "yolov8-effb0", "timm-b0", *QUICK)
    limits, ours, peer = capsys.readouterr().out.partition("limits: ")[2].split("\n\n")
    assert all(float(value) > 0 for value in re.findall(r"([\d.]+) G", limits))
    counted = get_flops(peers.build("yolov8-effb0"), 64)
    for text, rows in ((ours, 22), (peer, 18)):
        columns = [line.split()[-6:] for line in text.splitlines() if re.match(r"(\d+ \w+|all) ", line)]
        assert len(columns) == rows + 1
        milliseconds, gflop, megabytes, compute, memory, speed = map(float, columns[-1])
        assert min(milliseconds, megabytes, compute, memory, speed) > 0
        assert 0.9 * counted < gflop <= counted + 0.01  # which counts activations and BatchNorm too
        assert sum(float(row[0]) for row in columns[:-1]) == pytest.approx(milliseconds, abs=0.2)


def test_training_step_has_time_and_memory(monkeypatch, capsys):
    main(monkeypatch, training_step, *FOUR[:2], *QUICK, "--batch", "2")
    lines = capsys.readouterr().out.splitlines()
    found = [re.fullmatch(r"(\S+) +([\d.]+) ms +([\d.]+) +([\d.]+) MiB per picture", line) for line in lines]
    found = [match.groups() for match in found if match]
    assert [name for name, *_ in found] == FOUR[:2]
    assert found[0][2] == "1.000"
    assert all(float(value) > 0 for _, *values in found for value in values)


def test_gpu_report_fills_its_tables_on_a_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_report, "MODELS", ["yolov8-efflite0"])
    monkeypatch.setattr(gpu_report, "PEERS", ["timm-lite0"])
    words = ["--device", "cpu", "--quick", "--sections", "training", "latency", "--output", tmp_path / "report.md"]
    assert main(monkeypatch, gpu_report, *words) == 0
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert report.count("| yolov8-efflite0 | channels_last |") == report.count("| yolov8-efflite0 | contiguous |") == 1
    assert re.findall(r"^\| (\S+) \| (\d) \| [\d.]+ \| [\d.]+ x timm-lite0 \|$", report, re.MULTILINE) == [
        (name, batch) for batch in "12" for name in ("timm-lite0", "yolov8-efflite0")
    ]
    assert "Error" not in report


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
    model = peers.build(f"{peer}-{variant}")
    assert (
        sum(p.numel() for p in model.parameters())
        == (ARCHITECTURES.get(f"eff{variant}") or ARCHITECTURES[variant]).parameters
    )
    assert model.stride.tolist() == [8, 16, 32]
