"""Names of models: a series, a backbone, a task, a pyramid .., and nothing that is not on the list."""

import difflib
import itertools
import re
from dataclasses import dataclass

from yolo_effnet.zoo.architectures import Architecture, EfficientNet
from yolo_effnet.zoo.table import ARCHITECTURES

SERIES = {"yolov8": "YOLOv8", "yolo26": "YOLO26"}
# Suffix of a name: what its YAML is for, head module of YOLOv8 (with 26 appended that of YOLO26) and its arguments.
TASKS = {
    "": ("object detection", "Detect", "nc"),
    "-seg": ("instance segmentation", "Segment", "nc, 32, {p3}"),
    "-pose": ("pose estimation", "Pose", "nc, kpt_shape"),
    "-obb": ("oriented object detection", "OBB", "nc, 1"),
}
PYRAMIDS = {"": (3, 4, 5), "-p2": (2, 3, 4, 5), "-p6": (3, 4, 5, 6)}
LIGHT_NECK = "-dw"
NECKS = ("", LIGHT_NECK)
CLASSIFICATION = "-cls"
RELU6 = "-relu6"
ACTIVATIONS = ("", RELU6)


@dataclass(frozen=True)
class Model:
    """What the name of a model says.

    Attributes:
        series (str): `yolov8` or `yolo26`, the neck and head.
        architecture (Architecture): The backbone, and the scale of the neck.
        task (str): Suffix of the name: "", `-seg`, `-pose`, `-obb` or `-cls`.
        pyramid (str): Suffix of the name: "", `-p2` or `-p6`.
        neck (str): Suffix of the name: "" or `-dw`, for separable convolutions.
        activation (str): Suffix of the name: "" or `-relu6`, for devices on which SiLU is slow or not exact.
    """

    series: str
    architecture: Architecture
    task: str = ""
    pyramid: str = ""
    neck: str = ""
    activation: str = ""

    @property
    def suffix(self) -> str:
        """Return what the name has after series and backbone."""
        return self.task + self.pyramid + self.neck + self.activation

    @property
    def name(self) -> str:
        """Return the name, without `.yaml`."""
        return f"{self.series}-{self.architecture.variant}{self.suffix}"


_EFFICIENTNETS = [a for a in ARCHITECTURES.values() if isinstance(a, EfficientNet)]
_WITH_SILU = [a for a in _EFFICIENTNETS if not a.family.lite]


def _stem(architecture: Architecture) -> str:
    """Return what the names of a family begin with."""
    if isinstance(architecture, EfficientNet):
        return architecture.family.prefix
    return architecture.variant.rpartition("_")[0] + "_"


_STEMS = {stem: [] for stem in map(_stem, ARCHITECTURES.values())}
for _architecture in ARCHITECTURES.values():
    _STEMS[_stem(_architecture)].append(_architecture.variant.removeprefix(_stem(_architecture)))
_MODELS = {
    model.name: model
    for model in itertools.starmap(
        Model,
        [
            *itertools.product(["yolov8"], ARCHITECTURES.values(), TASKS, PYRAMIDS, NECKS),
            *itertools.product(["yolo26"], ARCHITECTURES.values(), TASKS, PYRAMIDS),
            *itertools.product(["yolov8"], _EFFICIENTNETS, [CLASSIFICATION]),
            *itertools.product(["yolov8"], _WITH_SILU, TASKS, PYRAMIDS, NECKS, [RELU6]),
            *itertools.product(["yolo26"], _WITH_SILU, TASKS, PYRAMIDS, [""], [RELU6]),
            *itertools.product(["yolov8"], _WITH_SILU, [CLASSIFICATION], [""], [""], [RELU6]),
        ],
    )
}
_BACKBONES = ", ".join("yolov8-{}<{}>".format(stem, "|".join(names)) for stem, names in _STEMS.items())
GRAMMAR = (
    f"{_BACKBONES}, each with "
    f"[{'|'.join(filter(None, TASKS))}][{'|'.join(filter(None, PYRAMIDS))}][{LIGHT_NECK}], the same as yolo26-<..> "
    f"without {LIGHT_NECK}, and yolov8-eff<..>{CLASSIFICATION}; those of effb and effv2 also with {RELU6} at the end"
)
_OURS = re.compile(rf"({'|'.join(SERIES)})-({'|'.join(_STEMS)})[^.]*(\.ya?ml)?")
SCALED = re.compile(rf"({'|'.join(SERIES)})([nslmx])(-.+)")  # of a file of one's own, at one of its scales


def begins_as_ours(name: str) -> bool:
    """Return whether the name of a file begins as those of our models do, with or without the letter of a scale."""
    return _OURS.fullmatch(SCALED.sub(r"\1\3", name)) is not None


def model_names(suffix: str = "", series: str = "yolov8") -> list[str]:
    """Return the names of the models of a kind, smallest first and without `.yaml`.

    Args:
        suffix (str): Task, pyramid, neck and activation as in the names, such as "", `-seg`, `-p2`, `-pose-p6-dw`,
            `-cls` or `-relu6`.
        series (str): `yolov8` or `yolo26`.
    """
    return [m.name for m in _MODELS.values() if (m.series, m.suffix) == (series, suffix)]


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


def intended(name: str) -> str | None:
    """Return the name of a model, as `YOLO(..)` takes it, that was meant by one written almost like it, or None.

    Almost is a scale letter as in YOLOv8's own names, no series, EfficientNet in full, capitals, other separators,
    suffixes in another order, and the ending: none or that of a checkpoint.

    Args:
        name (str): Such as `yolov8n-effb0.yaml`, `yolov8-effb0.pt`, `efficientnet_b0` or `YOLOv8-EffB0-p2-seg`.
    """
    stem = re.sub(r"\.(ya?ml|pt)$", "", name.lower())
    stem = re.sub(r"eff(icientnet|net)?[-_]?(v2)?[-_]?(?=\w)", r"eff\2", stem)
    series = re.match(rf"({'|'.join(SERIES)})([nslmx]?[-_]|(?=eff))", stem)
    suffixes = [suffix for suffix in (*TASKS, CLASSIFICATION, *PYRAMIDS, *NECKS, *ACTIVATIONS) if suffix]
    ends = "|".join(suffix[1:] for suffix in suffixes)
    words = re.split(rf"-|_(?=(?:{ends})(?:[-_]|$))", stem[series.end() :] if series else stem)
    words.sort(key=lambda word: suffixes.index(f"-{word}") if f"-{word}" in suffixes else -1)  # the backbone first
    model = _MODELS.get("-".join([series.group(1) if series else "yolov8", *words]))
    return f"{model.name}.yaml" if model else None


def suggest(name: str) -> str:
    """Return the names closest to `name`, and how names are made, as text."""
    if meant := intended(name):
        return f"write {meant}. Its models are {GRAMMAR}"
    stem = name.partition(".")[0].lower().replace("efficientnet", "eff")
    for text in (stem, f"yolov8-{stem}"):
        if close := difflib.get_close_matches(text, _MODELS, n=3, cutoff=0.8):
            return f"did you mean {', '.join(close)}? Its models are {GRAMMAR}"
    return f"its models are {GRAMMAR}"
