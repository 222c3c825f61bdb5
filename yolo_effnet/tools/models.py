"""The models of a benchmark: trained ones of `.pt` files, and those of names and YAMLs with random weights."""

from dataclasses import dataclass
from pathlib import Path

from ultralytics import YOLO
from ultralytics.data.utils import check_cls_dataset, check_det_dataset

from yolo_effnet.checkpoints import open_checkpoint
from yolo_effnet.checks import why

_YAML = (".yaml", ".yml")


@dataclass
class Model:
    """A model that was asked for.

    Attributes:
        label (str): What to call it, and its files.
        file (Path | None): Its `.pt`; None where its weights are random.
        yolo (YOLO): The model.
    """

    label: str
    file: Path | None
    yolo: YOLO

    @property
    def channels(self) -> int:
        """Channels of its pictures."""
        return self.yolo.model.yaml.get("channels", 3)

    def imgsz(self, wanted: int | None) -> int:
        """Return the side of its pictures in pixels, by default that of the training, a multiple of its stride."""
        size = wanted or self.yolo.overrides.get("imgsz", 640)
        stride = max(32, int(self.yolo.model.stride.max()))
        if not isinstance(size, int) or size < stride or size % stride:
            raise ValueError(f"imgsz must be a multiple of {stride} >= {stride}, got {size} for {self.label}")
        return size

    def check_data(self, data: str) -> None:
        """Raise a ValueError if a data set is not there, or has pictures of another number of channels."""
        try:
            found = (check_cls_dataset if self.yolo.task == "classify" else check_det_dataset)(data)
        except Exception as error:  # of YAML, of the file system or of a download
            raise ValueError(f"data '{data}' cannot be read ({why(error)})") from error
        if (channels := found.get("channels", 3)) != self.channels:
            has = f"data '{data}' has {channels}: its YAML must say `channels: {self.channels}`"
            raise ValueError(f"{self.label} takes pictures of {self.channels} channels, {has}")


def open_models(words: list[str]) -> list[Model]:
    """Return models by `.pt` files, YAMLs and names; a ValueError names one that cannot be loaded, or comes twice."""
    labels = [Path(word).stem if word.endswith((".pt", *_YAML)) else Path(word).name for word in words]
    models = {}
    for word, label in zip(words, labels, strict=True):
        if labels.count(label) > 1:  # best.pt of several trainings
            label = "-".join(Path(word).with_suffix("").parts).lstrip("/\\-")
        if label in models:
            raise ValueError(f"model '{word}' is given twice")
        if word.endswith(".pt"):
            if not Path(word).is_file():
                raise ValueError(f"'{word}' is no trained .pt file")
            models[label] = Model(label, Path(word), open_checkpoint(word, "model"))
            continue
        try:
            models[label] = Model(label, None, YOLO(word if word.endswith(_YAML) else f"{word}.yaml"))
        except Exception as error:  # of its rows, or because there is none
            raise ValueError(f"no model '{word}' to measure ({why(error)})") from error
    return list(models.values())
