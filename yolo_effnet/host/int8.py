"""Exports to int8 of models with a backbone of ours."""

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import NamedTuple

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


class _Change(NamedTuple):
    """A function of a library that does something else inside a function of Ultralytics.

    Attributes:
        format (str): Format of the export, and module of `ultralytics.utils.export`.
        convert (str): Its function, which converts.
        library (str): The module of a library that has `quantize`; Ultralytics may install it just before.
        quantize (str): Its function, which `convert` calls.
        wrap (Callable): What takes that function and returns what takes its place.
        requirement (str): The library, where Ultralytics installs it not before but in `convert`.
    """

    format: str
    convert: str
    library: str
    quantize: str
    wrap: Callable
    requirement: str = ""

    def inside(self, convert: Callable) -> Callable:
        """Return the function of Ultralytics inside which the change is in force."""

        @functools.wraps(convert)
        def wrapper(*args, **kwargs):
            if self.requirement:
                check_requirements(self.requirement)
            with _patched(import_module(self.library), self.quantize, self.wrap):
                return convert(*args, **kwargs)

        return wrapper


_ONNX = _Change("onnx", "onnx_int8_quantize", "onnxruntime.quantization", "quantize_static", quantize_throughout)
_LITERT = _Change(
    "litert", "torch2litert", "ai_edge_quantizer.recipe", "static_wi8_ai8", decode_in_float,
    "ai-edge-quantizer>=0.10.0",
)  # fmt: skip


def _is_int8(args) -> bool:
    """Return whether an export is to int8; releases before `quantize=` have `int8=`."""
    return getattr(args, "quantize", None) == 8 or getattr(args, "int8", None) is True


def _wrap_export(export, change: _Change):
    """Return the method that exports to one format, with a change in force for models of ours in int8."""

    @functools.wraps(export)
    def wrapper(self, *args, **kwargs):
        if not _is_int8(self.args) or getattr(self, "qat", False) or not backbone_rows(self.model):
            return export(self, *args, **kwargs)
        home = import_module(f"ultralytics.utils.export.{change.format}")
        with _patched(home, change.convert, change.inside):
            return export(self, *args, **kwargs)

    return wrapper


wrap_onnx = functools.partial(_wrap_export, change=_ONNX)
wrap_litert = functools.partial(_wrap_export, change=_LITERT)
