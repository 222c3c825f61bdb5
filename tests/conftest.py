"""Isolation from the user's Ultralytics settings, and models and data that several test files share."""

import os
import tempfile

# Before the first import of Ultralytics, which reads and writes its settings there.
os.environ["YOLO_CONFIG_DIR"] = tempfile.mkdtemp(prefix="yolo_effnet_tests_")
os.environ.setdefault("YOLO_AUTOINSTALL", "false")
os.environ.pop("YOLO_EFFNET_AUTOLOAD", None)

import cv2
import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    """A detection set of eight 64-pixel pictures with one bright rectangle each; returns its YAML's path."""
    root = tmp_path_factory.mktemp("tiny")
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for i in range(8 if split == "train" else 4):
            image = rng.integers(0, 60, (64, 64, 3), dtype=np.uint8)
            (x, y), (w, h) = rng.integers(4, 24, 2), rng.integers(16, 32, 2)
            image[y : y + h, x : x + w] = rng.integers(160, 255, 3)
            cv2.imwrite(str(root / "images" / split / f"{i}.png"), image)
            label = f"{i % 2} {(x + w / 2) / 64} {(y + h / 2) / 64} {w / 64} {h / 64}\n"
            (root / "labels" / split / f"{i}.txt").write_text(label)
    file = root / "tiny.yaml"
    file.write_text("train: images/train\nval: images/val\nnames: {0: odd, 1: even}\n")
    return file
