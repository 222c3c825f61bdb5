"""Checks of the top-level keys of a model YAML that has rows of ours, before Ultralytics parses it."""

import ast
import difflib
import operator

from torch import nn

from yolo_effnet import arguments
from yolo_effnet.checks import check_value, check_values
from yolo_effnet.host.lending import tasks

OURS = (
    "padding", "drop_path", "activation", "backbone_activation", "graft", *arguments.OLD_WEIGHTS_KEYS,
    *(argument.name for argument in arguments.KEYS),
)  # fmt: skip
_ALIASES = {
    "act": "activation", "drop_path_rate": "drop_path", "pad": "padding",
    **dict.fromkeys(("pretrained", *arguments.OLD_WEIGHTS_KEYS), "backbone_weights"),
}  # fmt: skip
# What else a model YAML of Ultralytics has, some of which differ from a key of ours by a letter or two.
_ULTRALYTICS = (
    "nc", "names", "ch", "channels", "scale", "scales", "depth_multiple", "width_multiple", "kpt_shape", "flip_idx",
    "end2end", "reg_max", "backbone", "head", "task", "yaml_file", "text_model",
)  # fmt: skip


def misspelt_keys(d: dict) -> dict[str, str]:
    """Return the key that was meant by each key of a model YAML that is almost one of ours."""
    meant = {}
    for key in d:
        if key in OURS or key in _ULTRALYTICS or not isinstance(key, str):
            continue
        plain = key.lower().replace("-", "_")
        close = difflib.get_close_matches(plain, OURS, n=1, cutoff=0.75)
        if plain in _ALIASES or close:
            meant[key] = _ALIASES.get(plain) or _ALIASES.get(close[0], close[0])
    return meant


def _resolve(name: ast.expr):
    """Return what a dotted name stands for in the parser, or raise an AttributeError."""
    return operator.attrgetter(ast.unparse(name))(tasks)


def _check_activation(key: str, value) -> ast.expr:
    """Check `activation:` or `backbone_activation:` without evaluating it, and return its expression."""
    wrong = f"{key} must be a module of torch as text, such as torch.nn.ReLU6(), got {value!r}"
    try:
        expression = ast.parse(value.strip(), mode="eval").body
        called = isinstance(expression, ast.Call)
        kind = _resolve(expression.func if called else expression)
    except (SyntaxError, AttributeError):
        raise ValueError(wrong) from None
    is_module = isinstance(kind, type) and issubclass(kind, nn.Module)
    if not called and is_module:
        raise ValueError(f"{wrong}; write {value}()")
    if not is_module and not (called and not isinstance(kind, type)):  # a function may return one
        raise ValueError(wrong)
    return expression


def backbone_activation(d: dict) -> nn.Module | None:
    """Return the activation that a model YAML gives to its backbone alone, or None where it is that of the model."""
    value = d.get("backbone_activation")
    if not value:
        return None
    expression = _check_activation("backbone_activation", value)
    try:
        args = [ast.literal_eval(arg) for arg in expression.args]
        keywords = {k.arg: ast.literal_eval(k.value) for k in expression.keywords}
        return _resolve(expression.func)(*args, **keywords)
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"backbone_activation must be a module of torch with plain arguments, such as torch.nn.ReLU6(), got "
            f"{value!r} ({error})"
        ) from None


def check_keys(d: dict) -> None:
    """Raise a ValueError that names a top-level key of a model YAML that is missing or malformed."""
    for part in ("backbone", "head"):
        if not isinstance(d.get(part), list):
            found = f"got {d[part]!r}" if part in d else "there is none"
            raise ValueError(f"model YAML: `{part}:` must be a list of rows, {found}")
    if "nc" not in d:
        raise ValueError("model YAML: `nc:`, the number of classes, is missing; training replaces it by the data set's")
    check_values("model YAML", nc=d["nc"])
    if d.get("activation"):
        _check_activation("activation", d["activation"])
    backbone_activation(d)
    if not isinstance(d.get("graft"), (dict, type(None))):
        raise ValueError(f"model YAML: `graft:` is written by `yolo-effnet graft`, a record, got {d['graft']!r}")
    for key in arguments.OLD_WEIGHTS_KEYS:
        check_value(key, d.get(key), lambda v: isinstance(v, (str, type(None))), "a timm tag or a file")
    for argument in arguments.KEYS:
        if d.get(argument.name) is not None:
            argument.check(d[argument.name])
    padding = "same" if d.get("padding") is None else d["padding"]
    check_values("model", padding=padding, drop_path=d.get("drop_path", 0.0))
