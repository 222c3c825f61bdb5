"""Checks of the rows of a model YAML that name blocks of ours, before Ultralytics parses them."""

import ast
import inspect

from yolo_effnet.checks import check_values, is_integer
from yolo_effnet.nn.registry import BLOCKS, ONCE, REPEATS
from yolo_effnet.nn.stages import EfficientNetStage
from yolo_effnet.nn.timm_models import STRIDES, feature_maps, wide_maps

_STAGES = ("EfficientNetStage", "FusedStage")


def _check_shape(index: int, row) -> None:
    """Check that a row of any block is a list of source, repeats, name and arguments."""
    if not (isinstance(row, (list, tuple)) and len(row) == 4 and isinstance(row[2], str)):
        raise row_error(index, row, "a row must be [from, repeats, module, args]")
    for f in row[0] if isinstance(row[0], (list, tuple)) else row[:1]:
        if not is_integer(f) or not (-index <= f < index or (index == 0 and f == -1)):
            raise row_error(
                index, row, f"from must be -1 or the index of a row above, or a list of them, got {row[0]!r}"
            )
    if row[2] in (*BLOCKS, "Index") and not is_integer(row[0]):
        raise row_error(index, row, f"{row[2]} takes one source, got {row[0]!r}")
    if not (is_integer(row[1]) and row[1] >= 1):
        raise row_error(index, row, f"repeats must be an integer >= 1, got {row[1]!r}")
    if not isinstance(row[3], list):
        raise row_error(index, row, f"args must be a list, got {row[3]!r}")


def _is_number_as_text(value) -> bool:
    try:
        return isinstance(value, str) and isinstance(ast.literal_eval(value.strip()), (int, float, list, tuple))
    except (ValueError, SyntaxError):
        return False


def _check_row(index: int, row) -> list:
    """Return a row of one of our blocks in the form that Ultralytics' parser builds rightly."""
    f, n, name, args = row
    if n > 1 and REPEATS[name] == ONCE:
        raise row_error(index, row, f"the repeats of {name} must be 1, got {n}")
    try:
        if hasattr(BLOCKS[name], "parse_row"):
            return [f, n, name, BLOCKS[name].parse_row(args)]
        for value in args:
            if _is_number_as_text(value):
                raise ValueError(f"write the number {value} without quotation marks, got {value!r}")
        if args and not isinstance(args[0], str):  # Ultralytics rounds, so that a wrong value would pass
            check_values(name, c2=args[0])
    except ValueError as error:
        raise row_error(index, row, str(error)) from None
    if n > 1:  # Ultralytics would repeat the first block, with its stride and channels
        name = REPEATS[name] if REPEATS[name] in BLOCKS else name
    return [f, n, name, args]


def check_taps(rows: list, layers) -> None:
    """Check the channels of `Index` rows that take the maps of a tapped stage, once all are built.

    Raises:
        ValueError: If they are not what the stage gives.
    """
    for index, (row, layer) in enumerate(zip(rows, layers, strict=True)):
        source = layers[layer.f if layer.f >= 0 else index + layer.f] if row[2] == "Index" else None
        if isinstance(source, EfficientNetStage) and row[3] not in [[c, i] for i, c in enumerate(source.tap_channels)]:
            wide, narrow = source.tap_channels
            raise row_error(index, row, f"a tapped stage gives [{wide}, 0] and [{narrow}, 1]; got {row[3]}")


def _check_index_row(index: int, row, owner: str, maps: tuple | None) -> None:
    """Check a row that takes a feature map of a `TimmBackbone`, or of a tapped stage, whose channels are not known yet.

    Raises:
        ValueError: If it is not an `Index` row with the channels of one of them.
    """
    known = "[channels, 0] for the wide one, [channels, 1] for the output"
    if maps is not None:
        known = ", ".join(f"[{m.channels}, {m.index}] at stride {m.stride}" for m in maps)
    if row[2] != "Index":
        raise row_error(index, row, f"{owner} gives several feature maps, which Index rows take: {known}")
    args = row[3]
    if row[1] != 1:
        raise row_error(index, row, f"the repeats of Index must be 1, got {row[1]}")
    taken = len(args) == 2 if maps is None else args in [[m.channels, m.index] for m in maps]
    if not all(map(is_integer, args)) or not taken:
        raise row_error(index, row, f"channels and index of {owner}'s feature maps are {known}; got {args}")


def row_error(index: int, row, why: str) -> ValueError:
    """Return an error that names a row, what is wrong with it, and how a row of that block is written."""
    name = row[2] if isinstance(row, (list, tuple)) and len(row) == 4 and isinstance(row[2], str) else None
    usage = ""
    if name in BLOCKS:
        hidden = ("c1", "n", "c2") if name == "TimmBackbone" else ("c1", "n")
        parameters = [p for p in inspect.signature(BLOCKS[name]).parameters.values() if p.name not in hidden]
        args = ", ".join(p.name if p.default is p.empty else f"{p.name}={p.default}" for p in parameters)
        usage = f"; a row is [from, repeats, {name}, [{args}]]"
    return ValueError(f"model YAML row {index} {row}: {why}{usage}")


def timm_row_error(index: int, row) -> ValueError | None:
    """Return an error that names the rows of a timm model whose name stands for a module, or None where it is none."""
    name = str(row[2]).partition(".")[0]
    try:
        import timm
    except Exception:  # what is wrong with the row is for Ultralytics to say, also where timm does not work
        return None
    if not timm.is_model(name):
        return None
    try:
        maps = [f"[{index}, 1, Index, [{m.channels}, {m.index}]]" for m in feature_maps(name) if m.stride in STRIDES]
        told = f"'{name}' is no module but a model of timm: write the row [-1, 1, TimmBackbone, [{name}]], and rows for"
        return row_error(index, row, f"{told} its feature maps, {', '.join(maps)}")
    except ValueError as error:
        return row_error(index, row, str(error))


def check_rows(d: dict) -> dict:
    """Return a model dict with its rows checked, those of our blocks in the form that Ultralytics builds rightly.

    A ValueError tells of a malformed row; what the arguments of other blocks are is left to Ultralytics.
    """
    checked, index, maps, modules = dict(d), 0, {}, []
    for part in ("backbone", "head"):
        checked[part] = []
        for row in d[part]:
            _check_shape(index, row)
            for f in row[0] if isinstance(row[0], (list, tuple)) else row[:1]:
                source = index + f if f < 0 else f
                if source in maps and not (row[2] in _STAGES and modules[source] in _STAGES):
                    _check_index_row(index, row, modules[source], maps[source])
                elif row[2] == "Index" and index and modules[source] in (*BLOCKS, "Index"):
                    raise row_error(index, row, f"Index picks one of several feature maps, row {source} gives one only")
            checked[part].append(_check_row(index, row) if row[2] in BLOCKS else row)
            if row[2] == "TimmBackbone":
                maps[index] = feature_maps(row[3][0]) + (wide_maps(row[3][0]) if row[3][2:3] == [True] else ())
            elif row[2] in _STAGES and row[3][5:6] == [True]:  # tapped
                maps[index] = None
            modules.append(row[2])
            index += 1
    return checked
