"""Arguments of our own for Ultralytics' command line and `YOLO.train`. Stdlib only: a hook runs it early."""

import functools
import sys

from yolo_effnet.wrapping import once

ARGUMENTS = {
    "backbone_weights": "a timm tag, or a file of ImageNet weights for the backbone",
    "graft": "a trained detector, whose neck and head the model gets",
    "lr_ratio": "the learning rate relative to the one that Ultralytics chooses or is given, above 0, or auto",
    "backbone_lr_ratio": "the learning rate of the backbone relative to that of neck and head, 0 to 1",
    "freeze_epochs": "the epochs in which the backbone does not learn yet, or a share of them below 1",
    "freeze_bn": "True, False or auto, whether the statistics of the backbone's BatchNorm stay as they are",
    "ema_share": "the mean age of the weights in their average as a share of the training so far, 0 to 0.5",
    "min_updates": "the updates of the weights that a training has at least, as far as nbs=16 gives them",
    "progressive": "the size of the first pictures relative to imgsz, 0 to 1",
}


def _wrap_check(check):
    """Return Ultralytics' function, which accepts our arguments with those of a run."""

    @functools.wraps(check)
    def wrapper(base, custom, *args, **kwargs):
        if "epochs" in base:  # arguments of a run, not settings
            for name in ARGUMENTS.keys() - base.keys():
                if custom.get(name) == "":
                    raise SyntaxError(f"'{name}' is a valid argument but is missing its value: {ARGUMENTS[name]}")
            base = {**dict.fromkeys(ARGUMENTS), **base}
        return check(base, custom, *args, **kwargs)

    return wrapper


def accept(cfg) -> None:
    """Have Ultralytics' module `ultralytics.cfg` accept them; an argument of its own of the same name stays its own.

    They are accepted where they are given, and are no part of the default configuration, so that the arguments that a
    run without them saves are those that it saves without this package.
    """
    cfg.check_dict_alignment = once(cfg.check_dict_alignment, _wrap_check)


def accept_as_main(utils) -> None:
    """Have `python -m ultralytics.cfg`, by which Ultralytics' tuner starts trainings, accept those that it was given.

    That module then runs as `__main__`, whose functions nothing can wrap, with the defaults of `ultralytics.utils`.
    """
    if any(argument.startswith("ultralytics.cfg") for argument in sys.orig_argv[1:]):
        for name in ARGUMENTS.keys() - utils.DEFAULT_CFG_DICT.keys():
            if any(argument.startswith(f"{name}=") for argument in sys.argv):
                utils.DEFAULT_CFG_DICT[name] = None
                setattr(utils.DEFAULT_CFG, name, None)
