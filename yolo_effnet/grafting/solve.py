"""The seams in closed form: least squares from what the grafted network gives to what the donor's convolution gives."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from ultralytics.nn.modules import Conv
from ultralytics.utils import LOGGER, TQDM

from yolo_effnet.grafting.anatomy import watched
from yolo_effnet.grafting.donor import Donor
from yolo_effnet.grafting.pictures import Pictures
from yolo_effnet.grafting.seams import Seam, run
from yolo_effnet.host.memory import kept

# Ridge relative to the mean square of an input, of which the one that fits unseen pictures best is taken.
_RIDGES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-6, 1e-9, 1e-12)
RIDGE = 1e-3  # where there are too few pictures to tell
_ROUNDING = 1e-12  # variance relative to the mean square that float32 gives to what is constant, and more
_LEAST = 1e-9  # mean square of an input below which it is no signal: weights for less would leave float16


@dataclass
class Sums:
    """Sums over positions of pictures, all in float64, from which a linear map follows.

    Attributes:
        xx (torch.Tensor): Products of inputs with inputs, `(n, n)`; the last input is the constant 1.
        xy (torch.Tensor): Products of inputs with targets, `(n, m)`.
        yy (torch.Tensor): Squares of targets, `(m,)`.
    """

    xx: torch.Tensor
    xy: torch.Tensor
    yy: torch.Tensor

    @classmethod
    def of(cls, x: torch.Tensor, y: torch.Tensor) -> "Sums":
        """Return the sums of inputs `(k, n - 1)` and targets `(k, m)`."""
        x, y = (t.cpu() if t.device.type == "mps" else t for t in (x, y))  # which has no float64
        x, y = torch.cat([x, torch.ones_like(x[:, :1])], 1).double(), y.double()
        return cls(x.T @ x, x.T @ y, (y**2).sum(0))

    def __add__(self, other: "Sums") -> "Sums":
        """Return the sums over both."""
        return Sums(self.xx + other.xx, self.xy + other.xy, self.yy + other.yy)

    def solution(self, ridge: float, prior: torch.Tensor) -> torch.Tensor:
        """Return the weights `(n, m)` of least squares with a penalty on their distance from `prior`, `(n, m)`."""
        count = float(self.xx[-1, -1])
        least = max(ridge * float(self.xx.diagonal()[:-1].mean()), _LEAST * count)
        penalty = torch.full_like(self.yy[:1].expand(len(self.xx)), least)
        penalty[-1] = 1e-12 * count  # the constant is free
        left = self.xx + torch.diag(penalty)
        right = self.xy - self.xx @ prior  # of the difference from it, which keeps digits where there is none
        factor, failed = torch.linalg.cholesky_ex(left)
        if int(failed):
            return prior + torch.linalg.lstsq(left, right).solution
        return prior + torch.cholesky_solve(right, factor)

    def fit(self, weights: torch.Tensor) -> float:
        """Return R2 of weights `(n, m)`: the share of the targets' variance that they explain, 0 where none is."""
        variance = (self.yy - self.xy[-1] ** 2 / self.xx[-1, -1]).sum()
        return float(1 - self.residual(weights) / variance) if variance > _ROUNDING * self.yy.sum() else 0.0

    def residual(self, weights: torch.Tensor) -> float:
        """Return the sum of squares that weights `(n, m)` leave."""
        return float((self.yy - 2 * (weights * self.xy).sum(0) + (weights * (self.xx @ weights)).sum(0)).sum())

    def moments(self, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and variance of what weights `(n, m)` give without their constant, `(m,)` each."""
        count = self.xx[-1, -1]
        mean = weights[:-1].T @ self.xx[:-1, -1] / count
        square = (weights[:-1] * (self.xx[:-1, :-1] @ weights[:-1])).sum(0) / count
        return mean, (square - mean**2).clamp_min(0)


def fitted(halves: list[Sums], prior: torch.Tensor) -> tuple[torch.Tensor, Sums, float, float]:
    """Return weights `(n, m)`, the sums that they fit, their R2 and the ridge.

    With sums of two halves the ridge is that which fits each half best from the other, and R2 is of these fits.
    """
    if len(halves) == 1:
        weights = halves[0].solution(RIDGE, prior)
        return weights, halves[0], halves[0].fit(weights), RIDGE
    first, second = halves
    fit, ridge = max((second.fit(first.solution(r, prior)) + first.fit(second.solution(r, prior)), r) for r in _RIDGES)
    return (first + second).solution(ridge, prior), first + second, fit / 2, ridge


def places(x: torch.Tensor) -> torch.Tensor:
    """Return `(B, C, ..)` as what it has at each place: `(places, C)`."""
    return x.flatten(2).transpose(1, 2).reshape(-1, x.shape[1])


def columns(conv: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """Return what a convolution sees of `(B, C, H, W)` at each place: `(places, C * kernel area)`."""
    if conv.kernel_size != (1, 1) or conv.stride != (1, 1):
        x = F.unfold(x, conv.kernel_size, conv.dilation, conv.padding, conv.stride)
    return places(x)


def batches(pictures: Pictures, device, what: str) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield the pictures in batches, with a progress bar, and the half to which each batch belongs."""
    for i, x in enumerate(TQDM(pictures.batches(4), total=-(-len(pictures) // 4), desc=what)):
        yield i % 2, x.to(device)


def _collect(donor: Donor, model: nn.Module, seams: list[Seam], pictures: Pictures, device) -> list[list[Sums]]:
    """Return the sums of each seam of a row, over both halves of the pictures where there are two."""
    row, donor_row, halves = seams[0].row, donor.model.model[seams[0].donor_row], [[], []]
    ours = {seam.name: _convolution(model, seam).conv for seam in seams}
    theirs = {name: donor_row.get_submodule(name).conv for name in ours if name != "project"}
    with watched(ours) as here, watched({**theirs, None: donor_row}) as there:
        for number, x in batches(pictures, device, f"row {row}"):
            run(model, x, row)
            run(donor.model, x, donor_row.i)
            for k, (name, conv) in enumerate(ours.items()):
                y = _added(donor_row, there[None][0]) if name == "project" else there[name][1]
                sums = Sums.of(columns(conv, here[name][0]), places(y))
                half = halves[number]
                half[k : k + 1] = [half[k] + sums] if k < len(half) else [sums]
    return [list(both) for both in zip(*filter(None, halves), strict=True)]


def _added(pooling: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return what an SPPF row adds to its output: its input `x`, or that projected."""
    project = getattr(pooling, "project", None)
    return x if project is None else project(x)


def _convolution(model: nn.Module, seam: Seam) -> Conv:
    return model.model[seam.row].get_submodule(seam.name)


def _prior(seam: Seam, conv: nn.Conv2d, twin: nn.Conv2d | None) -> torch.Tensor:
    """Return the weights that the solution is drawn to: the donor's where its own rows come in, else zero."""
    weight = torch.zeros_like(conv.weight)
    if twin is not None:
        for here, there in seam.kept:
            weight[:, here] = twin.weight[:, there]
    weight = weight.reshape(len(weight), -1).T.double()
    weight = weight.cpu() if weight.device.type == "mps" else weight
    return torch.cat([weight, torch.zeros_like(weight[:1])])


def install(layer: Conv, norm: nn.BatchNorm2d | None, weights: torch.Tensor, sums: Sums) -> None:
    """Put weights `(n, m)` into a `Conv`, with the statistics of BatchNorm that they have, so that training finds them.

    The constant is the last of the weights, the sums are of all pictures, and `norm` follows the donor's convolution.
    """
    bn, (mean, variance) = layer.bn, sums.moments(weights)
    like = weights.new_tensor
    if norm is None:
        scale, offset = torch.ones_like(mean), weights[-1]
    else:
        gamma, beta, old, spread = (
            like(t.tolist()) for t in (norm.weight, norm.bias, norm.running_mean, norm.running_var)
        )
        scale = gamma / (spread + norm.eps).sqrt()
        offset = beta + scale * (weights[-1] - old)
    layer.conv.weight.copy_(weights[:-1].T.reshape(layer.conv.weight.shape))
    bn.running_mean.copy_(mean)
    bn.running_var.copy_(variance)
    bn.weight.copy_(scale * (variance + bn.eps).sqrt())
    bn.bias.copy_(offset + scale * mean)


@torch.no_grad()
def solve(donor: Donor, model: nn.Module, seams: list[list[Seam]], pictures: Pictures, device) -> dict[str, float]:
    """Solve for the seams of a grafted model, from the top of the pyramid down, and write them into it.

    The model is in eval mode, and on `device` as its donor is; the seams are those of `find_seams`.

    Returns:
        (dict[str, float]): R2 of each seam on pictures that its weights were not solved on; on all pictures where
            there are four or fewer.
    """
    fits = {}
    with kept(device):
        for row in seams:
            for seam, halves in zip(row, _collect(donor, model, row, pictures, device), strict=True):
                layer = _convolution(model, seam)
                twin = None if seam.name == "project" else donor.model.model[seam.donor_row].get_submodule(seam.name)
                weights, total, fit, ridge = fitted(halves, _prior(seam, layer.conv, twin and twin.conv))
                install(layer, twin and twin.bn, weights, total)
                name = f"{seam.row}.{seam.name}".rstrip(".")
                fits[name] = round(fit, 4)
                LOGGER.info(f"{name}: R2 {fit:.3f} at ridge {ridge:g}")
    return fits
