"""Small data sets in the format of each Ultralytics task: pictures of one rotated, coloured rectangle on dark noise."""

from pathlib import Path

import cv2
import numpy as np

NAMES = ("bluish", "reddish")
# Options of a training that learns 64 such pictures from random weights in half a minute.
LEARNING = {
    "imgsz": 64, "batch": 8, "nbs": 8, "epochs": 10, "optimizer": "AdamW", "lr0": 0.002, "warmup_epochs": 1,
    "mosaic": 0, "hsv_h": 0, "hsv_s": 0, "erasing": 0,
    "pretrained": False, "workers": 0, "plots": False, "verbose": False, "device": "cpu",
}  # fmt: skip


def _label(task: str, kind: int, corners: np.ndarray) -> str:
    """Return the line of a label file for `corners`, `(4, 2)`, in fractions of the picture."""
    low, high = corners.min(0), corners.max(0)
    box = [*(low + high) / 2, *(high - low)]
    values = {
        "detect": box,
        "segment": corners.ravel(),
        "obb": corners.ravel(),
        "pose": [*box, *(value for x, y in corners for value in (x, y, 2))],
    }[task]
    return f"{kind} {' '.join(f'{value:.5f}' for value in values)}\n"


def draw(task: str, folder: Path, train: int = 8, val: int = 4, size: int = 64) -> Path:
    """Draw a data set of `size` x `size` pictures; return what `data=` takes, a YAML or, to classify, a folder."""
    rng = np.random.default_rng(0)
    for split, number in (("train", train), ("val", val)):
        for i in range(number):
            kind = i % 2
            image = rng.integers(0, 60, (size, size, 3), dtype=np.uint8)
            shape = (rng.uniform(0.4, 0.6, 2) * size, rng.uniform(0.25, 0.5, 2) * size, rng.uniform(0, 90))
            corners = cv2.boxPoints(shape)
            color = rng.integers(150, 255, 3)
            color[0 if kind else 2] = 0
            cv2.fillPoly(image, [corners.astype(int)], color.tolist())
            image_file = folder / "images" / split / f"{i}.png"
            if task == "classify":
                image_file = folder / split / NAMES[kind] / f"{i}.png"
            image_file.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(image_file), image)
            if task != "classify":
                label_file = folder / "labels" / split / f"{i}.txt"
                label_file.parent.mkdir(parents=True, exist_ok=True)
                label_file.write_text(_label(task, kind, np.clip(corners / size, 0, 1)))
    if task == "classify":
        return folder
    file = folder / f"{task}.yaml"
    keypoints = "kpt_shape: [4, 3]\n" if task == "pose" else ""
    file.write_text(f"train: images/train\nval: images/val\nnames: {dict(enumerate(NAMES))}\n{keypoints}")
    return file
