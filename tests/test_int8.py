"""Int8: quantisation-aware training, and what its graphs compute in int8."""

import shutil
import threading
import types
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pictures
import pytest
import torch
from onnx import numpy_helper
from runtimes import exact_session
from ultralytics import YOLO
from ultralytics.engine import trainer
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import torch_utils
from ultralytics.utils.export import onnx as onnx_export

import yolo_effnet
from yolo_effnet.grafting.pictures import Pictures, find
from yolo_effnet.host import int8, int8_training
from yolo_effnet.nn.blocks import SqueezeExcite
from yolo_effnet.nn.layers import DropPath

QUICK = {"imgsz": 64, "batch": 4, "workers": 0, "plots": False, "verbose": False, "device": "cpu"}
LEARN = {**pictures.LEARNING, "epochs": 2, "warmup_epochs": 0, "lr0": 1e-4, "pretrained": True, "quantize": 8}
pytestmark = pytest.mark.filterwarnings("ignore")  # of modelopt


@pytest.fixture(scope="module")
def _trains_in_int8():
    if not hasattr(torch_utils, "prepare_qat"):
        pytest.skip("this release of Ultralytics does not train in int8")
    pytest.importorskip("modelopt")


@pytest.fixture(scope="module")
def quantised(_trains_in_int8, learned, tmp_path_factory):
    """A B0 trained in int8 for two epochs from a trained one, and the data of both."""
    best, data = learned
    model = YOLO(best)
    model.train(data=data, project=tmp_path_factory.mktemp("int8"), **LEARN)
    return Path(model.trainer.last), data


@pytest.fixture(scope="module")
def graph(quantised):
    """The file of the exported graph of `quantised`."""
    return YOLO(quantised[0]).export(format="onnx", imgsz=64)


def quantizers(model) -> dict:
    """Return the enabled quantizers of a model by name, and their ranges."""
    return {
        name: module.amax
        for name, module in model.named_modules()
        if type(module).__name__ == "TensorQuantizer" and module.is_enabled
    }


def test_it_detects_and_its_quantizers_survive_saving(quantised):
    file, data = quantised
    model = YOLO(file)
    assert model.val(data=data, **QUICK).box.map50 > 0.3
    found = quantizers(YOLO(file).model)
    for name, module in model.model.named_modules():
        if isinstance(module, SqueezeExcite):
            assert {f"{name}.input_quantizer", f"{name}.gate_input_quantizer"} <= found.keys()
            assert not [key for key in found if key.startswith((f"{name}.reduce", f"{name}.expand"))]
        elif isinstance(module, DropPath):
            assert f"{name}.input_quantizer" in found
    assert all(bool((limit > 0).all()) for limit in found.values())


def test_the_graph_computes_in_int8_what_tensorrt_fuses(graph, quantised):
    """Every convolution of backbone and neck, the mean and the product of each gate, and one input of every sum."""
    nodes = onnx.load(graph).graph.node
    in_int8 = {output for node in nodes if node.op_type == "DequantizeLinear" for output in node.output}
    model = YOLO(quantised[0]).model
    count = {kind: sum(isinstance(m, kind) for m in model.modules()) for kind in (SqueezeExcite, DropPath)}
    head = f"/model.{len(model.model) - 1}/"
    floats = [n.name for n in nodes if n.op_type == "Conv" and not set(n.input[:2]) <= in_int8]
    gates = [name for name in floats if "/se/" in name]
    last = [name for name in floats if name.startswith(head)]
    assert len(gates) == 2 * count[SqueezeExcite]
    assert len(last) == 7  # as of yolov8n: the last convolutions of the head
    assert len(floats) == len(gates) + len(last)
    means = [n for n in nodes if n.op_type in ("ReduceMean", "GlobalAveragePool")]
    assert len(means) == count[SqueezeExcite]
    assert all(n.input[0] in in_int8 for n in means)
    products = [n for n in nodes if n.op_type == "Mul" and set(n.input) <= in_int8]
    assert len(products) == count[SqueezeExcite]
    sums = [n for n in nodes if n.op_type == "Add" and n.name.endswith("drop_path/Add")]
    assert len(sums) == count[DropPath]
    assert all(len(in_int8 & set(n.input)) == 1 for n in sums)


def test_the_graph_has_the_ranges_of_the_model(graph, quantised):
    graph = onnx.load(graph).graph
    value = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    steps = {value[node.input[1]].tobytes() for node in graph.node if node.op_type == "QuantizeLinear"}
    ranges = quantizers(YOLO(quantised[0]).model.float().fuse())
    assert steps == {(limit.flatten() / 127).numpy().tobytes() for limit in ranges.values()}


