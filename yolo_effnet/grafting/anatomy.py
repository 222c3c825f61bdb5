"""Where the backbone of a detector ends and its neck begins."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from ultralytics.nn.modules import SPPF

_SIDE = 256  # of the image that is sent through, in pixels: a multiple of every stride


@dataclass(frozen=True)
class Anatomy:
    """What the rows of a detector are.

    Attributes:
        start (int): Index of the first row of the neck; the rows above are the backbone.
        channels (tuple[int | None, ...]): Output channels of every row, None where it gives no map, and those
            of the last map where it gives several.
        levels (tuple[int | None, ...]): Level of the pyramid of every row, 3 for P3/8, likewise.
        taps (dict[int, int]): Row of the backbone whose map the neck takes at each level.
    """

    start: int
    channels: tuple[int | None, ...]
    levels: tuple[int | None, ...]
    taps: dict[int, int]

    def tap(self, level: int) -> int | None:
        """Return the row that gives the backbone's map of a level, also one that its own neck does not take."""
        last = max((i for i in range(self.start) if self.levels[i] == level), default=None)
        return self.taps.get(level, last)


def sources(layer: nn.Module) -> list[int]:
    """Return the rows that a row of a built model takes, by index; -1 is the image."""
    rows = [layer.f] if isinstance(layer.f, int) else layer.f
    return [f if f >= 0 else layer.i + f for f in rows]


@contextmanager
def watched(modules: dict[Any, nn.Module]) -> Iterator[dict[Any, tuple]]:
    """Yield what the last calls of modules in the `with` block took and gave, by the keys of the modules."""
    seen: dict[Any, tuple] = {}

    def note(key):
        return lambda _module, args, output: seen.update({key: (args[0], output)})

    hooks = [module.register_forward_hook(note(key)) for key, module in modules.items()]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def _output_shapes(model: nn.Module) -> list[tuple[int, int] | None]:
    """Return channels and height of what every row gives for an image of `_SIDE` pixels."""
    model = copy.deepcopy(model).eval()  # whose head keeps sizes
    image = torch.zeros(1, model.yaml.get("channels", 3), _SIDE, _SIDE, device=next(model.parameters()).device)
    with watched(dict(enumerate(model.model))) as seen:
        model(image)
    outputs = [next(reversed(y.values())) if isinstance(y, dict) else y for _, y in seen.values()]
    return [y.shape[1:3] if isinstance(y, torch.Tensor) and y.ndim == 4 else None for y in outputs]


def anatomy(model: nn.Module, what: str) -> Anatomy:
    """Return what the rows of a `DetectionModel` in float32 are; an error calls it `what`.

    Raises:
        ValueError: If it has no SPPF row, or no map at stride 32 above it.
    """
    layers = list(model.model)
    shapes = _output_shapes(model)
    pooling = next((i for i, layer in enumerate(layers) if isinstance(layer, SPPF)), None)
    if pooling is None:
        raise ValueError(f"{what} has no SPPF row, so that nothing tells where its backbone ends")
    levels = tuple(None if s is None else (_SIDE // s[1]).bit_length() - 1 for s in shapes)
    top = max((i for i in range(pooling) if levels[i] == 5), default=None)
    if top is None:
        raise ValueError(f"{what} has no row at stride 32 above its SPPF row {pooling}")
    taken = sorted({f for layer in layers[top + 1 :] for f in sources(layer) if 0 <= f <= top})
    taps = {5: top} | {levels[f]: f for f in taken}  # of several rows at a level the last, as of two stages
    return Anatomy(top + 1, tuple(s and s[0] for s in shapes), levels, taps)
