"""Our rows in Ultralytics' model-YAML parser, and names in its loader."""

import copy
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import ultralytics
import yaml
from backbones import backbone
from ultralytics import YOLO
from ultralytics.nn import tasks
from ultralytics.nn.tasks import DetectionModel, parse_model, yaml_model_load
from ultralytics.utils.torch_utils import get_flops

import yolo_effnet
from yolo_effnet import patches
from yolo_effnet.host import training
from yolo_effnet.nn import blocks, stages
from yolo_effnet.nn.layers import StridedConv
from yolo_effnet.nn.registry import BLOCKS
from yolo_effnet.zoo.table import ARCHITECTURES

# Parameters of the backbones up to P5, as published for EfficientNet and counted in timm.
BACKBONE_PARAMETERS = {
    "effb0": 3_595_388,
    "effb1": 6_101_024,
    "effb2": 7_202_562,
    "effb3": 10_103_336,
    "effb4": 16_742_216,
    "effb5": 27_288_112,
    "effb6": 39_403_992,
    "effb7": 62_143_440,
    "efflite0": 2_958_848,
    "efflite1": 3_723_520,
    "efflite2": 4_357_952,
    "efflite3": 6_422_016,
    "efflite4": 11_149_568,
    "effv2b0": 5_610_384,
    "effv2b1": 6_611_732,
    "effv2b2": 8_391_406,
    "effv2b3": 12_461_982,
    "effv2s": 19_847_248,
    "effv2m": 52_200_436,
    "effv2l": 116_412_512,
    "effv2xl": 206_017_048,
    "ghostnet_050": 251_492,
    "ghostnet_100": 948_388,
    "ghostnet_130": 1_580_204,
    "mobilenetv1_100": 3_206_976,
    "mobilenetv1_100h": 3_206_976,
    "mobilenetv1_125": 4_989_840,
    "mobilenetv2_035": 250_208,
    "mobilenetv2_050": 480_320,
    "mobilenetv2_075": 1_045_664,
    "mobilenetv2_100": 1_811_712,
    "mobilenetv2_110d": 2_782_400,
    "mobilenetv2_120d": 4_056_064,
    "mobilenetv2_140": 3_509_376,
    "mobilenetv3_large_075": 1_789_648,
    "mobilenetv3_large_100": 2_971_952,
    "mobilenetv3_large_150d": 11_496_840,
}


def count(module) -> int:
    return sum(p.numel() for p in module.parameters())


def head_only(*rows) -> dict:
    """A model dict of these rows, behind a stem with 16 channels, without a detection head."""
    return {"nc": 2, "backbone": [[-1, 1, "EfficientNetStem", [16]]], "head": [list(row) for row in rows]}


@pytest.mark.parametrize("variant", ARCHITECTURES)
def test_models_build_with_the_golden_numbers(variant):
    architecture = ARCHITECTURES[variant]
    model = DetectionModel(f"yolov8-{variant}.yaml", verbose=False)
    assert count(backbone(model)) == BACKBONE_PARAMETERS[variant]
    assert count(model) == architecture.parameters
    assert get_flops(model, 640) == pytest.approx(architecture.gflops, abs=0.06)
    assert model.stride.tolist() == [8, 16, 32]
    assert [m.i for m in model.model] == list(range(len(model.model)))
    assert model.model[-1].legacy == DetectionModel("yolov8n.yaml", verbose=False).model[-1].legacy
    assert all(layer.np == count(layer) for layer in model.model)


def test_printed_table_shows_our_blocks(caplog):
    with caplog.at_level("INFO", logger="ultralytics"):
        DetectionModel("yolov8-effb0.yaml", verbose=True)
    rows = [" ".join(record.getMessage().split()) for record in caplog.records]
    assert "0 -1 1 928 yolo_effnet.nn.stages.EfficientNetStem [3, 32, 3, 2]" in rows
    assert "6 -1 4 2026348 yolo_effnet.nn.stages.EfficientNetStage [112, 192, 4, 5, 2, 6]" in rows


