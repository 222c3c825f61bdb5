"""The laboratory at toy size: it fills every column, and its peers are peers."""

import csv
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import coco
import cost
import gpu_report
import peers
import pictures
import pytest
import roofline
import training_step
import yaml
from backbones import reference
from donors import checkpoint
from matplotlib.image import imread
from ultralytics.utils.torch_utils import get_flops

from yolo_effnet.zoo.configs import model_config
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


@pytest.mark.filterwarnings("ignore")  # torch's exporter warns of its own age, at every step
def test_cost_by_letter(tmp_path, monkeypatch):
    monkeypatch.setitem(cost.BACKBONES, "n", ["efflite0"])
    main(monkeypatch, cost, "--letters", "n", "--formats", "torchscript", *QUICK, "--output", tmp_path)
    with open(tmp_path / "cost.csv", encoding="utf-8") as file:
        rows = {(row["model"], row["format"]): row for row in csv.DictReader(file)}
    assert list(rows) == [(m, f) for m in ("yolov8n", "yolov8n-efflite0") for f in ("pytorch", "torchscript")]
    for (model, kind), row in rows.items():
        own = float(rows["yolov8n", kind]["milliseconds"])
        assert float(row["ratio"]) == pytest.approx(float(row["milliseconds"]) / own, abs=1e-3)
        assert (float(row["ratio"]) == 1) == (model == "yolov8n")
    assert imread(tmp_path / "cost.png").std() > 0


@pytest.fixture
def study(tmp_path):
    """The words of a study: a donor of random weights, data, and two backbones of a YAML that names weights."""
    reference("tf_efficientnet_b0.ns_jft_in1k", tmp_path / "weights.safetensors")
    config = {**model_config("yolov8-effb0"), "backbone_weights": str(tmp_path / "weights.safetensors")}
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(config))
    data = pictures.draw("detect", tmp_path, train=16, val=4)
    words = ["--donors", checkpoint("yolov8n", tmp_path), "--backbones", tmp_path / "one.yaml", tmp_path / "two.yaml"]
    words += ["--data", data, "--imgsz", 64, "--number", 16, "--match", 2, "--output", tmp_path / "out"]
    return [str(word) for word in words]


def coco_rows(folder: Path) -> dict:
    with open(folder / "coco.csv", encoding="utf-8") as file:
        return {row.pop("model"): row for row in csv.DictReader(file)}


@pytest.mark.filterwarnings("ignore")
def test_coco_measures_what_it_can_and_tells_what_it_cannot(study, tmp_path, monkeypatch, capsys):
    """A donor that is not there and weights that cannot be had cost their rows alone."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    study[1:4] = ["nowhere.pt", study[1], "--backbones", "effb3"]
    assert main(monkeypatch, coco, *study, "--formats", "torchscript") == 1
    rows = coco_rows(tmp_path / "out")
    assert list(rows) == [f"{d}{b}" for d in ("nowhere", "yolov8n") for b in ("", "-effb3", "-two")]
    assert all(rows[f"nowhere{b}"]["reason"] for b in ("", "-effb3", "-two"))
    assert "HF_HUB_OFFLINE" in rows["yolov8n-effb3"]["reason"]
    for model in ("yolov8n", "yolov8n-two"):
        row = rows[model]
        assert row.pop("reason") == ""
        assert float(row["mAP50"]) >= float(row["mAP50-95"]) >= 0
        for text in ("pytorch", "torchscript"):
            own = float(rows["yolov8n"][f"{text}, ms"])
            assert float(row[f"{text}, ratio"]) == pytest.approx(float(row[f"{text}, ms"]) / own, abs=1e-3)
        assert all(row.values())
    for model in rows.keys() - {"yolov8n", "yolov8n-two"}:
        assert not any(value for key, value in rows[model].items() if key != "reason")
    assert imread(tmp_path / "out" / "coco.png").std() > 0
    told = (tmp_path / "out" / "coco.md").read_text(encoding="utf-8")
    assert told.count("\n| ") == len(rows)
    assert told in capsys.readouterr().out
    assert list(tmp_path.rglob("*.part*")) == []


@pytest.mark.filterwarnings("ignore")
def test_coco_goes_on_where_it_was_killed(study, tmp_path, monkeypatch, capsys):
    """Nothing finished is done again, nothing unfinished is taken for finished, and other settings are an error."""
    finished, weights = (tmp_path / "out" / name for name in ("finished.json", "weights"))
    study.append("--formats")
    with subprocess.Popen([sys.executable, coco.__file__, *study], cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            if finished.is_file() and "yolov8n-one" in json.loads(finished.read_text())["accuracy"]:
                break
            time.sleep(0.05)
        process.kill()
    assert process.returncode == -9
    done = json.loads(finished.read_text())
    assert "yolov8n-two" not in done["accuracy"]
    assert done["time"] == {}
    done["accuracy"]["yolov8n"] = [0.1234, 0.5]
    finished.write_text(json.dumps(done))
    made = (weights / "yolov8n-one.pt").stat().st_mtime_ns
    (weights / "yolov8n-two.part.pt").write_text("the beginning")
    assert main(monkeypatch, coco, *study) == 0
    rows = coco_rows(tmp_path / "out")
    assert rows["yolov8n"]["mAP50-95"] == "0.1234"
    assert (weights / "yolov8n-one.pt").stat().st_mtime_ns == made
    assert sorted(file.name for file in weights.iterdir()) == ["yolov8n-one.pt", "yolov8n-two.pt"]
    times = [row["pytorch, ms"] for row in rows.values()]
    assert all(times)
    assert main(monkeypatch, coco, *study) == 0
    assert [row["pytorch, ms"] for row in coco_rows(tmp_path / "out").values()] == times
    capsys.readouterr()
    for words, message in (
        (["--imgsz", "96"], "was measured with imgsz 64, not 96; give another --output"),
        (["--backbones", "one.yaml"], f"one {tmp_path / 'one.yaml'}, not one.yaml; give another --output"),
        (["--backbones", "a/b0.pt", "b/b0.pt"], "two backbones are called b0: a/b0.pt and b/b0.pt"),
        (["--formats", "openvino,int8=True"], "accuracy here is that of float"),
        (["--data", "nowhere.yaml"], "data 'nowhere.yaml' cannot be read"),
        (["--match", "-1"], "match must be an integer >= 0, got -1"),
    ):
        assert main(monkeypatch, coco, *study, *words) == 2
        error = capsys.readouterr().err
        assert error.startswith("coco: ")
        assert error.count("\n") == 1
        assert message in error
