"""The seam to Ultralytics: our blocks in its model-YAML parser, our names in its YAML loader."""

import builtins
import difflib
import functools
import inspect
import re
import sys
import traceback
from importlib import import_module
from pathlib import Path

import torch
import ultralytics
import ultralytics.nn.tasks  # not "from ultralytics.nn import tasks": it may still be importing
from ultralytics.utils import LOGGER, callbacks

from yolo_effnet import configs, names
from yolo_effnet.checks import check_values

tasks = sys.modules["ultralytics.nn.tasks"]

# 8.3.70 is the oldest release that the tests run (the lists of blocks are frozensets from about 8.3.60 on); the parser
# of 9 is not known yet.
SUPPORTED_ULTRALYTICS = ((8, 3, 70), (9,))
# Our blocks by the name of their rows, and the modules that define them.
BLOCKS = {
    "EfficientNetStem": "blocks",
    "EfficientNetStage": "blocks",
    "FusedStage": "blocks",
    "MBConv": "blocks",
    "FusedMBConv": "blocks",
    "SqueezeExcite": "blocks",
    "Classifier": "blocks",
    "TimmBackbone": "timm_backbone",
    "SeparableConv": "neck",
    "C2fSeparable": "neck",
}
_WITH_REPEATS = ("EfficientNetStage", "FusedStage", "C2fSeparable")
_CHAINS = {"MBConv": "EfficientNetStage", "FusedMBConv": "FusedStage"}
_SINGLE = ("EfficientNetStem", "Classifier", "TimmBackbone", "SeparableConv")


def _ours(module: str):
    """Return a module of ours that builds on Ultralytics; this module imports none of them as it begins."""
    return import_module(f"yolo_effnet.{module}")


def _import_blocks() -> None:
    """Import all blocks, which lets ULTRALYTICS_SAFE_LOAD=1 unpickle them."""
    for module in set(BLOCKS.values()):
        try:
            _ours(module)
        except ImportError as error:
            # The import of one of them may be what led here, through Ultralytics, before it has defined anything.
            if "partially initialized" not in str(error):
                raise


def block(name: str) -> type:
    """Return the class of a block by the name of its rows."""
    return getattr(_ours(BLOCKS[name]), name)


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
    return result.union(map(block, BLOCKS if tasks.Conv in result else _WITH_REPEATS))


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
    if n > 1 and name in _SINGLE:
        raise _row_error(index, row, f"the repeats of {name} must be 1, got {n}")
    try:
        if name == "TimmBackbone":
            if not (args and isinstance(args[0], str)):
                raise ValueError(f"the first argument must be the name of a timm model, got {args}")
            # Ultralytics asks for output channels first; those of `Index` rows are what counts.
            return [f, n, name, [_ours("timm_backbone").feature_maps(args[0])[-1].channels, *args]]
        if args and not isinstance(args[0], str):  # Ultralytics rounds, so that a wrong value would pass
            check_values(name, c2=args[0])
    except ValueError as error:
        raise _row_error(index, row, str(error)) from None
    if n > 1:  # Ultralytics would repeat the first block, with its stride and channels
        name = _CHAINS.get(name, name)
    return [f, n, name, args]


def _check_index_row(index: int, row, maps: tuple) -> None:
    """Check a row that takes the feature maps of a `TimmBackbone`.

    Raises:
        ValueError: If it is not an `Index` row with the channels of one of them.
    """
    known = ", ".join(f"[{m.channels}, {m.index}] at stride {m.stride}" for m in maps)
    if row[2] != "Index":
        raise _row_error(index, row, f"TimmBackbone gives several feature maps, which Index rows take: {known}")
    args = row[3]
    if args not in [[m.channels, m.index] for m in maps]:
        raise _row_error(index, row, f"channels and index of TimmBackbone's feature maps are {known}; got {args}")


def _row_error(index: int, row, why: str) -> ValueError:
    name = row[2] if len(row) == 4 else None
    usage = ""
    if name in BLOCKS:
        hidden = ("c1", "n", "c2") if name == "TimmBackbone" else ("c1", "n")
        parameters = [p for p in inspect.signature(block(name)).parameters.values() if p.name not in hidden]
        args = ", ".join(p.name if p.default is p.empty else f"{p.name}={p.default}" for p in parameters)
        usage = f"; a row is [from, repeats, {name}, [{args}]]"
    return ValueError(f"model YAML row {index} {row}: {why}{usage}")


def _check_rows(d: dict) -> dict:
    """Return the model dict `d` with its rows of our blocks checked; other rows are left to Ultralytics."""
    checked, index, maps = dict(d), 0, {}
    for part in ("backbone", "head"):
        checked[part] = []
        for row in d[part]:
            ours = any(isinstance(item, str) and item in BLOCKS for item in row)
            if ours and (len(row) != 4 or row[2] not in BLOCKS):
                raise _row_error(index, row, "a row must be [from, repeats, module, args]")
            for f in row[0] if isinstance(row[0], list) else row[:1]:
                source = index + f if isinstance(f, int) and f < 0 else f
                if source in maps:
                    _check_index_row(index, row, maps[source])
            checked[part].append(_check_row(index, row) if ours else row)
            if row[2] == "TimmBackbone":
                maps[index] = _ours("timm_backbone").feature_maps(row[3][0])
            index += 1
    return checked


def _wrap_parse_model(parse_model):
    """Return Ultralytics' `parse_model` with errors that name our rows, and with `padding` and `drop_path`."""
    _failing_row.parser_code = inspect.unwrap(parse_model).__code__

    @functools.wraps(parse_model)
    def wrapper(d, ch, verbose=True):
        rows = [*d["backbone"], *d["head"]]
        d = _check_rows(d)
        vars(tasks).update({name: block(name) for name in BLOCKS}, frozenset=_widened_frozenset)
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
        blocks = _ours("blocks")
        ours = [layer for layer in model if not isinstance(layer, block("TimmBackbone"))]  # which has its own
        blocks.set_padding(torch.nn.ModuleList(ours), d.get("padding", "same"))
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
        _ours("blocks").set_bn_momentum(model)

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
    _ours("weights").load_as_training_starts(trainer)


def _repeat_warning(trainer) -> None:
    _ours("weights").warn_as_training_ends(trainer)


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
    _import_blocks()
    # Every trainer, also one in a process that Ultralytics starts for a further GPU, begins with these.
    for event, callback in (("on_pretrain_routine_end", _load_weights), ("on_train_end", _repeat_warning)):
        if callback not in callbacks.default_callbacks[event]:
            callbacks.default_callbacks[event].append(callback)


register()
