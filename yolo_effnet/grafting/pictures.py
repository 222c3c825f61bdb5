"""Pictures without labels, evenly chosen and letterboxed as Ultralytics does."""

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from ultralytics.data.augment import LetterBox
from ultralytics.data.utils import IMG_FORMATS, check_det_dataset
from ultralytics.utils import LOGGER
from ultralytics.utils.patches import imread

from yolo_effnet.checks import check_value, is_integer, why

FEW = 16  # pictures, below which a solution fits these and little else
SMALLEST = 10  # pixels of a side, below which Ultralytics leaves a picture out of a training
_FLAGS = {1: cv2.IMREAD_GRAYSCALE, 3: cv2.IMREAD_COLOR}


def _below(folder: Path) -> list[Path]:
    """Return the files below a folder as a training finds them: through links, but none that is hidden."""
    found, seen = [], set()
    for root, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        folders[:] = [] if real in seen else sorted(name for name in folders if not name.startswith("."))
        found += [] if real in seen else [Path(root, name) for name in files if not name.startswith(".")]
        seen.add(real)  # of links that lead back
    return sorted(found)


def _places_of(place: str | Path) -> list[str | Path]:
    """Return where a data set's YAML has the pictures to train on, and any other place as it is."""
    if Path(place).suffix.lower() not in (".yaml", ".yml") or Path(place).is_dir():
        return [place]
    try:
        train = check_det_dataset(str(place))["train"]
    except Exception as error:  # of many kinds
        raise ValueError(f"'{place}' is no data set that Ultralytics can load ({why(error)})") from error
    return [train] if isinstance(train, (str, Path)) else list(train)


def files_of(place: str | Path) -> list[str]:
    """Return the pictures of a folder with all below it, a file that lists them, a file or a glob."""
    path = Path(place)
    if path.is_dir():
        found = _below(path)
    elif path.is_file() and path.suffix[1:].lower() not in IMG_FORMATS:
        lines = path.read_text(encoding="utf-8-sig", errors="replace").split("\n")
        found = [path.parent / line if line.startswith("./") else Path(line) for line in map(str.strip, lines) if line]
    else:
        found = [path] if path.is_file() else sorted(map(Path, glob.glob(str(place), recursive=True)))
    return [str(file) for file in found if file.suffix[1:].lower() in IMG_FORMATS]


def find(source: str | Path | Iterable[str | Path], number: int) -> list[str]:
    """Return the files of `number` pictures, or of all where there are fewer, chosen evenly.

    Args:
        source (str | Path | Iterable[str | Path]): A data set's YAML, of which the train split is taken (and which
            Ultralytics downloads, if it can); a folder, a text file that lists pictures, a glob or a picture; or a
            list of these.
        number (int): How many, >= 1.

    Raises:
        ValueError: If there are none, or a data set cannot be loaded.
    """
    check_value("the number of pictures", number, lambda v: is_integer(v) and v >= 1, "an integer >= 1")
    places = [source] if isinstance(source, (str, Path)) or not isinstance(source, Iterable) else list(source)
    for place in places:
        if not isinstance(place, (str, Path)):
            raise ValueError(f"pictures are given as files, folders, globs or data YAMLs, not {type(place).__name__}")
    files = list(dict.fromkeys(file for place in places for at in _places_of(place) for file in files_of(at)))
    if not files:
        where = f"{places[0]} and {len(places) - 1} more" if len(places) > 1 else source
        raise ValueError(f"no pictures in {where}; give a data YAML, a folder or a glob of {', '.join(IMG_FORMATS)}")
    return [files[i * len(files) // number] for i in range(number)] if len(files) > number else files


def _read(file: str, channels: int) -> np.ndarray | None:
    """Return a picture as `(H, W, channels)` in BGR or grey, or None where a training leaves it out."""
    try:
        image = imread(file, _FLAGS[channels])
        fault = "" if image is not None else "cannot be read"
    except Exception as error:
        fault = f"cannot be read: {why(error)}"
    if not fault:
        image = image if image.ndim == 3 else image[..., None]
        if min(image.shape[:2]) < SMALLEST:
            fault = f"is left out, as in a training: a side is below {SMALLEST} pixels"
        elif image.shape[2] != channels or image.dtype != np.uint8:
            fault = f"is left out: it is read as {image.dtype} of {image.shape[2]} channels"
    if fault:
        LOGGER.warning(f"{file} {fault}")
        return None
    return image


class Pictures:
    """Pictures as batches, read anew in every pass, so that memory does not grow with their number.

    Attributes:
        files (list[str]): Those that can be read.
        imgsz (int): Side in pixels of what the network gets, a multiple of its stride.
        channels (int): 3 for RGB, 1 for grey.
    """

    def __init__(self, files: list[str], imgsz: int, channels: int = 3):
        """Check the files; a ValueError tells that none can be read."""
        self.imgsz, self.channels = imgsz, channels
        self.files, plain = [], True
        for file in files:
            if (image := _read(file, channels)) is not None:
                self.files.append(file)
                plain = plain and bool((image == image[:1, :1]).all())
        if not self.files:
            raise ValueError(f"none of {len(files)} pictures can be read, the first is {files[0]}")
        if plain:
            LOGGER.warning("All pictures are of one colour: what is solved for fits their borders, and detects nothing")
        if len(self.files) < FEW:
            LOGGER.warning(
                f"{len(self.files)} pictures are few to solve for a neck; give {FEW} or more, best some hundred"
            )

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.files)

    def _tensor(self, image: np.ndarray) -> torch.Tensor:
        image = LetterBox((self.imgsz, self.imgsz))(image=image)
        image = image[..., ::-1] if self.channels == 3 else image.reshape(*image.shape[:2], 1)
        return torch.from_numpy(image.transpose(2, 0, 1).copy()).float() / 255

    def batches(self, size: int = 4) -> Iterator[torch.Tensor]:
        """Yield all pictures, each beside its mirror image: `(2 * size, channels, imgsz, imgsz)` in [0, 1]."""
        for start in range(0, len(self.files), size):
            images = [self._tensor(_read(file, self.channels)) for file in self.files[start : start + size]]
            yield torch.stack([*images, *(image.flip(-1) for image in images)])
