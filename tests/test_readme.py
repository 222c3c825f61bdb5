"""The README's code blocks, run, and its figures, held to the table."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from commands import yolo
from ultralytics.nn.tasks import DetectionModel

from yolo_effnet.zoo.names import model_names
from yolo_effnet.zoo.table import ARCHITECTURES

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def test_model_table_is_that_of_the_package():
    for name, architecture in zip(model_names(), ARCHITECTURES.values(), strict=True):
        neck = "/".join(map(str, architecture.neck_channels))
        assert f"| {name} | {architecture.parameters / 1e6:.1f}M | {architecture.gflops:.1f} | {neck} |" in TEXT
        assert not architecture.weights or f"| {name} | `{architecture.weights}` |" in TEXT


def test_first_example_stands_on_the_first_screen():
    assert 0 < TEXT[: TEXT.index("yolo train")].count("\n") < 20


def test_yamls_of_ones_own_build():
    texts = [block for block in blocks("yaml") if "backbone:" in block]
    models = [DetectionModel(yaml.safe_load(text), verbose=False) for text in texts]
    assert [model.stride.tolist() for model in models] == [[8, 16, 32], [8]]


@pytest.mark.parametrize("line", re.findall(r"^.*?(yolo train model=.*)$", "\n".join(blocks("bash")), re.MULTILINE))
def test_training_lines_run(line, tiny_data, tmp_path):
    """As typed, but on tiny data, for one epoch, in another folder and with the models of the clone at hand."""
    shutil.copytree(ROOT / "models", tmp_path / "models")
    words = [word for word in line.split()[1:] if word.partition("=")[0] not in ("data", "epochs", "imgsz", "batch")]
    words += [f"data={tiny_data}", "epochs=1", "imgsz=64", "batch=4", "workers=0", "plots=False", "device=cpu"]
    yolo(*words, f"project={tmp_path}", folder=tmp_path)
    assert list(tmp_path.rglob("best.pt"))


def test_python_example_runs(tiny_data, tmp_path):
    """With one picture of the tiny data, where no network is."""
    (code,) = blocks("python")
    code = code.replace(
        '"coco8.yaml", epochs=100', f'r"{tiny_data}", epochs=1, imgsz=64, batch=4, workers=0, plots=False'
    )
    code = code.replace(
        '"https://ultralytics.com/images/bus.jpg"', f'r"{tiny_data.parent / "images" / "val" / "0.png"}"'
    )
    assert "http" not in code
    assert "coco8" not in code
    done = subprocess.run(
        [sys.executable, "-c", code.replace("b3", "b0")],
        cwd=tmp_path, env={**os.environ, "HF_HUB_OFFLINE": "1"}, text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = set(re.findall(r"saved as '(.*best\.onnx)'", done.stdout))
    assert Path(file).is_file()