def test_the_graph_gives_what_the_model_gives(graph, quantised):
    """It is as near to the model in float64 as that in float32: values on the edge of two steps may take either."""
    file, data = quantised
    x = next(Pictures(find(data.parent / "images" / "val", 16), 64).batches(16))
    session = exact_session(graph)
    name = session.get_inputs()[0].name
    found = torch.cat([torch.from_numpy(session.run(None, {name: picture[None].numpy()})[0]) for picture in x])
    with torch.no_grad():
        rounded = YOLO(file).model.float().eval().fuse()(x)[0]
        exact = YOLO(file).model.double().eval().fuse()(x.double())[0]

    def error(y) -> torch.Tensor:
        """Return the mean distance of boxes, in pixels, and of the logits of scores."""
        boxes = (y[:, :4] - exact[:, :4]).abs().mean()
        return torch.stack((boxes, (y[:, 4:].logit(1e-6) - exact[:, 4:].logit(1e-6)).abs().mean()))

    assert (error(found) < 2 * error(rounded)).all(), (error(found), error(rounded))


@pytest.mark.usefixtures("_trains_in_int8")
def test_a_resumed_training_has_the_ranges_of_before(learned, tmp_path):
    best, data = learned

    class Interrupted(Exception):
        pass

    def interrupt(trainer):
        if trainer.epoch == 1:
            raise Interrupted

    model = YOLO(best)
    model.add_callback("on_train_epoch_start", interrupt)
    with pytest.raises(Interrupted):
        model.train(data=data, project=tmp_path, **LEARN)
    before = quantizers(YOLO(model.trainer.last).model)
    again = YOLO(model.trainer.last)
    seen = []
    again.add_callback("on_train_start", lambda trainer: seen.append(quantizers(trainer.model)))
    again.train(resume=True)
    assert before.keys() == seen[0].keys()
    assert all(torch.allclose(before[name], seen[0][name].to(before[name])) for name in before)


def test_it_is_no_donor(quantised, learned):
    for donor, backbone in ((quantised[0], "yolov8-efflite0"), (learned[0], quantised[0])):
        with pytest.raises(ValueError, match=r"was trained with quantize=8; give what it was before that"):
            yolo_effnet.graft(donor, backbone, learned[1], allow_random=True)


@pytest.mark.usefixtures("_trains_in_int8")
def test_a_model_from_before_the_quantizers_of_the_blocks_still_loads(learned, tmp_path, monkeypatch):
    """Quantizers on convolutions alone, as Ultralytics puts them."""
    best, data = learned
    for module in (torch_utils, trainer):
        if hasattr(module, "prepare_qat"):
            monkeypatch.setattr(module, "prepare_qat", module.prepare_qat.__wrapped__)
    model = YOLO(best)
    model.train(data=data, project=tmp_path, **{**LEARN, "epochs": 1})
    monkeypatch.undo()
    found = quantizers(YOLO(model.trainer.last).model)
    assert any(".se.reduce." in name for name in found)
    assert not any(name.endswith("gate_input_quantizer") for name in found)


@pytest.fixture
def exported(learned, tmp_path):
    """A function that exports the trained B0 to int8."""
    best, data = learned
    copy = shutil.copy(best, tmp_path / "b0.pt")

    def export(form="onnx", **options):
        return YOLO(copy).export(format=form, imgsz=64, int8=True, data=data, **options)

    return export


