"""ImageNet weights: exact against timm and torchvision, and bad tags and files named."""

import argparse
import copy
import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
import timm
import torch
import torchvision
import yaml
from backbones import assert_equal, backbone, config_of, expected, features, features_of_file, randomize, reference
from efficientnet_pytorch import EfficientNet
from torch import nn
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel

import yolo_effnet
from yolo_effnet.nn import timm_models
from yolo_effnet.nn.timm_backbone import TimmBackbone
from yolo_effnet.weights import loading, sources
from yolo_effnet.zoo import architectures as zoo
from yolo_effnet.zoo import configs
from yolo_effnet.zoo.table import ARCHITECTURES

# One tag for each pairing of BN eps and pixel statistics, by variant.
TAGS = [a.weights for a in ARCHITECTURES.values() if a.weights] + [
    "tf_efficientnet_b0.ap_in1k",
    "efficientnet_b0.ra4_e3600_r224_in1k",
    "efficientnet_b1.ft_in1k",
    "efficientnet_b2.ra_in1k",
    "efficientnet_b3.ra2_in1k",
    "efficientnet_b4.ra2_in1k",
    "efficientnet_b5.sw_in12k_ft_in1k",
    "efficientnet_lite0.ra_in1k",
    "tf_efficientnetv2_b3.in1k",
    "mobilenetv3_large_100.ra_in1k",
]


