"""EfficientNet blocks built from Ultralytics' `Conv`, so that `model.fuse()` folds every BatchNorm."""

import warnings
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn
from ultralytics.nn.modules import Classify, Conv

from yolo_effnet import fast
from yolo_effnet.checks import check_values, is_number

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def _is_odd(size) -> int:
    """Return 1 for an odd height or width, else 0; a symbolic size of an exported graph counts as even."""
    if isinstance(size, torch.SymInt) and fast.is_exporting():
        return 0  # Ultralytics only exports multiples of the stride, 32
    if not torch.jit.is_tracing():
        return size % 2
    with warnings.catch_warnings():  # a traced size is a tensor, and reading it warns
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        return int(size) % 2


def _memory_format(x: torch.Tensor) -> torch.memory_format:
    """Return the layout of a `(B, C, H, W)` tensor that may be a view into a larger one."""
    return torch.channels_last if x.stride(1) == 1 and x.shape[1] > 1 else torch.contiguous_format


class ConvNormAct(Conv):
    """Ultralytics' `Conv`, with less memory for its activation."""

    def convolve(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve `(B, c1, H, W) -> (B, c2, ceil(H/s), ceil(W/s))`."""
        return fast.convolve(self.conv, x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply convolution, BatchNorm and activation."""
        return fast.norm_act(self.bn, self.act, self.convolve(x))

    def forward_fuse(self, x: torch.Tensor) -> torch.Tensor:
        """Apply convolution and activation, once `fuse()` has folded the BatchNorm."""
        return fast.activate(self.act, self.convolve(x))


class StridedConv(ConvNormAct):
    """Convolution of stride 2 whose zero padding is TensorFlow's SAME or PyTorch's symmetric one.

    SAME pads an even size with one pixel less at the top and left than symmetric padding does; weights that were
    trained with one are only exact with the same. For odd sizes both are alike.
    """

    def __init__(self, c1: int, c2: int, k: int, g: int = 1, padding: str = "same"):
        """Initialize the convolution, its BatchNorm and Ultralytics' default activation.

        Args:
            c1 (int): Input channels.
            c2 (int): Output channels.
            k (int): Kernel size, odd and >= 3 (a kernel of 1 has no padding to choose).
            g (int): Groups.
            padding (str): `same` or `symmetric`.
        """
        super().__init__(c1, c2, k, 2, g=g)
        self.set_padding(padding)

    def set_padding(self, padding: str) -> None:
        """Switch to `same` or `symmetric` padding; the weights stay."""
        self.padding = padding
        size = self.conv.kernel_size[0] // 2
        if padding == "same" and size:
            size += 1  # see convolve
        self.conv.padding = (size, size)

    def convolve(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve `(B, c1, H, W) -> (B, c2, ceil(H/2), ceil(W/2))` with the chosen padding."""
        size = self.conv.kernel_size[0] // 2
        if self.padding == "symmetric" or not size:
            return self.conv(x)
        odd_h, odd_w = _is_odd(x.shape[-2]), _is_odd(x.shape[-1])
        # An explicit Pad is what simplifiers and runtimes fold into the Conv, and of few channels it costs little.
        few_channels = self.conv.in_channels < self.conv.out_channels
        if fast.is_plain(self.conv) and (few_channels or fast.is_exporting()):
            x = F.pad(x, (size - 1 + odd_w, size, size - 1 + odd_h, size))
            return F.conv2d(x, self.conv.weight, self.conv.bias, 2, 0, 1, self.conv.groups)
        if odd_h or odd_w:
            x = F.pad(x, (odd_w, 0, odd_h, 0))
        # One more pixel on every side, and the first output row and column dropped: SAME padding without a copy.
        return self.conv(x)[..., 1:, 1:]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply convolution, BatchNorm and activation."""
        x = self.convolve(x)
        # BatchNorm and its backward are far slower on a view than the copy is.
        return fast.norm_act(self.bn, self.act, x.contiguous(memory_format=_memory_format(x)))


def _per_channel(statistic: float | Sequence[float], channels: int, name: str) -> torch.Tensor:
    """Spread pixel statistics of RGB, or one number, over `channels` as a `(1, channels, 1, 1)` tensor."""
    values = [statistic] if is_number(statistic) else list(statistic) if isinstance(statistic, Sequence) else []
    if not values or not all(map(is_number, values)) or (name == "std" and min(values) <= 0):
        accepted = "a number or one number per channel" + (", above 0" if name == "std" else "")
        raise ValueError(f"EfficientNetStem: {name} must be {accepted}, got {statistic!r}")
    if channels != len(values):
        values = [sum(values) / len(values)] * channels  # as timm does
    return torch.tensor(values).view(1, channels, 1, 1)


class EfficientNetStem(StridedConv):
    """First layer of EfficientNet: pixel normalisation, then a strided 3x3 convolution.

    Ultralytics only divides pixels by 255, but the ImageNet weights expect normalised ones. The statistics are
    buffers, so they travel in every checkpoint.

    Attributes:
        mean (torch.Tensor): Pixel mean, `(1, c1, 1, 1)`, in units of [0, 1] pixels.
        std (torch.Tensor): Pixel standard deviation, `(1, c1, 1, 1)`, likewise.
        loaded (bool): Whether its weights came from a state dict, so that they are not the random initial ones.

    References:
        EfficientNet, https://arxiv.org/abs/1905.11946, Table 1, stage 1.
    """

    def __init__(
        self,
        c1: int,
        c2: int,
        k: int = 3,
        s: int = 2,
        mean: float | Sequence[float] = IMAGENET_MEAN,
        std: float | Sequence[float] = IMAGENET_STD,
    ):
        """Initialize the stem.

        Args:
            c1 (int): Channels of the image, any number >= 1.
            c2 (int): Output channels.
            k (int): Kernel size, odd.
            s (int): Stride, 2.
            mean (float | Sequence[float]): Pixel mean; 0 with `std` 1 leaves the pixels as they are. For another
                number of channels than that of the values, their average.
            std (float | Sequence[float]): Pixel standard deviation, likewise.

        Raises:
            ValueError: If a value is outside its range.
        """
        check_values("EfficientNetStem", c1=c1, c2=c2, k=k, s=s)
        if s != 2:
            raise ValueError(f"EfficientNetStem: s must be 2, got {s!r}")
        super().__init__(c1, c2, k)
        self.register_buffer("mean", _per_channel(mean, c1, "mean"))
        self.register_buffer("std", _per_channel(std, c1, "std"))
        self.loaded = False

    def set_statistics(self, mean: float | Sequence[float], std: float | Sequence[float]) -> None:
        """Normalise pixels with `mean` and `std` from now on; both as in the constructor."""
        self.mean.copy_(_per_channel(mean, self.mean.shape[1], "mean"))
        self.std.copy_(_per_channel(std, self.std.shape[1], "std"))

    def _load_from_state_dict(self, state_dict, prefix, *args):
        super()._load_from_state_dict(state_dict, prefix, *args)
        self.loaded = self.loaded or f"{prefix}conv.weight" in state_dict

    def convolve(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise pixels, then convolve: `(B, c1, H, W) -> (B, c2, ceil(H/2), ceil(W/2))`."""
        if x.device.type == "cpu" and not fast.is_exporting():
            # PyTorch's CPU depthwise convolutions are several times faster in this layout, and it flows on from here.
            x = x.contiguous(memory_format=torch.channels_last)
            return super().convolve(torch.addcmul(-self.mean / self.std, x, 1 / self.std))  # one pass, not two
        return super().convolve((x - self.mean) / self.std)


class SqueezeExcite(nn.Module):
    """Squeeze-and-excite: weigh every channel by a gate computed from the mean of all channels.

    References:
        Squeeze-and-Excitation Networks, https://arxiv.org/abs/1709.01507, section 3.
    """

    def __init__(self, c1: int, c2: int, se_ratio: float = 0.25):
        """Initialize the gate.

        Args:
            c1 (int): Input channels.
            c2 (int): Output channels, equal to `c1`.
            se_ratio (float): Channels of the squeezed vector relative to `c1`, in (0, 1].

        Raises:
            ValueError: If `c2` is not `c1`, or a value is outside its range.
        """
        super().__init__()
        check_values("SqueezeExcite", c1=c1, c2=c2, se_ratio=se_ratio)
        if c1 != c2 or not se_ratio:
            raise ValueError(
                f"SqueezeExcite: c2 must equal the input channels {c1} and se_ratio be above 0, "
                f"got c2={c2} and se_ratio={se_ratio}"
            )
        squeezed = max(1, round(c1 * se_ratio))
        self.reduce = nn.Conv2d(c1, squeezed, 1)
        self.act = Conv.default_act
        self.expand = nn.Conv2d(squeezed, c1, 1)

    def gate(self, x: torch.Tensor) -> torch.Tensor:
        """Return the weight of every channel of `x`: `(B, c1, H, W) -> (B, c1, 1, 1)`, in [0, 1]."""
        return self.expand(self.act(self.reduce(x.mean((2, 3), keepdim=True)))).sigmoid()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x`, `(B, c1, H, W)`, with every channel weighed."""
        return x * self.gate(x)


def _set_initial_scale(block: nn.Module) -> None:
    """Shrink the random weights of a block that would learn too slowly from scratch.

    BatchNorm makes their scale irrelevant to what they compute, but Adam moves every weight by its learning rate
    whatever its size: few inputs give expansion and depthwise convolutions large initial weights, which then hardly
    turn. A third of them is the scale of the dense 3x3 convolutions that Ultralytics' recipes are made for.
    """
    with torch.no_grad():
        for layer in (block.expand, block.depthwise):
            if isinstance(layer, ConvNormAct):
                layer.conv.weight /= 3


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


class MBConv(nn.Module):
    """Mobile inverted bottleneck: expand, depthwise convolution, squeeze-and-excite, project, residual.

    References:
        MobileNetV2, https://arxiv.org/abs/1801.04381, section 3.4; with squeeze-and-excite as in
        MnasNet, https://arxiv.org/abs/1807.11626, Figure 7.
    """

    def __init__(
        self,
        c1: int,
        c2: int,
        k: int = 3,
        s: int = 1,
        expand_ratio: float = 6,
        se_ratio: float = 0.25,
        drop_path: float = 0.0,
    ):
        """Initialize the block.

        Args:
            c1 (int): Input channels.
            c2 (int): Output channels.
            k (int): Kernel size of the depthwise convolution, odd.
            s (int): Stride of the depthwise convolution, 1 or 2.
            expand_ratio (float): Channels of the depthwise convolution relative to `c1`; 1 leaves out the expansion.
            se_ratio (float): Squeezed channels relative to `c1` (not to the expanded ones); 0 leaves out the gate.
            drop_path (float): Probability in [0, 1) to drop the block's branch per image in training; of effect only
                where the block has a residual, that is for stride 1 and equal channels.

        Raises:
            ValueError: If a value is outside its range.
        """
        super().__init__()
        check_values(
            "MBConv", c1=c1, c2=c2, k=k, s=s, expand_ratio=expand_ratio, se_ratio=se_ratio, drop_path=drop_path
        )
        expanded = round(c1 * expand_ratio)
        self.expand = ConvNormAct(c1, expanded, 1) if expanded != c1 else nn.Identity()
        depthwise = StridedConv if s == 2 else ConvNormAct
        self.depthwise = depthwise(expanded, expanded, k, g=expanded)
        self.se = SqueezeExcite(expanded, expanded, se_ratio * c1 / expanded) if se_ratio else nn.Identity()
        self.project = ConvNormAct(expanded, c2, 1, act=False)
        _set_initial_scale(self)
        self.drop_path = DropPath(drop_path) if s == 1 and c1 == c2 else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(B, c1, H, W) -> (B, c2, ceil(H/s), ceil(W/s))`."""
        if fast.runs_in_strips(self, x):
            return fast.mbconv(self, x)
        y = self.project(self.se(self.depthwise(self.expand(x))))
        return y if self.drop_path is None else self.drop_path(x, y)


class EfficientNetStage(nn.Sequential):
    """Chain of MBConv blocks; the first one strides and changes the channels, the others keep both.

    References:
        EfficientNet, https://arxiv.org/abs/1905.11946, Table 1.
    """

    def __init__(
        self, c1: int, c2: int, n: int = 1, k: int = 3, s: int = 1, expand_ratio: float = 6, se_ratio: float = 0.25
    ):
        """Initialize the stage, which maps `(B, c1, H, W) -> (B, c2, ceil(H/s), ceil(W/s))`.

        Args:
            c1 (int): Input channels.
            c2 (int): Output channels.
            n (int): Number of blocks, the `repeats` of a model YAML.
            k (int): Kernel size of the depthwise convolutions, odd.
            s (int): Stride of the first block, 1 or 2.
            expand_ratio (float): As in `MBConv`.
            se_ratio (float): As in `MBConv`.

        Raises:
            ValueError: If a value is outside its range.
        """
        check_values("EfficientNetStage", c1=c1, c2=c2, n=n, k=k, s=s, expand_ratio=expand_ratio, se_ratio=se_ratio)
        super().__init__(
            *(MBConv(c2 if i else c1, c2, k, 1 if i else s, expand_ratio, se_ratio) for i in range(n)),
        )


class Classifier(Classify):
    """Head of EfficientNet: 1x1 convolution, average over the image, dropout and a linear layer.

    A row of it lets Ultralytics know the model for one of classification.

    References:
        EfficientNet, https://arxiv.org/abs/1905.11946, Table 1, stage 9.
    """

    def __init__(self, c1: int, c2: int, nc: int, dropout: float = 0.0):
        """Initialize the head, which maps `(B, c1, H, W) -> (B, nc)` as Ultralytics' `Classify` does.

        Args:
            c1 (int): Input channels.
            c2 (int): Channels of the convolution.
            nc (int): Classes.
            dropout (float): Probability in [0, 1) to drop an averaged channel in training.

        Raises:
            ValueError: If a value is outside its range.
        """
        check_values("Classifier", c1=c1, c2=c2, nc=nc, dropout=dropout)
        super().__init__(c1, nc)
        self.conv = ConvNormAct(c1, c2, 1)
        self.drop.p = dropout
        self.linear = nn.Linear(c2, nc)


def set_bn_momentum(model: nn.Module, momentum: float = 0.1) -> None:
    """Set the momentum of every BatchNorm of the backbone in `model`, by default to PyTorch's and timm's own.

    With the 0.03 that Ultralytics gives its models, the statistics of B0's 49 layers lag so far behind the weights of
    a training from scratch that validation sees nothing for its first epochs.
    """
    for m in model.modules():
        if isinstance(m, ConvNormAct) and hasattr(m, "bn"):
            m.bn.momentum = momentum


def set_padding(model: nn.Module, padding: str) -> None:
    """Switch every strided convolution of the backbone in `model` to `same` or `symmetric` padding.

    Raises:
        ValueError: If `padding` is neither.
    """
    check_values("model", padding=padding)
    for m in model.modules():
        if isinstance(m, StridedConv):
            m.set_padding(padding)


def set_drop_path(model: nn.Module, drop_path: float) -> None:
    """Give the MBConv blocks of `model` drop-path rates that grow linearly from 0 towards `drop_path`.

    Block `i` of all `n` blocks, counted after depth scaling, gets `drop_path * i / n`, as in the authors' code.

    Raises:
        ValueError: If `drop_path` is not in [0, 1).
    """
    check_values("model", drop_path=drop_path)
    blocks = [m for m in model.modules() if isinstance(m, MBConv)]
    for i, block in enumerate(blocks):
        if block.drop_path is not None:
            block.drop_path.p = drop_path * i / len(blocks)


# What ULTRALYTICS_SAFE_LOAD=1 may unpickle from a checkpoint.
torch.serialization.add_safe_globals(
    [EfficientNetStem, EfficientNetStage, MBConv, SqueezeExcite, Classifier, ConvNormAct, StridedConv, DropPath]
)
