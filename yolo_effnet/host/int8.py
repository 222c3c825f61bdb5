"""Exports to int8 of models with a backbone of ours."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import NamedTuple

from ultralytics.utils.checks import check_requirements

from yolo_effnet.checks import check_values
from yolo_effnet.host.int8_libraries import decode_in_float, quantize_but_for, quantize_throughout
from yolo_effnet.nn.backbone import backbone_rows
from yolo_effnet.wrapping import once


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
    _Change("onnx", "onnx_int8_quantize", "onnxruntime.quantization", "quantize_static", quantize_throughout),
    _Change("openvino", "torch2openvino", "nncf", "quantize", quantize_but_for),
    _Change(
        "litert", "torch2litert", "ai_edge_quantizer.recipe", "static_wi8_ai8", decode_in_float,
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
    formats = import_module(exporter_class.__module__).export_formats()["Argument"]  # older releases have no LiteRT
    changes = [change for change in _CHANGES if change.format in formats]
    wraps = {f"export_{change.format}": functools.partial(_wrap_export, change=change) for change in changes}
    for name, wrap in {"__call__": _wrap_call, **wraps}.items():
        setattr(exporter_class, name, once(getattr(exporter_class, name), wrap))
