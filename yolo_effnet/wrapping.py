"""Functions of Ultralytics that are wrapped, each once. Stdlib only: a hook runs it early."""

import sys
import types


def is_ours(function) -> bool:
    """Return whether a function is one that `once` returned."""
    return getattr(function, "yolo_effnet", False)


def once(function, wrap):
    """Return `wrap(function)`, or `function` itself where it is wrapped already: a release can be registered twice."""
    if is_ours(function):
        return function
    wrapper = wrap(function)
    wrapper.yolo_effnet = wrapper
    return wrapper


def unwrap() -> None:
    """Leave Ultralytics without any function or callback of ours, also where a registration failed halfway."""
    modules = [m for name, m in list(sys.modules.items()) if name.partition(".")[0] == "ultralytics"]
    for owner in [owner for module in modules for owner in _owners(module)]:
        for name, value in list(vars(owner).items()):
            # A wrapper of somebody else's around ours has a copy of its attributes.
            if isinstance(value, types.FunctionType) and vars(value).get("yolo_effnet") is value:
                setattr(owner, name, value.__wrapped__)
    base = sys.modules.get("ultralytics.utils.callbacks.base")
    for callbacks in getattr(base, "default_callbacks", {}).values():
        callbacks[:] = [c for c in callbacks if not str(getattr(c, "__module__", "")).startswith("yolo_effnet.")]


def _owners(module) -> list:
    """Return a module of Ultralytics, if it is one, and its classes."""
    if not isinstance(module, types.ModuleType):
        return []
    classes = [value for value in list(vars(module).values()) if isinstance(value, type)]
    return [module, *(c for c in classes if str(c.__module__).partition(".")[0] == "ultralytics")]
