"""Exported models in their own runtimes: PyTorch's numbers, the same metric, and graphs without leftovers."""

import re
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import onnx
import pytest
import torch
from ultralytics import ASSETS, YOLO

from yolo_effnet.tools.compare import ModelFile, letterboxed

pytestmark = [pytest.mark.export, pytest.mark.filterwarnings("ignore")]  # exporters warn, at every step, of themselves

PAGE = (Path(__file__).parent.parent / "docs" / "results.md").read_text(encoding="utf-8")
VALIDATION = {"imgsz": 64, "batch": 1, "rect": False, "workers": 0, "plots": False, "verbose": False, "device": "cpu"}
# Supported operators of TensorRT's ONNX parser, of those that Ultralytics' models can hold:
# https://github.com/onnx/onnx-tensorrt/blob/main/docs/operators.md
TENSORRT = set(
    "Abs Add And ArgMax AveragePool Cast Ceil Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos "  # noqa: SIM905
    "DepthToSpace DequantizeLinear Div Equal Erf Exp Expand Flatten Floor Gather GatherElements GatherND Gemm "
    "GlobalAveragePool GlobalMaxPool Greater HardSigmoid HardSwish Identity LeakyRelu Less Log MatMul Max MaxPool Min "
    "Mul Neg Not Or Pad Pow QuantizeLinear Range ReduceMax ReduceMean ReduceSum Relu Reshape Resize ScatterElements "
    "ScatterND Shape Sigmoid Sin Slice Softmax Softplus Split Sqrt Squeeze Sub Sum Tanh Tile TopK Transpose Unsqueeze "
    "Where".split()
)
# Of RKNN-Toolkit2 2.3.2, for opsets 12 to 19 and one picture at a time:
# https://github.com/airockchip/rknn-toolkit2, doc/RKNNToolKit2_OP_Support-2.3.2.md
RKNN = set(
    "Add And ArgMax ArgMin AveragePool BatchNormalization Cast Clip Concat Constant ConstantOfShape Conv "  # noqa: SIM905
    "ConvTranspose Cos DepthToSpace DequantizeLinear Div Dropout Elu Equal Erf Exp Expand Flatten Floor Gather "
    "GatherElements Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual HardSigmoid HardSwish Identity "
    "InstanceNormalization LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax LpNormalization LRN LSTM "
    "MatMul Max MaxPool MaxRoiPool MeanVarianceNormalization Min Mish Mod Mul Pad Pow PRelu QuantizeLinear "
    "ReduceMax ReduceMean ReduceMin ReduceSum Relu Reshape Resize ReverseSequence RoiAlign ScatterND Shape "
    "Sigmoid Sin Size Slice Softmax Softplus SpaceToDepth Split Sqrt Squeeze Sub Tanh Tile Transpose Unsqueeze "
    "Where".split()
)
# Of the Edge TPU, "Supported operations" in https://coral.ai/docs/edgetpu/models-intro.
EDGE_TPU = set(
    "ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D EXPAND_DIMS FULLY_CONNECTED L2_NORMALIZATION "  # noqa: SIM905
    "LOGISTIC LSTM MAXIMUM MAX_POOL_2D MEAN MINIMUM MUL PACK PAD PRELU QUANTIZE REDUCE_MAX REDUCE_MIN RELU RELU6 "
    "RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR RSQRT SLICE SOFTMAX SPACE_TO_DEPTH SPLIT SQUEEZE "
    "STRIDED_SLICE SUB SUM SQUARED_DIFFERENCE TANH TRANSPOSE TRANSPOSE_CONV".split()
)
DYNAMIC = {
    "Shape",
    "Size",
    "Gather",
    "GatherND",
    "ConstantOfShape",
    "Range",
    "Expand",
    "NonZero",
    "Where",
    "Loop",
    "If",
}


@pytest.fixture(scope="module")
def picture():
    return letterboxed(ASSETS / "bus.jpg", 64)


@pytest.fixture(scope="module")
def reference(learned, picture):
    """Return PyTorch's raw output and its mAP50-95."""
    best, data = learned
    return ModelFile(str(best), picture, torch.device("cpu"))(), YOLO(best).val(data=data, **VALIDATION).box.map


@pytest.mark.parametrize(
    ("name", "options", "needs", "tolerance"),
    [
        ("torchscript", {}, "torch", 1e-5),
        ("onnx", {}, "onnxruntime", 1e-5),
        ("onnx", {"dynamic": True}, "onnxruntime", 1e-5),
        ("onnx", {"opset": 13}, "onnxruntime", 1e-5),
        ("onnx", {"half": True}, "onnxruntime", 1e-2),
        ("ncnn", {}, "ncnn", 1e-5),
        ("executorch", {}, "executorch", 1e-5),
    ],
)
def test_numbers_and_metric_are_those_of_pytorch(name, options, needs, tolerance, learned, picture, reference):
    if not find_spec(needs):
        pytest.skip(f"{needs} is not installed: pip install yolo_effnet[export]")
    best, data = learned
    expected, metric = reference
    assert metric > 0.3
    file = YOLO(best).export(format=name, imgsz=64, device="cpu", **options)
    error = (ModelFile(file, picture, torch.device("cpu"))() - expected).abs().max() / expected.abs().max()
    assert error < tolerance
    assert YOLO(file, task="detect").val(data=data, **VALIDATION).box.map == pytest.approx(metric, abs=0.005)