def test_rows_mix_with_those_of_ultralytics_and_scale():
    config = {
        "nc": 3,
        "scales": {"n": [0.5, 0.5, 1024]},
        "scale": "n",
        "backbone": [
            [-1, 1, "Conv", [32, 3, 2]],
            [-1, 4, "EfficientNetStage", [64, 3, 2, 4]],
            [-1, 3, "C2f", [64, True]],
            [-1, 1, "MBConv", [128, 5, 2]],
            [-1, 6, "MBConv", [128, 5, 2]],
        ],
        "head": [
            [-1, 2, "SqueezeExcite", [128]],
            [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
            [[-1, 3], 1, "Concat", [1]],
            [-1, 2, "EfficientNetStage", [64]],
            [[3, 5, 8], 1, "Detect", ["nc"]],
        ],
    }
    model = DetectionModel(config, verbose=False)
    stage, single, chain, gate, head_stage = (model.model[i] for i in (1, 3, 4, 5, 8))
    assert len(stage) == 2
    assert stage[0].depthwise.conv.in_channels == 64  # 16 channels of the scaled Conv, four times
    assert stage[-1].project.conv.out_channels == 32
    assert isinstance(single, blocks.MBConv)
    assert (type(chain), len(chain)) == (stages.EfficientNetStage, 3)
    assert (type(gate), gate.reduce.in_channels) == (blocks.SqueezeExcite, 64)
    assert head_stage[0].project.conv.out_channels == 32
    assert model.stride.tolist() == [8, 16, 8]
    model(torch.rand(1, 3, 64, 64))


def test_top_level_keys_set_padding_and_drop_path():
    config = {**yolo_effnet.model_config("yolov8-effb0"), "padding": "symmetric", "drop_path": 0}
    model = DetectionModel(config, verbose=False)
    assert {m.padding for m in model.modules() if isinstance(m, StridedConv)} == {"symmetric"}
    assert not any(m.drop_path.p for m in model.modules() if isinstance(m, blocks.MBConv) and m.drop_path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((-1, 1, "EfficientNetStage", [24, 3, 3]), r"row 1 .*: EfficientNetStage: s must be 1 or 2, got 3; a row is"),
        ((-1, 0, "EfficientNetStage", [24]), r"row 1 .*: repeats must be an integer >= 1, got 0"),
        ((-1, "two", "EfficientNetStage", [24]), r"repeats must be an integer >= 1, got 'two'"),
        ((-1, 1, "EfficientNetStage", []), r"row 1 .*c2, k=3, s=1, expand_ratio=6, se_ratio=0.25"),
        ((-1, 1, "EfficientNetStage", [24, 3, 1, 6, 0.25, 7, 8]), r"row 1 .*positional arguments.*a row is"),
        ((-1, 1, "EfficientNetStage", ["many"]), r"row 1 .*many"),
        ((-1, 1, "EfficientNetStage", [12.5]), r"row 1 .*c2 must be an integer >= 1, got 12.5"),
        ((-1, 1, "EfficientNetStage", [24, "3x3"]), r"row 1 .*'3x3'.*a row is"),
        ((-1, 1, "EfficientNetStage", [24, "nc"]), r"row 1 .*k must be an odd integer >= 1, got 2; a row is"),
        ((-1, 1, "EfficientNetStage", 24), r"row 1 .*args must be a list, got 24"),
        ((-1, 1, "EfficientNetStage"), r"row 1 .*must be \[from, repeats, module, args\]"),
        ((-1, 1, "MBConv", [24, 4]), r"row 1 .*k must be an odd integer >= 1, got 4"),
        ((-1, 2, "EfficientNetStem", [24]), r"row 1 .*repeats of EfficientNetStem must be 1, got 2"),
        ((-1, 1, "SqueezeExcite", [24]), r"row 1 .*c2 must equal the input channels 16.*c2=24"),
        (
            (-1, 1, "EfficientNetStag", [24]),
            r"row 1 .*unknown block 'EfficientNetStag'; did you mean EfficientNetStage",
        ),
        ((-1, 1, "NoSuchBlock", [24]), r"row 1 .*unknown block 'NoSuchBlock'; those of yolo_effnet are .*MBConv"),
    ],
)
def test_malformed_rows_are_named(row, message):
    with pytest.raises(ValueError, match=message):
        parse_model(head_only(row), ch=3, verbose=False)