def in_onnx_runtime(file, tmp_path) -> Counter:
    """Return the kinds of nodes that ONNX Runtime runs for a file, after its own optimisation."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)


def test_onnx_runtime_computes_all_of_it_in_int8(exported, learned, tmp_path):
    """Convolutions, SiLU, gates and sums; what Ultralytics quantizes by itself leaves most convolutions in float."""
    file = exported()
    kinds = in_onnx_runtime(file, tmp_path)
    assert kinds["QLinearConv"] > 100
    assert kinds["QLinearGlobalAveragePool"] == 16
    assert kinds["QLinearMul"] > 80
    assert not kinds.keys() & {"FusedConv", "ReduceMean"}
    assert kinds["Conv"] == 1  # the mean of the distribution of an edge
    scales = [i for i in onnx.load(file).graph.initializer if i.name.endswith("conv.weight_scale")]
    assert len(scales) > 70
    assert all(len(scale.dims) == 1 for scale in scales)  # one for each channel
    options = {**QUICK, "batch": 1, "rect": False}
    expected = YOLO(learned[0]).val(data=learned[1], **options).box.map
    assert YOLO(file, task="detect").val(data=learned[1], **options).box.map > expected - 0.03


def test_int8_of_a_model_without_our_backbone_is_ultralytics_own(learned, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = YOLO("yolov8n.yaml").export(format="onnx", imgsz=64, int8=True, data=learned[1])
    zeros = [i for i in onnx.load(file).graph.initializer if i.name.endswith("output_0_zero_point")]
    assert {i.data_type for i in zeros} == {onnx.TensorProto.INT8}


def test_two_exports_at_once_leave_nothing_behind(learned, tmp_path):
    """Both are quantized as one alone is, and what is exported later is as without them."""
    before = onnx_export.onnx_int8_quantize, onnxruntime.quantization.quantize_static
    files, threads = {}, []

    def export(name):
        model = YOLO(shutil.copy(learned[0], tmp_path / f"{name}.pt"))
        files[name] = model.export(format="onnx", imgsz=64, int8=True, data=learned[1])

    for name in "ab":
        threads.append(threading.Thread(target=export, args=(name,)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    graphs = [onnx.load(files[name]).graph for name in "ab"]
    kinds = [Counter(node.op_type for node in graph.node) for graph in graphs]
    assert kinds[0] == kinds[1]
    assert kinds[0]["GlobalAveragePool"] == 16
    assert (onnx_export.onnx_int8_quantize, onnxruntime.quantization.quantize_static) == before


def test_a_patch_is_for_its_thread_alone():
    """Of three threads that overlap, two patch a function, and the third gets it as it is."""
    module = types.SimpleNamespace(quantize=lambda: "ultralytics")
    entered, found = [threading.Event() for _ in range(2)], {}

    def patch(name, wait):
        with (
            int8._patched(module, "quantize", lambda _: lambda: name),
            int8._patched(module, "nothing", None),
        ):
            entered[0].set()
            assert wait.wait(30)
            found[name] = module.quantize()

    def look():
        assert entered[0].wait(30)
        found["other"] = module.quantize()
        entered[1].set()

    targets = [(patch, ("a", entered[1])), (patch, ("b", entered[1])), (look, ())]
    threads = [threading.Thread(target=target, args=args) for target, args in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {"a": "a", "b": "b", "other": "ultralytics"}
    assert module.quantize() == "ultralytics"
    assert not hasattr(module, "nothing")


def test_a_key_of_before_is_ignored(caplog):
    """Models that were saved with `float_rows` still load, and say nothing of it."""
    with caplog.at_level("WARNING", logger="ultralytics"):
        DetectionModel({**yolo_effnet.model_config("yolov8-efflite0"), "float_rows": 3}, verbose=False)
    assert not caplog.records
    with pytest.raises(SyntaxError, match="float_rows"):
        YOLO("yolov8-efflite0.yaml").export(format="onnx", imgsz=64, float_rows=3)


def test_litert_decodes_boxes_in_float(exported, learned):
    pytest.importorskip("litert_torch")
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")

    def layers(file):
        """Return each operator of a file, with name and type of what it gives."""
        network = interpreter.Interpreter(file)
        network.allocate_tensors()
        tensors = {tensor["index"]: tensor for tensor in network.get_tensor_details()}
        given = [(op["op_name"], tensors[op["outputs"][0]]) for op in network._get_ops_details()]
        return [(op, tensor["name"], tensor["dtype"]) for op, tensor in given if op != "DELEGATE"]

    def stem(kinds):
        return {kind for op, name, kind in kinds if op == "CONV_2D" and "EfficientNetStem_0" in name}

    file = exported("litert")
    kinds = layers(file)
    decoding = [kind for _, name, kind in kinds if "Detect_21;" in name or "DFL" in name]
    assert len(decoding) > 10
    assert set(decoding) == {np.float32}
    assert sum(kind == np.int8 and "Conv2d" in name for _, name, kind in kinds) > 100
    options = {**QUICK, "batch": 1, "rect": False}
    expected = YOLO(learned[0]).val(data=learned[1], **options).box.map
    assert YOLO(file, task="detect").val(data=learned[1], **options).box.map > expected - 0.05
    assert stem(kinds) == {np.int8}


def test_it_needs_trained_weights(tiny_data, tmp_path):
    pytest.importorskip("modelopt")
    with pytest.raises(ValueError, match=r"quantize=8 takes the ranges of a trained model.*best\.pt quantize=8"):
        YOLO("yolov8-effb0.yaml").train(data=tiny_data, epochs=1, project=tmp_path, quantize=8, **QUICK)


def test_what_it_needs_is_named(learned, tmp_path, monkeypatch):
    if not hasattr(torch_utils, "prepare_qat"):
        pytest.skip("this release of Ultralytics does not train in int8")
    monkeypatch.setattr(int8_training, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"int8 training needs NVIDIA ModelOpt: pip install 'nvidia-modelopt"):
        YOLO(learned[0]).train(data=learned[1], epochs=1, project=tmp_path, quantize=8, **QUICK)


def test_a_release_without_it_says_so(learned, tmp_path, monkeypatch):
    best, data = learned
    monkeypatch.delattr(torch_utils, "prepare_qat")
    with pytest.raises(ValueError, match=r"quantize=8.*ultralytics>=8\.4\.150"):
        YOLO(best).train(data=data, epochs=1, project=tmp_path, quantize=8, **QUICK)