@pytest.fixture(scope="module")
def elsewhere():
    """Submit calls to a process that built none of the models, as one on another machine would."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield pool.submit


@pytest.mark.parametrize("tag", TAGS)
def test_features_are_exactly_those_of_timm(tag, elsewhere, tmp_path):
    classifier = reference(tag, tmp_path / "weights.safetensors")
    model = DetectionModel(config_of(tag), verbose=False).eval()
    report = yolo_effnet.load_backbone_weights(model, tmp_path / "weights.safetensors")
    image = torch.rand(1, 3, 64, 96)
    wanted = expected(classifier, tag, image)
    layers = backbone(model)
    statistics = 2 * sum(isinstance(m, nn.BatchNorm2d) for m in layers.modules())
    assert report.tensors == len(list(layers.parameters())) + statistics
    assert_equal(features(model, image), wanted)
    saved = tmp_path / "saved.pt"
    torch.save({"model": model, "train_args": {}}, saved)
    for fused in (False, True):
        assert_equal(map(torch.from_numpy, elsewhere(features_of_file, saved, image.numpy(), fused).result()), wanted)
    saved.unlink()  # up to 400 MB
    rebuilt = DetectionModel(copy.deepcopy(model.yaml), nc=2, verbose=False).eval()
    rebuilt.load(model, verbose=False)
    assert_equal(features(rebuilt, image), wanted)
    assert_equal(features(rebuilt.fuse(verbose=False), image), wanted)


def test_every_tag_of_timm_loads_or_is_refused_by_name():
    patterns = ["*efficientnet_b[0-7]*", "*efficientnet_lite[0-4]*", "tf_efficientnetv2_*"]
    listed = timm.list_models(patterns, pretrained=True)
    fitting = [tag for tag in listed if "pruned" not in tag]
    assert len(fitting) > 30
    for tag in set(listed) - set(fitting):
        with pytest.raises(ValueError, match=rf"'{tag}' has pruned channels"):
            sources.pretraining(tag)
    for tag in fitting:
        known = sources.pretraining(tag)
        with torch.device("meta"):
            model = timm.create_model(tag, pretrained=False)
        assert known.bn_eps == model.bn1.eps
        assert known.padding == ("same" if type(model.conv_stem).__name__ == "Conv2dSame" else "symmetric")


TIMM_ROWS = ["resnet50.a1_in1k", "convnext_atto.d2_in1k", "tf_mobilenetv3_large_100.in1k", "mambaout_femto.in1k"]


@pytest.mark.parametrize("tag", [*TIMM_ROWS, "densenet121.ra_in1k", "edgenext_xx_small.in1k"])
def test_features_of_timm_rows_are_exactly_those_of_timm(tag, tmp_path):
    """For BatchNorm of another epsilon that no convolution takes up, other norms, flattened names and NHWC too."""
    classifier = reference(tag, tmp_path / "weights.safetensors")
    name = tag.partition(".")[0]
    maps = [m for m in timm_models.feature_maps(name) if m.stride > 4]
    rows = [[0, 1, "Index", [m.channels, m.index]] for m in maps]
    head = [[[1, 2, 3], 1, "Detect", ["nc"]]]
    config = {"nc": 2, "backbone": [[-1, 1, "TimmBackbone", [name]], *rows], "head": head, "backbone_weights": tag}
    model = DetectionModel(config, verbose=False).eval()
    yolo_effnet.load_backbone_weights(model, tmp_path / "weights.safetensors")
    theirs = timm.create_model(name, features_only=True, pretrained=False).eval()
    names = {k.replace(".", "_"): v for k, v in classifier.state_dict().items()}
    theirs.load_state_dict({k: names[k.removeprefix("model.").replace(".", "_")] for k in theirs.state_dict()})
    image = torch.rand(1, 3, 64, 96)
    mean, std = (torch.tensor(classifier.default_cfg[k]).view(1, 3, 1, 1) for k in ("mean", "std"))
    with torch.no_grad():
        wanted = theirs((image - mean) / std)
    wanted = [wanted[m.index] for m in maps]
    wanted = [x if x.shape[1] == m.channels else x.permute(0, 3, 1, 2) for x, m in zip(wanted, maps, strict=True)]
    assert_equal(features(model, image), wanted)
    assert_equal(features(model.fuse(verbose=False), image), wanted)


def test_a_tag_of_another_size_is_refused_before_a_download(monkeypatch):
    monkeypatch.setattr(loading, "download", lambda source: pytest.fail("downloads"))
    model = DetectionModel("yolov8-effb0.yaml", verbose=False)
    with pytest.raises(ValueError, match=r"'tf_efficientnet_b1.ns_jft_in1k' is not of this backbone"):
        yolo_effnet.load_backbone_weights(model, "tf_efficientnet_b1.ns_jft_in1k")


def test_weights_of_another_timm_model_are_refused(tmp_path):
    model = DetectionModel(yolo_effnet.model_config("yolov8-mobilenetv2_100"), verbose=False)
    with pytest.raises(ValueError, match=r"'resnet50.a1_in1k' is not a timm tag of mobilenetv2_100; .*_100.ra_in"):
        yolo_effnet.load_backbone_weights(model, "resnet50.a1_in1k")
    reference("mobilenetv2_140.ra_in1k", tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"tensor 'conv_stem.weight' is \(48, 3, 3, 3\), expected \(32, 3, 3, 3\)"):
        yolo_effnet.load_backbone_weights(model, tmp_path / "other.pth")
    model = DetectionModel(yolo_effnet.model_config("yolov8-ghostnet_050"), verbose=False)
    with pytest.raises(ValueError, match=r"'ghostnet_100.in1k' is not a timm tag of ghostnet_050; timm has none of it"):
        yolo_effnet.load_backbone_weights(model, "ghostnet_100.in1k")


@pytest.mark.parametrize("tag", ["tf_efficientnet_b0", "tf_efficientnet_b0.nonsense", "resnet50.a1_in1k", "", 7])
def test_wrong_tags_are_named(tag):
    with pytest.raises(ValueError, match=rf"weights '{tag}' is not .*tags that fit are (tf_)?efficientnet_b"):
        sources.pretraining(tag)


def torchvision_maps(variant: str, image: torch.Tensor) -> tuple[dict, list[torch.Tensor]]:
    """Return a state dict of torchvision's and the maps at strides 8, 16 and 32 that its model makes of an image."""
    theirs = randomize(getattr(torchvision.models, f"efficientnet_{variant}")(), scale=0.1).eval()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    x, maps = (image - mean) / std, []
    with torch.no_grad():
        for layer in theirs.features[:8]:
            x = layer(x)
            maps.append(x)
    return theirs.state_dict(), [maps[i] for i in ((3, 5, 7) if variant.startswith("b") else (3, 5, 6))]


def lukemelas_maps(variant: str, image: torch.Tensor) -> tuple[dict, list[torch.Tensor]]:
    """Return the same of EfficientNet-PyTorch."""
    theirs = EfficientNet.from_name(f"efficientnet-{variant}", image_size=image.shape[-1])
    randomize(theirs, scale=0.1).eval()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        maps = theirs.extract_endpoints((image - mean) / std)
    return theirs.state_dict(), [maps[f"reduction_{i}"] for i in (3, 4, 5)]


