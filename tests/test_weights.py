"""ImageNet weights: exact against timm and torchvision, and bad tags and files named."""

import copy
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from backbones import assert_equal, backbone, config_of, expected, features, features_of_file, randomize, reference
from torch import nn
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel

import yolo_effnet
from yolo_effnet.nn import timm_models
from yolo_effnet.weights import loading, sources
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
    report = yolo_effnet.load_backbone_weights(model, weights=tag, file=tmp_path / "weights.safetensors")
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
    config = {"nc": 2, "backbone": [[-1, 1, "TimmBackbone", [name]], *rows], "head": head, "weights": tag}
    model = DetectionModel(config, verbose=False).eval()
    yolo_effnet.load_backbone_weights(model, file=tmp_path / "weights.safetensors")
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
        yolo_effnet.load_backbone_weights(model, weights="tf_efficientnet_b1.ns_jft_in1k")


def test_weights_of_another_timm_model_are_refused(tmp_path):
    model = DetectionModel(yolo_effnet.model_config("yolov8-mobilenetv2_100"), verbose=False)
    with pytest.raises(ValueError, match=r"'resnet50.a1_in1k' is not a timm tag of mobilenetv2_100; .*_100.ra_in"):
        yolo_effnet.load_backbone_weights(model, weights="resnet50.a1_in1k")
    reference("mobilenetv2_140.ra_in1k", tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"tensor 'conv_stem.weight' is \(48, 3, 3, 3\), expected \(32, 3, 3, 3\)"):
        yolo_effnet.load_backbone_weights(model, file=tmp_path / "other.pth")
    model = DetectionModel(yolo_effnet.model_config("yolov8-ghostnet_050"), verbose=False)
    with pytest.raises(ValueError, match=r"'ghostnet_100.in1k' is not a timm tag of ghostnet_050; timm has none of it"):
        yolo_effnet.load_backbone_weights(model, weights="ghostnet_100.in1k")


@pytest.mark.parametrize("tag", ["tf_efficientnet_b0", "tf_efficientnet_b0.nonsense", "resnet50.a1_in1k", "", 7])
def test_wrong_tags_are_named(tag):
    with pytest.raises(ValueError, match=rf"weights '{tag}' is not .*tags that fit are (tf_)?efficientnet_b"):
        sources.pretraining(tag)


@pytest.mark.parametrize("variant", ["b0", "b5"])
@pytest.mark.parametrize("features_only", [False, True])
def test_torchvision_names(variant, features_only, tmp_path):
    theirs = randomize(getattr(torchvision.models, f"efficientnet_{variant}")(), scale=0.1).eval()
    state_dict = theirs.state_dict()
    if features_only:
        state_dict = {k: v for k, v in state_dict.items() if not k.startswith("classifier")}
    torch.save(state_dict, tmp_path / "tv.pth")
    tag = {"b0": "efficientnet_b0.ra_in1k", "b5": "efficientnet_b5.sw_in12k_ft_in1k"}[variant]
    model = DetectionModel(config_of(tag), verbose=False).eval()
    yolo_effnet.load_backbone_weights(model, weights=tag, file=tmp_path / "tv.pth")
    image = torch.rand(1, 3, 64, 64)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    x, maps = (image - mean) / std, []
    eps = 1e-5  # of the tag, which says what the file does not
    for m in theirs.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.eps = eps
    with torch.no_grad():
        for layer in theirs.features[:8]:
            x = layer(x)
            maps.append(x)
    assert_equal(features(model, image), [maps[i] for i in (3, 5, 7)])


@pytest.mark.parametrize("channels", [1, 2, 4, 6])
def test_other_channel_counts_are_adapted_as_in_timm(channels, tmp_path):
    tag = "tf_efficientnet_b0.ns_jft_in1k"
    classifier = reference(tag, tmp_path / "weights.pth")
    adapted = timm.create_model(tag, pretrained=False, in_chans=channels)
    state_dict = classifier.state_dict()
    state_dict["conv_stem.weight"] = timm.models.adapt_input_conv(channels, state_dict["conv_stem.weight"])
    adapted.load_state_dict(state_dict)
    model = DetectionModel(config_of(tag), ch=channels, verbose=False).eval()
    yolo_effnet.load_backbone_weights(model, file=tmp_path / "weights.pth")
    image = torch.rand(1, channels, 64, 64)
    with torch.no_grad():
        _, maps = adapted.eval().forward_intermediates((image - 0.449) / 0.226, indices=[2, 3, 4])
    assert_equal(features(model, image), maps)


def bad_files(folder: Path) -> dict:
    """Write files that cannot be loaded, and return what the error of each must say."""
    tag = "tf_efficientnet_b0.ns_jft_in1k"
    good = timm.create_model(tag, pretrained=False).state_dict()
    (folder / "text.pth").write_text("no weights")
    (folder / "cut.safetensors").write_bytes(b"\x10")
    torch.save({"epoch": 3}, folder / "empty.pth")
    torch.save(timm.create_model("tf_efficientnet_b1", pretrained=False).state_dict(), folder / "b1.pth")
    torch.save(timm.create_model("tf_efficientnet_b2", pretrained=False).state_dict(), folder / "b2.pth")
    torch.save({k: v for k, v in good.items() if k != "blocks.2.1.conv_dw.weight"}, folder / "gap.pth")
    return {
        "missing.pth": "does not exist",
        "text.pth": "is not a state dict of tf_efficientnet_b0.ns_jft_in1k",
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
            yolo_effnet.load_backbone_weights(model, file=tmp_path / name)
        assert str(tmp_path / name) in str(error.value)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_weights_of_the_other_padding_are_refused(tmp_path):
    model = DetectionModel(yolo_effnet.model_config("yolov8-effb0"), verbose=False)
    with pytest.raises(ValueError, match=r"padding: symmetric, but the model has padding: same; write `padding: symm"):
        yolo_effnet.load_backbone_weights(model, weights="efficientnet_b0.ra_in1k", file=tmp_path / "any.pth")


def test_models_without_a_backbone_or_tag_are_refused():
    with pytest.raises(ValueError, match="no EfficientNetStem or TimmBackbone"):
        yolo_effnet.load_backbone_weights(YOLO("yolov8n.yaml"), weights="tf_efficientnet_b0.ns_jft_in1k")
    model = DetectionModel({**yolo_effnet.model_config("yolov8-effb0"), "weights": None}, verbose=False)
    with pytest.raises(ValueError, match="no weights named"):
        yolo_effnet.load_backbone_weights(model)
    with pytest.raises(ValueError, match="is fused"):
        yolo_effnet.load_backbone_weights(model.fuse(verbose=False), weights="tf_efficientnet_b0.ns_jft_in1k")
