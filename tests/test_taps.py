"""Stages that give the wide map inside their last block, and grafted necks that take it."""

import copy
import pickle
from importlib.util import find_spec

import pictures
import pytest
import torch
from backbones import fused, randomize
from donors import QUICK, checkpoint, output
from ultralytics import YOLO
from ultralytics.nn.modules import SPPF, Concat, Index
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import torch_utils

import yolo_effnet
from yolo_effnet.grafting.anatomy import sources
from yolo_effnet.nn.stages import EfficientNetStage, FusedStage
from yolo_effnet.nn.timm_backbone import TimmBackbone
from yolo_effnet.tools.compare import ModelFile

CPU = torch.device("cpu")
BACKBONE = "its rows"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A data set of which 16 pictures are to train on."""
    return pictures.draw("detect", tmp_path_factory.mktemp("images"), train=16, val=2)


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize(
    ("kind", "expand_ratio", "se_ratio"),
    [(EfficientNetStage, 6, 0.25), (EfficientNetStage, 6, 0), (EfficientNetStage, 1, 0.25), (FusedStage, 4, 0.25)],
)
def test_a_tapped_stage_gives_what_its_last_block_projects_and_what_it_gives_without(kind, expand_ratio, se_ratio, n):
    tapped = randomize(kind(8, 16, n, 3, 1, expand_ratio, se_ratio, True)).eval()
    plain = kind(8, 16, n, 3, 1, expand_ratio, se_ratio)
    plain.load_state_dict(tapped.state_dict())
    plain.eval()
    x, seen = torch.rand(2, 8, 16, 15), []
    plain[-1].project.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        expected = plain(x)
        for stage in (tapped, copy.deepcopy(tapped), pickle.loads(pickle.dumps(tapped)), fused(tapped)):
            for fast in (True, False):
                with yolo_effnet.fast_paths(fast):
                    maps = stage(x)
                torch.testing.assert_close(maps[1], expected, rtol=1e-4, atol=1e-5)
                torch.testing.assert_close(maps[0], seen[0], rtol=1e-4, atol=1e-5)
    assert tapped.tap_channels == tuple(maps[i].shape[1] for i in (0, 1))
    assert plain.tap_channels is None


@pytest.mark.parametrize(
    ("name", "channels"),
    [("mobilenetv2_100", {8: 192, 16: 576, 32: 960}), ("mobilenetv4_conv_small", {16: 384}), ("resnet18", {})],
)
def test_a_tapped_backbone_of_timm_gives_what_its_last_blocks_project(name, channels):
    """Where timm's blocks name such a map."""
    if not channels:
        with pytest.raises(ValueError, match="timm names no wide maps in the blocks of 'resnet18'"):
            TimmBackbone(3, 0, name, 0.0, True)
        return
    tapped, plain = TimmBackbone(3, 0, name, 0.0, True), TimmBackbone(3, 0, name)
    randomize(tapped).eval()
    plain.load_state_dict(tapped.state_dict())
    plain.eval()
    wide = [m for m in tapped.maps if m.module and m.stride > 4]
    assert {m.stride: m.channels for m in wide} == channels
    x, seen = torch.rand(2, 3, 96, 64), {}
    for m in wide:
        layer = plain.body.get_submodule(m.module)
        layer.register_forward_pre_hook(lambda _, args, index=m.index: seen.update({index: args[0]}))
    with torch.no_grad():
        expected = plain(x)
        for backbone in (tapped, copy.deepcopy(tapped), pickle.loads(pickle.dumps(tapped)), fused(tapped)):
            maps = backbone(x)
            for index, y in {**seen, **expected}.items():
                torch.testing.assert_close(maps[index], y, rtol=1e-4, atol=1e-5)
            assert next(reversed(maps)) == next(reversed(expected))  # what `embed` takes
            assert all(hook.seen is None for hook in backbone.inside)


ROWS = [[-1, 1, "EfficientNetStem", [32]], [-1, 2, "EfficientNetStage", [24, 3, 2, 6, 0.25, True]]]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([1, 1, "Index", [99, 0]], r"row 2 .*a tapped stage gives \[144, 0\] and \[24, 1\]; got \[99, 0\]"),
        ([-1, 1, "Index", [144, 1]], r"a tapped stage gives \[144, 0\] and \[24, 1\]; got \[144, 1\]"),
        ([1, 1, "Index", [24]], r"channels and index of EfficientNetStage's feature maps are \[channels, 0\]"),
        ([1, 1, "Conv", [24]], "EfficientNetStage gives several feature maps, which Index rows take"),
        ([-1, 1, "EfficientNetStage", [24, 3, 2, 6, 0.25, 1]], "tap must be True or False, got 1"),
        ([0, 1, "FusedStage", [32, 3, 1, 1, 0, True]], "no wide map to tap where expand_ratio is 1"),
    ],
)
def test_a_wrong_row_is_one_clear_error(row, message):
    rows = [*ROWS, row]
    if "Stage" in row[2]:
        rows = [ROWS[0], row, [-1, 1, "Index", [row[3][0], 1]]]
    with pytest.raises(ValueError, match=message):
        DetectionModel({"nc": 2, "backbone": rows, "head": [[[-1], 1, "Detect", ["nc"]]]}, verbose=False)


