"""Draw the shapes dataset: overlapping circles, squares, triangles and stars on textured backgrounds, with their boxes.

It is small enough to train on a CPU while you wait, and it needs no download: `shapes.yaml` beside this file calls
`draw` the first time you train with it. By hand, and of another size:

    python examples/shapes.py my-shapes --train 100 --val 20 --imgsz 320

Each class has its own range of hues, so that a model learns in minutes what takes hours to tell by outline alone.
"""

import argparse
import inspect
import tempfile
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

CLASSES = ("circle", "square", "triangle", "star")
HUES = (0, 45, 90, 135)  # first of the 30 hues of each class, of OpenCV's 180: red to yellow, green, blue, pink
MIN_VISIBLE = 0.5  # every shape has at least this share of its area inside the picture and not behind others


class Shape(NamedTuple):
    """One shape, as if nothing were in front of it.

    Attributes:
        cls (int): Index into `CLASSES`.
        outline (np.ndarray): Corners of the whole shape in pixels, (n, 2) as x, y; some may lie outside the picture.
        mask (np.ndarray): Pixels of the picture inside the outline, (imgsz, imgsz) bool.
        fill (np.ndarray): The colours that `mask` cuts out, (imgsz, imgsz, 3) uint8 BGR.
    """

    cls: int
    outline: np.ndarray
    mask: np.ndarray
    fill: np.ndarray


def corners(cls: int, centre: np.ndarray, radius: float, angle: float) -> np.ndarray:
    """Return the corners of a shape inscribed in a circle of `radius` pixels, (n, 2) as x, y."""
    n = (64, 4, 3, 10)[cls]
    turns = angle + np.arange(n) * (2 * np.pi / n)
    reach = np.full(n, radius)
    if CLASSES[cls] == "star":
        reach[1::2] *= 0.45
    return centre + reach[:, None] * np.stack([np.cos(turns), np.sin(turns)], axis=1)


def texture(rng: np.random.Generator, imgsz: int, colour: np.ndarray, spread: float) -> np.ndarray:
    """Return `colour` with a gradient and noise from coarse to fine, (imgsz, imgsz, 3) uint8 BGR."""
    image = np.zeros((imgsz, imgsz, 3), np.float32) + colour
    for cells, strength in ((2, 1.0), (6, 0.6), (24, 0.4), (imgsz, 0.2)):  # 2 x 2 cells are the gradient
        noise = rng.normal(0, spread * strength, (cells, cells, 3))
        image += cv2.resize(noise.astype(np.float32), (imgsz, imgsz), interpolation=cv2.INTER_LINEAR)
    return image.clip(0, 255).astype(np.uint8)


def random_shape(rng: np.random.Generator, imgsz: int) -> Shape:
    """Return a shape of any class, place, size and rotation, in a vivid colour of its class."""
    cls = int(rng.integers(len(CLASSES)))
    outline = corners(cls, rng.uniform(0, imgsz, 2), rng.uniform(0.1, 0.25) * imgsz, rng.uniform(0, 2 * np.pi))
    mask = np.zeros((imgsz, imgsz), np.uint8)
    cv2.fillPoly(mask, [np.round(outline * 16).astype(np.int32)], 1, shift=4)  # in sixteenths of a pixel
    hsv = np.uint8([[[HUES[cls] + rng.integers(30), rng.integers(150, 256), rng.integers(140, 256)]]])
    colour = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0, 0]
    return Shape(cls, outline, mask.astype(bool), texture(rng, imgsz, colour, 12))


def visible_masks(shapes: list[Shape]) -> list[np.ndarray]:
    """Return the pixels of each shape that no later shape covers, each (imgsz, imgsz) bool."""
    masks, covered = [], np.False_
    for shape in reversed(shapes):
        masks.append(shape.mask & ~covered)
        covered = covered | shape.mask
    return masks[::-1]


