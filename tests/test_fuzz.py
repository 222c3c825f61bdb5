"""Malformed model YAMLs: each gets one clear error that names the value, or a warning, or builds."""

import copy
import linecache
import random
import traceback
from pathlib import Path

import pytest
import torch
import yaml
from ultralytics.nn.tasks import DetectionModel

import yolo_effnet
from yolo_effnet.host.parser import has_rows_of_ours
from yolo_effnet.nn.blocks import MBConv

TIMM = {
    "nc": 2,
    "backbone": [
        [-1, 1, "TimmBackbone", ["mobilenetv3_large_100"]],
        [0, 1, "Index", [40, 2]],
        [0, 1, "Index", [112, 3]],
        [0, 1, "Index", [960, 4]],
    ],
    "head": [[[1, 2, 3], 1, "Detect", ["nc"]]],
}
SMALL = {
    "nc": 2,
    "padding": "same",
    "drop_path": 0.1,
    "backbone_weights": None,
    "activation": "torch.nn.ReLU6()",
    "backbone": [
        [-1, 1, "EfficientNetStem", [8, 3, 2]],
        [-1, 2, "EfficientNetStage", [16, 3, 2, 4]],
        [-1, 1, "FusedStage", [16, 3, 2, 4]],
        [-1, 1, "SqueezeExcite", [16]],
        [-1, 1, "MBConv", [24, 3, 2]],
    ],
    "head": [[-1, 1, "C2fSeparable", [16]], [[4, 5], 1, "Detect", ["nc"]]],
}


def changed(config: dict, *path_and_value) -> dict:
    """Return a copy of `config` with the value at a path of keys and indices replaced, or removed without a value."""
    config, (*path, last, value) = copy.deepcopy(config), path_and_value
    place = config
    for key in path:
        place = place[key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return config


@pytest.mark.parametrize(
    ("config", "message"),
    [
        *((changed(SMALL, "nc", v), rf"nc must be an integer >= 1, got {v!r}") for v in (0, -1, "two", None)),
        (changed(SMALL, "nc", [2]), r"nc must be an integer >= 1, got \[2\]"),
        (changed(SMALL, "nc", ...), r"`nc:`.* is missing"),
        *(
            (changed(SMALL, "activation", v), r"activation must be a module of torch as text.*got")
            for v in ("relu6", "ReLU", "torch.nn.Nope()", 7, ["torch.nn.ReLU()"], "torch.nn.ReLU(", "torch.nn.ReLU")
        ),
        (changed(SMALL, "activation", "torch.nn.ReLU"), r"write torch.nn.ReLU\(\)"),
        *(
            ({**SMALL, key: v}, rf"{key} must be a timm tag or a file, got")
            for key in ("backbone_weights", "weights", "weights_file")
            for v in (True, 3, ["a.pth"])
        ),
        *((changed(SMALL, "backbone", 1, v), r"row 1 .*a row must be \[from") for v in ([], None, 3, {"a": 1})),
        *((changed(SMALL, "backbone", 1, 2, v), r"row 1 .*a row must be \[from") for v in (None, 3, ["MBConv"])),
        *((changed(SMALL, part, v), rf"`{part}:` must be a list") for part in ("backbone", "head") for v in (..., 3)),
        *((changed(SMALL, "backbone", 1, 0, v), r"row 1 .*from must be") for v in ("-1", None, 1, 7, -2, 0.5)),
        (changed(SMALL, "backbone", 1, 0, [0]), r"row 1 .*takes one source"),
        (changed(SMALL, "head", 1, 0, [4, 9]), r"row 6 .*from must be"),
        (changed(SMALL, "backbone", 1, 3, 0, "24"), r"row 1 .*number 24 without quotation marks"),
        (changed(SMALL, "backbone", 1, 3, 1, "3"), r"row 1 .*number 3 without quotation marks"),
        (changed(SMALL, "backbone", 1, 1, "2"), r"row 1 .*repeats must be an integer >= 1, got '2'"),
        *(
            (changed(TIMM, "backbone", 1, 3, v), r"row 1 .*feature maps are")
            for v in (["40", 2], [40.0, 2], [40, True])
        ),
        (changed(TIMM, "backbone", 1, 1, 2), r"row 1 .*repeats of Index must be 1, got 2"),
        (changed(SMALL, "backbone", 0, 3, [8, 3, 2, [0.5, 0.5]]), r"row 0 .*mean must have 1, 3 or 3 values"),
        (changed(SMALL, "backbone", 0, 3, [8, 3, 2, [123.7, 116.3, 103.5]]), r"mean must be in units of \[0, 1\]"),
    ],
)
def test_what_is_malformed_is_named(config, message, tmp_path):
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ValueError, match=message):
        DetectionModel(tmp_path / "my.yaml", verbose=False)


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("weight", "backbone_weights"),
        ("weight_file", "backbone_weights"),
        ("backbone_weight", "backbone_weights"),
        ("pading", "padding"),
        ("droppath", "drop_path"),
        ("drop_path_rate", "drop_path"),
        ("act", "activation"),
    ],
)
def test_a_key_that_is_almost_one_of_ours_is_told(key, meant, caplog):
    with caplog.at_level("WARNING", logger="ultralytics"):
        DetectionModel({**SMALL, key: None}, verbose=False)
    assert f"the key `{key}:` is not known and ignored; `{meant}:` may be meant" in caplog.text


