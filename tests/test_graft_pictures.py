"""Grafts take the pictures and sizes that a training takes, and leave trainings without a graft alone."""

import sys

import cv2
import numpy as np
import pictures
import pytest
import torch
from donors import QUICK, checkpoint, output
from PIL import Image
from ultralytics import YOLO
from ultralytics.data.dataset import YOLODataset

import yolo_effnet
from yolo_effnet.grafting.pictures import Pictures, find


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A data set of which 16 pictures are to train on."""
    return pictures.draw("detect", tmp_path_factory.mktemp("images"), train=16, val=2)


needs_grey = pytest.mark.skipif("channels" not in YOLO("yolov8n.yaml").model.yaml, reason="Ultralytics reads colour")


@pytest.mark.parametrize("channels", [3, pytest.param(1, marks=needs_grey)])
def test_pictures_are_those_of_a_training(channels, images, tmp_path):
    """As Ultralytics finds and reads them: through links, upright, in 8 bits, and none that it leaves out."""
    folder = tmp_path / "Bilder ü"
    folder.mkdir()
    drawn = cv2.imread(str(images.parent / "images" / "train" / "0.png"))
    for name, picture in {
        "alpha.PNG": cv2.cvtColor(drawn, cv2.COLOR_BGR2BGRA),
        "deep.png": drawn.astype(np.uint16) * 257,
        "grey.tif": drawn[..., 0],
        "plain.bmp": drawn,
        ".hidden.png": drawn,
        "tiny.png": drawn[:8],
    }.items():
        (folder / name).write_bytes(cv2.imencode(name[-4:].lower(), picture)[1].tobytes())
    exif = Image.Exif()
    exif[274] = 6  # lies on its side
    Image.fromarray(drawn[..., ::-1]).save(folder / "rotated.jpeg", exif=exif)
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "empty.jpg").touch()
    (folder / "linked").symlink_to(images.parent / "images" / "val")
    found = Pictures(find(folder, 99), 64, channels)
    data = {"names": {0: "a"}, "nc": 1, "channels": channels}
    stock = YOLODataset(str(folder), imgsz=64, augment=False, data=data, task="detect")
    assert sorted(found.files) == sorted(stock.im_files)
    assert len(found) == 5 + 2
    for file, x in zip(found.files, torch.cat([x[: len(x) // 2] for x in found.batches()]), strict=True):
        assert torch.equal(x, stock[stock.im_files.index(file)]["img"] / 255), file


def test_every_form_of_data_gives_its_pictures(images, tmp_path):
    train, val = images.parent / "images" / "train", images.parent / "images" / "val"
    (tmp_path / "link").symlink_to(train)
    (tmp_path / "all [1]").mkdir()
    (tmp_path / "all [1]" / "again").symlink_to(tmp_path / "all [1]")  # leads back
    (tmp_path / "all [1]" / "train").symlink_to(tmp_path / "link")
    (tmp_path / "link.txt").write_text("\ufeff./link/0.png\r\n./link/1.png\r\n", encoding="utf-8")
    yaml = "path: {}\ntrain: {}\nval: images/val\nnames: [a]\n"
    (tmp_path / "list.yaml").write_text(yaml.format(images.parent, "[images/train, images/val]"))
    (tmp_path / "text.yml").write_text(yaml.format(images.parent, tmp_path / "link.txt"))
    for source, number in (
        (tmp_path / "link", 16),
        (tmp_path / "all [1]", 16),
        (tmp_path / "link.txt", 2),
        (tmp_path / "list.yaml", 18),
        (tmp_path / "text.yml", 2),
        ([images, val], 18),
        ([val, tmp_path / "text.yml", images, train], 20),
    ):
        assert len(find(source, 99)) == number, source


def test_pictures_of_one_colour_fit_nothing_and_break_nothing(tmp_path, caplog):
    for i in range(8):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((64, 64, 3), 90, np.uint8))
    options = {"imgsz": 32, "allow_random": True}
    grafted = yolo_effnet.graft(checkpoint("yolov8n", tmp_path), "yolov8-efflite0", tmp_path, **options).model
    assert all(0 <= fit <= 1 for fit in grafted.yaml["graft"]["fit"].values())
    assert torch.isfinite(output(grafted, torch.rand(1, 3, 64, 64))).all()
    assert "All pictures are of one colour" in caplog.text


def test_pictures_are_chosen_evenly(images):
    folder = images.parent / "images" / "train"
    assert find(images, 4) == find(folder, 4) == find(str(folder / "*.png"), 4)
    assert len(find([folder], 99)) == 16
    assert np.unique(find(images, 7)).size == 7


def interrupted(model: str, **arguments):
    """Return a trainer that was stopped as its training started."""

    def interrupt(_trainer):
        raise KeyboardInterrupt

    model = YOLO(model)
    model.add_callback("on_train_start", interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.train(
            **{"imgsz": 64, "epochs": 1, "batch": 4, "workers": 0, "plots": False, "device": "cpu", **arguments}
        )
    return model.trainer


def test_sizes_are_rounded_up_to_the_stride_of_the_donor(images, tmp_path, caplog):
    donor = checkpoint("yolov8n-p6", tmp_path)
    arguments = {"data": images, "graft": donor, "imgsz": 96, "project": tmp_path}
    trainer = interrupted("yolov8-efflite0-p6.yaml", **arguments)
    assert YOLO(trainer.save_dir / "grafted.pt").model.yaml["graft"]["imgsz"] == trainer.args.imgsz == 128
    assert "must be multiple of max stride 64" in caplog.text
    options = {**QUICK, "number": 2, "imgsz": 100}
    assert yolo_effnet.graft(donor, "yolov8-efflite0", images, **options).overrides["imgsz"] == 128


@needs_grey
def test_grey_donors(images, tmp_path):
    donor = checkpoint("yolov8n", tmp_path, channels=1)
    (tmp_path / "grey.yaml").write_text(f"path: {images.parent}\n{images.read_text()}channels: 1\n")
    arguments = {"data": tmp_path / "grey.yaml", "graft": donor, "project": tmp_path}
    trainer = interrupted("yolov8-efflite0.yaml", **arguments)
    assert YOLO(trainer.save_dir / "grafted.pt").model.yaml["channels"] == trainer.model.yaml["channels"] == 1
    colour = YOLO("yolov8-efflite0.yaml").model
    colour.load_state_dict(colour.state_dict())  # which makes them weights that it was given
    torch.save({"model": colour, "train_args": {}}, tmp_path / "colour.pt")
    with pytest.raises(ValueError, match=r"colour\.pt' was trained on images of 3 channels, and the donor takes 1"):
        yolo_effnet.graft(donor, tmp_path / "colour.pt", images, **QUICK)


def test_other_trainings_need_no_graft(images, tmp_path, monkeypatch):
    for module in ("graft", "pictures", "donor"):
        monkeypatch.setitem(sys.modules, f"yolo_effnet.grafting.{module}", None)  # cannot be imported
    interrupted("yolov8n.yaml", data=images, project=tmp_path)
