"""Names, and the YAML that each stands for."""

from itertools import product
from pathlib import Path

import pytest
import yaml

import yolo_effnet
from yolo_effnet import configs
from yolo_effnet.names import PYRAMIDS, TASKS, parse_name

MODELS = Path(__file__).parent.parent / "models"
EXAMPLES = [*(f"yolov8-effb{i}" for i in range(8)), "yolov8-efflite0"]


def test_models_folder_equals_the_table():
    for name in EXAMPLES:
        assert (MODELS / f"{name}.yaml").read_text(encoding="utf-8") == configs.model_yaml(name)


def test_write_models_writes_them(tmp_path):
    configs.write_models(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {file.name for file in MODELS.iterdir()}
    assert {file.stem for file in tmp_path.iterdir()} == set(EXAMPLES)


@pytest.mark.parametrize("name", yolo_effnet.model_names())
def test_yaml_reads_as_the_config(name):
    config = yaml.safe_load(configs.model_yaml(name))
    assert config == yolo_effnet.model_config(name) == yolo_effnet.model_config(f"{name}.yaml")
    assert config["head"][-1] == [[14, 17, 20], 1, "Detect", ["nc"]]


KINDS = [
    *((suffix, series) for series in ("yolov8", "yolo26") for suffix in map("".join, product(TASKS, PYRAMIDS))),
    ("-cls", "yolov8"),
]


@pytest.mark.parametrize("name", [name for kind in KINDS for name in yolo_effnet.model_names(*kind)])
def test_levels_of_the_pyramid_meet(name):
    """Followed row by row, only maps of one size are concatenated, and the head gets each level of the pyramid once."""
    config = yolo_effnet.model_config(name)
    assert config == yolo_effnet.model_config(f"{name}.yaml")
    strides = []
    for f, _, module, args in config["backbone"] + config["head"][:-1]:
        inputs = {(strides or [1])[i] for i in ([f] if isinstance(f, int) else f)}
        assert len(inputs) == 1
        stride = {"EfficientNetStem": 2, "EfficientNetStage": args[2:3], "Conv": 2, "nn.Upsample": 0.5}.get(module, 1)
        strides.append(inputs.pop() * (stride[0] if isinstance(stride, list) else stride))
    f, _, head, _ = config["head"][-1]
    if name.endswith("-cls"):
        assert (f, head, strides[-1]) == (-1, "Classifier", 32)
        return
    first, last = (2 if name.endswith("-p2") else 3), (6 if name.endswith("-p6") else 5)
    assert [strides[i] for i in f] == [2**level for level in range(first, last + 1)]
    assert head.endswith("26") == (name.startswith("yolo26") and head != "Detect")


def test_kinds_are_all_models():
    names = [name for kind in KINDS for name in yolo_effnet.model_names(*kind)]
    assert len(names) == len(set(names)) == 325


@pytest.mark.parametrize(
    ("name", "close"),
    [
        ("yolov8-effb9", "yolov8-effb"),
        ("yolov8-effb0-sg", "yolov8-effb0-seg"),
        ("yolov8-effb3-p6-seg", "[-seg|-pose|-obb][-p2|-p6]"),
        ("yolo26-effb0-cls", "yolov8-effb0-cls"),
        ("yolov8-eff", "yolov8-eff<b0|b1|b2|b3|b4|b5|b6|b7|lite0|lite1|"),
        ("yolov8-effb0-nothing", "[-seg|-pose|-obb][-p2|-p6]"),
    ],
)
def test_unknown_names_get_the_close_ones(name, close):
    with pytest.raises(ValueError, match=rf"'{name}' is neither a file nor a model") as error:
        yolo_effnet.model_config(name)
    assert close in str(error.value)


def test_other_names_are_not_ours():
    assert parse_name("yolov8n.yaml") is None
    assert parse_name("yolov8-ghost.yaml") is None
    with pytest.raises(ValueError, match=r"'yolov8n' is not a model of yolo_effnet"):
        yolo_effnet.model_config("yolov8n")
