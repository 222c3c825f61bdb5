"""Isolation from the user's Ultralytics settings, and models and data that several test files share."""

import os
import tempfile
from pathlib import Path

# Before the first import of Ultralytics, which reads and writes its settings there.
os.environ["YOLO_CONFIG_DIR"] = tempfile.mkdtemp(prefix="yolo_effnet_tests_")
os.environ.setdefault("YOLO_AUTOINSTALL", "false")
os.environ.pop("YOLO_EFFNET_AUTOLOAD", None)
if "PYTEST_XDIST_WORKER" in os.environ:  # as many processes as cores, whose threads would wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pictures
import pytest
import torch
from ultralytics import YOLO

# Files of which most tests train, export, install or run commands. `pytest -m "not slow"` leaves them out.
SLOW = {
    "test_benchmark", "test_blend", "test_class_rows", "test_compare", "test_docs", "test_examples", "test_export",
    "test_gpu", "test_graft", "test_graft_pictures", "test_int8", "test_match_training", "test_memory", "test_modes",
    "test_real_weights", "test_recipe", "test_starts", "test_startup", "test_tasks", "test_training_start",
    "test_trust", "test_versions",
}  # fmt: skip


def pytest_collection_modifyitems(items):
    """Mark the tests of the slow files."""
    for item in items:
        if item.path.stem in SLOW:
            item.add_marker("slow")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    """A detection set of eight pictures of 64 pixels; returns its YAML's path."""
    return pictures.draw("detect", tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def learned(tmp_path_factory):
    """Weights of B0 that detect most of what is in a small data set, and its YAML's path."""
    data = pictures.draw("detect", tmp_path_factory.mktemp("learned"), train=64, val=16)
    model = YOLO("yolov8-effb0.yaml")
    model.train(data=data, project=tmp_path_factory.mktemp("runs"), **pictures.LEARNING)
    return Path(model.trainer.save_dir) / "weights" / "best.pt", data
