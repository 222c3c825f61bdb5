"""Our blocks by the name of their rows in a model YAML, and how a row of each is parsed."""

from collections.abc import Callable

import torch

ONCE, STACKED, ARGUMENT = "once", "stacked", "argument"
BLOCKS: dict[str, type] = {}  # classes that rows of model YAMLs name
REPEATS: dict[str, str] = {}  # of their rows, see `block`
PICKLED: list[type] = []  # every class of ours that a checkpoint can hold


def picklable(cls: type) -> type:
    """Class decorator: a checkpoint can hold objects of it, which `ULTRALYTICS_SAFE_LOAD=1` then unpickles."""
    PICKLED.append(cls)
    if hasattr(torch.serialization, "add_safe_globals"):  # from torch 2.4 on
        torch.serialization.add_safe_globals([cls])
    return cls


def block(repeats: str) -> Callable[[type], type]:
    """Class decorator: rows of a model YAML can name the class, whose constructor starts with `c1, c2`.

    Args:
        repeats (str): What the repeats of a row do: `once`, they must be 1; `stacked`, Ultralytics chains as many
            copies; `argument`, the class takes their number as its argument `n`; otherwise the name of the block that
            stands for a chain of this one.
    """

    def register(cls: type) -> type:
        BLOCKS[cls.__name__], REPEATS[cls.__name__] = cls, repeats
        return picklable(cls)

    return register