@pytest.mark.parametrize(
    ("library", "variant"),
    [
        *((torchvision_maps, variant) for variant in ("b0", "b5", "v2_s")),
        *((lukemelas_maps, variant) for variant in ("b0", "b4")),
    ],
)
def test_files_of_other_libraries_are_exact(library, variant, tmp_path):
    """With their padding and eps, to the border, though the model's tag says others; rebuilt from its YAML too."""
    image = torch.rand(1, 3, 64, 64)
    state_dict, maps = library(variant, image)
    torch.save(state_dict, tmp_path / "theirs.pth")
    model = DetectionModel(yolo_effnet.model_config(f"yolov8-eff{variant.replace('_', '')}"), verbose=False).eval()
    report = yolo_effnet.load_backbone_weights(model, tmp_path / "theirs.pth")
    assert_equal(features(model, image), maps)
    padding = "symmetric" if library is torchvision_maps else "same"
    assert report.pretraining.padding == model.yaml["padding"] == padding
    assert f"padding {padding}" in str(report)
    rebuilt = DetectionModel(copy.deepcopy(model.yaml), nc=2, verbose=False).eval()
    rebuilt.load(model, verbose=False)
    assert_equal(features(rebuilt, image), maps)
    reference(
        "tf_efficientnetv2_s.in21k_ft_in1k" if variant == "v2_s" else f"tf_efficientnet_{variant}.ns_jft_in1k",
        tmp_path / "timm.pth",
    )
    yolo_effnet.load_backbone_weights(model, tmp_path / "timm.pth")  # nobody chose the padding
    assert model.yaml["padding"] == "same"


def test_files_of_libraries_without_their_classifier_are_exact(tmp_path):
    image = torch.rand(1, 3, 64, 64)
    state_dict, maps = torchvision_maps("b0", image)
    torch.save({k: v for k, v in state_dict.items() if not k.startswith("classifier")}, tmp_path / "features.pth")
    model = DetectionModel("yolov8-effb0.yaml", verbose=False).eval()
    yolo_effnet.load_backbone_weights(model, tmp_path / "features.pth")
    assert_equal(features(model, image), maps)


@pytest.mark.parametrize("library", ["timm", "torchvision", "EfficientNet-PyTorch"])
def test_tensors_are_found_in_what_trainings_wrap_around_them(library, tmp_path):
    models = {
        "timm": lambda: timm.create_model("tf_efficientnet_b0"),
        "torchvision": torchvision.models.efficientnet_b0,
        "EfficientNet-PyTorch": lambda: EfficientNet.from_name("efficientnet-b0"),
    }
    plain, averaged = models[library]().state_dict(), models[library]().state_dict()
    other = {"loss.weight": torch.ones(3)}
    files = {
        "lightning": {"epoch": 3, "state_dict": {**{f"model.{k}": v for k, v in averaged.items()}, **other}},
        "nested": {
            "model_state_dict": {f"module.encoder.{k}": v for k, v in averaged.items()},
            "optimizer": {"state": {}},
        },
        "ema": {"state_dict": plain, "state_dict_ema": averaged, "args": argparse.Namespace(lr=1)},
        "ema_prefix": {
            "state_dict": {f"net.{k}": v for k, v in plain.items()} | {f"ema_net.{k}": v for k, v in averaged.items()}
        },
        "compiled": {f"_orig_mod.module.{k}": v.half() for k, v in averaged.items()},
    }
    for name, checkpoint in files.items():
        torch.save(checkpoint, tmp_path / f"{name}.pth")
        model = DetectionModel("yolov8-effb0.yaml", verbose=False)
        report = yolo_effnet.load_backbone_weights(model, tmp_path / f"{name}.pth")
        assert report.pretraining.library == library
        stem = {"timm": "conv_stem", "torchvision": "features.0.0", "EfficientNet-PyTorch": "_conv_stem"}[library]
        torch.testing.assert_close(model.model[0].conv.weight, averaged[f"{stem}.weight"], rtol=2e-3, atol=1e-3)


