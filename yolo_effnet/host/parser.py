"""The seam to Ultralytics: our blocks in its model-YAML parser, our names in its YAML loader."""

import contextlib
import difflib
import functools
import inspect
import os
import traceback
from pathlib import Path

import torch
import ultralytics
from ultralytics.utils import LOGGER, checks

from yolo_effnet.host.key_checks import backbone_activation, check_keys, misspelt_keys
from yolo_effnet.host.lending import has_rows_of_ours, lending, lent_names, tasks
from yolo_effnet.host.row_checks import check_rows, check_taps, row_error, timm_row_error
from yolo_effnet.nn import timm_backbone
from yolo_effnet.nn.registry import BLOCKS
from yolo_effnet.nn.settings import set_activation, set_bn_momentum, set_drop_path, set_padding
from yolo_effnet.patches import NEWEST_TESTED, dotted, release
from yolo_effnet.zoo import configs, names


def _explained(error: Exception, parser, d: dict, ours: bool) -> ValueError | None:
    """Return an error that says at which row of a model `parser` failed, and why; None where Ultralytics says it."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__) if frame.f_code is parser.__code__)
    index = next((frame.f_locals.get("i") for frame in frames), None)
    if index is None or not (ours or isinstance(error, KeyError)):
        return None
    row = [*d["backbone"], *d["head"]][index]
    name = row[2]
    if isinstance(error, KeyError):
        if (of_timm := timm_row_error(index, row)) or not ours:
            return of_timm
        close = difflib.get_close_matches(str(name), BLOCKS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"those of yolo_effnet are {', '.join(BLOCKS)}"
        return row_error(index, row, f"unknown block '{name}'; {hint}")
    if name not in BLOCKS:
        return None
    return row_error(index, row, str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}")


@functools.cache
def _check_parser(parser) -> None:
    """Check that Ultralytics' function `parser` gives rows of ours their input channels and repeats."""
    stem = [-1, 1, "EfficientNetStem", [16]]
    d = {"nc": 1, "backbone": [stem, [-1, 2, "EfficientNetStage", [24, 3, 2]]], "head": [[-1, 1, "MBConv", [32]]]}
    try:
        with torch.random.fork_rng(devices=[]):  # a seed gives the same model, checked or not
            stem, stage, block = parser(d, 3, False)[0]
        found = [stem.conv.in_channels, len(stage), stage[0].project.conv.out_channels, block.project.conv.out_channels]
        understood = found == [3, 2, 24, 32]
    except Exception as error:
        understood, found = False, f"{type(error).__name__}: {error}"
    if not understood:
        newer = "newer than the newest release that yolo_effnet is tested with and " * (release() > NEWEST_TESTED)
        raise RuntimeError(
            f"the model parser of ultralytics {ultralytics.__version__} is {newer}not one that builds rows of "
            f"yolo_effnet ({found}): pip install ultralytics=={dotted(NEWEST_TESTED)}"
        )


def wrap_parse_model(parse_model):
    """Return Ultralytics' `parse_model` with our blocks, errors that name our rows, `padding` and `drop_path`."""
    innermost = inspect.unwrap(parse_model)

    @functools.wraps(parse_model)
    def wrapper(d, ch, *args, **kwargs):
        with lending:  # also for models without rows of ours, which must not see what is lent to another thread
            activation, written = tasks.Conv.default_act, d
            if ours := has_rows_of_ours(d):
                for key, meant in misspelt_keys(d).items():
                    LOGGER.warning(f"model YAML: the key `{key}:` is not known and ignored; `{meant}:` may be meant")
                check_keys(d)
                d = check_rows(d)
                if not d.get("scales"):  # older releases build no C3k2 row without, and other ones for "mlx"
                    multiples = [d.get("depth_multiple", 1.0), d.get("width_multiple", 1.0), float("inf")]
                    d = {**d, "scale": "n", "scales": {"n": multiples}}
            try:
                with lent_names() if ours else contextlib.nullcontext():
                    if ours:
                        _check_parser(parse_model)
                    built = parse_model(d, ch, *args, **kwargs)
            except Exception as error:
                if explained := _explained(error, innermost, written, ours):
                    raise explained from error
                raise
            finally:
                tasks.Conv.default_act = activation  # older releases leave `activation:` of a model to all later ones
        if not ours:
            return built
        model, save = built
        check_taps([*written["backbone"], *written["head"]], model)
        blocks = torch.nn.ModuleList(m for m in model if not isinstance(m, timm_backbone.TimmBackbone))  # has its own
        if own := backbone_activation(d):
            set_activation(blocks, own)
        if not set_padding(blocks, d.get("padding")) and d.get("padding"):
            LOGGER.warning(f"model YAML: `padding: {d['padding']}` has no strided convolution of ours to act on")
        set_drop_path(model, d.get("drop_path", 0.0))
        return model, save

    return wrapper


