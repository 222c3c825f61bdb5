"""Ranges of the arguments of blocks and of the keys of model YAMLs, and what errors and logs show in one line."""

import math
from collections.abc import Callable, Iterable

PADDINGS = ("same", "symmetric")


def is_integer(value) -> bool:
    """Return whether `value` is an integer, and not a bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value) -> bool:
    """Return whether `value` is a finite integer or float, and not a bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


_ACCEPTED = {
    **dict.fromkeys(("c1", "c2", "hidden", "nc", "n"), (lambda v: is_integer(v) and v >= 1, "an integer >= 1")),
    "k": (lambda v: is_integer(v) and v >= 1 and v % 2 == 1, "an odd integer >= 1"),
    "s": (lambda v: is_integer(v) and v in (1, 2), "1 or 2"),
    "g": (lambda v: v == 1, "1"),
    "expand_ratio": (lambda v: is_number(v) and v >= 1, "a number >= 1"),
    "se_ratio": (lambda v: is_number(v) and 0 <= v <= 1, "a number from 0 (no squeeze-and-excite) to 1"),
    "tap": (lambda v: isinstance(v, bool), "True or False"),
    **dict.fromkeys(("drop_path", "dropout"), (lambda v: is_number(v) and 0 <= v < 1, "a number from 0 to below 1")),
    "width": (lambda v: is_number(v) and 0.25 <= v <= 5, "a number from 0.25 to 5"),
    "depth": (lambda v: is_number(v) and 0.25 <= v <= 8, "a number from 0.25 to 8"),
    "padding": (lambda v: v in PADDINGS, " or ".join(PADDINGS)),
}


def check_value(name: str, value, accepts: Callable[[object], bool], accepted: str) -> None:
    """Raise a ValueError that names a value outside its range, and what is accepted."""
    if not accepts(value):
        text = repr(value)
        found = text if len(text) <= 80 and "\n" not in text else f"{text.splitlines()[0][:77]}.."  # of an object
        raise ValueError(f"{name} must be {accepted}, got {found}")


def check_values(owner: str, **values) -> None:
    """Raise a ValueError that names the first value outside its range, its owner and what is accepted."""
    for name, value in values.items():
        check_value(f"{owner}: {name}", value, *_ACCEPTED[name])


def why(error: BaseException) -> str:
    """Return kind and first line of an error, for a table, a log or another error."""
    return f"{type(error).__name__}: {str(error).strip() or 'no message'}".splitlines()[0]


def few(names: Iterable) -> str:
    """Return the first of the names of classes, as text."""
    names = list(map(str, names))
    return ", ".join([*names[:3], *[".."][: len(names) > 3]])
