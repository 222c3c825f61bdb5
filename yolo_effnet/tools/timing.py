"""How time and memory of a call are taken, and a model file in its runtime as such a call."""

import statistics
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from ultralytics.data.augment import LetterBox
from ultralytics.nn.autobackend import AutoBackend
from ultralytics.utils import TQDM
from ultralytics.utils.ops import Profile


def parse_device(text: str) -> torch.device:
    """Return the device of the command line, `cpu`, `mps` or the number of a GPU, or raise a ValueError."""
    try:
        device = torch.device(f"cuda:{text}" if text.isdigit() else text)
        torch.empty(1, device=device)
    except (AssertionError, RuntimeError, NotImplementedError) as error:
        raise ValueError(f"device must be cpu, mps, or the number of a GPU that PyTorch finds, got '{text}'") from error
    return device


def seconds(call: Callable, device: torch.device) -> float:
    """Return the time that a call takes on `device`."""
    with Profile(device=device) as profile:
        call()
    return profile.dt


def by_turns(calls: dict[str, Callable], device: torch.device, repeats: int) -> dict[str, float]:
    """Return the median milliseconds of each call, of `repeats` turns: a call to warm up and two that are timed."""
    times = {name: [] for name in calls}
    for _ in TQDM(range(repeats), desc="time"):
        for name, call in calls.items():
            call()  # its weights left the caches while the others ran
            times[name] += [seconds(call, device) for _ in range(2)]
    return {name: statistics.median(values) * 1e3 for name, values in times.items()}


def peak(call: Callable, device: torch.device) -> float:
    """Return the most MiB that PyTorch holds during a call beyond those before it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        call()
    held = most = 0
    for event in sorted(profile.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most / 2**20


def letterboxed(file: str | Path, size: int, channels: int = 3) -> np.ndarray:
    """Return the pixels of a picture, `(size, size, channels)`: RGB, one of grey, or for other numbers RGB repeated."""
    image = LetterBox((size, size))(image=cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB))
    if channels == 1:
        return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]
    return image[..., np.arange(channels) % 3]


class ModelFile:
    """A model file in its runtime, as `yolo predict` runs it, with the pixels of one picture, `(H, W, C)`.

    Args:
        file (str): A `.pt` or an exported file.
        pixels (np.ndarray): The picture.
        device (torch.device): Where to run.
        half (bool): Infer in float16, for PyTorch and TorchScript; the files of other formats say themselves.
        batch (int): Pictures at once, all the same.
    """

    def __init__(self, file: str, pixels: np.ndarray, device: torch.device, half: bool = False, batch: int = 1):
        self.backend = AutoBackend(str(file), device=device, fp16=half, verbose=False)
        x = torch.from_numpy(pixels).to(device).permute(2, 0, 1)[None].contiguous().float() / 255
        x = x.repeat(batch, 1, 1, 1)
        self.x = x.half() if self.backend.fp16 else x

    def __call__(self) -> torch.Tensor:
        """Return the first raw output."""
        with torch.inference_mode():
            output = self.backend(self.x)
        while isinstance(output, (list, tuple)):
            output = output[0]
        return torch.as_tensor(output).float()
