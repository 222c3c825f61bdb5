"""What the blocks are made of: convolutions and the residual's sum."""

import warnings

import torch
import torch.nn.functional as F
from torch import nn
from ultralytics.nn.modules import Conv

from yolo_effnet.nn import gate, kernels
from yolo_effnet.nn.registry import picklable


def _is_odd(size) -> int:
    """Return 1 for an odd height or width, else 0; a symbolic size of an exported graph counts as even."""
    if isinstance(size, torch.SymInt) and gate.is_exporting():
        return 0  # Ultralytics only exports multiples of the stride, 32
    if not torch.jit.is_tracing():
        return size % 2
    with warnings.catch_warnings():  # a traced size is a tensor, and reading it warns
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        return int(size) % 2


def shrink(conv: nn.Conv2d) -> None:
    """Shrink the random weights of a convolution that would learn too slowly from scratch.

    BatchNorm makes their scale irrelevant to what they compute, but Adam moves every weight by its learning rate
    whatever its size: few inputs give expansion and depthwise convolutions large initial weights, which then hardly
    turn. A third of them is the scale of the dense 3x3 convolutions that Ultralytics' recipes are made for.
    """
    with torch.no_grad():
        conv.weight /= 3
    conv.is_shrunk = True


def _is_fast(layer: "ConvNormAct", x: torch.Tensor) -> bool:
    """Return whether a layer may compute `x` in a leaner way: nobody watches, or has replaced, what is inside it."""
    return gate.is_allowed(x) and all(map(gate.is_untouched, layer._modules.values()))


def _is_plain(conv: nn.Module) -> bool:
    """Return whether a module convolves as `nn.Conv2d` does; `torch.export` has subclasses of it in its place."""
    return getattr(type(conv), "forward", None) is nn.Conv2d.forward and "forward" not in vars(conv)


@gate.known
@picklable
class ConvNormAct(Conv):
    """Ultralytics' `Conv`, with less memory for its activation."""

    def convolve(self, x: torch.Tensor, fast: bool = False) -> torch.Tensor:
        """Convolve `(B, c1, H, W) -> (B, c2, ceil(H/s), ceil(W/s))`; `fast` may leave out the call of `conv`."""
        return kernels.convolve(self.conv, x) if fast else self.conv(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply convolution, BatchNorm and activation."""
        fast = _is_fast(self, x)
        x = self.convolve(x, fast)
        return kernels.norm_act(self.bn, self.act, x) if fast else self.act(self.bn(x))

    def forward_fuse(self, x: torch.Tensor) -> torch.Tensor:
        """Apply convolution and activation, once `fuse()` has folded the BatchNorm."""
        fast = _is_fast(self, x)
        x = self.convolve(x, fast)
        return kernels.activate(self.act, x) if fast else self.act(x)


@gate.known
@picklable
class StridedConv(ConvNormAct):
    """Convolution of stride 2 whose zero padding is TensorFlow's SAME or PyTorch's symmetric one.

    SAME pads an even size with one pixel less at the top and left than symmetric padding does; weights that were
    trained with one are only exact with the same. For odd sizes both are alike.

    Attributes:
        padding (str): `same` or `symmetric`.
        kernel (int): Kernel size, also where something else stands for the convolution.
    """

    def __init__(self, c1: int, c2: int, k: int, g: int = 1, padding: str = "same"):
        """Initialize the convolution of an odd kernel `k` >= 3, BatchNorm and Ultralytics' default activation.

        A kernel of 1 has no padding to choose; `g` are the groups.
        """
        super().__init__(c1, c2, k, 2, g=g)
        self.kernel = k
        self.set_padding(padding)

    def set_padding(self, padding: str) -> None:
        """Switch to `same` or `symmetric` padding; the weights stay.

        Raises:
            ValueError: If something that has no padding stands for the convolution.
        """
        if not hasattr(self.conv, "padding"):
            raise ValueError(f"{type(self.conv).__name__} stands for a convolution, set padding before it does")
        self.padding = padding
        size = self.kernel // 2
        if padding == "same" and size:
            size += 1  # see convolve
        self.conv.padding = (size, size)

    def convolve(self, x: torch.Tensor, fast: bool = False) -> torch.Tensor:
        """Convolve `(B, c1, H, W) -> (B, c2, ceil(H/2), ceil(W/2))` with the chosen padding; as in `ConvNormAct`."""
        size = self.kernel // 2
        if self.padding == "symmetric" or not size:
            return self.conv(x)
        odd_h, odd_w = _is_odd(x.shape[-2]), _is_odd(x.shape[-1])
        # An explicit Pad is what simplifiers and runtimes fold into the Conv, and of few channels it costs little.
        recorded = gate.is_exporting() and _is_plain(self.conv)
        padded = recorded or (fast and self.conv.in_channels < self.conv.out_channels)
        if padded and (self.conv.stride, self.conv.dilation) == ((2, 2), (1, 1)):  # as built
            x = F.pad(x, (size - 1 + odd_w, size, size - 1 + odd_h, size))
            return F.conv2d(x, self.conv.weight, self.conv.bias, 2, 0, 1, self.conv.groups)
        if odd_h or odd_w:
            x = F.pad(x, (odd_w, 0, odd_h, 0))
        # One more pixel on every side, and the first output row and column dropped: SAME padding without a copy.
        x = self.conv(x)[..., 1:, 1:]
        if hasattr(self, "bn"):  # which is far slower on a view, and so is its backward, than the copy is
            is_last = x.stride(1) == 1 and x.shape[1] > 1
            x = x.contiguous(memory_format=torch.channels_last if is_last else torch.contiguous_format)
        return x


@gate.known
@picklable
class DropPath(nn.Module):
    """Sum of a residual block, whose branch is left out for random images in training.

    Attributes:
        p (float): Probability in [0, 1) to leave the branch out; what stays is divided by `1 - p`.

    References:
        Deep Networks with Stochastic Depth, https://arxiv.org/abs/1603.09382.
    """

    def __init__(self, p: float = 0.0):
        """Initialize with probability `p`."""
        super().__init__()
        self.p = p

    def forward(self, x: torch.Tensor, branch: torch.Tensor) -> torch.Tensor:
        """Add `branch` to `x`, both `(B, C, H, W)`."""
        if not (self.training and self.p):
            return x + branch
        keep = x.new_empty((len(x), 1, 1, 1)).bernoulli_(1 - self.p).div_(1 - self.p)
        return torch.addcmul(x, branch, keep)


class FeatureMaps(dict):
    """Feature maps by index, as a layer's output; to a function of torch they are the last of them.

    So `embed=[0]` of Ultralytics' predictor, which averages the output of a layer, gives that of the top map.
    """

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        """Call `function` with the last map in place of the maps."""
        args = (next(reversed(value.values())) if isinstance(value, cls) else value for value in args)
        return function(*args, **(kwargs or {}))

    @classmethod
    def of(cls, maps: dict[int, torch.Tensor]) -> dict[int, torch.Tensor]:
        """Return maps in this form, or as they are where a compiler knows a plain dict only."""
        return maps if gate.is_compiling() else cls(maps)
