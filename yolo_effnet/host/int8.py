"""Exports to int8 of models with a backbone of ours: what is in int8, and what stays in float."""

import functools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from typing import NamedTuple

from ultralytics.utils.checks import check_requirements

from yolo_effnet.checks import check_values
from yolo_effnet.nn.backbone import backbone_rows
from yolo_effnet.wrapping import once

# Operators that ONNX Runtime has kernels in int8 for, or folds into one that has.
_WEIGHTED = ("Conv", "Gemm", "MatMul")
_INT8 = (
    *_WEIGHTED, "Sigmoid", "Mul", "Add", "Concat", "Resize", "MaxPool", "Split", "GlobalAveragePool", "Clip", "Relu",
)  # fmt: skip
# Operators of LiteRT that decode boxes: what the head does outside its layers, the mean of the distribution of an edge,
# and what follows the model.
_DECODING = r"modules\.head\.\w+;|block\.DFL_|_NormalizeCoords;|serving_default_output"


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
            and "/dfl/" not in node.name  # the mean of a distribution, which rounds an edge by 0.06 of a cell
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


def _throughout(quantize_static: Callable, float_rows: int) -> Callable:
    """Return ONNX Runtime's function that quantizes a file, with other settings than those that Ultralytics gives it.

    Ultralytics quantizes convolutions alone, with signed activations. ONNX Runtime then computes those followed by SiLU
    in float: their output has two readers, and it only turns signed values of one reader into the unsigned ones of its
    kernels. Here activations are unsigned, and everything up to the decoding of boxes is in int8. Weights have a scale
    for each channel, without which depthwise convolutions lose their small ones.

    Args:
        quantize_static (Callable): ONNX Runtime's function.
        float_rows (int): Rows at the start of the model that stay in float.
    """

    @functools.wraps(quantize_static)
    def wrapper(model_input, model_output, reader, **kwargs):
        import onnx
        from onnxruntime.quantization import QuantType

        model = onnx.load(model_input)
        _pool(model.graph)
        onnx.save(model, model_input)  # the float model is but a step, and Ultralytics removes it
        ours = {"activation_type": QuantType.QUInt8, "per_channel": True}
        kwargs |= {**ours, "nodes_to_exclude": _floats(model.graph.node, float_rows)}
        return quantize_static(model_input, model_output, reader, **kwargs)

    return wrapper


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


def _but_for(quantize: Callable, float_rows: int) -> Callable:
    """Return NNCF's function that quantizes a model, which leaves the first rows in float."""
    from nncf import IgnoredScope

    @functools.wraps(quantize)
    def wrapper(model, *args, ignored_scope=None, **kwargs):
        names = [op.get_friendly_name() for op in model.get_ordered_ops()]
        names = [name for name in names if (row := row_of(name)) is not None and row < float_rows]
        scope = ignored_scope or IgnoredScope()
        return quantize(model, *args, ignored_scope=replace(scope, names=[*scope.names, *names]), **kwargs)

    return wrapper


def _decoding_in_float(static_recipe: Callable, float_rows: int) -> Callable:
    """Return the function that names what LiteRT's quantizer does, which leaves the decoding of boxes in float.

    Ultralytics quantizes it too, and then an edge is at one of 256 places of the picture.

    Args:
        static_recipe (Callable): The function for weights and activations in int8.
        float_rows (int): Rows at the start of the model that stay in float too.
    """

    @functools.wraps(static_recipe)
    def wrapper(*args, **kwargs):
        from ai_edge_quantizer import qtyping, recipe, recipe_manager

        manager = recipe_manager.RecipeManager()
        manager.load_quantization_recipe(static_recipe(*args, **kwargs))
        rows = [rf"nn\.tasks\.\w+/[\w.]+_{row}[/;]" for row in range(float_rows)]
        for scope in (_DECODING, *rows):
            every, none = qtyping.TFLOperationName.ALL_SUPPORTED, recipe.AlgorithmName.NO_QUANTIZE
            manager.add_quantization_config(regex=scope, operation_name=every, algorithm_key=none)
        return manager.get_quantization_recipe()

    return wrapper


class _Change(NamedTuple):
    """A function of a library that does something else inside a function of Ultralytics.

    Attributes:
        format (str): Format of the export, and module of `ultralytics.utils.export`.
        convert (str): Its function, which converts.
        library (str): The module of a library that has `quantize`; Ultralytics may install it just before.
        quantize (str): Its function, which `convert` calls.
        wrap (Callable): What takes that function and `float_rows`, and returns what takes its place.
        requirement (str): The library, where Ultralytics installs it not before but in `convert`.
    """

    format: str
    convert: str
    library: str
    quantize: str
    wrap: Callable
    requirement: str = ""

    def inside(self, convert: Callable, float_rows: int) -> Callable:
        """Return the function of Ultralytics inside which the change is in force."""

        @functools.wraps(convert)
        def wrapper(*args, **kwargs):
            wrap = functools.partial(self.wrap, float_rows=float_rows)
            if self.requirement:
                check_requirements(self.requirement)
            with _patched(import_module(self.library), self.quantize, wrap):
                return convert(*args, **kwargs)

        return wrapper


_CHANGES = (
    _Change("onnx", "onnx_int8_quantize", "onnxruntime.quantization", "quantize_static", _throughout),
    _Change("openvino", "torch2openvino", "nncf", "quantize", _but_for),
    _Change(
        "litert", "torch2litert", "ai_edge_quantizer.recipe", "static_wi8_ai8", _decoding_in_float,
        "ai-edge-quantizer>=0.10.0",
    ),
)  # fmt: skip
_MIXED = [change.format for change in _CHANGES]  # of which some rows can stay in float


def _is_int8(args) -> bool:
    """Return whether an export is to int8; releases before `quantize=` have `int8=`."""
    return getattr(args, "quantize", None) == 8 or getattr(args, "int8", None) is True


def _wrap_call(call):
    """Return the method that exports, which refuses `float_rows` where it would not be heeded."""

    @functools.wraps(call)
    def wrapper(self, *args, **kwargs):
        rows, form = getattr(self.args, "float_rows", None), str(self.args.format).lower()
        if rows and (form not in _MIXED or not _is_int8(self.args)):
            raise ValueError(
                f"float_rows={rows} is for format={', '.join(_MIXED)} with int8=True, not for format={form} with "
                f"int8={_is_int8(self.args)}; for others train with quantize=8 float_rows={rows}"
            )
        return call(self, *args, **kwargs)

    return wrapper


def _wrap_export(export, change: _Change):
    """Return the method that exports to one format, with a change in force for models of ours in int8."""

    @functools.wraps(export)
    def wrapper(self, *args, **kwargs):
        if not _is_int8(self.args) or getattr(self, "qat", False) or not backbone_rows(self.model):
            return export(self, *args, **kwargs)
        home = import_module(f"ultralytics.utils.export.{change.format}")
        inside = functools.partial(change.inside, float_rows=float_rows_of(self.args, self.model))
        with _patched(home, change.convert, inside):
            return export(self, *args, **kwargs)

    return wrapper


def wrap_exporter(exporter_class) -> None:
    """Have Ultralytics' `Exporter` export models of ours to int8 as this module does."""
    wraps = {f"export_{change.format}": functools.partial(_wrap_export, change=change) for change in _CHANGES}
    for name, wrap in {"__call__": _wrap_call, **wraps}.items():
        if hasattr(exporter_class, name):  # older releases have no LiteRT
            setattr(exporter_class, name, once(getattr(exporter_class, name), wrap))
