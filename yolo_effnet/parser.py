"""The seam to Ultralytics: our blocks in its model-YAML parser, our names in its YAML loader."""

import builtins
import difflib
import functools
import inspect
import re
import sys
import traceback
from pathlib import Path

import ultralytics
import ultralytics.nn.tasks  # not "from ultralytics.nn import tasks": it may still be importing
from ultralytics.utils import LOGGER, callbacks

from yolo_effnet import blocks, configs, names, weights
from yolo_effnet.checks import check_values

tasks = sys.modules["ultralytics.nn.tasks"]

# 8.3.70 is the oldest release that the tests run (the lists of blocks are frozensets from about 8.3.60 on); the parser
# of 9 is not known yet.
SUPPORTED_ULTRALYTICS = ((8, 3, 70), (9,))
# Nothing here looks into `blocks` or `weights` until it is called: the import of either may be what led here, through
# Ultralytics, before it has defined anything.
BLOCKS = ("EfficientNetStem", "EfficientNetStage", "MBConv", "SqueezeExcite", "Classifier")


def _widened_frozenset(items=()):
    """Return a frozenset of `items`, and of our blocks too where the items are the parser's lists of blocks.

    `parse_model` decides by two frozensets, made at each call, which rows get `(c1, c2)` and which of these get
    their repeats as an argument; `C2f` is in both and `Conv` in the first only. Standing in for `frozenset` in its
    module lets Ultralytics itself compute channels and repeats of our rows, with its width and depth multiples, and
    print them; parsing our rows as `C2f` and swapping the layers afterwards would need a second printed table.
    """
    result = builtins.frozenset(items)
    if tasks.C2f not in result:
        return result
    known = BLOCKS if tasks.Conv in result else ["EfficientNetStage"]
    return result.union(getattr(blocks, name) for name in known)


def _failing_row(error: BaseException) -> int | None:
    """Return the index of the row at which Ultralytics' parser raised `error`."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code is _failing_row.parser_code:
            return frame.f_locals.get("i")
    return None


def _check_row(index: int, row) -> list:
    """Return a row of one of our blocks in the form that Ultralytics' parser builds rightly.

    Raises:
        ValueError: If repeats or output channels are malformed.
    """
    f, n, name, args = row
    if not (isinstance(n, int) and not isinstance(n, bool) and n >= 1):
        raise _row_error(index, row, f"repeats must be an integer >= 1, got {n!r}")
    if not isinstance(args, list):
        raise _row_error(index, row, f"args must be a list, got {args!r}")
    if args and not isinstance(args[0], str):  # Ultralytics rounds, so that a wrong value would pass
        try:
            check_values(name, c2=args[0])
        except ValueError as error:
            raise _row_error(index, row, str(error)) from None
    if n > 1 and name == "MBConv":  # Ultralytics would repeat the first block, with its stride and channels
        name = "EfficientNetStage"
    elif n > 1 and name in ("EfficientNetStem", "Classifier"):
        raise _row_error(index, row, f"the repeats of {name} must be 1, got {n}")
    return [f, n, name, args]


def _row_error(index: int, row, why: str) -> ValueError:
    name = row[2] if len(row) == 4 else None
    usage = ""
    if name in BLOCKS:
        parameters = [
            p for p in inspect.signature(getattr(blocks, name)).parameters.values() if p.name not in ("c1", "n")
        ]
        args = ", ".join(p.name if p.default is p.empty else f"{p.name}={p.default}" for p in parameters)
        usage = f"; a row is [from, repeats, {name}, [{args}]]"
    return ValueError(f"model YAML row {index} {row}: {why}{usage}")


def _check_rows(d: dict) -> dict:
    """Return the model dict `d` with its rows of our blocks checked; other rows are left to Ultralytics."""
    checked, index = dict(d), 0
    for part in ("backbone", "head"):
        checked[part] = []
        for row in d[part]:
            ours = any(isinstance(item, str) and item in BLOCKS for item in row)
            if ours and (len(row) != 4 or row[2] not in BLOCKS):
                raise _row_error(index, row, "a row must be [from, repeats, module, args]")
            checked[part].append(_check_row(index, row) if ours else row)
            index += 1
    return checked


def _wrap_parse_model(parse_model):
    """Return Ultralytics' `parse_model` with errors that name our rows, and with `padding` and `drop_path`."""
    _failing_row.parser_code = inspect.unwrap(parse_model).__code__

    @functools.wraps(parse_model)
    def wrapper(d, ch, verbose=True):
        rows = [*d["backbone"], *d["head"]]
        d = _check_rows(d)
        vars(tasks).update({name: getattr(blocks, name) for name in BLOCKS}, frozenset=_widened_frozenset)
        activation = tasks.Conv.default_act
        try:
            model, save = parse_model(d, ch, verbose)
        except Exception as error:
            index = _failing_row(error)
            row = None if index is None else rows[index]
            if row is None or not (row[2] in BLOCKS or isinstance(error, KeyError)):
                raise
            why = f"{type(error).__name__}: {error}"
            if isinstance(error, ValueError):
                why = str(error)
            elif isinstance(error, KeyError):
                close = difflib.get_close_matches(str(row[2]), BLOCKS, n=1)
                hint = f"did you mean {close[0]}?" if close else f"those of yolo_effnet are {', '.join(BLOCKS)}"
                why = f"unknown block '{row[2]}'; {hint}"
            raise _row_error(index, row, why) from error
        finally:
            tasks.Conv.default_act = activation  # older releases leave the `activation:` of a model to all later ones
        blocks.set_padding(model, d.get("padding", "same"))
        blocks.set_drop_path(model, d.get("drop_path", 0.0))
        return model, save

    return wrapper