def test_a_file_says_which_tag_it_holds(tmp_path):
    """By its name at timm, by that of timm's old releases, and by the configuration that the hub has beside it."""
    (tmp_path / "hub").mkdir()
    config = {"architecture": "efficientnet_b0", "pretrained_cfg": {"tag": "ra_in1k"}}
    (tmp_path / "hub" / "config.json").write_text(json.dumps(config))
    weights = timm.create_model("efficientnet_b0").state_dict()
    for name in ("efficientnet_b0.ra_in1k.pth", "efficientnet_b0_ra-3dd342df.pth", "hub/pytorch_model.bin"):
        torch.save(weights, tmp_path / name)
        model = DetectionModel("yolov8-effb0.yaml", verbose=False)
        report = yolo_effnet.load_backbone_weights(model, tmp_path / name)
        assert report.pretraining.tag == "efficientnet_b0.ra_in1k"
        assert model.yaml["backbone_weights"] == str(tmp_path / name)
        assert model.yaml["padding"] == "symmetric"


B0_TAG = "efficientnet_b0.ra_in1k"  # pads otherwise than the default


@pytest.mark.parametrize("variant", ["effb0", "effb1", "efflite0", "effv2b0", "mobilenetv3_large_100"])
def test_a_file_that_says_nothing_has_the_default_tag_of_the_built_backbone(variant, tmp_path):
    """Whatever the YAML, in which the backbone has no name."""
    tag = ARCHITECTURES[variant].weights
    torch.save(timm.create_model(tag, pretrained=False).state_dict(), tmp_path / "w.pth")
    config = {**yolo_effnet.model_config(f"yolov8-{variant}"), "backbone_weights": str(tmp_path / "w.pth")}
    model = DetectionModel(config, verbose=False)
    assert yolo_effnet.load_backbone_weights(model).pretraining.tag == tag


def test_default_tags_tell_backbones_apart():
    ours = [a for a in ARCHITECTURES.values() if isinstance(a, zoo.EfficientNet)]
    assert len({tuple((s.repeats, s.channels, s.se_ratio > 0) for s in a.stages) for a in ours}) == len(ours)


def test_a_timm_backbone_outside_the_table_has_timms_default():
    assert sources.default_tag([TimmBackbone(3, 0, "resnet18")]).startswith("resnet18.")
    assert sources.default_tag([TimmBackbone(3, 0, "ghostnet_050")]) == ""


def test_a_file_of_an_unknown_backbone_is_to_be_named_after_its_tag(tmp_path):
    torch.save({}, tmp_path / "w.pth")
    model = DetectionModel(yaml.safe_load(configs.scaled_yaml("", width=0.5)), verbose=False)
    with pytest.raises(ValueError, match=r"w.pth': .* name the file after its timm tag, such as \S+_in1k\.pth$"):
        yolo_effnet.load_backbone_weights(model, tmp_path / "w.pth")


def test_a_rebuild_loads_the_same(tmp_path):
    """By the YAML of a model alone, also where a file had its tag from the YAML's key of before."""
    config = {**yolo_effnet.model_config("yolov8-effb0"), "backbone_weights": B0_TAG}
    for name in ("w.pth", f"{B0_TAG}.pth"):
        torch.save(timm.create_model("efficientnet_b0").state_dict(), tmp_path / name)
        model = DetectionModel(copy.deepcopy(config), verbose=False)
        report = yolo_effnet.load_backbone_weights(model, str(tmp_path / name))
        assert (report.pretraining.tag, model.yaml["backbone_weights"]) == (B0_TAG, str(tmp_path / name))
        rebuilt = DetectionModel(copy.deepcopy(model.yaml), verbose=False)
        assert str(yolo_effnet.load_backbone_weights(rebuilt)) == str(report)
        for a, b in zip(backbone(rebuilt).parameters(), backbone(model).parameters(), strict=True):
            assert torch.equal(a, b)


def test_the_keys_of_earlier_versions_load_as_they_did(tmp_path):
    """`weights_file` beside the YAML, trained as the tag of `weights` says; both stay as they are."""
    weights = timm.create_model("efficientnet_b0").state_dict()
    torch.save(weights, tmp_path / "w.pth")
    config = yolo_effnet.model_config("yolov8-effb0")
    del config["backbone_weights"]
    old = {"weights": B0_TAG, "weights_file": "w.pth"}
    (tmp_path / "old.yaml").write_text(yaml.safe_dump({**config, **old}))
    model = DetectionModel(tmp_path / "old.yaml", verbose=False)
    report = yolo_effnet.load_backbone_weights(model)
    assert (report.pretraining.tag, report.pretraining.padding) == (B0_TAG, "symmetric")
    assert torch.equal(model.model[0].conv.weight, weights["conv_stem.weight"])
    assert {key: model.yaml.get(key) for key in (*old, "backbone_weights")} == {**old, "backbone_weights": None}
    model = DetectionModel({**config, "weights": "tf_efficientnet_b1.ns_jft_in1k"}, verbose=False)
    with pytest.raises(ValueError, match=r"'tf_efficientnet_b1.ns_jft_in1k' is not of this backbone"):
        yolo_effnet.load_backbone_weights(model)