def test_keys_that_are_known_are_not(caplog):
    with caplog.at_level("WARNING", logger="ultralytics"):
        for name in ("yolov8-effb0", "yolo26-efflite0-pose", "yolov8-ghostnet_100-obb"):
            DetectionModel(yolo_effnet.model_config(name), verbose=False)
    assert not caplog.records


def test_padding_that_nothing_takes_is_told(caplog):
    with caplog.at_level("WARNING", logger="ultralytics"):
        DetectionModel({**copy.deepcopy(TIMM), "padding": "same"}, verbose=False)
    assert "`padding: same` has no strided convolution of ours to act on" in caplog.text


VALUES = [None, True, 0, -1, 1, 2, 3, 4.5, float("nan"), "", "3", "nc", "Conv", "same", [], [1, 2], {}, {"a": 1}]


def places(node, path=()) -> list[tuple]:
    """Return the paths of all values in a model dict."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [place for key, value in items for place in [(*path, key), *places(value, (*path, key))]]


def is_of_ultralytics(config: dict, path: tuple) -> bool:
    """Return whether a path leads into sources or arguments of a row of Ultralytics: it is for it to say."""
    return len(path) > 2 and path[2] != 1 and config[path[0]][path[1]][2] == "Detect"


def is_ours(error: Exception) -> bool:
    """Return whether an error is a ValueError that a `raise` of this package gave, not torch or Python inside of it."""
    frame, line = list(traceback.walk_tb(error.__traceback__))[-1]
    file = frame.f_code.co_filename
    raised = linecache.getline(file, line).strip().startswith("raise ")
    return type(error) is ValueError and raised and Path(file).is_relative_to(Path(yolo_effnet.__file__).parent)


def test_errors_of_others_are_not_ours():
    for wrong in (lambda: int("many"), lambda: torch.nn.Conv2d(3, 4, 3, groups=2), lambda: MBConv(8, 8)(None)):
        with pytest.raises((ValueError, TypeError, AttributeError)) as raised:
            wrong()
        assert not is_ours(raised.value)
    with pytest.raises(ValueError, match="k must be an odd integer") as raised:
        MBConv(8, 8, 4)
    assert is_ours(raised.value)


def test_no_malformed_yaml_ends_in_an_error_of_python(tmp_path):
    rng, failures = random.Random(0), []
    for base in (SMALL, TIMM):
        for path in (p for p in places(base) for _ in range(4)):
            if is_of_ultralytics(base, path):
                continue
            value = rng.choice([*VALUES, ...])
            config = changed(base, *path, value)
            is_renamed = path[2:] == (2,) and value == "Conv"  # then the row is one of Ultralytics
            if is_renamed or not has_rows_of_ours(config):
                continue
            (tmp_path / "my.yaml").write_text(yaml.safe_dump(config))
            try:
                DetectionModel(tmp_path / "my.yaml", verbose=False)
            except Exception as error:
                if is_ours(error):
                    continue
                failures.append(f"{path} = {value!r}: {type(error).__name__}: {error}")
    assert not failures