def _is_found(file: Path) -> bool:
    """Return whether Ultralytics finds a YAML of that path: where it says, or in its own folders."""
    return file.suffix in (".yaml", ".yml") and os.path.isfile(checks.check_yaml(file, hard=False) or "")


def _load_scale(file: Path, unified: Path, letter: str, yaml_model_load) -> dict | None:
    """Return the dict of the file `unified` at a scale; None where it has none and the letter is that of a neck."""
    d = yaml_model_load(unified)
    scales = d.get("scales")
    if not scales and names.is_model(file.name):
        LOGGER.info(f"{unified} has no `scales:`, so that {file.name} is the model of yolo_effnet")
        return None
    if not scales:
        LOGGER.warning(f"{unified} has no `scales:`, so that the letter {letter} of {file.name} changes nothing")
    elif letter not in scales:
        raise ValueError(f"'{file}' does not exist; the `scales:` of {unified} are {', '.join(scales)}, not {letter}")
    return {**d, "scale": letter, "yaml_file": str(file)}


def _load_own(path, yaml_model_load) -> dict | None:
    """Return the model dict of a file, or None where there is none and its name is like ours: a file always wins."""
    file = Path(path)
    if not (names.begins_as_ours(file.name) or names.intended(file.name)) or _is_found(file):
        return yaml_model_load(path)
    if found := names.SCALED.fullmatch(file.name):
        # Ultralytics cuts the first such letter out of the whole path, which may be one of a folder.
        unified = file.with_name(found[1] + found[3])
        if _is_found(unified):
            return _load_scale(file, unified, found[2], yaml_model_load)
    return None


def wrap_yaml_model_load(yaml_model_load):
    """Return Ultralytics' `yaml_model_load`, which also knows our names where no file of that name exists."""

    @functools.wraps(yaml_model_load)
    def wrapper(path):
        d = _load_own(path, yaml_model_load)
        if d is not None:
            if isinstance(d, dict) and has_rows_of_ours(d):  # Ultralytics looks into rows before it parses them
                check_keys(d)
                check_rows(d)
            return d
        file = Path(path)
        model = names.parse_name(file.name)
        if model is None:
            raise _no_such_file(path, names.intended(file.name))
        if model.series == "yolo26" and not hasattr(tasks, "Segment26"):
            raise ValueError(
                f"'{path}' needs ultralytics>=8.4, which has YOLO26, not {ultralytics.__version__}; "
                f"{str(path).replace('yolo26', 'yolov8')} works with both"
            )
        if file.name != str(path):
            raise _no_such_file(path, file.name)
        return {**configs.model_config(file.name), "scale": "", "yaml_file": str(path)}

    return wrapper


def _no_such_file(path, meant: str) -> FileNotFoundError:
    return FileNotFoundError(f"'{path}' does not exist; for the built-in model write model={meant}")


def wrap_file_lookup(look_up):
    """Return a function of Ultralytics that takes a path first, whose error names the model that was meant."""

    @functools.wraps(look_up)
    def wrapper(*args, **kwargs):
        try:
            return look_up(*args, **kwargs)
        except FileNotFoundError as error:
            file = str([*args, *kwargs.values(), ""][0])
            meant = names.intended(Path(file).name)
            if meant is None or os.path.exists(file) or "Multiple files" in str(error):
                raise
            raise _no_such_file(file, meant) from error

    return wrapper


def wrap_initialize_weights(initialize_weights):
    """Return Ultralytics' `initialize_weights`, which sets BatchNorm, with the momentum that our backbones need."""

    @functools.wraps(initialize_weights)
    def wrapper(model, *args, **kwargs):
        initialize_weights(model, *args, **kwargs)
        set_bn_momentum(model)

    return wrapper
