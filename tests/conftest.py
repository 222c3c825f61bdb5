"""Isolation from the user's Ultralytics settings, and models and data that several test files share."""

import os
import tempfile

# Before the first import of Ultralytics, which reads and writes its settings there.
os.environ["YOLO_CONFIG_DIR"] = tempfile.mkdtemp(prefix="yolo_effnet_tests_")
os.environ.setdefault("YOLO_AUTOINSTALL", "false")
os.environ.pop("YOLO_EFFNET_AUTOLOAD", None)

import datasets
import pytest
import torch


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    """A detection set of eight pictures of 64 pixels; returns its YAML's path."""
    return datasets.draw("detect", tmp_path_factory.mktemp("tiny"))
