"""What the libraries that quantize exported models are told for models with a backbone of ours."""

import functools
import re
from collections.abc import Callable

# Operators that ONNX Runtime has kernels in int8 for, or folds into one that has.
_WEIGHTED = ("Conv", "Gemm", "MatMul")
_INT8 = (
    *_WEIGHTED, "Sigmoid", "Mul", "Add", "Concat", "Resize", "MaxPool", "Split", "GlobalAveragePool", "Clip", "Relu",
)  # fmt: skip
# Operators of LiteRT that decode boxes: what the head does outside its layers, the mean of the distribution of an edge,
# and what follows the model.
_DECODING = r"modules\.head\.\w+;|block\.DFL_|_NormalizeCoords;|serving_default_output"


def _floats(nodes) -> list[str]:
    """Return the names of the nodes that stay in float: what decodes boxes, and what has no int8 kernel."""
    found = {node.name: re.search(r"(?:^|[/.])model\.(\d+)[/.]", node.name) for node in nodes}
    rows = {name: int(row.group(1)) for name, row in found.items() if row}
    head = max(rows.values(), default=0)

    def is_int8(node) -> bool:
        return (
            node.op_type in _INT8
            and (rows.get(node.name, head) < head or node.op_type in _WEIGHTED or "/act/" in node.name)
            and "/dfl/" not in node.name  # in 256 steps it rounds an edge by 0.06 of a cell
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


def quantize_throughout(quantize_static: Callable) -> Callable:
    """Return ONNX Runtime's function that quantizes a file, with other settings than those that Ultralytics gives it.

    Ultralytics quantizes convolutions alone, with signed activations. ONNX Runtime then computes those followed by SiLU
    in float: their output has two readers, and it only turns signed values of one reader into the unsigned ones of its
    kernels. Here activations are unsigned, and everything up to the decoding of boxes is in int8. Weights have a scale
    for each channel, without which depthwise convolutions lose their small ones.
    """

    @functools.wraps(quantize_static)
    def wrapper(model_input, model_output, reader, **kwargs):
        import onnx
        from onnxruntime.quantization import QuantType

        model = onnx.load(model_input)
        _pool(model.graph)
        onnx.save(model, model_input)  # the float model is but a step, and Ultralytics removes it
        kwargs |= {"activation_type": QuantType.QUInt8, "per_channel": True}
        kwargs["nodes_to_exclude"] = _floats(model.graph.node)
        return quantize_static(model_input, model_output, reader, **kwargs)

    return wrapper


def decode_in_float(static_recipe: Callable) -> Callable:
    """Return the function that names what LiteRT's quantizer does, which leaves the decoding of boxes in float.

    Ultralytics quantizes it too, and then an edge is at one of 256 places of the picture.
    """

    @functools.wraps(static_recipe)
    def wrapper(*args, **kwargs):
        from ai_edge_quantizer import qtyping, recipe, recipe_manager

        every, none = qtyping.TFLOperationName.ALL_SUPPORTED, recipe.AlgorithmName.NO_QUANTIZE
        manager = recipe_manager.RecipeManager()
        manager.load_quantization_recipe(static_recipe(*args, **kwargs))
        manager.add_quantization_config(regex=_DECODING, operation_name=every, algorithm_key=none)
        return manager.get_quantization_recipe()

    return wrapper
