"""Functions of Ultralytics that are wrapped, each once. Stdlib only: a hook runs it early."""


def is_ours(function) -> bool:
    """Return whether a function is one that `once` returned."""
    return getattr(function, "yolo_effnet", False)


def once(function, wrap):
    """Return `wrap(function)`, or `function` itself where it is wrapped already: a release can be registered twice."""
    if is_ours(function):
        return function
    wrapper = wrap(function)
    wrapper.yolo_effnet = True
    return wrapper
