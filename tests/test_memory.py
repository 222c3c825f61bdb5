"""Memory that a training on a CPU keeps for its next step, and gives back at its end.

Each case has a process of its own: in the heap of one that has trained before, large tensors may find a gap.
"""

import gc
import multiprocessing
import platform
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch
from ultralytics import YOLO

from yolo_effnet.host import memory

QUICK = {"imgsz": 64, "batch": 4, "workers": 0, "plots": False, "verbose": False, "device": "cpu", "epochs": 1}
LARGE = 2**28  # bytes, far above what else changes in between

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another libc manages its memory otherwise")


def in_new_process(function, *args):
    """Return what a function of this file returns in a new interpreter."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def resident() -> int:
    """Return the bytes of this process that are in memory."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def is_kept(size: int = LARGE) -> bool:
    """Return whether memory stays with the process after a tensor of so many bytes is gone."""
    tensor = torch.ones(size // 4)
    full = resident()
    del tensor
    return resident() > full - size / 2


def is_still_kept() -> bool:
    """Return the same after a time in which it was: by a tensor for which no earlier one can have left a gap."""
    return is_kept(4 * LARGE)


def around_a_block() -> list[bool]:
    """Return whether memory is kept before, in and after a block, and what the block kept still after it."""
    seen = [is_kept()]
    with memory.kept(torch.device("cpu")):
        seen.append(is_kept())
        full = resident()
    return [*seen, is_still_kept(), resident() > full - LARGE / 2]


def by_batch(name: str, data: Path, folder: Path, spare: float) -> list[bool]:
    """Return whether memory is kept at the end of each batch of a training, and after it."""
    memory._SPARE = spare
    model, seen = YOLO(f"{name}.yaml"), []
    model.add_callback("on_train_batch_end", lambda _: seen.append(is_kept()))
    model.train(data=data, project=folder, pretrained=False, **QUICK)
    return [*seen, is_still_kept()]


def after_a_stop(data: Path, folder: Path) -> bool:
    """Return whether memory is still kept after a training that was stopped while it kept some."""
    model = YOLO("yolov8-mobilenetv2_050.yaml")

    def stop(_):
        if is_kept():
            raise KeyboardInterrupt

    model.add_callback("on_train_batch_end", stop)
    with pytest.raises(KeyboardInterrupt):
        model.train(data=data, project=folder, pretrained=False, **QUICK)
    del model
    gc.collect()
    return is_still_kept()


def test_freed_memory_stays_for_a_while_and_goes_back():
    assert in_new_process(around_a_block) == [False, True, False, False]


@pytest.mark.parametrize(("name", "kept"), [("yolov8-mobilenetv2_050", [False, True]), ("yolov8n", [False, False])])
def test_a_training_keeps_its_memory_from_the_second_batch_on(name, kept, tiny_data, tmp_path):
    assert in_new_process(by_batch, name, tiny_data, tmp_path, memory._SPARE) == [*kept, False]


def test_a_training_that_is_stopped_gives_its_memory_back(tiny_data, tmp_path):
    assert not in_new_process(after_a_stop, tiny_data, tmp_path)


def test_memory_that_is_short_is_not_kept(tiny_data, tmp_path):
    assert in_new_process(by_batch, "yolov8-mobilenetv2_050", tiny_data, tmp_path, 1e6) == [False, False, False]
