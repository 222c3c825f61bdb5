"""The `yolo-effnet` command."""

import re
import subprocess
import sys

import pytest
import yaml
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.torch_utils import get_flops, get_num_params

import yolo_effnet
from yolo_effnet import cli
from yolo_effnet.zoo import configs
from yolo_effnet.zoo.table import ARCHITECTURES


def test_list_has_a_row_per_model(capsys):
    assert cli.main(["list"]) == 0
    table, _, names = capsys.readouterr().out.partition("\n\n")
    assert "[-seg|-pose|-obb][-p2|-p6]" in names
    header, *rows = table.splitlines()
    assert header.split() == ["model", "parameters", "GFLOPs@640", "neck", "P3/P4/P5", "default", "ImageNet", "weights"]
    assert [row.split()[0] for row in rows] == yolo_effnet.model_names()
    assert rows[0].split()[1:] == ["5.7M", "12.8", "64/128/256", "tf_efficientnet_b0.ns_jft_in1k"]


def test_list_of_a_letter_stands_beside_yolov8(capsys):
    """B4's own neck is as wide and deep as yolov8m's."""
    assert cli.main(["list", "--neck", "m"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["model", "parameters", "GFLOPs@640", "relative", "to", "yolov8m"]
    cells = {name: rest for name, *rest in map(str.split, rows)}
    assert list(cells) == ["yolov8m", *yolo_effnet.model_names(series="yolov8m")]
    assert cells["yolov8m"] == ["25.9M", "79.3", "1.00,", "1.00"]
    own = ARCHITECTURES["effb4"]
    assert cells["yolov8m-effb4"] == [f"{own.parameters / 1e6:.1f}M", f"{own.gflops}", "1.21,", "0.86"]
    for name in ("yolov8m-efflite2", "yolov8m-ghostnet_100"):
        model = DetectionModel(yolo_effnet.model_config(name), verbose=False)
        assert cells[name][:2] == [f"{get_num_params(model) / 1e6:.1f}M", f"{get_flops(model, 640):.1f}"]
    with pytest.raises(SystemExit):
        cli.main(["list", "--neck", "k"])


def test_list_of_timm_gives_rows_that_build(capsys):
    assert cli.main(["list", "--timm", "*mobilenetv3_small_0*"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["TimmBackbone", "Index", "of", "P3,", "P4,", "P5", "default", "weights"]
    assert "mobilenetv3_small_050" in rows[0]
    for row in rows:
        name, indices, weights = re.match(r"(\S+) +((?:\[\d+, \d\] ?)+) +(\S+)", row).groups()
        assert weights.startswith(name)
        index_rows = [[0, 1, "Index", [int(c), int(i)]] for c, i in re.findall(r"(\d+), (\d)", indices)]
        config = {"nc": 2, "backbone": [[-1, 1, "TimmBackbone", [name]], *index_rows]}
        head = [[[1, 2, 3], 1, "Detect", ["nc"]]]
        assert DetectionModel({**config, "head": head}, verbose=False).stride.tolist() == [8, 16, 32]
    assert cli.main(["list", "--timm", "vit_tiny_patch16_*"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    listed = []
    for pattern in ("mobilenetv3_small_0*", "mobilenetv3_small_0"):
        assert cli.main(["list", "--timm", pattern]) == 0
        listed.append(capsys.readouterr().out)
    assert listed[0] == listed[1]
    assert cli.main(["list", "--timm", "nothing*"]) == 2
    assert "timm has no model of the pattern 'nothing*'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "task", "head"),
    [
        (["--width", "0.5", "--depth", "0.7"], "detect", "Detect"),
        (["--width", "0.5", "--task", "segment"], "segment", "Segment"),
        (["--depth", "0.4", "--task", "classify"], "classify", "Classifier"),
    ],
)
def test_yaml_of_a_scale_of_ones_own_builds(options, task, head, tmp_path, capsys):
    assert cli.main(["yaml", *options]) == 0
    text = capsys.readouterr().out
    (tmp_path / "my.yaml").write_text(text)
    model = YOLO(tmp_path / "my.yaml")
    assert (model.task, type(model.model.model[-1]).__name__) == (task, head)


def test_yaml_of_b2s_scale_is_b2(capsys):
    assert cli.main(["yaml", "--width", "1.1", "--depth", "1.2"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == yolo_effnet.model_config("yolov8-effb2")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--width", "9"], "width must be a number from 0.25 to 5, got 9.0"),
        (["--depth", "nan"], "depth must be a number from 0.25 to 8, got nan"),
        (["yolov8-effb0", "--width", "1"], "give either a name or a scale and a task, got 'yolov8-effb0' and more"),
        ([], "give the name of a model"),
    ],
)
def test_impossible_scales_are_named(options, message, capsys):
    assert cli.main(["yaml", *options]) == 2
    assert message in capsys.readouterr().err


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


def test_a_reader_that_stops_reading_gets_no_traceback():
    code = "import sys; from yolo_effnet.cli import main; sys.exit(main(['list']))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--help"])
    assert stop.value.code == 0
    assert "yolo train model=yolov8-effb0.yaml" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        cli.main([])
    assert stop.value.code == 2


@pytest.mark.parametrize("name", ["benchmark", "compare"])
def test_benchmark_has_its_former_name_too(name, capsys):
    assert cli.main([name, "nothing"]) == 2
    assert "no model 'nothing' to measure" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main([name])
    assert "the following arguments are required: MODEL" in capsys.readouterr().err
