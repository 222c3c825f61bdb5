"""Pictures without labels as a data set of Ultralytics, and what a teacher sees in those that are not trained on."""

import functools
import math
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import ultralytics.data.build
import ultralytics.utils.ops
import yaml
from PIL import Image
from torch import nn
from ultralytics import YOLO
from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import check_det_dataset, exif_size, img2label_paths
from ultralytics.utils import LOGGER, NUM_THREADS
from ultralytics.utils.patches import imread

from yolo_effnet.checks import why
from yolo_effnet.grafting.donor import mode_of
from yolo_effnet.grafting.pictures import SMALLEST, files_of

USUAL = 0.25  # confidence from which Ultralytics shows what a detector sees
_UNSURE = 0.05  # and from which it counts in how sure the teacher is
_KEPT, _FEWEST, _MOST = 10, 4, 300  # every tenth picture is not trained on, within these numbers
_YAML = "followed.yaml"  # of a run that follows another model


def _is_cut_off(file: str) -> bool:
    """Return whether a picture is a JPEG without its end, which Ultralytics' check of labels writes anew."""
    with open(file, "rb") as stream:
        if stream.read(2) != b"\xff\xd8":
            return False
        stream.seek(-2, 2)
        return stream.read() != b"\xff\xd9"


def _size(file: str) -> tuple[int, int] | None:
    """Return height and width of a picture as it is decoded, None if it cannot be; it is not changed or mended."""
    try:
        if not _is_cut_off(file):  # to decode every picture would take as long as an epoch
            with Image.open(file) as image:
                image.verify()
                width, height = exif_size(image)
                return height, width
    except Exception:  # of many kinds: what decides is whether Ultralytics reads it
        pass
    try:
        image = imread(file)
    except Exception:  # likewise
        return None
    return None if image is None else image.shape[:2]


def _sizes(files: list[str]) -> dict[str, tuple[int, int]]:
    """Return height and width of each picture that can be read, by its file, and warn of the others."""
    with ThreadPool(NUM_THREADS) as pool:
        sizes = dict(zip(files, pool.map(_size, files), strict=True))
    for file, size in sizes.items():
        if size is None or min(size) < SMALLEST:
            fault = "cannot be read" if size is None else f"has a side below {SMALLEST} pixels"
            LOGGER.warning(f"{file} is left out: it {fault}")
    return {file: size for file, size in sizes.items() if size and min(size) >= SMALLEST}


def _all_files(places) -> list[str]:
    """Return the pictures of folders, globs and lists, by absolute paths."""
    places = [places] if isinstance(places, (str, Path)) else places
    return list(dict.fromkeys(str(Path(file).absolute()) for place in places for file in files_of(place)))


