"""Names of models: a series, a backbone, a task and a pyramid, and nothing that is not on the list."""

import difflib
import itertools
import re
from dataclasses import dataclass

from yolo_effnet.architectures import ARCHITECTURES, Architecture

SERIES = {"yolov8": "YOLOv8", "yolo26": "YOLO26"}
# Suffix of a name: what its YAML is for, head module of YOLOv8 (with 26 appended that of YOLO26) and its arguments.
TASKS = {
    "": ("object detection", "Detect", "nc"),
    "-seg": ("instance segmentation", "Segment", "nc, 32, {p3}"),
    "-pose": ("pose estimation", "Pose", "nc, kpt_shape"),
    "-obb": ("oriented object detection", "OBB", "nc, 1"),
}
PYRAMIDS = {"": (3, 4, 5), "-p2": (2, 3, 4, 5), "-p6": (3, 4, 5, 6)}
CLASSIFICATION = "-cls"


@dataclass(frozen=True)
class Model:
    """What the name of a model says.

    Attributes:
        series (str): `yolov8` or `yolo26`, the neck and head.
        architecture (Architecture): The backbone, and the scale of the neck.
        task (str): Suffix of the name: "", `-seg`, `-pose`, `-obb` or `-cls`.
        pyramid (str): Suffix of the name: "", `-p2` or `-p6`.
    """

    series: str
    architecture: Architecture
    task: str
    pyramid: str

    @property
    def name(self) -> str:
        """Return the name, without `.yaml`."""
        return f"{self.series}-eff{self.architecture.variant}{self.task}{self.pyramid}"


_MODELS = {
    model.name: model
    for model in itertools.starmap(
        Model,
        [
            *itertools.product(SERIES, ARCHITECTURES.values(), TASKS, PYRAMIDS),
            *itertools.product(["yolov8"], ARCHITECTURES.values(), [CLASSIFICATION], [""]),
        ],
    )
}
GRAMMAR = (
    f"yolov8-eff<{'|'.join(ARCHITECTURES)}>[{'|'.join(filter(None, TASKS))}][{'|'.join(filter(None, PYRAMIDS))}], "
    f"the same with yolo26, and yolov8-eff<..>{CLASSIFICATION}"
)
_OURS = re.compile(rf"({'|'.join(SERIES)})-eff[^.]*(\.ya?ml)?")


def model_names(suffix: str = "", series: str = "yolov8") -> list[str]:
    """Return the names of the models of a kind, smallest first and without `.yaml`.

    Args:
        suffix (str): Task and pyramid as in the names, such as "", `-seg`, `-p2`, `-pose-p6` or `-cls`.
        series (str): `yolov8` or `yolo26`.
    """
    return [m.name for m in _MODELS.values() if (m.series, m.task + m.pyramid) == (series, suffix)]


def parse_name(name: str) -> Model | None:
    """Return what the name of a model says, or None where the name is not one of ours by its beginning.

    Args:
        name (str): Such as `yolov8-effb0` or `yolov8-effb0-seg.yaml`.

    Raises:
        ValueError: If the name begins as ours do but there is no such model.
    """
    if not _OURS.fullmatch(name):
        return None
    model = _MODELS.get(name.partition(".")[0])
    if model is None:
        raise ValueError(f"'{name}' is neither a file nor a model of yolo_effnet; {suggest(name)}")
    return model


def find_model(name: str) -> Model:
    """Return what the name of a model says.

    Raises:
        ValueError: If there is no model of that name.
    """
    model = parse_name(name)
    if model is None:
        raise ValueError(f"'{name}' is not a model of yolo_effnet; {suggest(name)}")
    return model


def suggest(name: str) -> str:
    """Return the names closest to `name`, and how names are made, as text."""
    close = difflib.get_close_matches(name.partition(".")[0], _MODELS, n=3, cutoff=0.8)
    hint = f"did you mean {', '.join(close)}? " if close else ""
    return f"{hint}Its models are {GRAMMAR}"
