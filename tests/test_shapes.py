"""The dataset of `examples/`: reproducible, labelled exactly, and drawn by Ultralytics when it is first used."""

import inspect
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
import yaml

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPT, DATA = EXAMPLES / "shapes.py", EXAMPLES / "shapes.yaml"
shapes = SimpleNamespace(**runpy.run_path(str(SCRIPT)))


def contents(root):
    return {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}


def run(*command, **kwargs):
    return subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, **kwargs)


def test_seed_decides_every_byte(tmp_path):
    for name, kwargs in {"a": {}, "again": {}, "longer": {"train": 5}, "other": {"seed": 1}}.items():
        shapes.draw(tmp_path / name, **{"train": 3, "val": 2, "imgsz": 64} | kwargs)
    a, again, longer, other = (contents(tmp_path / name) for name in ("a", "again", "longer", "other"))
    assert len(a) == 10
    assert a == again
    assert a.items() <= longer.items()
    assert a.keys() == other.keys()
    assert not set(a.values()) & set(other.values())


@pytest.mark.parametrize("imgsz", [96, 160])
def test_labels_are_what_disappears_with_the_shape(tmp_path, imgsz):
    """The box of a shape spans the pixels that change when the picture is drawn without it."""
    shapes.draw(tmp_path / "set", train=12, val=1, imgsz=imgsz, seed=7)
    hidden = clipped = 0
    for i in range(12):
        background, drawn = shapes.compose(np.random.default_rng([7, 0, i]), imgsz)
        picture = cv2.imread(str(tmp_path / f"set/images/train/{i:05}.png"))
        assert np.array_equal(picture, shapes.render(background, drawn))
        rows = np.loadtxt(tmp_path / f"set/labels/train/{i:05}.txt", ndmin=2)
        assert rows.shape == (len(drawn), 5)
        for k, (shape, (cls, x, y, w, h)) in enumerate(zip(drawn, rows, strict=True)):
            without = shapes.render(background, drawn[:k] + drawn[k + 1 :])
            ys, xs = np.nonzero((picture != without).any(axis=2))
            box = np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2]) * imgsz
            assert cls == shape.cls
            assert box == pytest.approx([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], abs=1e-3)
            low, high = shape.outline.min(axis=0), shape.outline.max(axis=0)
            assert (box[:2] >= low - 1).all()
            assert (box[2:] <= high + 2).all()
            area = cv2.contourArea(shape.outline.astype(np.float32))
            assert len(xs) >= 0.99 * shapes.MIN_VISIBLE * area  # a covered pixel may have the colour it covers
            hidden += (shape.mask.sum() - len(xs)) > 0.05 * area
            clipped += (low < 0).any() or (high > imgsz).any()
    assert hidden > 5  # the pictures put the two hard cases to the test
    assert clipped > 5


def test_yaml_agrees_with_script():
    text = DATA.read_text(encoding="utf-8")
    data = yaml.safe_load(text)
    assert tuple(data["names"].values()) == shapes.CLASSES
    for split in ("train", "val"):
        count = inspect.signature(shapes.draw).parameters[split].default
        assert f"{split}: images/{split} # {split} images (relative to 'path') {count} images\n" in text


def test_ultralytics_draws_at_first_use_only(tmp_path):
    """Typed in another folder, with settings and datasets of its own, and no network for the font."""
    code = (
        "import sys, pathlib, ultralytics.data.utils as u\n"
        "u.DATASETS_DIR, u.check_font = pathlib.Path('datasets').resolve(), lambda *_: None\n"
        "for _ in range(2):\n"
        "    print(u.check_det_dataset(sys.argv[1])['val'], (u.DATASETS_DIR / 'shapes').stat().st_ctime_ns)\n"
    )
    env = {**os.environ, "YOLO_CONFIG_DIR": str(tmp_path)}
    result = run("-c", code, os.path.relpath(DATA, tmp_path), cwd=tmp_path, env=env)
    assert result.returncode == 0, result.stderr
    root = tmp_path / "datasets" / "shapes"
    first, second = [line for line in result.stdout.splitlines() if line.startswith(str(root / "images" / "val"))]
    assert first == second
    assert {split: len(list((root / "images" / split).iterdir())) for split in ("train", "val")} == {
        split: inspect.signature(shapes.draw).parameters[split].default for split in ("train", "val")
    }


def test_interrupted_drawing_leaves_nothing(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        first = cv2.imencode(".png", np.zeros((32, 32, 3), np.uint8))
        patch.setattr(cv2, "imencode", Mock(side_effect=[first, KeyboardInterrupt]))
        with pytest.raises(KeyboardInterrupt):
            shapes.draw(tmp_path / "set", train=2, val=1, imgsz=32)
    assert not list(tmp_path.iterdir())
    (tmp_path / "set").mkdir()  # an empty folder is as good as none
    shapes.draw(tmp_path / "set", train=1, val=1, imgsz=32)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert len(contents(tmp_path / "set")) == 4


def test_yaml_without_script_names_it(tmp_path):
    copy = shutil.copy(DATA, tmp_path)
    download = yaml.safe_load(DATA.read_text(encoding="utf-8"))["download"]
    with pytest.raises(RuntimeError, match=r"shapes\.py' is missing.*put shapes\.py beside"):
        exec(download, {"yaml": {"yaml_file": copy, "path": tmp_path / "set"}})


def test_wrong_requests_are_refused(tmp_path):
    for name, value in {"train": 0, "val": 0, "imgsz": 31, "seed": -1}.items():
        with pytest.raises(ValueError, match=f"{name} must be at least .*, got {value}"):
            shapes.draw(tmp_path / "set", **{name: value})
    (tmp_path / "notes.txt").touch()
    with pytest.raises(RuntimeError, match="exists already: delete it"):
        shapes.draw(tmp_path)
    result = run(SCRIPT, tmp_path, "--train", 1)
    assert result.returncode == 2
    assert "exists already" in result.stderr


def test_by_hand(tmp_path):
    assert "--imgsz" in run(SCRIPT, "--help").stdout
    assert run(SCRIPT, tmp_path / "set", "--train", 1, "--val", 1, "--imgsz", 64).returncode == 0
    assert cv2.imread(str(tmp_path / "set/images/val/00000.png")).shape == (64, 64, 3)
