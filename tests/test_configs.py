"""Names, and the YAML that each stands for."""

from itertools import product
from pathlib import Path

import pytest
import torch
import yaml
from ultralytics.nn import tasks

import yolo_effnet
from yolo_effnet.zoo import configs
from yolo_effnet.zoo.names import LETTERS, NECKS, PYRAMIDS, TASKS, parse_name

MODELS = Path(__file__).parent.parent / "models"
FAMILIES = ("efflite0", "effv2s", "ghostnet_100", "mobilenetv1_100", "mobilenetv2_100", "mobilenetv3_large_100")
EXAMPLES = [*(f"yolov8-effb{i}" for i in range(8)), *(f"yolov8-{variant}" for variant in FAMILIES)]


def test_models_folder_equals_the_table():
    assert {file.stem for file in MODELS.iterdir()} == set(EXAMPLES)
    for name in EXAMPLES:
        assert (MODELS / f"{name}.yaml").read_text(encoding="utf-8") == configs.model_yaml(name)


@pytest.mark.parametrize("name", yolo_effnet.model_names())
def test_yaml_reads_as_the_config(name):
    config = yaml.safe_load(configs.model_yaml(name))
    assert config == yolo_effnet.model_config(name) == yolo_effnet.model_config(f"{name}.yaml")
    first = len(config["backbone"]) + 5
    assert config["head"][-1] == [[first, first + 3, first + 6], 1, "Detect", ["nc"]]


KINDS = [
    *(("".join(suffixes), "yolov8") for suffixes in product(TASKS, PYRAMIDS, NECKS)),
    *(("".join(suffixes), "yolo26") for suffixes in product(TASKS, PYRAMIDS)),
    ("-cls", "yolov8"),
]
SAMPLE = ("effb0", "effb6", *FAMILIES)


@pytest.mark.parametrize(
    "name",
    [
        name
        for suffix, series in KINDS
        for letter in ("", "m")
        for name in yolo_effnet.model_names(suffix, series + letter)
        if name.split("-")[1] in SAMPLE
    ],
)
def test_levels_of_the_pyramid_meet(name):
    """Followed row by row, only maps of one size are concatenated, and the head gets each level of the pyramid once."""
    config = yolo_effnet.model_config(name)
    assert config == yolo_effnet.model_config(f"{name}.yaml")
    strides = []
    for f, _, module, args in config["backbone"] + config["head"][:-1]:
        inputs = {(strides or [1])[i] for i in ([f] if isinstance(f, int) else f)}
        assert len(inputs) == 1
        if module in ("EfficientNetStage", "FusedStage"):
            stride = args[2]
        elif module == "Index":
            stride = 2 ** (args[1] + 1)
        else:
            stride = {"EfficientNetStem": 2, "Conv": 2, "SeparableConv": 2, "nn.Upsample": 0.5}.get(module, 1)
        strides.append(inputs.pop() * stride)
        assert (module in ("SeparableConv", "C2fSeparable")) <= name.endswith("-dw")
        assert (module in ("Conv", "C2f", "C2")) <= (not name.endswith("-dw"))
    f, _, head, _ = config["head"][-1]
    if name.endswith("-cls"):
        assert (f, head, strides[-1]) == (-1, "Classifier", 32)
        return
    first, last = (2 if "-p2" in name else 3), (6 if "-p6" in name else 5)
    assert [strides[i] for i in f] == [2**level for level in range(first, last + 1)]
    assert head.endswith("26") == (name.startswith("yolo26") and head != "Detect")


def test_kinds_are_all_models():
    names = [name for kind in KINDS for name in yolo_effnet.model_names(*kind)]
    assert len(names) == len(set(names)) == 37 * 4 * 3 * 3 + 21


def test_relu6_is_the_same_model_but_for_its_activation():
    """Of every EfficientNet that has SiLU, in every kind."""
    names = [name for suffix, series in KINDS for name in yolo_effnet.model_names(f"{suffix}-relu6", series)]
    assert len(names) == len(set(names)) == 16 * 4 * 3 * 3 + 16
    for name in names:
        with_silu = yolo_effnet.model_config(name.removesuffix("-relu6"))
        assert yolo_effnet.model_config(name) == {**with_silu, "activation": "torch.nn.ReLU6()"}


def test_letters_multiply_all_but_classifiers():
    for letter in LETTERS:
        names = [name for suffix, series in KINDS for name in yolo_effnet.model_names(suffix, series + letter)]
        assert len(names) == len(set(names)) == 37 * 4 * 3 * 3
        assert f"yolo26{letter}-effb4-seg-p2" in names
    assert yolo_effnet.model_names("-relu6", "yolov8s")[0] == "yolov8s-effb0-relu6"
    assert yolo_effnet.model_names("", "yolov8y") == yolo_effnet.model_names("00h") == []


def tensors(config: dict) -> tuple[int, dict[str, list[int]]]:
    """Return the row of SPPF in a model, and the shapes of all tensors by row and name."""
    with torch.device("meta"):
        layers, _ = tasks.parse_model(config, 3, False)
    (sppf,) = [layer.i for layer in layers if type(layer).__name__ == "SPPF"]
    return sppf, {(layer.i, key): list(t.shape) for layer in layers for key, t in layer.state_dict().items()}


