"""Names, and the YAML that each stands for."""

from pathlib import Path

import pytest
import yaml

import yolo_effnet
from yolo_effnet import configs

MODELS = Path(__file__).parent.parent / "models"


def test_models_folder_equals_the_table():
    assert {file.stem for file in MODELS.iterdir()} == set(yolo_effnet.model_names())
    for name in yolo_effnet.model_names():
        assert (MODELS / f"{name}.yaml").read_text(encoding="utf-8") == configs.model_yaml(name)


def test_write_models_writes_them(tmp_path):
    configs.write_models(tmp_path)
    assert {file.stem for file in tmp_path.iterdir()} == set(yolo_effnet.model_names())


@pytest.mark.parametrize("name", yolo_effnet.model_names())
def test_yaml_reads_as_the_config(name):
    config = yaml.safe_load(configs.model_yaml(name))
    assert config == yolo_effnet.model_config(name) == yolo_effnet.model_config(f"{name}.yaml")
    assert config["head"][-1] == [[14, 17, 20], 1, "Detect", ["nc"]]


@pytest.mark.parametrize("name", ["yolov8-effb9", "yolov8-eff", "yolov8-effb", "yolov8-effb0-nothing"])
def test_unknown_variant_names_the_models(name):
    with pytest.raises(ValueError, match=rf"'{name}'.*yolov8-effb0.*") as error:
        yolo_effnet.model_config(name)
    assert all(known in str(error.value) for known in yolo_effnet.model_names())


def test_other_names_are_not_ours():
    assert configs.parse_name("yolov8n.yaml") is None
    assert configs.parse_name("yolov8-ghost.yaml") is None
    with pytest.raises(ValueError, match=r"'yolov8n' is not a model of yolo_effnet"):
        yolo_effnet.model_config("yolov8n")