def test_a_stage_takes_the_output_of_a_tapped_one():
    """With or without a row that picks it."""
    after = [-1, 1, "FusedStage", [32, 3, 2]]
    rows = [[*ROWS, after], [*ROWS, [-1, 1, "Index", [24, 1]], after]]
    models = []
    for backbone in rows:
        torch.manual_seed(0)
        models.append(
            DetectionModel({"nc": 2, "backbone": backbone, "head": [[[-1], 1, "Detect", ["nc"]]]}, verbose=False)
        )
    direct, picked = models
    x = torch.rand(1, 3, 64, 64)
    for name, built in zip(direct.state_dict(), picked.state_dict().values(), strict=True):
        assert torch.equal(direct.state_dict()[name], built)
    torch.testing.assert_close(output(direct, x), output(picked, x))


RESNET = {
    "nc": 2,
    "backbone": [
        [-1, 1, "TimmBackbone", ["resnet18"]],
        *([0, 1, "Index", [channels, i]] for i, channels in ((2, 128), (3, 256), (4, 512))),
        [-1, 1, "SPPF", [256, 5]],
    ],
    "head": [[[1, 2, 4], 1, "Detect", ["nc"]]],
}


def stages(model) -> list:
    """Return the rows of a backbone that have tensors."""
    return [layer for layer in model.model if isinstance(layer, (EfficientNetStage, TimmBackbone))]


def wide_rows(model) -> list:
    """Return the rows that pick a wide map."""
    wide = []
    for layer in model.model:
        if isinstance(layer, Index):
            source = model.model[sources(layer)[0]]
            maps = {m.index: m.module for m in getattr(source, "maps", ())} or {0: "of a stage"}
            wide += [layer] * bool(maps.get(layer.index))
    return wide


def stages_taken(model) -> int:
    """Return the number of stages that a row that joins maps takes; tapped ones are taken by `Index` rows."""
    joined = {f for layer in model.model if isinstance(layer, Concat) for f in sources(layer)}
    return sum(isinstance(model.model[f], EfficientNetStage) for f in joined)


@pytest.mark.parametrize(
    ("donor", "backbone", "wide", "before"),
    [
        ("yolov8n", "yolov8-efflite0", 3, 2),
        ("yolov8s-seg", "yolov8-effb0", 3, 2),
        ("yolov8n-pose", "yolov8-effb1", 3, 2),
        ("yolov8n-obb", "yolov8-effv2b0", 3, 1),
        ("yolov8n-p2", "yolov8-effv2b0", 4, 1),
        ("yolov8n-p6", "yolov8-effb0", 3, 2),
        ("yolo26n", "yolo26-effb0", 3, 2),
        ("yolo11n", "yolov8-mobilenetv2_100", 3, 0),
        ("yolov8n-p2", "yolov8-mobilenetv3_large_100", 3, 0),
        ("yolov8n", RESNET, 0, 0),
    ],
)
def test_a_neck_takes_wide_maps(donor, backbone, wide, before, images, tmp_path):
    """A model grafted so is donor and backbone of others, with or without."""
    giver, options = checkpoint(donor, tmp_path), {**QUICK, "number": 2}
    first = yolo_effnet.graft(giver, backbone, images, taps="wide" if wide else "narrow", **options).model
    first.load_state_dict(first.state_dict())  # which makes them weights that it was given
    x = torch.rand(1, 3, 64, 64)
    again = type(first)(copy.deepcopy(first.yaml), verbose=False)
    again.names = first.names
    again.load_state_dict(first.state_dict())
    torch.testing.assert_close(output(again, x), output(first, x))
    assert len(wide_rows(first)) == wide
    assert stages_taken(first) == before
    assert all(len(set(sources(layer))) == len(layer.f) for layer in first.model if isinstance(layer, Concat))
    if not wide:
        with pytest.raises(ValueError, match="taps=wide needs a backbone of EfficientNetStage or FusedStage rows"):
            yolo_effnet.graft(giver, backbone, images, taps="wide", **options)
        return
    for taps in ("narrow", "wide"):
        second = yolo_effnet.graft(first, first, images, taps=taps, **options).model
        assert torch.isfinite(output(second, x)).all()
        assert len(wide_rows(second)) == (wide if taps == "wide" else 0)
        for a, b in zip(stages(second), stages(first), strict=True):
            assert all(torch.equal(t, b.state_dict()[k]) for k, t in a.state_dict().items())
        if taps == "narrow":
            told = yolo_effnet.graft(giver, backbone, images, taps=taps, **options).model
            assert [layer.f for layer in second.model] == [layer.f for layer in told.model]
    assert [(a, b) for a, b in zip(first.yaml["backbone"], second.yaml["backbone"], strict=True) if a != b] == []