@pytest.mark.parametrize("channels", [1, 2, 4, 6])
def test_other_channel_counts_are_adapted_as_in_timm(channels, tmp_path):
    tag = "tf_efficientnet_b0.ns_jft_in1k"
    classifier = reference(tag, tmp_path / "weights.pth")
    adapted = timm.create_model(tag, pretrained=False, in_chans=channels)
    state_dict = classifier.state_dict()
    state_dict["conv_stem.weight"] = timm.models.adapt_input_conv(channels, state_dict["conv_stem.weight"])
    adapted.load_state_dict(state_dict)
    model = DetectionModel(config_of(tag), ch=channels, verbose=False).eval()
    yolo_effnet.load_backbone_weights(model, tmp_path / "weights.pth")
    image = torch.rand(1, channels, 64, 64)
    with torch.no_grad():
        _, maps = adapted.eval().forward_intermediates((image - 0.449) / 0.226, indices=[2, 3, 4])
    assert_equal(features(model, image), maps)


def bad_files(folder: Path) -> dict:
    """Write files that cannot be loaded, and return what the error of each must say."""
    tag = "tf_efficientnet_b0.ns_jft_in1k"
    good = timm.create_model(tag, pretrained=False).state_dict()
    (folder / "text.pth").write_text("no weights")
    (folder / "text.txt").write_text("no weights")
    (folder / "cut.safetensors").write_bytes(b"\x10")
    torch.save({"epoch": 3}, folder / "empty.pth")
    torch.save(timm.create_model("tf_efficientnet_b1", pretrained=False).state_dict(), folder / "b1.pth")
    torch.save(timm.create_model("tf_efficientnet_b2", pretrained=False).state_dict(), folder / "b2.pth")
    torch.save({k: v for k, v in good.items() if k != "blocks.2.1.conv_dw.weight"}, folder / "gap.pth")
    torch.save({**good, "blocks.0.0.bn1.bias": torch.full((32,), torch.nan)}, folder / "nan.pth")
    torch.save(timm.create_model("resnet18").state_dict(), folder / "resnet.pth")
    torch.save(timm.create_model("tf_efficientnet_b0"), folder / "module.pth")
    YOLO("yolov8-effb0.yaml").save(folder / "best.pt")
    torch.save(YOLO("yolov8n.yaml").model.state_dict(), folder / "yolo.pth")
    (folder / "page.pth").write_text("<!DOCTYPE html><html>")
    (folder / "pointer.safetensors").write_text("version https://git-lfs.github.com/spec/v1")
    (folder / "cut.pth").write_bytes((folder / "b1.pth").read_bytes()[:10000])
    return {
        "nan.pth": r"is broken: tensor 'blocks\.0\.0\.bn1\.bias' has values that are NaN",
        "resnet.pth": r"is of another kind, whose tensors are called 'conv1\.weight'.* timm, torchvision or Effi",
        "module.pth": r"holds a whole module, .* save its state_dict\(\)",
        "best.pt": r"is a checkpoint of Ultralytics: train from it with model=",
        "yolo.pth": "is a state dict of an Ultralytics model",
        "page.pth": "is a web page",
        "pointer.safetensors": "is a pointer of Git LFS",
        "cut.pth": "may be cut off",
        "missing.pth": "does not exist",
        "text.txt": r"its suffix is none of \.safetensors, \.pth",
        "text.pth": "is not a state dict: .*; expected a state dict of tf_efficientnet_b0.ns_jft_in1k",
        "cut.safetensors": "is not a state dict",
        "empty.pth": "is not a state dict",
        "b1.pth": r"is not of this backbone .*blocks\.0\.1\.\S+' .* is left over",
        "b2.pth": r"'blocks\.1\.1\.conv_pw\.weight'|'blocks\.\S+' is \(.*\), expected \(",
        "gap.pth": r"'blocks\.2\.1\.conv_dw\.weight' is missing, expected \(240, 1, 5, 5\)",
    }


