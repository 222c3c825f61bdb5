"""The `yolo-effnet` command."""

import pytest

import yolo_effnet
from yolo_effnet import cli, configs


def test_list_has_a_row_per_model(capsys):
    assert cli.main(["list"]) == 0
    table, _, names = capsys.readouterr().out.partition("\n\n")
    assert "[-seg|-pose|-obb][-p2|-p6]" in names
    header, *rows = table.splitlines()
    assert header.split() == ["model", "parameters", "GFLOPs@640", "neck", "P3/P4/P5", "default", "ImageNet", "weights"]
    assert [row.split()[0] for row in rows] == yolo_effnet.model_names()
    assert rows[0].split()[1:] == ["5.7M", "12.8", "64/128/256", "tf_efficientnet_b0.ns_jft_in1k"]


@pytest.mark.parametrize("name", ["yolov8-effb2", "yolov8-effb2.yaml"])
def test_yaml_prints_the_model(name, capsys):
    assert cli.main(["yaml", name]) == 0
    assert capsys.readouterr().out == configs.model_yaml("yolov8-effb2")


def test_yaml_of_an_unknown_model_names_the_models(capsys):
    assert cli.main(["yaml", "yolov8-effb8"]) == 2
    assert "'yolov8-effb8'" in (error := capsys.readouterr().err)
    assert "yolov8-effb7" in error


def test_info_tells_versions_and_hook(capsys):
    assert cli.main(["info"]) == 0
    out = capsys.readouterr().out
    for word in (
        "ultralytics",
        "start-up hook",
        "ultralytics>=8.3.70,<9",
        "EfficientNetStage",
        *yolo_effnet.model_names(),
    ):
        assert word in out


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--help"])
    assert stop.value.code == 0
    assert "yolo train model=yolov8-effb0.yaml" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        cli.main([])
    assert stop.value.code == 2