@pytest.mark.parametrize(("key", "value"), [("padding", "valid"), ("drop_path", 1.5), ("drop_path", "lots")])
def test_malformed_keys_are_named(key, value):
    with pytest.raises(ValueError, match=rf"{key} must be .*, got {value!r}"):
        DetectionModel({**yolo_effnet.model_config("yolov8-effb0"), key: value}, verbose=False)


def test_errors_in_rows_of_ultralytics_stay_its_own():
    with pytest.raises(TypeError):
        parse_model(head_only((-1, 1, "Conv", [24, 3, 1, None, 1, 1, True, 0, 0])), ch=3, verbose=False)


SHIPPED = sorted((Path(ultralytics.__file__).parent / "cfg" / "models").rglob("*.yaml"))


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_yamls_of_ultralytics_build_the_same_model(file):
    config = yaml.safe_load(file.read_text(encoding="utf-8").replace("DEFAULT", "None"))  # no download of weights
    if "scales" in config:
        config["scale"] = next(iter(config["scales"]))  # the smallest
    ours = build(config, tasks.parse_model)
    assert not {"frozenset", *BLOCKS} & vars(tasks).keys()
    assert ours == build(config, tasks.parse_model.__wrapped__)


def build(config: dict, parse) -> tuple[list, list]:
    """Return type, parameters and source of each layer that `parse` builds, and its list of saved outputs."""
    with torch.device("meta"):
        model, save = parse(copy.deepcopy(config), 3, False)
    return [(layer.type, layer.np, layer.f) for layer in model], save


def test_names_resolve_with_nothing_on_disk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("yolov8-effb3.yaml", "yolov8-effb3.yml", "yolov8m-effb3.yaml"):
        loaded = yaml_model_load(name)
        assert loaded == {**yolo_effnet.model_config(name.partition(".")[0]), "scale": "", "yaml_file": name}
    assert not os.listdir(tmp_path)


def test_an_existing_file_wins(tmp_path, monkeypatch):
    folder = tmp_path / "exp3small"  # Ultralytics would look in exp3mall/
    folder.mkdir()
    config = {**yolo_effnet.model_config("yolov8-effb0"), "nc": 7}
    monkeypatch.chdir(folder)
    for name in ("yolov8-effb0.yaml", "yolov8m-effb0.yaml"):
        (folder / name).write_text(yaml.safe_dump(config))
        for path in (name, str(folder / name), folder / name):
            assert yaml_model_load(path)["nc"] == 7
        (folder / name).unlink()


SCALES = {"n": [1.0, 0.5, 1024], "s": [1.0, 1.0, 1024]}