def test_files_that_do_not_fit_change_nothing(tmp_path):
    model = DetectionModel(config_of("tf_efficientnet_b0.ns_jft_in1k"), verbose=False)
    before = copy.deepcopy(model.state_dict())
    for name, message in bad_files(tmp_path).items():
        with pytest.raises(ValueError, match=message) as error:
            yolo_effnet.load_backbone_weights(model, tmp_path / name)
        assert str(tmp_path / name) in str(error.value)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_padding_that_the_author_fixed_is_kept(tmp_path):
    model = DetectionModel({**yolo_effnet.model_config("yolov8-effb0"), "padding": "same"}, verbose=False)
    with pytest.raises(ValueError, match=r"padding: symmetric, but the model has padding: same; leave `padding:` in"):
        yolo_effnet.load_backbone_weights(model, "efficientnet_b0.ra_in1k")
    torch.save(torchvision.models.efficientnet_b0().state_dict(), tmp_path / "tv.pth")
    with pytest.raises(ValueError, match=r"weights of torchvision .*padding symmetric.* has padding: same"):
        yolo_effnet.load_backbone_weights(model, tmp_path / "tv.pth")


def test_models_without_a_backbone_or_tag_are_refused():
    with pytest.raises(ValueError, match="no EfficientNetStem or TimmBackbone"):
        yolo_effnet.load_backbone_weights(YOLO("yolov8n.yaml"), "tf_efficientnet_b0.ns_jft_in1k")
    model = DetectionModel({**yolo_effnet.model_config("yolov8-effb0"), "backbone_weights": None}, verbose=False)
    with pytest.raises(ValueError, match="no weights named"):
        yolo_effnet.load_backbone_weights(model)
    with pytest.raises(ValueError, match="is fused"):
        yolo_effnet.load_backbone_weights(model.fuse(verbose=False), "tf_efficientnet_b0.ns_jft_in1k")


B0 = yolo_effnet.model_config("yolov8-effb0")
SPLIT = [[-1, 1, "EfficientNetStage", [24, 3, 2, 6]], [-1, 1, "EfficientNetStage", [24, 3, 1, 6]]]
BLOCKS = [[-1, 1, "MBConv", [24, 3, 2, 6]], [-1, 1, "MBConv", [24]]]


def with_rows(*rows) -> dict:
    """Return a detector of B0 with these rows in place of its second stage."""
    config = copy.deepcopy(B0)
    backbone = [*config["backbone"][:2], *map(list, rows), *config["backbone"][3:]]
    return {**config, "backbone": backbone, "head": [[[3, 4], 1, "Detect", ["nc"]]]}


@pytest.mark.parametrize(
    ("config", "remedy"),
    [
        (
            {"scales": {"n": [0.33, 0.25, 1024]}},
            r"the `scales:` of its YAML, n: \[0.33, 0.25, 1024\], change .* take 1.0",
        ),
        ({"scales": {"n": [1.0, 1.0, 192]}}, r"the `scales:` of its YAML, n: \[1.0, 1.0, 192\], .* no limit below its"),
        ({"width_multiple": 0.5}, r"the multiples of its YAML change the backbone too"),
        (with_rows(*SPLIT), r"are one stage, .*: \[-1, 2, 'EfficientNetStage', \[24, 3, 2, 6\]\]$"),
        (with_rows(*BLOCKS), r"are one stage, .*: \[-1, 2, 'EfficientNetStage', \[24, 3, 2, 6\]\]$"),
        (
            with_rows(BLOCKS[0]),
            r"'MBConv', .* of its YAML is a block alone, and a stage is a row of EfficientNetStage$",
        ),
        (
            {"scales": {"n": [1.0, 1.0, 1024]}, "backbone_weights": "tf_efficientnet_b1.ns_jft_in1k"},
            r"(left over, as \d+ are in all|')$",
        ),
    ],
)
def test_a_backbone_that_its_yaml_changed_is_told(config, remedy):
    model = DetectionModel({**copy.deepcopy(B0), **copy.deepcopy(config)}, verbose=False)
    with pytest.raises(ValueError, match=rf"is not of this backbone.*{remedy}"):
        yolo_effnet.load_backbone_weights(model)
