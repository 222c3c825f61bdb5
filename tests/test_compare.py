"""A trained model beside its exported files, by the command."""

import csv

import pytest

from yolo_effnet import cli


@pytest.mark.export
@pytest.mark.filterwarnings("ignore")  # torch's exporter warns of its own age, at every step
def test_a_row_per_format(learned, tmp_path, capsys):
    """Also for those that fail."""
    best, data = learned
    formats = ["torchscript", "onnx,dynamic=True", "onnx,nms=True", "nothing"]
    line = [
        "compare",
        str(best),
        "--data",
        str(data),
        "--imgsz",
        "64",
        "--repeats",
        "1",
        "--output",
        str(tmp_path / "c"),
    ]
    assert cli.main([*line, "--formats", *formats]) == 0
    out = capsys.readouterr().out
    with open(tmp_path / "c" / "comparison.csv", encoding="utf-8") as file:
        rows = {row["format"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["pytorch", *formats]
    for name in ("pytorch", *formats[:3]):
        assert float(rows[name]["milliseconds"]) > 0
        assert float(rows[name]["megabytes"]) > 5
        assert abs(float(rows[name]["change"])) < 0.02
        assert f"{name} " in out
    for name in formats[:2]:
        assert float(rows[name]["difference"]) < 1e-4
    assert rows["onnx,nms=True"]["difference"] == ""  # another output
    assert "Invalid export format='nothing'" in rows["nothing"]["reason"]
    assert rows["nothing"]["milliseconds"] == ""
    assert (tmp_path / "c" / "comparison.png").is_file()
    assert best.is_file()


def test_what_cannot_be_compared(learned, tmp_path, capsys):
    (tmp_path / "broken.pt").write_text("no checkpoint")
    for line, message in (
        (["nowhere.pt"], "'nowhere.pt' is no trained .pt file"),
        ([str(tmp_path / "broken.pt")], "broken.pt' is no checkpoint that Ultralytics can load"),
        ([str(learned[0]), "--imgsz", "100"], "imgsz must be a multiple of 32 >= 32, got 100"),
        ([str(learned[0]), "--repeats", "0"], "repeats must be an integer >= 1, got 0"),
        ([str(learned[0]), "--formats", "onnx,half"], "format 'onnx,half': write option=value"),
    ):
        assert cli.main(["compare", *line]) == 2
        assert message in capsys.readouterr().err