@pytest.mark.parametrize("folder", [".", "exp3small"])
@pytest.mark.parametrize("name", ["efflite0", "effv2s", "effb0-seg", "effmine", "mobilenetv2_100"])
def test_a_scale_letter_finds_the_file_of_ones_own(name, folder, tmp_path, monkeypatch):
    home = tmp_path / folder
    home.mkdir(exist_ok=True)
    config = {**yolo_effnet.model_config("yolov8-efflite0"), "scales": SCALES}
    (home / f"yolov8-{name}.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(home)
    whole = count(YOLO(f"yolov8s-{name}.yaml").model)
    assert whole == ARCHITECTURES["efflite0"].parameters
    for path in (f"yolov8n-{name}.yaml", home / f"yolov8n-{name}.yaml"):
        loaded = yaml_model_load(path)
        assert (loaded["scale"], loaded["yaml_file"]) == ("n", str(path))
        assert count(YOLO(path).model) < 0.5 * whole
    with pytest.raises(ValueError, match=rf"'yolov8m-{name}.yaml' does not exist; the `scales:` of .* are n, s, not m"):
        YOLO(f"yolov8m-{name}.yaml")
    (home / f"yolov8n-{name}.yaml").write_text(yaml.safe_dump({**config, "nc": 7}))
    assert yaml_model_load(f"yolov8n-{name}.yaml")["nc"] == 7


def test_a_scale_letter_without_scales_is_told(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    Path("yolov8-efflite0.yaml").write_text(yolo_effnet.zoo.configs.model_yaml("yolov8-efflite0"))

    Path("yolov8-effmine.yaml").write_text(yolo_effnet.zoo.configs.model_yaml("yolov8-efflite0"))
    assert count(YOLO("yolov8x-effmine.yaml").model) == ARCHITECTURES["efflite0"].parameters
    assert "yolov8-effmine.yaml has no `scales:`, so that the letter x of yolov8x-effmine.yaml" in caplog.text
    model = YOLO("yolov8m-efflite0.yaml")  # whose letter is that of a neck
    assert "yolov8-efflite0.yaml has no `scales:`, so that yolov8m-efflite0.yaml is the model of" in caplog.text
    assert count(model.model) > 3 * ARCHITECTURES["efflite0"].parameters


def test_a_file_that_ultralytics_finds_wins(tmp_path, monkeypatch):
    """It also looks into its own folders, where forks have theirs."""
    (tmp_path / "cfg").mkdir()
    monkeypatch.setattr(ultralytics.utils.checks, "ROOT", tmp_path)
    for name in ("yolov8-effnet", "yolov8-effb0", "efficientnet_b0"):
        (tmp_path / "cfg" / f"{name}.yaml").write_text(yaml.safe_dump({**head_only(), "nc": 7}))
        assert yaml_model_load(f"{name}.yaml")["nc"] == 7


@pytest.mark.parametrize("path", [None, b"yolov8n.yaml", "https://example.invalid/yolov8x.yaml", "a" * 500 + ".yaml"])
def test_odd_paths_fail_as_they_do_without_us(path):
    errors = []
    for load in (yaml_model_load, yaml_model_load.__wrapped__):
        with pytest.raises((TypeError, FileNotFoundError)) as raised:
            load(path)
        errors.append((raised.type, str(raised.value)))
    assert errors[0] == errors[1]


def test_a_name_that_no_file_can_have_is_told():
    with pytest.raises(ValueError, match="is neither a file nor a model of yolo_effnet"):
        yaml_model_load(f"yolov8-eff{'b' * 500}.yaml")


def test_other_errors_of_a_lookup_stay(tmp_path, monkeypatch):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "effb0.yaml").touch()
    monkeypatch.setattr(ultralytics.utils.checks, "ROOT", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"Multiple files match 'effb0.yaml'"):
        ultralytics.utils.checks.check_file(file="effb0.yaml")
    with pytest.raises(FileNotFoundError, match=r"'yolov8-effb0.pt' does not exist; .* write model=yolov8-effb0.yaml"):
        tasks.torch_safe_load(weight="yolov8-effb0.pt")


def test_a_model_without_our_rows_loads_as_without_us(monkeypatch):
    """Whatever the module is that it takes its weights from."""

    class Holder(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model.model
            self.is_fused = model.is_fused

    model = DetectionModel("yolov8n.yaml", verbose=False)
    monkeypatch.setattr(training, "noting_load", lambda *_: pytest.fail("is for models of ours"))
    assert model.load(Holder(DetectionModel("yolov8n.yaml", verbose=False)), verbose=False) is None


def test_unknown_names_say_which_exist():
    with pytest.raises(ValueError, match=r"'yolov8-effb9.yaml' is neither a file nor a model .*yolov8-effb"):
        YOLO("yolov8-effb9.yaml")
    with pytest.raises(FileNotFoundError, match=r"'nowhere/yolov8-effb0.yaml' does not exist.*model=yolov8-effb0.yaml"):
        YOLO("nowhere/yolov8-effb0.yaml")


@pytest.mark.parametrize(
    "name",
    [
        *("yolov8n-effb0", "yolov8n-effb0.pt", "YOLOv8n-EffB0.yaml", "yolov8n-efficientnet-b0.pt"),
        *("effb0.yaml", "yolov8_effb0.yaml", "efficientnet_b0.pt", "yolov8-effb0", "yolov8-effb0.pt"),
    ],
)
def test_names_that_are_almost_right_are_told(name, monkeypatch):
    monkeypatch.setattr(ultralytics.utils.downloads, "attempt_download_asset", lambda file, **_: file)  # no network
    meant = "yolov8n-effb0.yaml" if "v8n" in name else "yolov8-effb0.yaml"
    with pytest.raises(FileNotFoundError, match=rf"'{name}' does not exist; .* write model={meant}"):
        YOLO(name)
    with pytest.raises(ValueError, match=r"write yolov8-effb0-seg-p2.yaml"):
        YOLO("yolov8-effb0-p2-seg.yaml")
    with pytest.raises(FileNotFoundError, match=r"write model=yolov8n-mobilenetv2_100-seg.yaml"):
        YOLO("YOLOv8n-seg-mobilenetv2_100.yaml")
    with pytest.raises(FileNotFoundError, match=r"'yolov8-effbo.pt'|'yolov8-effbo'"):
        YOLO("yolov8-effbo")


def test_register_twice_changes_nothing():
    before = (tasks.parse_model, tasks.yaml_model_load)
    patches.apply(patches.MODELS)
    assert (tasks.parse_model, tasks.yaml_model_load) == before


def test_each_function_is_wrapped_once(monkeypatch):
    """Also where another package replaced the parser meanwhile."""
    load, parse = tasks.BaseModel.load, tasks.parse_model
    monkeypatch.setattr(tasks.BaseModel, "load", load)
    monkeypatch.setattr(tasks, "parse_model", lambda *args, **kwargs: parse(*args, **kwargs))
    patches.apply(patches.MODELS)
    assert tasks.BaseModel.load is load


@pytest.mark.parametrize("name", ["efficientnet_b0", "mobilenetv3_large_100", "efficientnet_b0.ra_in1k"])
@pytest.mark.parametrize("rest", [[], [[-1, 1, "MBConv", [24]]]])
def test_a_row_with_the_name_of_a_timm_model_is_told(name, rest):
    """As forks write it, in a YAML with rows of ours and in one without."""
    bare = name.partition(".")[0]
    head = [[-1, 1, name, []], *rest]
    message = rf"row 1 .*'{bare}' is no module .*\[-1, 1, TimmBackbone, \[{bare}\]\].*\[1, 1, Index, \[40, 2\]\]"
    with pytest.raises(ValueError, match=message) as raised:
        parse_model({"nc": 2, "backbone": [[-1, 1, "Conv", [16]]], "head": head}, ch=3, verbose=False)
    assert isinstance(raised.value.__cause__, KeyError)


def test_what_no_timm_model_is_stays_an_error_of_ultralytics():
    for name in ("NoSuchBlock", "vit_base_patch16_224"):
        error, match = (KeyError, name) if name[0] == "N" else (ValueError, "no feature maps of images of any size")
        with pytest.raises(error, match=match):
            parse_model({"nc": 2, "backbone": [[-1, 1, name, []]], "head": []}, ch=3, verbose=False)


def timm_model(*index_rows, name="mobilenetv3_large_100", **keys) -> dict:
    """A detection model of a timm backbone, with these rows after it."""
    rows = index_rows or ([0, 1, "Index", [40, 2]], [0, 1, "Index", [112, 3]], [0, 1, "Index", [960, 4]])
    head = [[[1, 2, 3], 1, "Detect", ["nc"]]]
    return {"nc": 2, "backbone": [[-1, 1, "TimmBackbone", [name]], *map(list, rows)], "head": head, **keys}


def test_a_timm_backbone_as_a_row():
    model = DetectionModel(timm_model(), verbose=False)
    assert model.stride.tolist() == [8, 16, 32]
    model.eval().fuse(verbose=False)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules())
    assert DetectionModel(timm_model(), ch=4, verbose=False)(torch.rand(2, 4, 64, 64))


def test_embeddings_and_activation_maps_of_a_timm_backbone(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(timm_model()))
    model, options = YOLO(tmp_path / "my.yaml"), {"imgsz": 64, "verbose": False, "device": "cpu"}
    assert [embedding.shape for embedding in model.predict(image, embed=[0], **options)] == [(960,)]
    assert [embedding.shape for embedding in model.predict(image, embed=[1, 2], **options)] == [(152,)]
    assert model.predict(image, visualize=True, project=tmp_path, **options)


def test_a_timm_backbone_drops_paths_by_its_row():
    config = timm_model()
    config["backbone"][0][3].append(0.2)
    rates = {m.drop_prob for m in DetectionModel(config, verbose=False).modules() if type(m).__name__ == "DropPath"}
    assert len(rates) > 5
    assert 0 < max(rates) < 0.2


@pytest.mark.parametrize("padding", ["same", "symmetric"])
def test_the_padding_of_a_timm_backbone_is_that_of_its_name(padding):
    for name, own in (("mobilenetv3_large_100", "symmetric"), ("tf_mobilenetv3_large_100", "same")):
        model = DetectionModel(timm_model(name=name, padding=padding), verbose=False)
        assert model.model[0].padding == own
        strided = [m for m in model.modules() if isinstance(m, StridedConv)]
        assert {m.padding for m in strided} == ({"same"} if own == "same" else set())


MAPS = r"\[24, 1\] at stride 4, \[40, 2\] at stride 8, \[112, 3\] at stride 16, \[960, 4\] at stride 32"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (timm_model([0, 1, "Index", [48, 2]]), rf"row 1 .*feature maps are {MAPS}; got \[48, 2\]"),
        (timm_model([0, 1, "Index", [16, 0]]), rf"row 1 .*feature maps are {MAPS}; got \[16, 0\]"),
        (timm_model([-1, 1, "Index", [40]]), rf"row 1 .*feature maps are {MAPS}; got \[40\]"),
        (timm_model([-1, 1, "Conv", [40]]), rf"row 1 .*TimmBackbone gives several .*Index rows take: {MAPS}"),
        (timm_model([[-1, 0], 1, "Concat", [1]]), rf"row 1 .*TimmBackbone gives several .*Index rows take: {MAPS}"),
        (
            timm_model(name="mobilenetv3_lrge_100"),
            r"row 0 .*no model 'mobilenetv3_lrge_100'; did you mean mobilenetv3_l",
        ),
        (
            timm_model(name="mobilenetv3_large_100.ra_in1k"),
            r"write 'mobilenetv3_large_100' in the row, .*`backbone_weights:`",
        ),
        (timm_model(name="vit_base_patch16_224"), r"row 0 .*no feature maps of images of any size.*list --timm"),
        (timm_model(name="vit_base_patch16_dinov3"), r"row 0 .*maps at strides 16, 16, .*8, 16 and 32 .*list --timm"),
        (timm_model(name="inception_v3"), r"row 0 .*strides 2, 4, 8, 18, 42, and 8, 16 and 32 are needed"),
        (timm_model(drop_path=0.1), r"drop_path 0.1 has no block to act on; TimmBackbone takes it"),
        (timm_model(name=[50]), r"row 0 .*first argument must be the name of a timm model, got \[\[50\]\]"),
        ({"nc": 2, "backbone": [[-1, 1, "TimmBackbone", []]], "head": []}, r"row 0 .*must be the name of a timm model"),
        (
            {"nc": 2, "backbone": [[-1, 2, "TimmBackbone", ["resnet18"]]], "head": []},
            r"repeats of TimmBackbone must be 1",
        ),
        (
            {"nc": 2, "backbone": [[-1, 1, "TimmBackbone", ["ghostnet_100", 0.1]]], "head": []},
            r"TimmBackbone: 'ghostnet_100' takes no drop_path, got 0.1",
        ),
    ],
)
def test_what_does_not_fit_a_timm_backbone_is_named(config, message):
    with pytest.raises(ValueError, match=message):
        parse_model(copy.deepcopy(config), ch=3, verbose=False)


def test_rows_of_a_light_neck():
    config = head_only(
        (-1, 1, "SeparableConv", [24, 3, 2]), (-1, 3, "C2fSeparable", [24, True]), (-1, 2, "FusedMBConv", [32])
    )
    model, _ = parse_model(config, ch=3, verbose=False)
    assert [type(layer).__name__ for layer in model] == [
        "EfficientNetStem",
        "SeparableConv",
        "C2fSeparable",
        "FusedStage",
    ]
    assert len(model[2].m) == 3
    assert all(bottleneck.add for bottleneck in model[2].m)
    convs = [m for m in model[2].modules() if isinstance(m, torch.nn.Conv2d)]
    assert {m.groups == m.in_channels for m in convs if m.kernel_size == (3, 3)} == {True}
    with pytest.raises(ValueError, match=r"row 1 .*g must be 1, got 2"):
        parse_model(head_only((-1, 1, "C2fSeparable", [24, True, 2])), ch=3, verbose=False)
