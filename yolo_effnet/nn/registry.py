"""Our blocks by the name of their rows in a model YAML, and how a row of each is parsed."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

ONCE, STACKED, ARGUMENT = "once", "stacked", "argument"


@dataclass(frozen=True)
class Block:
    """A class that has rows in model YAMLs.

    Attributes:
        cls (type): The class.
        repeats (str): What the repeats of a row do: `once`, they must be 1; `stacked`, Ultralytics chains as many
            copies; `argument`, the class takes their number as its argument `n`; otherwise the name of the block that
            stands for a chain of this one.
    """

    cls: type
    repeats: str


BLOCKS: dict[str, Block] = {}
PICKLED: list[type] = []  # every class of ours that a checkpoint can hold


def picklable(cls: type) -> type:
    """Class decorator: a checkpoint can hold objects of it, which `ULTRALYTICS_SAFE_LOAD=1` then unpickles."""
    PICKLED.append(cls)
    if hasattr(torch.serialization, "add_safe_globals"):  # from torch 2.4 on
        torch.serialization.add_safe_globals([cls])
    return cls


def block(repeats: str) -> Callable[[type], type]:
    """Class decorator: rows of a model YAML can name the class, whose constructor starts with `c1, c2`."""

    def register(cls: type) -> type:
        BLOCKS[cls.__name__] = Block(cls, repeats)
        return picklable(cls)

    return register
