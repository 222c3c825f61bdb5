"""Names of models by rule: a series, a letter of the neck, a backbone, a task, a pyramid .., where they go together."""

import difflib
import itertools
import re
from dataclasses import dataclass, replace

from yolo_effnet.zoo.architectures import Architecture, EfficientNet
from yolo_effnet.zoo.table import ARCHITECTURES

SERIES = {"yolov8": "YOLOv8", "yolo26": "YOLO26"}
# Depth, width and largest width before scaling of each letter, as Ultralytics' `scales:` have them.
SCALES = {
    "yolov8": {
        "n": (0.33, 0.25, 1024), "s": (0.33, 0.5, 1024), "m": (0.67, 0.75, 768), "l": (1.0, 1.0, 512),
        "x": (1.0, 1.25, 512),
    },
    "yolo26": {
        "n": (0.5, 0.25, 1024), "s": (0.5, 0.5, 1024), "m": (0.5, 1.0, 512), "l": (1.0, 1.0, 512),
        "x": (1.0, 1.5, 512),
    },
}  # fmt: skip
LETTERS = tuple(SCALES["yolov8"])
# Suffix of a name: Ultralytics' task, what the YAML is for, head of YOLOv8 (YOLO26 has 26 after it) and its arguments.
TASKS = {
    "": ("detect", "object detection", "Detect", "nc"),
    "-seg": ("segment", "instance segmentation", "Segment", "nc, 32, {p3}"),
    "-pose": ("pose", "pose estimation", "Pose", "nc, kpt_shape"),
    "-obb": ("obb", "oriented object detection", "OBB", "nc, 1"),
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
        architecture (Architecture): The backbone, and without a letter the scale of the neck.
        task (str): Suffix of the name: "", `-seg`, `-pose`, `-obb` or `-cls`.
        pyramid (str): Suffix of the name: "", `-p2` or `-p6`.
        neck (str): Suffix of the name: "" or `-dw`, for separable convolutions.
        activation (str): Suffix of the name: "" or `-relu6`, for devices on which SiLU is slow or not exact.
        letter (str): One of `LETTERS`, after the series: the neck has the widths and repeats of Ultralytics' model of
            that letter; "" for those that go with the backbone.
    """

    series: str
    architecture: Architecture
    task: str = ""
    pyramid: str = ""
    neck: str = ""
    activation: str = ""
    letter: str = ""

    @property
    def exists(self) -> bool:
        """Return whether its parts go together."""
        ours = self.architecture if isinstance(self.architecture, EfficientNet) else None
        v8, silu = self.series == "yolov8", ours and not ours.family.lite
        if self.task == CLASSIFICATION and not (v8 and ours and not self.letter + self.pyramid + self.neck):
            return False
        return bool((v8 or not self.neck) and (silu or not self.activation))

    @property
    def suffix(self) -> str:
        """Return what the name has after series and backbone."""
        return self.task + self.pyramid + self.neck + self.activation

    @property
    def name(self) -> str:
        """Return the name, without `.yaml`."""
        return f"{self.series}{self.letter}-{self.architecture.variant}{self.suffix}"


_STEMS: dict[str, list[str]] = {}  # what the names of a family begin with, and how they go on
for _known in ARCHITECTURES.values():
    _stem = _known.family.prefix if isinstance(_known, EfficientNet) else _known.variant.rpartition("_")[0] + "_"
    _STEMS.setdefault(_stem, []).append(_known.variant.removeprefix(_stem))
_NAME = re.compile(
    "".join(
        f"(?P<{part}>{'|'.join(choices)})"
        for part, choices in {
            "series": SERIES, "letter": ("", *LETTERS), "variant": [f"-{v}" for v in ARCHITECTURES],
            "task": (*TASKS, CLASSIFICATION), "pyramid": PYRAMIDS, "neck": NECKS, "activation": ACTIVATIONS,
        }.items()
    )
)  # fmt: skip
_BACKBONES = ", ".join("yolov8-{}<{}>".format(stem, "|".join(names)) for stem, names in _STEMS.items())
_BEGINNING = rf"({'|'.join(SERIES)})([{''.join(LETTERS)}]?)"
_OURS = re.compile(rf"{_BEGINNING}-({'|'.join(_STEMS)})[^.]*(\.ya?ml)?")
GRAMMAR = (
    f"{_BACKBONES}, each with "
    f"[{'|'.join(filter(None, TASKS))}][{'|'.join(filter(None, PYRAMIDS))}][{LIGHT_NECK}], the same as yolo26-<..> "
    f"without {LIGHT_NECK}, and yolov8-eff<..>{CLASSIFICATION}; those of effb and effv2 also with {RELU6} at the end; "
    f"all but {CLASSIFICATION} also as yolov8<{'|'.join(LETTERS)}>-<..>, with the neck of Ultralytics' yolov8n, .."
)
SCALED = re.compile(rf"({'|'.join(SERIES)})([nslmx])(-.+)")  # of a file of one's own, at one of its scales


def begins_as_ours(name: str) -> bool:
    """Return whether the name of a file begins as those of our models do, with or without the letter of a scale."""
    return _OURS.fullmatch(name) is not None


def _read(name: str) -> Model | None:
    """Return the model of a name without ending, or None where there is none."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    parts = match.groupdict()
    model = Model(architecture=ARCHITECTURES[parts.pop("variant")[1:]], **parts)
    return model if model.exists else None


def is_model(name: str) -> bool:
    """Return whether there is a model of that name, with or without `.yaml`."""
    return _read(name.partition(".")[0]) is not None


def model_names(suffix: str = "", series: str = "yolov8") -> list[str]:
    """Return the names of the models of a kind, smallest first and without `.yaml`.

    Args:
        suffix (str): Task, pyramid, neck and activation as in the names, such as "", `-seg`, `-p2`, `-pose-p6-dw`,
            `-cls` or `-relu6`.
        series (str): `yolov8` or `yolo26`, and a scale letter where the neck is to be that of one, as in `yolov8m`.
    """
    models = [_read(f"{series}-{variant}{suffix}") for variant in ARCHITECTURES]
    return [model.name for model in models if model and model.suffix == suffix]


def find_model(name: str) -> Model:
    """Return what the name of a model says, such as `yolov8-effb0` or `yolov8m-effb0-seg.yaml`.

    Raises:
        ValueError: If there is no model of that name.
    """
    ours = begins_as_ours(name)
    model = _read(name.partition(".")[0]) if ours else None
    if model is None:
        found = "neither a file nor" if ours else "not"
        raise ValueError(f"'{name}' is {found} a model of yolo_effnet; {suggest(name)}")
    return model


def parse_name(name: str) -> Model | None:
    """Return what the name of a model says as `find_model` does, or None where it does not begin as ours do."""
    return find_model(name) if begins_as_ours(name) else None


def intended(name: str) -> str | None:
    """Return the name of a model, as `YOLO(..)` takes it, that was meant by one written almost like it, or None.

    Almost is no series, EfficientNet in full, capitals, other separators, suffixes in another order, a scale letter
    where there is no neck, and the ending: none or that of a checkpoint. Such are `yolov8-effb0.pt`, `efficientnet_b0`,
    `YOLOv8m-EffB0-p2-seg` and `yolov8n-effb0-cls`.
    """
    stem = re.sub(r"\.(ya?ml|pt)$", "", name.lower())
    stem = re.sub(r"eff(icientnet|net)?[-_]?(v2)?[-_]?(?=\w)", r"eff\2", stem)
    begun = re.match(rf"{_BEGINNING}([-_]|(?=eff))", stem)
    series, letter = begun.groups()[:2] if begun else ("yolov8", "")
    suffixes = [suffix for suffix in (*TASKS, CLASSIFICATION, *PYRAMIDS, *NECKS, *ACTIVATIONS) if suffix]
    ends = "|".join(suffix[1:] for suffix in suffixes)
    words = re.split(rf"-|_(?=(?:{ends})(?:[-_]|$))", stem[begun.end() :] if begun else stem)
    words.sort(key=lambda word: suffixes.index(f"-{word}") if f"-{word}" in suffixes else -1)  # the backbone first
    rest = "-".join(words)
    model = _read(f"{series}{letter}-{rest}") or _read(f"{series}-{rest}")
    return f"{model.name}.yaml" if model else None


def suggest(name: str) -> str:
    """Return the names closest to `name`, and how names are made, as text."""
    stem = name.partition(".")[0].lower().replace("efficientnet", "eff")
    letter = begun[2] if (begun := re.match(f"{_BEGINNING}-", stem)) else ""
    if meant := intended(name):
        why = f"a classifier has no neck of the letter {letter}, so " if letter and CLASSIFICATION in meant else ""
        return f"{why}write {meant}. Its models are {GRAMMAR}"
    plain = stem.replace(f"{letter}-", "-", 1) if letter else stem
    kinds = itertools.product(SERIES, ["-"], ARCHITECTURES, (*TASKS, CLASSIFICATION), PYRAMIDS, NECKS, ACTIVATIONS)
    models = {kind: model for kind in map("".join, kinds) if (model := _read(kind))}
    for text in (plain, f"yolov8-{plain}"):
        if close := difflib.get_close_matches(text, models, n=3, cutoff=0.8):
            found = [replace(models[kind], letter=letter) for kind in close]
            close = [model.name if model.exists else kind for model, kind in zip(found, close, strict=True)]
            return f"did you mean {', '.join(close)}? Its models are {GRAMMAR}"
    return f"its models are {GRAMMAR}"