@pytest.mark.parametrize("name", ["yolov8-effb0", "yolo26-efflite0", "yolov8-mobilenetv2_100"])
def test_the_donors_own_backbone_gives_its_output_back(name, images, tmp_path):
    """Of a graft with wide taps, and of a model without, from 400 positions to an input on."""
    donor = checkpoint(name, tmp_path)
    options = {**QUICK, "imgsz": 128, "taps": "wide"}
    yolo_effnet.graft(donor, donor, images, tmp_path / "wide.pt", **options)
    x = torch.rand(2, 3, 128, 128)
    grafted = yolo_effnet.graft(tmp_path / "wide.pt", tmp_path / "wide.pt", images, **options)
    wanted = output(YOLO(tmp_path / "wide.pt").model, x)
    assert (output(grafted.model, x) - wanted).abs().max() / wanted.abs().max() < 1e-4


@pytest.mark.parametrize(
    ("score", "backbone", "wide"), [(-0.8, "yolov8-effb0", 3), (-0.9, "yolov8-effb0", 0), (-0.8, RESNET, 0)]
)
def test_a_graft_takes_wide_maps_by_itself_where_its_donor_is_sure(score, backbone, wide, images, tmp_path, caplog):
    """Its score is 0.31, or 0.29 where it is not; a backbone may have no such maps."""
    donor = YOLO(checkpoint("yolov8n", tmp_path)).model
    for branch in donor.model[-1].cv3:
        branch[-1].weight.data.zero_()
        branch[-1].bias.data.fill_(score)
    torch.manual_seed(0)
    found = yolo_effnet.graft(donor, backbone, images, **QUICK).model
    assert len(wide_rows(found)) == wide
    assert ("so that the neck takes wide maps" in caplog.text) == bool(wide)
    told = yolo_effnet.graft(donor, backbone, images, taps="wide" if wide else "narrow", **QUICK).model
    assert found.yaml == told.yaml
    torch.testing.assert_close(found.state_dict(), told.state_dict())
    assert not wide_rows(yolo_effnet.graft(donor, backbone, images, max_gflops=100, **QUICK).model)


def test_taps_are_auto_narrow_or_wide(images, tmp_path):
    with pytest.raises(ValueError, match="taps must be auto, narrow or wide, got 'broad'"):
        yolo_effnet.graft(checkpoint("yolov8n", tmp_path), "yolov8-effb0", images, taps="broad", **QUICK)


@pytest.fixture(scope="module", params=["yolov8-effb0", "yolov8-mobilenetv3_large_100"])
def wide(request, images, tmp_path_factory):
    """A graft with squeeze-and-excite whose random backbone is lively, as file."""
    folder = tmp_path_factory.mktemp("wide")
    backbone = YOLO(checkpoint(request.param, folder)).model
    backbone.load_state_dict(backbone.state_dict())  # which makes them weights that it was given
    donor = checkpoint("yolov8n", folder)
    options = {**QUICK, "number": 4, "taps": "wide"}
    return yolo_effnet.graft(donor, backbone, images, folder / "wide.pt", **options).ckpt_path


@pytest.mark.export
@pytest.mark.filterwarnings("ignore")  # exporters warn, at every step, of themselves
@pytest.mark.parametrize(
    ("name", "needs"), [("torchscript", "torch"), ("onnx", "onnxruntime"), ("openvino", "openvino"), ("ncnn", "ncnn")]
)
def test_it_is_exported(name, needs, wide, images, tmp_path, monkeypatch):
    pytest.importorskip(needs)
    monkeypatch.chdir(tmp_path)
    picture = pictures.np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype="uint8")
    expected = ModelFile(str(wide), picture, CPU)()
    file = YOLO(wide).export(format=name, imgsz=64, device="cpu")
    error = (ModelFile(file, picture, CPU)() - expected).abs().max() / expected.abs().max()
    assert error < (3e-2 if name == "openvino" else 1e-4)  # which may compute in bfloat16


@pytest.mark.filterwarnings("ignore")  # of modelopt
@pytest.mark.parametrize("options", [{"freeze": BACKBONE}, {"freeze_epochs": 1}, {"freeze": BACKBONE, "quantize": 8}])
def test_it_trains(options, wide, images, tmp_path):
    """An epoch; with its backbone frozen that, and what the neck takes of it, stays."""
    if "quantize" in options and not (hasattr(torch_utils, "prepare_qat") and find_spec("modelopt")):
        pytest.skip("int8 training needs a newer ultralytics and nvidia-modelopt")
    model = YOLO(wide)
    start = next(layer.i for layer in model.model.model if isinstance(layer, SPPF))
    options = {name: start if value == BACKBONE else value for name, value in options.items()}
    before = copy.deepcopy(model.model.state_dict())
    arguments = {**pictures.LEARNING, "epochs": 1, "pretrained": True, "data": images, "project": tmp_path}
    model.train(**arguments, **options)
    after = YOLO(model.trainer.last).model.state_dict()
    rows = {key for key, t in before.items() if t.shape == after[key].shape and key.endswith("weight")}
    changed = {key for key in rows if not torch.allclose(after[key].float(), before[key].float(), atol=1e-3)}
    assert changed
    assert not any(int(key.split(".")[1]) < start for key in changed)
    assert torch.isfinite(output(YOLO(model.trainer.last).model.float(), torch.rand(1, 3, 64, 64))).all()
