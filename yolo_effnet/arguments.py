"""Arguments of our own for `yolo train` and `YOLO.train`, each declared once. Stdlib only: a hook runs it early."""

import functools
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from yolo_effnet.checks import check_value, is_number


class Start(Enum):
    """From what a training starts. Its value is its name in logs."""

    RANDOM = "random weights"
    IMAGENET = "ImageNet weights"  # under a random neck and head, or under those of another backbone
    BACKBONE = "a trained backbone"  # under a random neck and head
    GRAFTED = "a graft"  # under the trained neck and head of a donor
    TRAINED = "trained before"  # as a whole
    MATCHED = "a graft with match="  # or any trained model that follows another, without labels
    RESUMED = "as before"


def _is_text(value) -> bool:
    return isinstance(value, str) and bool(value)


FEW_UPDATES = 1000  # of the weights: a small training
# That small devices compute in int8, as model YAMLs have them.
ACTIVATIONS = {"relu6": "torch.nn.ReLU6()", "relu": "torch.nn.ReLU()"}


@dataclass(frozen=True)
class Argument:
    """An argument of a training.

    Attributes:
        name (str): Its name, also as a key of a model YAML if it is one.
        help (str): What it does, for errors and for the table of the documentation.
        accepts (Callable): Whether a value is in its range.
        accepted (str): The range, for errors and for the table.
        default (object): What Ultralytics does without it; None where it does nothing.
        by_start (dict[Start, object]): The default from starts that have another.
        is_key (bool): Whether a model YAML can say it.
        is_of_recipe (bool): Whether it is a field of `Recipe`.
    """

    name: str
    help: str
    accepts: Callable[[Any], bool]
    accepted: str
    default: object = None
    by_start: dict[Start, object] = field(default_factory=dict)
    is_key: bool = True
    is_of_recipe: bool = True

    def check(self, value) -> None:
        """Check a value.

        Raises:
            ValueError: If it is out of its range.
        """
        check_value(self.name, value, self.accepts, self.accepted)


_DECLARED = (
    Argument("backbone_weights", "ImageNet weights of the backbone", _is_text, "a timm tag or a file",
             is_of_recipe=False),
    Argument("graft", "a trained detector, whose neck and head the model gets", _is_text,
             "the name or the path of a trained .pt file", is_key=False, is_of_recipe=False),
    Argument("match", "a trained detector, which the model follows in place of labels",
             lambda v: isinstance(v, bool) or _is_text(v), "the name or the path of a trained .pt file, or True",
             is_key=False, is_of_recipe=False),
    Argument("activation", "the activation that neck and head get in place of the donor's, with graft= and match=",
             lambda v: v in ACTIVATIONS, " or ".join(ACTIVATIONS), is_key=False, is_of_recipe=False),
    Argument("lr_ratio", "the learning rate relative to Ultralytics' own; auto keeps what a graft knows",
             lambda v: v == "auto" or (is_number(v) and v > 0), "a number above 0, or auto", 1.0,
             {Start.GRAFTED: "auto"}),
    Argument("backbone_lr_ratio", "the learning rate of the backbone relative to that of neck and head",
             lambda v: is_number(v) and 0 <= v <= 1, "a number from 0 to 1", 1.0),
    Argument("freeze_epochs", "the epochs at the start in which the backbone does not learn",
             lambda v: is_number(v) and v >= 0 and (v < 1 or v == int(v)),
             "a number of epochs, or a share of them below 1", 0),
    Argument("freeze_bn", "whether the statistics of the backbone's BatchNorm stay; auto for batches of 1 and 2",
             lambda v: isinstance(v, bool) or v == "auto", "True, False or auto", False, {Start.MATCHED: True}),
    Argument("progressive", "the size of the first pictures relative to `imgsz`",
             lambda v: is_number(v) and 0 <= v <= 1, "a share of imgsz from 0 to 1", 0.0),
    Argument("min_updates", "the fewest updates of the weights, as far as `nbs=16` gives them",
             lambda v: is_number(v) and v >= 0, "a number of updates of the weights", 0,
             dict.fromkeys((Start.RANDOM, Start.IMAGENET, Start.BACKBONE, Start.GRAFTED), FEW_UPDATES)),
    Argument("blend", "the share of the training in the final weights, the rest being those at its start; auto chooses "
             "by validation", lambda v: v == "auto" or (is_number(v) and 0 < v <= 1),
             "a share above 0 and up to 1, or auto", 1.0, dict.fromkeys((Start.GRAFTED, Start.TRAINED), "auto")),
)  # fmt: skip
ARGUMENTS = {argument.name: argument for argument in _DECLARED}
RECIPE = tuple(argument for argument in ARGUMENTS.values() if argument.is_of_recipe)
KEYS = tuple(argument for argument in ARGUMENTS.values() if argument.is_key)
OLD_WEIGHTS_KEYS = ("weights", "weights_file")  # of model YAMLs of earlier versions: a tag, and a file that goes first
WEIGHTS_KEYS = ("backbone_weights", *OLD_WEIGHTS_KEYS)
_lent: set[str] = set()  # names that are in Ultralytics' defaults because we put them there


