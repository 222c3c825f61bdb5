"""Exports to int8 of models with a backbone of ours, so that ONNX Runtime computes them in int8 throughout."""

import functools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ultralytics.utils import LOGGER

from yolo_effnet.checks import check_values
from yolo_effnet.nn.backbone import backbone_rows

# Operators that ONNX Runtime has kernels in int8 for, or folds into one that has.
_WEIGHTED = ("Conv", "Gemm", "MatMul")
_INT8 = (
    *_WEIGHTED, "Sigmoid", "Mul", "Add", "Concat", "Resize", "MaxPool", "Split", "GlobalAveragePool", "Clip", "Relu",
)  # fmt: skip
_MIXED = ("onnx", "openvino")  # formats of which some rows can stay in float


def row_of(name: str) -> int | None:
    """Return the row of the model that a node of an exported graph belongs to, by its name."""
    found = re.search(r"(?:^|[/.])model\.(\d+)[/.]", name)
    return int(found.group(1)) if found else None


def _floats(nodes, float_rows: int) -> list[str]:
    """Return the names of the nodes that stay in float: first rows, what decodes boxes, and what has no int8 kernel."""
    rows = {node.name: row_of(node.name) for node in nodes}
    head = max((row for row in rows.values() if row is not None), default=0)

    def is_int8(node) -> bool:
        row = rows[node.name]
        row = head if row is None else row
        return (
            node.op_type in _INT8
            and row >= float_rows
            and (row < head or node.op_type in _WEIGHTED or "/act/" in node.name)
        )

    return [node.name for node in nodes if not is_int8(node)]


def _pool(graph) -> None:
    """Write means over all pixels as `GlobalAveragePool`, which has a kernel in int8."""
    from onnx import numpy_helper

    constants = {c.name: c for c in graph.initializer}
    for node in graph.node:
        if node.op_type != "ReduceMean":
            continue
        attributes = {a.name: a for a in node.attribute}
        axes = list(attributes["axes"].ints) if "axes" in attributes else None
        if axes is None and len(node.input) > 1 and node.input[1] in constants:
            axes = numpy_helper.to_array(constants[node.input[1]]).tolist()
        if axes in ([2, 3], [-2, -1]) and ("keepdims" not in attributes or attributes["keepdims"].i):
            node.op_type = "GlobalAveragePool"
            del node.input[1:], node.attribute[:]
    used = {name for node in graph.node for name in node.input}
    for name in constants.keys() - used:
        graph.initializer.remove(constants[name])


