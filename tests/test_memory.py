"""Memory that a training on a CPU keeps for its next step, and gives back at its end."""

import gc
import platform
from pathlib import Path

import pytest
import torch
from ultralytics import YOLO

from yolo_effnet.host import memory

QUICK = {"imgsz": 64, "batch": 4, "workers": 0, "plots": False, "verbose": False, "device": "cpu", "epochs": 1}
LARGE = 2**28  # bytes, far above what else changes in between

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another libc manages its memory otherwise")


def resident() -> int:
    """Return the bytes of this process that are in memory."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def is_kept() -> bool:
    """Return whether memory stays with the process after a tensor is gone."""
    tensor = torch.ones(LARGE // 4)
    full = resident()
    del tensor
    return resident() > full - LARGE / 2


def test_freed_memory_stays_for_a_while_and_goes_back():
    assert not is_kept()
    with memory.kept(torch.device("cpu")):
        assert is_kept()
        full = resident()
    assert resident() < full - LARGE / 2
    assert not is_kept()


@pytest.mark.parametrize(("name", "kept"), [("yolov8-mobilenetv2_050", [False, True]), ("yolov8n", [False, False])])
def test_a_training_keeps_its_memory_from_the_second_batch_on(name, kept, tiny_data, tmp_path):
    model, seen = YOLO(f"{name}.yaml"), []
    model.add_callback("on_train_batch_end", lambda _: seen.append(is_kept()))
    model.train(data=tiny_data, project=tmp_path, pretrained=False, **QUICK)
    assert seen == kept
    assert not is_kept()


def test_a_training_that_is_stopped_gives_its_memory_back(tiny_data, tmp_path):
    model = YOLO("yolov8-mobilenetv2_050.yaml")

    def stop(_):
        if is_kept():
            raise KeyboardInterrupt

    model.add_callback("on_train_batch_end", stop)
    with pytest.raises(KeyboardInterrupt):
        model.train(data=tiny_data, project=tmp_path, pretrained=False, **QUICK)
    del model
    gc.collect()
    assert not is_kept()


def test_memory_that_is_short_is_not_kept(tiny_data, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_SPARE", 1e6)
    model, seen = YOLO("yolov8-mobilenetv2_050.yaml"), []
    model.add_callback("on_train_batch_end", lambda _: seen.append(is_kept()))
    model.train(data=tiny_data, project=tmp_path, pretrained=False, **QUICK)
    assert seen == [False, False]
