"""Exports to int8 of models with a backbone of ours."""

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module

from ultralytics.utils.checks import check_requirements

from yolo_effnet.host.int8_libraries import decode_in_float, quantize_throughout
from yolo_effnet.nn.backbone import backbone_rows

_exporting = threading.RLock()


@contextmanager
def _patched(module, name: str, wrap: Callable) -> Iterator[None]:
    """Wrap a function of a module for this thread while the `with` block runs, where the module has it.

    Another thread that wraps one waits; one that exports a model without a backbone of ours gets the function itself.
    """
    with _exporting:
        original = getattr(module, name, None)
        if original is None:
            yield
            return
        wrapper, thread = wrap(original), threading.get_ident()

        @functools.wraps(original)
        def patch(*args, **kwargs):
            return (wrapper if threading.get_ident() == thread else original)(*args, **kwargs)

        setattr(module, name, patch)
        try:
            yield
        finally:
            setattr(module, name, original)


def _wrap_export(export, format: str, convert: str, library: str, quantize: str, change: Callable, needs: str = ""):
    """Return the method that exports to one format, with a change in force for models of ours in int8.

    Args:
        export (Callable): The method.
        format (str): Module of `ultralytics.utils.export`.
        convert (str): Its function, which calls the one of a library that is changed.
        library (str): Module of that library; Ultralytics may install it just before.
        quantize (str): Its function.
        change (Callable): What takes that function and returns what takes its place.
        needs (str): The library, where Ultralytics installs it not before but in `convert`.
    """

    def inside(original):
        @functools.wraps(original)
        def wrapper(*args, **kwargs):
            if needs:
                check_requirements(needs)
            with _patched(import_module(library), quantize, change):
                return original(*args, **kwargs)

        return wrapper

    @functools.wraps(export)
    def wrapper(self, *args, **kwargs):
        # Releases before `quantize=` have `int8=`.
        is_int8 = getattr(self.args, "quantize", None) == 8 or getattr(self.args, "int8", None) is True
        if not is_int8 or getattr(self, "qat", False) or not backbone_rows(self.model):
            return export(self, *args, **kwargs)
        with _patched(import_module(f"ultralytics.utils.export.{format}"), convert, inside):
            return export(self, *args, **kwargs)

    return wrapper


wrap_onnx = functools.partial(
    _wrap_export, format="onnx", convert="onnx_int8_quantize",
    library="onnxruntime.quantization", quantize="quantize_static", change=quantize_throughout,
)  # fmt: skip
wrap_litert = functools.partial(
    _wrap_export, format="litert", convert="torch2litert",
    library="ai_edge_quantizer.recipe", quantize="static_wi8_ai8", change=decode_in_float,
    needs="ai-edge-quantizer>=0.10.0",
)  # fmt: skip