def _split(files: list[str]) -> tuple[list[str], list[str]]:
    """Return pictures to train on, and evenly chosen others to measure agreement on."""
    number = min(max(len(files) // _KEPT, min(_FEWEST, len(files) // 2)), _MOST)
    if not number:
        return files, files
    kept = {files[(2 * i + 1) * len(files) // (2 * number)] for i in range(number)}
    return [file for file in files if file not in kept], [file for file in files if file in kept]


def is_described(data) -> bool:
    """Return whether what `data=` names is what `describe` has written."""
    return Path(str(data)).name == _YAML


def describe(data, split: str, teacher: nn.Module, folder: Path) -> Path:
    """Write which pictures a training follows its teacher on, as the YAML of a data set with the teacher's classes.

    Args:
        data (str | Path): A data YAML, a folder with all below it, a glob, or a text file that lists pictures.
        split (str): The split of a YAML that is not trained on. Of other pictures every tenth is not.
        teacher (nn.Module): The teacher.
        folder (Path): Where to write it.

    Returns:
        (Path): The YAML.

    Raises:
        ValueError: If there are no pictures, or the data set cannot be loaded.
    """
    labelled, path = False, Path(str(data))
    if path.suffix.lower() in (".yaml", ".yml") and not path.is_dir():
        try:
            own = check_det_dataset(str(data))
        except Exception as error:  # of many kinds
            raise ValueError(f"data={data} is no data set that Ultralytics can load ({why(error)})") from error
        train, val = _all_files(own["train"]), _all_files(own.get(split) or own["val"])
        same = len(own["names"]) == len(teacher.names)
        labelled = same and any(Path(file).is_file() for file in img2label_paths(val))
    else:
        train, val = _all_files(str(data)), []
    sizes = _sizes(list(dict.fromkeys((*train, *val))))
    train, val = ([file for file in files if file in sizes] for files in (train, val))
    if not train:
        raise ValueError(f"data={data} has no pictures that can be read; give a data YAML, a folder, a glob or a list")
    if not val:
        train, val = _split(train)
    return _described(train, val, split, teacher, folder, labelled=labelled)


def describe_steps(files: list[str], steps: int, batch: int, teacher: nn.Module, folder: Path, seed: int) -> Path:
    """Write the YAML as `describe` does, of pictures that are repeated until one epoch has so many steps."""
    train, val = _split(files)
    rounds = math.ceil(steps * batch / len(train))
    rng = random.Random(seed)
    repeated = [file for _ in range(rounds) for file in rng.sample(train, len(train))]
    return _described(repeated[: steps * batch], val, "val", teacher, folder)


def _described(
    train: list[str], val: list[str], split: str, teacher: nn.Module, folder: Path, *, labelled: bool = False
) -> Path:
    """Write the YAML of a data set of pictures, and the lists that it names."""
    config = {"names": dict(teacher.names), "channels": teacher.yaml.get("channels", 3), "labelled": labelled}
    if mode_of(teacher) == "pose":
        points = list(teacher.model[-1].kpt_shape)
        config |= {"kpt_shape": points, "flip_idx": list(range(points[0]))}  # of no label, but without it nothing flips
    folder.mkdir(parents=True, exist_ok=True)
    for name, files in (("train", train), ("val", val)):
        _write(folder / f"{name}.txt", "\n".join(files) + "\n")
        config[name] = f"{name}.txt"
    config[split] = config["val"]
    _write(folder / _YAML, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    return folder / _YAML


def _write(file: Path, text: str) -> None:
    """Write a file at once, as several ranks may write and read it."""
    part = file.with_name(f"{file.name}.{os.getpid()}")
    part.write_text(text, encoding="utf-8")
    part.replace(file)


def _blank(file: str, size: tuple[int, int], pose: tuple | None) -> dict:
    """Return the label of a picture, as Ultralytics has it, with nothing in it."""
    return {
        "im_file": file, "shape": size, "cls": np.zeros((0, 1), np.float32), "bboxes": np.zeros((0, 4), np.float32),
        "segments": [], "keypoints": np.zeros((0, pose[0], 3), np.float32) if pose else None,
        "normalized": True, "bbox_format": "xywh",
    }  # fmt: skip


def _around(polygons: list[np.ndarray]) -> np.ndarray:
    """Return the upright boxes around polygons, `(n, 4)` as centre and size."""
    low, high = (np.array([f(p, 0) for p in polygons], np.float32).reshape(-1, 2) for f in (np.min, np.max))
    return np.concatenate(((low + high) / 2, high - low), 1)


def _label(result, found, item: dict, segments: bool, pose: tuple | None) -> dict:
    """Return what a teacher sees in a picture of a data set as its label; a mask without an outline is left out."""
    sure = np.flatnonzero((found.conf >= USUAL).cpu().numpy())
    (gain_y, gain_x), (left, top) = item["ratio_pad"]
    size = np.array((gain_x * item["ori_shape"][1], gain_y * item["ori_shape"][0]), np.float32)  # without the border

    def inside(points: np.ndarray) -> np.ndarray:
        return ((points - (left, top)) / size).astype(np.float32)

    label: dict = {"segments": []}
    if segments:
        outlines = result.masks.xy if result.masks is not None else [()] * len(found)
        sure = np.array([i for i in sure if len(outlines[i]) > 2], int)
        label["segments"] = [inside(outlines[i]) for i in sure]
    label["cls"] = found.cls.cpu().numpy().reshape(-1, 1)[sure].astype(np.float32)
    if result.obb is not None:
        label["segments"] = [inside(corners) for corners in found.xyxyxyxy.cpu().numpy().reshape(-1, 4, 2)[sure]]
        label["bboxes"] = _around(label["segments"])
    else:
        boxes = found.xywh.cpu().numpy()[sure]
        label["bboxes"] = np.concatenate((inside(boxes[:, :2]), boxes[:, 2:] / size), 1).astype(np.float32)
    if pose:
        points = result.keypoints.data.cpu().numpy().reshape(-1, *pose)[sure]
        shown = points[..., 2:] >= 0.5 if pose[1] == 3 else np.ones((*points.shape[:2], 1))
        label["keypoints"] = np.concatenate((inside(points[..., :2]), 2 * shown), 2).astype(np.float32)
    return label


@contextmanager
def _as_validated() -> Iterator[None]:
    """Let predictors keep each class of a place that is sure enough, as validators do."""
    home = getattr(ultralytics.utils, "nms", ultralytics.utils.ops)  # `ops` in older releases
    before = home.non_max_suppression
    home.non_max_suppression = functools.partial(before, multi_label=True)
    try:
        yield
    finally:
        home.non_max_suppression = before


def label(dataset: YOLODataset, teacher: nn.Module, path: str, device) -> tuple[int, float]:
    """Give the pictures of a data set to validate on what a teacher sees in them as their labels.

    It sees the pixels that the data set gives, with their border, so that it agrees with itself.

    Args:
        dataset (YOLODataset): Of `Footage`.
        teacher (nn.Module): The teacher.
        path (str): Its file, which is loaded again, as Ultralytics fuses what predicts.
        device (torch.device): Where to compute.

    Returns:
        (tuple[int, float]): The number of objects, and the highest score in a picture, mean over the pictures.
    """
    task, number, scores = mode_of(teacher), 0, []
    pose = tuple(teacher.model[-1].kpt_shape) if task == "pose" else None
    model = YOLO(path)
    model.task = model.overrides["task"] = task  # of a checkpoint without it, older releases say detect
    options = {"conf": _UNSURE, "device": device, "save": False, "verbose": False}
    with _as_validated():
        for i, blank in enumerate(dataset.labels):
            item = dataset[i]
            (result,) = model.predict(item["img"][None].float() / 255, **options)
            found = result.obb if result.obb is not None else result.boxes
            scores.append(float(found.conf.max()) if len(found) else 0.0)
            blank.update(_label(result, found, item, task == "segment", pose))
            number += len(blank["cls"])
    return number, sum(scores) / max(len(scores), 1)


class Footage(YOLODataset):
    """Pictures whose labels are empty until `label` gives them some; no file of labels is read or written."""

    def get_labels(self) -> list[dict]:
        """Return the labels of the pictures."""
        pose = tuple(self.data["kpt_shape"]) if self.use_keypoints else None
        sizes = _sizes(list(dict.fromkeys(self.im_files)))
        self.im_files = [file for file in self.im_files if file in sizes]
        return [_blank(file, sizes[file], pose) for file in self.im_files]


class Labelled(YOLODataset):
    """Pictures with labels of the user's, whose cache is written elsewhere than beside them."""

    def __init__(self, *args, cache_file: Path, **kwargs):
        """Take the file of the cache; the other arguments are Ultralytics'."""
        self.cache_file = cache_file
        super().__init__(*args, **kwargs)

    def get_labels(self) -> list[dict]:
        """Return the labels of the pictures, of which Ultralytics' check would mend those that are cut off."""
        self.im_files = [file for file in self.im_files if not _is_cut_off(file)]
        self.label_files = img2label_paths(self.im_files)
        labels = self.cache_labels(self.cache_file)["labels"]
        self.im_files = [label["im_file"] for label in labels]
        return labels


@contextmanager
def lent(kind: type[YOLODataset], **options) -> Iterator[None]:
    """Let Ultralytics build data sets of a kind with more options, until the end of the `with` block."""
    build = ultralytics.data.build
    before = build.YOLODataset
    build.YOLODataset = functools.partial(kind, **options)
    try:
        yield
    finally:
        build.YOLODataset = before
