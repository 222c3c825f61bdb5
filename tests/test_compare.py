"""Models in PyTorch and as exported files, by the command `benchmark`."""

import csv
import re
import shutil
from pathlib import Path

import cv2
import pytest
import yaml
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel

from yolo_effnet import cli
from yolo_effnet.checkpoints import save_checkpoint
from yolo_effnet.zoo.configs import model_config

COMMAND = "benchmark"
QUICK = ["--imgsz", "64", "--repeats", "1"]


def table(folder: Path) -> dict:
    """Return the rows of the CSV by model and format."""
    with open(folder / "benchmark.csv", encoding="utf-8") as file:
        return {(row["model"], row["format"]): row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A model of two classes that learnt nothing."""
    folder = tmp_path_factory.mktemp("plain")
    model = DetectionModel(model_config("yolov8-efflite0"), nc=2, verbose=False)
    save_checkpoint(model, folder / "plain.pt", task="detect")
    return folder / "plain.pt"


@pytest.fixture(scope="module")
def grey(tmp_path_factory, tiny_data):
    """A model of pictures of one channel, and data of such."""
    folder = tmp_path_factory.mktemp("grey")
    model = DetectionModel(model_config("yolov8-efflite0"), ch=1, nc=2, verbose=False)
    save_checkpoint(model, folder / "grey.pt", task="detect")
    data = {**yaml.safe_load(tiny_data.read_text()), "path": str(tiny_data.parent), "channels": 1}
    (folder / "grey_data.yaml").write_text(yaml.safe_dump(data))
    return folder / "grey.pt", folder / "grey_data.yaml"


@pytest.mark.filterwarnings("ignore")  # torch's exporter warns of its own age, at every step
def test_models_by_name_and_file(plain, tmp_path, capsys):
    """Every column is filled, ratios relate to the first row, and a failing cell loses no other."""
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(model_config("yolov8-mobilenetv1_100-dw")))
    models, formats = ["yolov8n", str(plain), str(tmp_path / "own.yaml")], ["pytorch", "torchscript", "engine"]
    assert cli.main([COMMAND, *models, *QUICK, "--formats", *formats, "--output", str(tmp_path / "out")]) == 0
    rows = table(tmp_path / "out")
    assert list(rows) == [(model, name) for model in ("yolov8n", "plain", "own") for name in formats]
    out = capsys.readouterr().out
    first = float(rows["yolov8n", "pytorch"]["milliseconds"])
    for (model, name), row in rows.items():
        assert re.search(rf"^{model} +{name} ", out, re.MULTILINE)
        assert float(row["parameters"]) > 1e6
        assert float(row["gflops"]) > 0.01
        assert row["accuracy"] == row["change"] == ""
        assert bool(row["reason"]) == (name == "engine")
        if name != "engine":
            assert float(row["ratio"]) == pytest.approx(float(row["milliseconds"]) / first, abs=2e-3)
            assert float(row["megabytes"]) > 1
            assert float(row["difference"]) < 1e-4
            assert bool(row["memory"]) == (name == "pytorch")
    assert cv2.imread(str(tmp_path / "out" / "benchmark.png")).std() > 0


@pytest.mark.filterwarnings("ignore")
def test_int8_is_smaller(tiny_data, tmp_path):
    pytest.importorskip("nncf")
    line = [COMMAND, "yolov8-ghostnet_100-dw", *QUICK, "--data", str(tiny_data), "--output", str(tmp_path)]
    assert cli.main([*line, "--formats", "openvino", "openvino,int8=True"]) == 0
    size = {name: float(row["megabytes"]) for (_, name), row in table(tmp_path).items()}
    assert size["openvino,int8=True"] < 0.6 * size["openvino"]


@pytest.mark.export
@pytest.mark.filterwarnings("ignore")  # torch's exporter warns of its own age, at every step
def test_a_row_per_format(learned, tmp_path, capsys):
    """Also for those that fail."""
    best, data = learned
    formats = ["torchscript", "onnx,dynamic=True", "onnx,nms=True", "onnx,half=True", "engine"]
    line = [COMMAND, str(best), *QUICK, "--data", str(data), "--output", str(tmp_path / "c")]
    assert cli.main([*line, "--formats", *formats]) == 0
    out = capsys.readouterr().out
    rows = {name: row for (_, name), row in table(tmp_path / "c").items()}
    assert list(rows) == ["pytorch", *formats]
    assert 1e-5 < float(rows["onnx,half=True"]["difference"]) < 1e-2
    assert float(rows["onnx,half=True"]["megabytes"]) < 0.6 * float(rows["torchscript"]["megabytes"])
    for name in ("pytorch", *formats[:4]):
        assert float(rows[name]["milliseconds"]) > 0
        assert float(rows[name]["megabytes"]) > 5
        assert abs(float(rows[name]["change"])) < 0.02
        assert f"{name} " in out
    assert float(rows["pytorch"]["accuracy"]) == pytest.approx(
        YOLO(best).val(data=data, imgsz=64, rect=False, workers=0, plots=False, device="cpu").box.map, abs=0.005
    )
    for name in formats[:2]:
        assert float(rows[name]["difference"]) < 1e-4
    assert rows["onnx,nms=True"]["difference"] == ""  # another output
    assert rows["engine"]["reason"]
    assert rows["engine"]["milliseconds"] == ""
    assert cv2.imread(str(tmp_path / "c" / "benchmark.png")).std() > 0
    assert best.is_file()


@pytest.mark.filterwarnings("ignore")
def test_what_is_there_stays(plain, tiny_data, tmp_path, monkeypatch):
    """In the folder of the files, in the folder of the weights, and in that where the command runs."""
    monkeypatch.chdir(tmp_path)
    kept = Path("out/torchscript/plain.pt")
    kept.parent.mkdir(parents=True)
    kept.write_text("of another training")
    before = sorted(plain.parent.iterdir())
    line = [COMMAND, str(plain), *QUICK, "--data", str(tiny_data), "--output", "out", "--formats", "torchscript"]
    assert cli.main(line) == 0
    assert kept.read_text() == "of another training"
    assert sorted(plain.parent.iterdir()) == before
    assert [path.name for path in Path().iterdir()] == ["out"]
    assert Path(table(Path("out"))["plain", "torchscript"]["file"]).is_file()


@pytest.mark.filterwarnings("ignore")
def test_files_of_one_name_are_told_apart(plain, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = [Path(folder, "best.pt") for folder in ("one", "two")]
    for file in files:
        file.parent.mkdir()
        shutil.copy(plain, file)
    assert cli.main([COMMAND, *map(str, files), *QUICK, "--formats", "torchscript"]) == 0
    rows = table(Path("benchmark"))
    assert {model for model, _ in rows} == {"one-best", "two-best"}
    assert len({row["file"] for row in rows.values()}) == 4


@pytest.mark.filterwarnings("ignore")
def test_pixels_and_batch_are_options_of_a_format(plain, tiny_data, tmp_path):
    formats = ["pytorch,batch=2", "torchscript,imgsz=96", "torchscript,batch=2"]
    line = [COMMAND, str(plain), *QUICK, "--data", str(tiny_data), "--output", str(tmp_path), "--formats", *formats]
    assert cli.main(line) == 0
    rows = {name: row for (_, name), row in table(tmp_path).items()}
    assert {name: (row["imgsz"], row["batch"]) for name, row in rows.items()} == {
        "pytorch": ("64", "1"),
        formats[0]: ("64", "2"),
        formats[1]: ("96", "1"),
        formats[2]: ("64", "2"),
    }
    for row in rows.values():
        assert row["reason"] == ""
        assert row["accuracy"]
        assert float(row["difference"]) < 1e-4
    assert float(rows[formats[1]]["gflops"]) > 1.5 * float(rows["pytorch"]["gflops"])


@pytest.mark.filterwarnings("ignore")
def test_pictures_of_one_channel(grey, tmp_path):
    model, data = grey
    formats = ["torchscript", "onnx"]
    line = [COMMAND, str(model), *QUICK, "--data", str(data), "--output", str(tmp_path), "--formats", *formats]
    assert cli.main(line) == 0
    for row in table(tmp_path).values():
        assert row["reason"] == ""
        assert row["accuracy"]
        assert float(row["difference"]) < 1e-4


def test_what_cannot_be_compared(learned, grey, tmp_path, capsys):
    """Each is one line before anything is exported."""
    best, data = map(str, learned)
    (tmp_path / "broken.pt").write_text("no checkpoint")
    output = tmp_path / "out"
    for line, message in (
        (["nowhere.pt"], "'nowhere.pt' is no trained .pt file"),
        ([str(tmp_path / "broken.pt")], "broken.pt' is no checkpoint that Ultralytics can load"),
        ([best, best], "is given twice"),
        (["yolov8-effb9"], "no model 'yolov8-effb9' to measure (ValueError: "),
        (["nothing"], "no model 'nothing' to measure (FileNotFoundError: "),
        ([best, "--batch", "0"], "batch must be an integer >= 1, got 0"),
        (["yolov8-effb0-p6", "--imgsz", "96"], "imgsz must be a multiple of 64 >= 64, got 96 for yolov8-effb0-p6"),
        ([best, "--imgsz", "100"], "imgsz must be a multiple of 32 >= 32, got 100 for best"),
        ([best, "--repeats", "0"], "repeats must be an integer >= 1, got 0"),
        ([best, "--device", "99"], "device must be cpu, mps, or the number of a GPU that PyTorch finds, got '99'"),
        ([best, "--device", "gpu"], "device must be cpu, mps, or the number of a GPU that PyTorch finds, got 'gpu'"),
        ([best, "--data", "nowhere.yaml"], "data 'nowhere.yaml' cannot be read"),
        ([str(grey[0]), "--data", data], "grey takes pictures of 1 channels, data"),
        ([best, "--data", str(grey[1])], "its YAML must say `channels: 3`"),
        ([best, "--formats", "onx"], "no format 'onx'; choose from pytorch, torchscript, onnx"),
        ([best, "--formats", "onnx-int8"], "options follow after commas: onnx,int8=True"),
        ([best, "--formats", "onnx,half"], "format 'onnx,half': write option=value"),
        ([best, "--formats", "onnx,device=0"], "format 'onnx,device=0': all run on one device; give --device"),
        ([best, "--formats", "onnx,imgsz=100"], "imgsz must be a multiple of 32 >= 32, got 100 for best"),
        ([best, "--formats", "onnx,imgsz=0"], "format 'onnx,imgsz=0': imgsz must be an integer >= 1, got 0"),
        ([best, "--formats", "onnx,batch=two"], "format 'onnx,batch=two': "),
        ([best, "--formats", "onnx,opset=new"], "format 'onnx,opset=new': TypeError: "),
        ([best, "--formats", "onnx,nothing=1"], "format 'onnx,nothing=1': SyntaxError: "),
        ([best, "--formats", "onnx,epochs=3"], "format 'onnx,epochs=3': 'epochs' does nothing there; its options are"),
        ([best, "--formats", "onnx,conf=0.1"], "format 'onnx,conf=0.1': 'conf' does nothing there"),
        ([best, "--formats", "ncnn,nms=True"], "format 'ncnn,nms=True': 'nms' does nothing there"),
        ([best, "--formats", "ncnn,dynamic=True"], "format 'ncnn,dynamic=True': AssertionError: "),
        ([best, "--formats", "pytorch,dynamic=True"], "format 'pytorch,dynamic=True': 'dynamic' does nothing there"),
        ([best, "--formats", "onnx,half=True,int8=True"], "a file is of float16 or of int8, not of both"),
        ([best, "--formats", "torchscript,half=True"], "float16 of torchscript needs a GPU"),
        ([best, "--formats", "pytorch,half=True"], "float16 of pytorch needs a GPU"),
        ([best, "--formats", "onnx,int8=True"], "int8 needs a data set to calibrate on, --data coco8.yaml for"),
        ([best, "--formats", "edgetpu"], "format 'edgetpu': int8 needs a data set to calibrate on"),
    ):
        assert cli.main([COMMAND, *line, "--output", str(output)]) == 2, line
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
        assert not output.exists()