def _wrap_yaml_model_load(yaml_model_load):
    """Return Ultralytics' `yaml_model_load`, which also knows our names where no file of that name exists."""

    @functools.wraps(yaml_model_load)
    def wrapper(path):
        file = Path(path)
        # A file always wins, and is not found by Ultralytics where its path changes with the scale cut out of it.
        model = None if file.is_file() else names.parse_name(file.name)
        if model is None:
            return yaml_model_load(path)
        if model.series == "yolo26" and not hasattr(tasks, "Segment26"):
            raise ValueError(
                f"'{path}' needs ultralytics>=8.4, which has YOLO26, not {ultralytics.__version__}; "
                f"{str(path).replace('yolo26', 'yolov8')} works with both"
            )
        if file.name != str(path):
            raise FileNotFoundError(f"'{path}' does not exist; for the built-in model write model={file.name}")
        return {**configs.model_config(file.name), "scale": "", "yaml_file": str(path)}

    return wrapper


def _wrap_initialize_weights(initialize_weights):
    """Return Ultralytics' `initialize_weights`, which sets BatchNorm, with the momentum that our backbones need."""

    @functools.wraps(initialize_weights)
    def wrapper(model):
        initialize_weights(model)
        blocks.set_bn_momentum(model)

    return wrapper


def _replace(name: str, wrap) -> None:
    """Wrap the function `name` of `ultralytics.nn.tasks`, and wherever Ultralytics already imported it by name."""
    original = getattr(tasks, name)
    if getattr(original, "yolo_effnet", False):
        return
    wrapper = wrap(original)
    wrapper.yolo_effnet = True
    for module_name, module in list(sys.modules.items()):
        if module_name.partition(".")[0] == "ultralytics" and vars(module).get(name) is original:
            setattr(module, name, wrapper)


def _load_weights(trainer) -> None:
    weights.load_as_training_starts(trainer)


def _repeat_warning(trainer) -> None:
    weights.warn_as_training_ends(trainer)


def supported_versions() -> str:
    """Return the supported range of Ultralytics as a requirement."""
    floor, ceiling = (".".join(map(str, version)) for version in SUPPORTED_ULTRALYTICS)
    return f"ultralytics>={floor},<{ceiling}"


def register() -> None:
    """Make our blocks and model names known to Ultralytics; importing this module does so, a second call nothing."""
    if getattr(tasks.parse_model, "yolo_effnet", False):
        return
    version = tuple(map(int, re.findall(r"\d+", ultralytics.__version__)[:3]))
    floor, ceiling = SUPPORTED_ULTRALYTICS
    if not floor <= version < ceiling:
        LOGGER.warning(f"yolo_effnet is tested with {supported_versions()}, not with {ultralytics.__version__}.")
    _replace("parse_model", _wrap_parse_model)
    _replace("yaml_model_load", _wrap_yaml_model_load)
    _replace("initialize_weights", _wrap_initialize_weights)
    # Every trainer, also one in a process that Ultralytics starts for a further GPU, begins with these.
    for event, callback in (("on_pretrain_routine_end", _load_weights), ("on_train_end", _repeat_warning)):
        if callback not in callbacks.default_callbacks[event]:
            callbacks.default_callbacks[event].append(callback)


register()