@pytest.mark.parametrize("half", [False, True])
def test_openvino(half, learned, picture, reference):
    """On a CPU that can, it computes in bfloat16 unless told otherwise, and Ultralytics does not tell."""
    openvino = pytest.importorskip("openvino")
    best, data = learned
    folder = Path(YOLO(best).export(format="openvino", imgsz=64, device="cpu", half=half))
    (file,) = folder.glob("*.xml")
    network = openvino.Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    (got,) = network(picture.transpose(2, 0, 1)[None].astype("float32") / 255).values()
    error = (torch.from_numpy(got) - reference[0]).abs().max() / reference[0].abs().max()
    assert error < (1e-2 if half else 1e-5)
    assert YOLO(folder, task="detect").val(data=data, **VALIDATION).box.map == pytest.approx(reference[1], abs=0.03)


@pytest.mark.parametrize(
    ("name", "options"), [("openvino", {"int8": True}), ("onnx", {"nms": True, "conf": 0.001})], ids=["int8", "nms"]
)
def test_files_of_another_output_have_the_metric(name, options, learned, reference):
    """Of int8, calibrated on pictures of few colours, no more is asked than half of it."""
    best, data = learned
    if "int8" in options:
        if not find_spec("nncf"):
            pytest.skip("nncf is not installed: pip install yolo_effnet[export]")
        options = {**options, "data": data}
    file = YOLO(best).export(format=name, imgsz=64, device="cpu", **options)
    got = YOLO(file, task="detect").val(data=data, **VALIDATION).box.map
    assert got > reference[1] - (0.01 if "nms" in options else reference[1] / 2)


@pytest.mark.skipif(
    not find_spec("coremltools"), reason="coremltools is not installed: pip install yolo_effnet[export]"
)
def test_coreml_converts(learned):
    """Only macOS can run the file; here it is read back, and its input and operators looked at."""
    import coremltools

    file = YOLO(learned[0]).export(format="coreml", imgsz=64, device="cpu")
    specification = coremltools.utils.load_spec(str(file))
    assert specification.description.input[0].type.imageType.width == 64
    (block,) = specification.mlProgram.functions["main"].block_specializations.values()
    kinds = Counter(operation.type for operation in block.operations)
    assert kinds["conv"] > 100
    assert "batch_norm" not in kinds


NAMES = [
    *(f"yolov8-eff{variant}" for variant in ("b0", "b3", "b7", "lite0", "v2b0", "v2s")),
    *(f"yolov8-{name}" for name in ("ghostnet_100", "mobilenetv1_100", "mobilenetv2_100", "mobilenetv3_large_100")),
    *(f"yolov8-effb0{suffix}" for suffix in ("-dw", "-seg", "-pose", "-obb", "-cls", "-p2", "-p6")),
    *(f"yolo26-effb0{suffix}" for suffix in ("", "-seg", "-pose", "-obb")),
]


FOR_DEVICES = ("yolov8-efflite0", "yolov8-effb0-relu6", "yolov8-effv2b0-relu6", "yolov8-effb0")


@pytest.mark.parametrize("name", FOR_DEVICES)
def test_onnx_graph_is_within_what_rknn_takes(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = onnx.load(YOLO(f"{name}.yaml").export(format="onnx", imgsz=64))
    kinds = Counter(node.op_type for node in model.graph.node)
    assert kinds.keys() <= RKNN
    assert 12 <= next(o.version for o in model.opset_import if not o.domain) <= 19
    assert [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim] == [1, 3, 64, 64]
    if name != "yolov8-effb0":  # the sigmoid of the classes, and in a gate that of SiLU and its own
        assert kinds["Sigmoid"] == 1 + 2 * kinds["ReduceMean"]
        assert kinds["Clip"] > 50


@pytest.mark.parametrize("name", FOR_DEVICES)
def test_litert_graph_is_within_what_an_edge_tpu_takes(name, tmp_path, monkeypatch):
    pytest.importorskip("litert_torch")
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    monkeypatch.chdir(tmp_path)
    file = YOLO(f"{name}.yaml").export(format="litert", imgsz=64)
    kinds = Counter(op["op_name"] for op in interpreter.Interpreter(str(file))._get_ops_details())
    assert kinds.keys() - {"DELEGATE"} <= EDGE_TPU
    assert kinds["RELU6"] == 0  # each is inside a convolution: no slice stands between


@pytest.mark.parametrize("name", NAMES)
def test_onnx_graph_is_clean_and_fit_for_tensorrt(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = onnx.shape_inference.infer_shapes(onnx.load(YOLO(f"{name}.yaml").export(format="onnx", imgsz=64)))
    graph = model.graph
    kinds = Counter(node.op_type for node in graph.node)
    assert not kinds.keys() & {"BatchNormalization", "Identity", "Pad", "Cast", "Constant"}
    assert kinds.keys() <= TENSORRT
    assert not kinds.keys() & DYNAMIC
    sizes = [dim.dim_value for value in graph.value_info for dim in value.type.tensor_type.shape.dim]
    assert sizes
    assert all(sizes)
    for node in graph.node:
        for pads in (list(a.ints) for a in node.attribute if a.name == "pads"):
            assert node.op_type == "Conv" or pads[:2] == pads[2:]
    nodes, convolutions = map(int, re.search(rf"^\| {name} \| (\d+) \| (\d+) \|$", PAGE, re.MULTILINE).groups())
    assert convolutions == kinds["Conv"]
    assert len(graph.node) <= nodes  # another version may slim it further