def compose(rng: np.random.Generator, imgsz: int) -> tuple[np.ndarray, list[Shape]]:
    """Return a background, (imgsz, imgsz, 3) uint8 BGR, and the shapes to draw on it from back to front."""
    background = texture(rng, imgsz, rng.uniform(50, 200) + rng.uniform(-15, 15, 3), 25)
    shapes: list[Shape] = []
    for _ in range(rng.integers(3, 9)):
        # A label for a hardly visible shape would be unfair, and a visible shape without a label wrong. So a new
        # shape is left out if it, or one that it covers, would show too little.
        trial = [*shapes, random_shape(rng, imgsz)]
        areas = [cv2.contourArea(shape.outline.astype(np.float32)) for shape in trial]
        if all(mask.sum() >= MIN_VISIBLE * area for mask, area in zip(visible_masks(trial), areas, strict=True)):
            shapes = trial
    return background, shapes


def render(background: np.ndarray, shapes: list[Shape]) -> np.ndarray:
    """Return the picture of the shapes on the background, (imgsz, imgsz, 3) uint8 BGR."""
    image = background.copy()
    for shape in shapes:
        image[shape.mask] = shape.fill[shape.mask]
    return image


def label_rows(shapes: list[Shape]) -> list[str]:
    """Return a YOLO row `class x y width height` per shape: the tight box of its visible pixels, as in COCO and VOC."""
    rows = []
    for shape, mask in zip(shapes, visible_masks(shapes), strict=True):
        xs, ys = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
        x1, y1, x2, y2 = np.array([xs[0], ys[0], xs[-1] + 1, ys[-1] + 1]) / len(mask)  # + 1: a pixel's far edge
        rows.append(f"{shape.cls} {(x1 + x2) / 2:.6f} {(y1 + y2) / 2:.6f} {x2 - x1:.6f} {y2 - y1:.6f}")
    return rows


def draw(root: str | Path, train: int = 300, val: int = 50, imgsz: int = 160, seed: int = 0) -> None:
    """Draw the dataset into a new folder, which appears only once it is complete.

    Args:
        root (str | Path): Folder to create, with `images/` and `labels/` and in both `train/` and `val/`.
        train (int): Number of training pictures, at least 1.
        val (int): Number of validation pictures, at least 1.
        imgsz (int): Width and height of a picture in pixels, at least 32.
        seed (int): At least 0. The same seed gives the same files; more pictures leave the first ones as they are.

    Raises:
        ValueError: If a number is too small.
        RuntimeError: If `root` exists already and is not an empty folder.
    """
    for name, value, least in (("train", train, 1), ("val", val, 1), ("imgsz", imgsz, 32), ("seed", seed, 0)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    root = Path(root).resolve()
    if root.exists() and not (root.is_dir() and not any(root.iterdir())):
        raise RuntimeError(f"'{root}' exists already: delete it, or draw into another folder (`path` in shapes.yaml)")
    root.parent.mkdir(parents=True, exist_ok=True)
    # An interrupted drawing must not pass for a complete one: draw beside `root` and rename at the end.
    with tempfile.TemporaryDirectory(prefix=f"{root.name}-", dir=root.parent) as scratch:
        drawn = Path(scratch, root.name)
        for k, (split, count) in enumerate((("train", train), ("val", val))):
            images, labels = drawn / "images" / split, drawn / "labels" / split
            images.mkdir(parents=True)
            labels.mkdir(parents=True)
            for i in range(count):
                background, shapes = compose(np.random.default_rng([seed, k, i]), imgsz)
                png = cv2.imencode(".png", render(background, shapes))[1]
                (images / f"{i:05}.png").write_bytes(png.tobytes())
                (labels / f"{i:05}.txt").write_text("".join(f"{row}\n" for row in label_rows(shapes)))
        try:
            if root.exists():
                root.rmdir()  # empty, but Windows cannot rename onto it
            drawn.rename(root)
        except OSError:
            if not (root / "images" / "val").is_dir():  # else another process was faster
                raise


def main() -> None:
    """Draw the dataset from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("root", metavar="OUT", help="folder to create")
    for name, meaning in (
        ("train", "number of training pictures"),
        ("val", "number of validation pictures"),
        ("imgsz", "width and height of a picture in pixels"),
        ("seed", "seed of the drawing"),
    ):
        default = inspect.signature(draw).parameters[name].default
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{meaning} (default: %(default)s)")
    try:
        draw(**vars(parser.parse_args()))
    except (ValueError, RuntimeError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