def quantize_onnx(
    onnx_file: str | Path,
    output_file: str | Path,
    dataset,
    transform_fn: Callable,
    input_name: str = "images",
    prefix: str = "",
    float_rows: int = 0,
) -> str:
    """Quantize an ONNX file to int8, in the place of Ultralytics' function of these arguments.

    Ultralytics quantizes convolutions alone, with signed activations. ONNX Runtime then computes those followed by SiLU
    in float: their output has two readers, and it only turns signed values of one reader into the unsigned ones of its
    kernels. Here activations are unsigned, and everything up to the decoding of boxes is in int8. Weights have a scale
    for each channel, without which depthwise convolutions lose their small ones.

    Args:
        onnx_file (str | Path): Model in float; overwritten.
        output_file (str | Path): File to write.
        dataset (Iterable): Batches to calibrate on.
        transform_fn (Callable): Function from a batch to the input array, `(B, C, H, W)`.
        input_name (str): Name of the input.
        prefix (str): Of messages.
        float_rows (int): Rows at the start of the model that stay in float.

    Returns:
        (str): The file written.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_static
    from ultralytics.utils.export.onnx import onnx_calibration_reader

    model = onnx.load(onnx_file)
    _pool(model.graph)
    onnx.save(model, onnx_file)
    LOGGER.info(f"{prefix} quantizing INT8 with ONNX Runtime, activations unsigned...")
    quantize_static(
        onnx_file,
        output_file,
        onnx_calibration_reader(dataset, transform_fn, input_name),
        nodes_to_exclude=_floats(model.graph.node, float_rows),
        activation_type=QuantType.QUInt8,
        per_channel=True,
    )
    return str(output_file)


def float_rows_of(args, model) -> int:
    """Return how many rows at the start of a model are to stay in float.

    Args:
        args (Namespace): Arguments of an export or a training.
        model (nn.Module): A model of Ultralytics, whose YAML says so where the arguments do not.

    Raises:
        ValueError: If it is no number of rows.
    """
    rows = getattr(args, "float_rows", None)
    if rows is None:
        rows = (getattr(model, "yaml", None) or {}).get("float_rows") or 0
    check_values("int8", float_rows=rows)
    return rows


@contextmanager
def _patched(module, name: str, wrap: Callable) -> Iterator[None]:
    """Wrap a function of a module while the `with` block runs, where the module has it."""
    original = getattr(module, name, None)
    if original is None:
        yield
        return
    setattr(module, name, wrap(original))
    try:
        yield
    finally:
        setattr(module, name, original)


def _onnx(float_rows: int):
    """Return a context in which ONNX files are quantized by `quantize_onnx`."""
    from ultralytics.utils.export import onnx

    return _patched(onnx, "onnx_int8_quantize", lambda _: functools.partial(quantize_onnx, float_rows=float_rows))


def _openvino(float_rows: int):
    """Return a context in which NNCF leaves the first rows in float."""
    from ultralytics.utils.export import openvino

    def quantize(original):
        def wrapper(model, *args, ignored_scope, **kwargs):
            names = [op.get_friendly_name() for op in model.get_ordered_ops()]
            names = [name for name in names if (row := row_of(name)) is not None and row < float_rows]
            ignored_scope = replace(ignored_scope, names=[*ignored_scope.names, *names])
            return original(model, *args, ignored_scope=ignored_scope, **kwargs)

        return wrapper

    def convert(original):
        def wrapper(*args, **kwargs):
            import nncf  # which Ultralytics has installed by now

            with _patched(nncf, "quantize", quantize):
                return original(*args, **kwargs)

        return wrapper

    return _patched(openvino, "torch2openvino", convert if float_rows else lambda original: original)


def _wrap_call(call):
    """Return the method that exports, which refuses `float_rows` where it would not be heeded."""

    @functools.wraps(call)
    def wrapper(self, *args, **kwargs):
        rows, form = getattr(self.args, "float_rows", None), str(self.args.format).lower()
        if rows and (form not in _MIXED or getattr(self.args, "quantize", None) != 8):
            raise ValueError(
                f"float_rows={rows} is for int8 in {' and '.join(_MIXED)}, not for format={form} "
                f"quantize={getattr(self.args, 'quantize', None)}; for others train with quantize=8 float_rows={rows}"
            )
        return call(self, *args, **kwargs)

    return wrapper


def _wrap_export(export, change: Callable):
    """Return the method that exports to one format, with `change` in force for models of ours in int8."""

    @functools.wraps(export)
    def wrapper(self, *args, **kwargs):
        if getattr(self.args, "quantize", None) != 8 or self.qat or not backbone_rows(self.model):
            return export(self, *args, **kwargs)
        with change(float_rows_of(self.args, self.model)):
            return export(self, *args, **kwargs)

    return wrapper


def wrap_exporter(exporter_class) -> None:
    """Have Ultralytics' `Exporter` export models of ours to int8 as this module does."""
    wraps = {
        "__call__": _wrap_call,
        "export_onnx": functools.partial(_wrap_export, change=_onnx),
        "export_openvino": functools.partial(_wrap_export, change=_openvino),
    }
    for name, wrap in wraps.items():
        method = getattr(exporter_class, name)
        if not getattr(method, "yolo_effnet", False):
            wrapper = wrap(method)
            wrapper.yolo_effnet = True
            setattr(exporter_class, name, wrapper)
