"""What the rows of a backbone have in common: pixel statistics, and what of them came from a checkpoint."""

from collections.abc import Sequence

import torch
from torch import nn

from yolo_effnet.checks import is_number
from yolo_effnet.nn import gate

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def _per_channel(statistic: float | Sequence[float], channels: int, name: str, owner: str) -> torch.Tensor:
    """Spread pixel statistics of RGB, or one number, over `channels` as a `(1, channels, 1, 1)` tensor."""
    values = [statistic] if is_number(statistic) else list(statistic) if isinstance(statistic, Sequence) else []
    if not values or not all(map(is_number, values)) or (name == "std" and min(values) <= 0):
        accepted = "a number or one number per channel" + (", above 0" if name == "std" else "")
        raise ValueError(f"{owner}: {name} must be {accepted}, got {statistic!r}")
    if max(map(abs, values)) > 1:
        raise ValueError(f"{owner}: {name} must be in units of [0, 1] pixels, divided by 255, got {statistic!r}")
    if len(values) not in (1, 3, channels):
        raise ValueError(f"{owner}: {name} must have 1, 3 or {channels} values, got {statistic!r}")
    if channels != len(values):
        values = [sum(values) / len(values)] * channels  # as timm does
    return torch.tensor(values).view(1, channels, 1, 1)


class BackboneRow(nn.Module):
    """Mixin of the rows of a backbone, which count what state dicts bring them (see `origin.py`).

    Attributes:
        random (int | None): How many tensors the state dicts that were loaded left at their random initial values;
            None as long as none was loaded.
        frozen (bool): Whether the row computes without gradients, for as long as a training says so.
        origin (tuple[str, str]): Of the first row: where the weights of backbone and rest of the model come from, as
            `origin.py` has it.
    """

    random: int | None = None
    frozen: bool = False
    origin: tuple[str, ...]

    def __call__(self, *args, **kwargs):
        """Call the row, without gradients where it is frozen."""
        if not self.frozen:
            return super().__call__(*args, **kwargs)
        with torch.no_grad():
            return super().__call__(*args, **kwargs)

    def __getstate__(self) -> dict:
        """Return what a copy or a checkpoint holds: a later training decides anew what is frozen."""
        return {name: value for name, value in self.__dict__.items() if name != "frozen"}

    def transferable(self) -> dict[str, torch.Tensor]:
        """Return the tensors that a checkpoint can bring, by their names in this row.

        Without pixel statistics, and without a convolution of the image, whose channels may be others.
        """
        image = image_convolution(self)[0] if isinstance(self, PixelNormalization) else None
        return {
            name: tensor
            for name, tensor in self.state_dict().items()
            if name.rpartition(".")[2] not in ("num_batches_tracked", "mean", "std") and name != image
        }

    def _load_from_state_dict(self, state_dict, prefix, *args):
        super()._load_from_state_dict(state_dict, prefix, *args)
        left = [
            k for k, v in self.transferable().items() if getattr(state_dict.get(prefix + k), "shape", None) != v.shape
        ]
        self.random = len(left) if self.random is None else min(self.random, len(left))


class PixelNormalization(BackboneRow):
    """Mixin of a backbone's first layer: pixel statistics that its weights expect.

    Ultralytics only divides pixels by 255, but the ImageNet weights expect normalised ones. The statistics are
    buffers, so they travel in every checkpoint.

    Attributes:
        mean (torch.Tensor): Pixel mean, `(1, c1, 1, 1)`, in units of [0, 1] pixels.
        std (torch.Tensor): Pixel standard deviation, `(1, c1, 1, 1)`, likewise.
        follows_weights (bool): Whether weights that are loaded set the padding, which nobody has chosen.
    """

    mean: torch.Tensor
    std: torch.Tensor
    follows_weights: bool

    def _register_statistics(self, c1: int, mean: float | Sequence[float], std: float | Sequence[float]) -> None:
        self.register_buffer("mean", torch.empty(1, c1, 1, 1))
        self.register_buffer("std", torch.empty(1, c1, 1, 1))
        self.set_statistics(mean, std)
        self.follows_weights = False
        self.origin = ("random", "random")

    def set_statistics(self, mean: float | Sequence[float], std: float | Sequence[float]) -> None:
        """Normalise pixels with `mean` and `std` from now on: a number, or one number per channel."""
        channels, owner = self.mean.shape[1], type(self).__name__
        self.mean.copy_(_per_channel(mean, channels, "mean", owner))
        self.std.copy_(_per_channel(std, channels, "std", owner))

    def normalize(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise pixels, `(B, c1, H, W)`."""
        if gate.is_allowed(x):
            # PyTorch's CPU depthwise convolutions are several times faster in this layout, and it flows on from here.
            x = x.contiguous(memory_format=torch.channels_last)
            return torch.addcmul(-self.mean / self.std, x, 1 / self.std)  # one pass, not two
        return (x - self.mean) / self.std


def backbone_rows(model: nn.Module) -> list[BackboneRow]:
    """Return the rows of the backbone in a model of any kind; none in one without a backbone of ours."""
    rows = [m for m in model.modules() if isinstance(m, BackboneRow)] if isinstance(model, nn.Module) else []
    return rows if rows and isinstance(rows[0], PixelNormalization) else []


def image_convolution(row: PixelNormalization) -> tuple[str, torch.Tensor]:
    """Return name and weights of the convolution of the image in the first row of a backbone."""
    channels = row.mean.shape[1]
    return next((name, p) for name, p in row.named_parameters() if p.ndim == 4 and p.shape[1] == channels)
