"""Memory on a CPU: large feature maps are written where earlier ones were, not into fresh pages of the system."""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

# Options of glibc's mallopt(3): which blocks come from the system one by one, and when free memory goes back to it.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_KEEP = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1}
_AS_BEFORE = {_MMAP_MAX: 65536, _MMAP_THRESHOLD: 2**25, _TRIM_THRESHOLD: 2**26}  # where glibc's own adjustment ends
_SPARE = 0.5  # of the most that a process has held; its heap, which has gaps, grew by a quarter of it


def _has_glibc(device: torch.device) -> bool:
    """Return whether the maps of a device come from glibc, which alone has these options."""
    return device.type == "cpu" and platform.libc_ver()[0] == "glibc"


@contextmanager
def kept(device: torch.device) -> Iterator[None]:
    """Keep memory that is freed in the `with` block for what comes next, if the device is a CPU and the libc is glibc.

    Else each map of 32 MiB or more comes in fresh pages, which the system fills with zeros one by one. That takes
    longer than most layers do. The system gets the memory at the end.
    """
    if not _has_glibc(device):
        yield
        return
    libc = ctypes.CDLL(None)
    for option, value in _KEEP.items():
        libc.mallopt(option, value)
    try:
        yield
    finally:
        for option, value in _AS_BEFORE.items():
            libc.mallopt(option, value)
        libc.malloc_trim(0)


def keep_in(trainer) -> None:
    """Keep it in a training from the second batch on, if the first one left enough for a heap with gaps."""
    training, first = ExitStack(), True

    def after_batch(trainer) -> None:
        nonlocal first
        if first and _has_glibc(trainer.device):
            import resource  # which not every system has

            import psutil

            most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            if psutil.virtual_memory().available > _SPARE * most:
                training.enter_context(kept(trainer.device))
        first = False

    trainer.add_callback("on_train_batch_end", after_batch)
    trainer.add_callback("teardown", lambda _: training.close())
