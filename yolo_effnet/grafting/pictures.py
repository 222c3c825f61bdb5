"""Pictures without labels, evenly chosen and letterboxed as Ultralytics does."""

import glob
import random
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from ultralytics.data.augment import LetterBox
from ultralytics.data.utils import IMG_FORMATS, check_det_dataset
from ultralytics.utils import LOGGER
from ultralytics.utils.patches import imread

FEW = 16  # pictures, below which a solution fits these and little else


def _files_of(place: str | Path) -> list[str]:
    """Return the pictures of a file, a folder with all below it, a list in a text file, or a glob."""
    path = Path(place)
    if path.is_dir():
        found = sorted(path.rglob("*"))
    elif path.suffix == ".txt" and path.is_file():
        lines = path.read_text(encoding="utf-8").split("\n")
        found = [path.parent / line if line.startswith("./") else Path(line) for line in map(str.strip, lines) if line]
    else:
        found = [path] if path.is_file() else sorted(map(Path, glob.glob(str(place), recursive=True)))
    return [str(file) for file in found if file.suffix[1:].lower() in IMG_FORMATS]


def find(source: str | Path | Iterable[str | Path], number: int) -> list[str]:
    """Return the files of `number` pictures, or of all where there are fewer, chosen evenly.

    Args:
        source (str | Path | Iterable[str | Path]): A data set's YAML, of which the train split is taken (and which
            Ultralytics downloads, if it can); a folder, a glob or a file; or a list of these.
        number (int): How many, >= 1.

    Raises:
        ValueError: If there are none.
    """
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise ValueError(f"the number of pictures must be an integer >= 1, got {number!r}")
    places = [source] if isinstance(source, (str, Path)) else list(source)
    if len(places) == 1 and Path(places[0]).suffix in (".yaml", ".yml"):
        train = check_det_dataset(str(places[0]))["train"]
        places = [train] if isinstance(train, (str, Path)) else train
    files = [file for place in places for file in _files_of(place)]
    if not files:
        raise ValueError(f"no pictures in {source}; give a data YAML, a folder or a glob of {', '.join(IMG_FORMATS)}")
    return [files[i * len(files) // number] for i in range(number)] if len(files) > number else files


def _read(file: str, channels: int) -> np.ndarray | None:
    """Return a picture as `(H, W, channels)` in BGR or grey, or None where it cannot be read."""
    try:
        image = imread(file)
    except Exception as error:
        LOGGER.warning(f"{file} cannot be read: {error}")
        return None
    if image is None:
        LOGGER.warning(f"{file} cannot be read")
        return None
    return image if channels == 3 else image.mean(2, keepdims=True).astype(np.uint8)


class Pictures:
    """Pictures as batches, read anew in every pass, so that memory does not grow with their number.

    Attributes:
        files (list[str]): Those that can be read.
        imgsz (int): Side in pixels.
        channels (int): 3 for RGB, 1 for grey.
    """

    def __init__(self, files: list[str], imgsz: int, channels: int = 3):
        """Check the files.

        Args:
            files (list[str]): Pictures.
            imgsz (int): Side in pixels of what the network gets, a multiple of 32.
            channels (int): 3 for RGB, 1 for grey.

        Raises:
            ValueError: If none can be read, or the size is not a multiple of 32.
        """
        if isinstance(imgsz, bool) or not isinstance(imgsz, int) or imgsz < 32 or imgsz % 32:
            raise ValueError(f"imgsz must be a multiple of 32, got {imgsz!r}")
        self.imgsz, self.channels = imgsz, channels
        self.files = [file for file in files if _read(file, channels) is not None]
        if not self.files:
            raise ValueError(f"none of {len(files)} pictures can be read, the first is {files[0]}")
        if len(self.files) < FEW:
            LOGGER.warning(
                f"{len(self.files)} pictures are few to solve for a neck; give {FEW} or more, best some hundred"
            )

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.files)

    def _tensor(self, image: np.ndarray) -> torch.Tensor:
        image = LetterBox((self.imgsz, self.imgsz))(image=image)
        image = image if image.ndim == 3 else image[..., None]
        return torch.from_numpy(np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1))).float() / 255

    def batches(self, size: int = 4) -> Iterator[torch.Tensor]:
        """Yield all pictures, each beside its mirror image: `(2 * size, channels, imgsz, imgsz)` in [0, 1]."""
        for start in range(0, len(self.files), size):
            images = [self._tensor(_read(file, self.channels)) for file in self.files[start : start + size]]
            yield torch.stack([*images, *(image.flip(-1) for image in images)])

    def crops(self, size: int, rng: random.Random) -> torch.Tensor:
        """Return random parts of `size` random pictures, some mirrored, darker or lighter, as in `batches`."""
        images = []
        for file in rng.choices(self.files, k=size):
            image = _read(file, self.channels)
            height, width = (max(1, int(side * rng.uniform(0.4, 1))) for side in image.shape[:2])
            top, left = rng.randint(0, image.shape[0] - height), rng.randint(0, image.shape[1] - width)
            tensor = self._tensor(image[top : top + height, left : left + width]) * rng.uniform(0.7, 1.3)
            images.append((tensor.flip(-1) if rng.random() < 0.5 else tensor).clamp(0, 1))
        return torch.stack(images)
