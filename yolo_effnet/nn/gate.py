"""Whether a faster way may stand in for the plain computation: only where nobody can tell the difference."""

import contextlib
import contextvars
import os

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn.modules import module as hooks

_block = contextvars.ContextVar("fast_paths", default=None)  # the innermost `with` block of this context
_process: list["fast_paths"] = []  # calls outside of `with` blocks, of which the last counts

# Classes of torch whose call a faster way may leave out, and those of ours (see `known`).
_KNOWN = {nn.Conv2d, nn.BatchNorm2d, nn.SiLU, nn.ReLU, nn.ReLU6, nn.Hardswish, nn.Sigmoid, nn.Identity}
_PARAMETERS = (nn.Parameter, type(None))


class fast_paths:
    """Turn the faster ways of all blocks on or off: for good in the process, or in a `with` block of one thread.

    They compute what the plain layers do. Turn them off to compare, or to look for a fault. The environment variable
    `YOLO_EFFNET_FAST=0` does the same for a process and those that it starts.

    Args:
        enabled (bool): Whether they may run.
    """

    def __init__(self, enabled: bool = True) -> None:
        """Set the mode of the process, which lasts until the next call, or becomes that of a `with` block."""
        self.enabled = enabled
        self.before: list[fast_paths | None] = []
        _process.append(self)
        del _process[1:-64]  # an older one cannot count again

    def __enter__(self) -> "fast_paths":
        """Set the mode of this thread, or task, and no longer that of the process; return itself."""
        with contextlib.suppress(ValueError):  # entered before
            _process.remove(self)
        self.before.append(_block.get())
        _block.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        """Set the mode of before."""
        _block.set(self.before.pop())


fast_paths(os.environ.get("YOLO_EFFNET_FAST", "").strip().lower() not in ("0", "false", "no", "off"))


def known(cls: type) -> type:
    """Class decorator: a faster way may leave out the call of such a module."""
    _KNOWN.add(cls)
    return cls


def is_exporting() -> bool:
    """Return whether a graph is being recorded, which must hold the plain operators only."""
    return torch.jit.is_tracing() or _compiler_exports()


# What torch has from 2.3 and from 2.7 on; before the latter, `torch.export` counts as compilation.
is_compiling = getattr(torch.compiler, "is_compiling", None) or torch._utils.is_compiling
_compiler_exports = getattr(torch.compiler, "is_exporting", lambda: False)


def is_allowed(x: torch.Tensor) -> bool:
    """Return whether anything but the plain computation of `x` may run, here and now.

    Nothing may where a graph is recorded or compiled, where tensors are not what they seem (subclasses, tracers,
    `torch.func` transforms, forward-mode derivatives), where every operator or every module is watched, and on devices
    but a CPU, on which they do not pay.
    """
    return (
        _can_tell
        and type(x) is torch.Tensor
        and not is_compiling()  # what follows is not to be recorded
        and not is_exporting()
        and (_block.get() or _process[-1]).enabled
        and x.device.type == "cpu"
        and not any(_watchers())
    )


def _watchers() -> tuple:
    """Return what, if true, watches or changes all that is computed here; torch has private names for it."""
    return (
        torch._C._len_torch_function_stack(),
        torch._C._len_torch_dispatch_stack(),
        torch._C._functorch.peek_interpreter_stack() is not None,
        forward_ad._current_level >= 0,
        hooks._has_any_global_hook(),
    )


def is_untouched(module: nn.Module) -> bool:
    """Return whether the calls of a module and of all modules inside it may be left out.

    So it is if each is of a known class (no quantizer, wrapper or replacement), has no hooks, no forward method and no
    compiled call of its own, and parameters that are no subclass of `nn.Parameter`.
    """
    kind, state = type(module), module.__dict__
    if (
        kind not in _KNOWN
        or state["_forward_hooks"]
        or state["_forward_pre_hooks"]
        or state["_backward_hooks"]
        or state["_backward_pre_hooks"]
        or "_compiled_call_impl" in state
    ):
        return False
    own = state.get("forward")  # Ultralytics' fuse() gives its layers one
    if own is not None and getattr(own, "__func__", None) is not getattr(kind, "forward_fuse", None):
        return False
    for parameter in state["_parameters"].values():
        if type(parameter) not in _PARAMETERS:
            return False
    return all(map(is_untouched, state["_modules"].values()))


def _is_readable() -> bool:
    """Return whether this release of torch has the private names that are read here."""
    try:
        _watchers()
        return is_untouched(nn.Identity())
    except (AttributeError, KeyError, TypeError):
        return False


_can_tell = _is_readable()
