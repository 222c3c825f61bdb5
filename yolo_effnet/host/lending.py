"""Our blocks in Ultralytics' parser, for as long as it builds a model that has rows of ours."""

import builtins
import contextlib
import sys
import threading

import ultralytics.nn.tasks  # noqa: F401  # not "from ultralytics.nn import tasks": it may still be importing

from yolo_effnet.nn import neck, stages, timm_backbone  # noqa: F401  # they fill BLOCKS
from yolo_effnet.nn.registry import ARGUMENT, BLOCKS, REPEATS

tasks = sys.modules["ultralytics.nn.tasks"]
lending = threading.RLock()


def has_rows_of_ours(d: dict) -> bool:
    """Return whether a model dict has a row of a block of ours, not of one that Ultralytics' module has of its own."""
    ours = {name for name, block in BLOCKS.items() if vars(tasks).get(name, block) is block}
    parts = [d.get(part) for part in ("backbone", "head")]
    rows = [row for part in parts if isinstance(part, list) for row in part if isinstance(row, (list, tuple))]
    return any(isinstance(item, str) and item in ours for row in rows for item in row)


def _widened_frozenset(items=()):
    """Return a frozenset of `items`, and of our blocks too where the items are the parser's lists of blocks.

    `parse_model` decides by two frozensets, made at each call, which rows get `(c1, c2)` and which of these get
    their repeats as an argument; `C2f` is in both and `Conv` in the first only. Standing in for `frozenset` in its
    module lets Ultralytics itself compute channels and repeats of our rows, with its width and depth multiples, and
    print them; parsing our rows as `C2f` and swapping the layers afterwards would need a second printed table.
    """
    result = builtins.frozenset(items)
    if tasks.C2f not in result:
        return result
    everything = tasks.Conv in result
    return result.union(block for name, block in BLOCKS.items() if everything or REPEATS[name] == ARGUMENT)


@contextlib.contextmanager
def lent_names():
    """Lend our names to Ultralytics' module, where the parser looks for them, until the end of the `with` block."""
    lent = {**BLOCKS, "frozenset": _widened_frozenset}
    before = {name: vars(tasks)[name] for name in lent if name in vars(tasks)}
    vars(tasks).update(lent)
    try:
        yield
    finally:
        for name in lent:
            del vars(tasks)[name]
        vars(tasks).update(before)