@pytest.mark.parametrize("letter", LETTERS)
@pytest.mark.parametrize(
    ("series", "suffix"),
    [
        *product(["yolov8"], ["", "-seg", "-pose", "-obb", "-p2", "-p6", "-seg-p6"]),
        *product(["yolo26"], ["", "-seg", "-p2", "-p6"]),
    ],
)
def test_a_letter_gives_the_neck_and_head_of_ultralytics(series, suffix, letter):
    """Tensor by tensor, but for the inputs of what takes the backbone's maps and the hidden width of SPPF."""
    if series == "yolo26" and not hasattr(tasks, "Segment26"):
        pytest.skip("no YOLO26")
    sppf, stock = tensors(tasks.yaml_model_load(f"{series}{letter}{suffix}.yaml"))
    our_sppf, ours = tensors(yolo_effnet.model_config(f"{series}{letter}-efflite0{suffix}"))
    start = sppf - 2 * suffix.endswith("-p6")  # where P6 is made, of the same blocks
    stock = {key: shape for key, shape in stock.items() if key[0] >= start}
    ours = {(row + sppf - our_sppf, key): shape for (row, key), shape in ours.items() if row + sppf - our_sppf >= start}
    assert ours.keys() == stock.keys()
    taking = [
        start,
        *(sppf + (series == "yolo26") + 3 * i for i in range(1, 4 if suffix[-3:] in ("-p2", "-p6") else 3)),
    ]
    seams = {key for key in stock if key[0] in taking and key[1] in ("conv.weight", "cv1.conv.weight")}
    pooling = {key for key in stock if key[0] == start == sppf and key[1].startswith(("cv1", "cv2.conv"))}
    assert len(seams) == len(taking)
    for key, shape in stock.items():
        if key in pooling:
            assert len(ours[key]) == len(shape), key
        elif key in seams:
            assert ours[key][:1] + ours[key][2:] == shape[:1] + shape[2:], key
        else:
            assert ours[key] == shape, key


def test_the_header_says_whose_neck_it_is():
    line = "# Neck and head: YOLOv8m, https://docs.ultralytics.com/models/yolov8, with its widths and repeats\n"
    assert line in configs.model_yaml("yolov8m-effb0-dw")
    assert "# Neck and head: YOLO26x, https" in configs.model_yaml("yolo26x-effb0")


@pytest.mark.parametrize(
    ("name", "close"),
    [
        ("yolov8-effb9", "yolov8-effb"),
        ("yolov8m-effb9", "did you mean yolov8m-effb"),
        ("yolo26s-effb0-dw", "yolo26s-effb0"),
        ("yolov8n-effb0-cls", "a classifier has no neck of the letter n, so write yolov8-effb0-cls.yaml"),
        ("yolov8n-efficientnet-b0", "write yolov8n-effb0.yaml"),
        ("yolov8l-effb0-relu6-seg", "write yolov8l-effb0-seg-relu6.yaml"),
        ("yolov8-effb0-sg", "yolov8-effb0-seg"),
        ("yolov8-effb3-p6-seg", "[-seg|-pose|-obb][-p2|-p6]"),
        ("yolo26-effb0-cls", "yolov8-effb0-cls"),
        ("yolo26-effb0-dw", "yolov8-effb0-dw"),
        ("yolov8-effv2x", "yolov8-effv2xl"),
        ("yolov8-ghostnet_110", "yolov8-ghostnet_100"),
        ("yolov8-mobilenetv3_large_100-cls", "yolov8-mobilenetv3_large_100-seg"),
        ("yolov8-eff", "yolov8-eff<b0|b1|b2|b3|b4|b5|b6|b7|lite0|lite1|"),
        ("yolov8-effb0-nothing", "[-seg|-pose|-obb][-p2|-p6]"),
        ("yolov8-effb0-relu6-seg", "write yolov8-effb0-seg-relu6.yaml"),
        ("yolov8-efflite0-relu6", "yolov8-efflite0"),
    ],
)
def test_unknown_names_get_the_close_ones(name, close):
    with pytest.raises(ValueError, match=rf"'{name}' is neither a file nor a model") as error:
        yolo_effnet.model_config(name)
    assert close in str(error.value)


@pytest.mark.parametrize(
    ("name", "close"),
    [
        ("efflite0", "write yolov8-efflite0.yaml"),
        ("EfficientNet-B3", "write yolov8-effb3.yaml"),
        ("efficientnet_b0", "write yolov8-effb0.yaml"),
        ("mobilenetv2_100", "write yolov8-mobilenetv2_100.yaml"),
        ("nonsense", "yolo_effnet; its models are yolov8-eff<b0|"),
    ],
)
def test_names_of_architectures_get_those_of_models(name, close):
    with pytest.raises(ValueError, match=rf"'{name}' is not a model of yolo_effnet") as error:
        yolo_effnet.model_config(name)
    assert close in str(error.value)


def test_other_names_are_not_ours():
    assert parse_name("yolov8n.yaml") is None
    assert parse_name("yolov8-ghost.yaml") is None
    with pytest.raises(ValueError, match=r"'yolov8n' is not a model of yolo_effnet"):
        yolo_effnet.model_config("yolov8n")
