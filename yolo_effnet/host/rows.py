"""Checks of the rows of a model YAML that name blocks of ours, before Ultralytics parses them."""

import inspect

from yolo_effnet.checks import check_values
from yolo_effnet.nn.registry import BLOCKS, ONCE
from yolo_effnet.nn.timm_backbone import feature_maps


def _check_row(index: int, row) -> list:
    """Return a row of one of our blocks in the form that Ultralytics' parser builds rightly.

    Raises:
        ValueError: If repeats or output channels are malformed.
    """
    f, n, name, args = row
    if not (isinstance(n, int) and not isinstance(n, bool) and n >= 1):
        raise row_error(index, row, f"repeats must be an integer >= 1, got {n!r}")
    if not isinstance(args, list):
        raise row_error(index, row, f"args must be a list, got {args!r}")
    rule = BLOCKS[name]
    if n > 1 and rule.repeats == ONCE:
        raise row_error(index, row, f"the repeats of {name} must be 1, got {n}")
    try:
        if hasattr(rule.cls, "parse_row"):
            return [f, n, name, rule.cls.parse_row(args)]
        if args and not isinstance(args[0], str):  # Ultralytics rounds, so that a wrong value would pass
            check_values(name, c2=args[0])
    except ValueError as error:
        raise row_error(index, row, str(error)) from None
    if n > 1:  # Ultralytics would repeat the first block, with its stride and channels
        name = rule.repeats if rule.repeats in BLOCKS else name
    return [f, n, name, args]


def _check_index_row(index: int, row, maps: tuple) -> None:
    """Check a row that takes the feature maps of a `TimmBackbone`.

    Raises:
        ValueError: If it is not an `Index` row with the channels of one of them.
    """
    known = ", ".join(f"[{m.channels}, {m.index}] at stride {m.stride}" for m in maps)
    if row[2] != "Index":
        raise row_error(index, row, f"TimmBackbone gives several feature maps, which Index rows take: {known}")
    args = row[3]
    if args not in [[m.channels, m.index] for m in maps]:
        raise row_error(index, row, f"channels and index of TimmBackbone's feature maps are {known}; got {args}")


def row_error(index: int, row, why: str) -> ValueError:
    """Return an error that names a row, what is wrong with it, and how a row of that block is written."""
    name = row[2] if len(row) == 4 else None
    usage = ""
    if name in BLOCKS:
        hidden = ("c1", "n", "c2") if name == "TimmBackbone" else ("c1", "n")
        parameters = [p for p in inspect.signature(BLOCKS[name].cls).parameters.values() if p.name not in hidden]
        args = ", ".join(p.name if p.default is p.empty else f"{p.name}={p.default}" for p in parameters)
        usage = f"; a row is [from, repeats, {name}, [{args}]]"
    return ValueError(f"model YAML row {index} {row}: {why}{usage}")


def check_rows(d: dict) -> dict:
    """Return the model dict `d` with its rows of our blocks checked; other rows are left to Ultralytics."""
    checked, index, maps = dict(d), 0, {}
    for part in ("backbone", "head"):
        checked[part] = []
        for row in d[part]:
            ours = any(isinstance(item, str) and item in BLOCKS for item in row)
            if ours and (len(row) != 4 or row[2] not in BLOCKS):
                raise row_error(index, row, "a row must be [from, repeats, module, args]")
            for f in row[0] if isinstance(row[0], list) else row[:1]:
                source = index + f if isinstance(f, int) and f < 0 else f
                if source in maps:
                    _check_index_row(index, row, maps[source])
            checked[part].append(_check_row(index, row) if ours else row)
            if row[2] == "TimmBackbone":
                maps[index] = feature_maps(row[3][0])
            index += 1
    return checked