def defaults(start: Start) -> dict[str, object]:
    """Return the arguments of the recipe that have another default from a start than Ultralytics' own."""
    return {argument.name: argument.by_start[start] for argument in RECIPE if start in argument.by_start}


def ours() -> set[str]:
    """Return the names of our arguments; one that this release of Ultralytics has too is Ultralytics' own."""
    return ARGUMENTS.keys() - (sys.modules["ultralytics.utils"].DEFAULT_CFG_DICT.keys() - _lent)


def value_of(args, name: str):
    """Return the value of an argument of ours in those of a run; None if it was not given, or is Ultralytics' own."""
    return getattr(args, name, None) if name in ours() else None


def said_by_user(args, config: dict) -> dict[str, object]:
    """Return what a user says about the recipe: the arguments of a run, and else the keys of its model YAML.

    Args:
        args (Namespace): Arguments of the run.
        config (dict): The model YAML.
    """
    values = {a.name: value_of(args, a.name) for a in RECIPE}
    values = {name: config.get(name) if value is None else value for name, value in values.items()}
    return {name: value for name, value in values.items() if value is not None}


def _check_is_plain(argument: Argument, value) -> None:
    """Check that a value can be saved with the arguments of a run, before Ultralytics turns it into text.

    Raises:
        SyntaxError: If there is none, as Ultralytics has it.
        ValueError: If it is an object.
    """
    if value == "":
        raise SyntaxError(f"'{argument.name}' is a valid argument but is missing its value, {argument.accepted}")
    if not isinstance(value, (str, int, float, os.PathLike, type(None))):
        found = f"a {type(value).__name__} object: save it, and give its path"
        raise ValueError(f"{argument.name} must be {argument.accepted}, got {found}")


def wrap_check(check):
    """Return Ultralytics' function that checks the names of arguments, which accepts ours with those of a training.

    They are accepted where they are given, and are no part of the default configuration, so that the arguments that a
    run without them saves are those that it saves without this package.
    """

    @functools.wraps(check)
    def wrapper(base, custom, *args, **kwargs):
        # Arguments of a run, not settings; those of other modes would do nothing.
        if "epochs" in base and custom.get("mode", "train") in ("train", "tune"):
            for name in custom.keys() & ARGUMENTS.keys() - base.keys():
                _check_is_plain(ARGUMENTS[name], custom[name])
            base = {**dict.fromkeys(ARGUMENTS), **base}
        return check(base, custom, *args, **kwargs)

    return wrapper


def accept_as_main(default_arguments: dict) -> dict:
    """Return Ultralytics' default arguments, which gain ours that `python -m ultralytics.cfg` was started with.

    Its tuner starts trainings so. The module then runs as `__main__`, whose functions nothing can wrap.
    """
    if any(argument.startswith("ultralytics.cfg") for argument in sys.orig_argv[1:]):
        for name in ARGUMENTS.keys() - default_arguments.keys():
            if any(argument.startswith(f"{name}=") for argument in sys.argv):
                default_arguments[name] = None
                _lent.add(name)
                setattr(sys.modules["ultralytics.utils"].DEFAULT_CFG, name, None)
    return default_arguments
