"""The examples, run as scripts at tiny size."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(script: str, *args) -> str:
    """Run an example from another folder and return what it printed."""
    command = [sys.executable, str(EXAMPLES / script), *map(str, args)]
    folder = os.environ["YOLO_CONFIG_DIR"]
    result = subprocess.run(command, cwd=folder, text=True, capture_output=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def best(tiny_data, tmp_path_factory) -> Path:
    """The weights that train.py writes."""
    project = tmp_path_factory.mktemp("examples")
    out = run("train.py", "--data", tiny_data, "--epochs", 1, "--imgsz", 64, "--batch", 4, "--project", project)
    match = re.search(r"mAP50 [\d.]+, mAP50-95 [\d.]+, best weights: (.+)", out)
    assert match, out
    return Path(match[1])


def test_train_writes_weights(best):
    assert best.is_file()


def test_predict_prints_a_line_per_picture(best, tiny_data):
    out = run("predict.py", best, tiny_data.parent / "images" / "val", "--imgsz", 64, "--conf", 0.0001)
    assert len(re.findall(r"\.png: \d+ objects", out)) == 4
    assert re.search(r"  (bluish|reddish) +0\.\d\d +\(\d+, \d+\) - \(\d+, \d+\)", out)


@pytest.mark.parametrize("script", ["train.py", "predict.py"])
def test_help_and_length(script):
    assert "usage:" in run(script, "--help")
    assert 30 <= len((EXAMPLES / script).read_text(encoding="utf-8").splitlines()) <= 80
