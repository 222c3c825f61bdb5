"""EfficientNet blocks built from Ultralytics' `Conv`, so that `model.fuse()` folds every BatchNorm."""

from collections.abc import Sequence

import torch
from torch import nn
from ultralytics.nn.modules import Classify, Conv

from yolo_effnet import fast
from yolo_effnet.checks import check_values
from yolo_effnet.layers import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ConvNormAct,
    DropPath,
    PixelNormalization,
    StridedConv,
    shrink,
)


class EfficientNetStem(PixelNormalization, StridedConv):
    """First layer of EfficientNet: pixel normalisation, then a strided 3x3 convolution.

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
        self._register_statistics(c1, mean, std)

    def convolve(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise pixels, then convolve: `(B, c1, H, W) -> (B, c2, ceil(H/2), ceil(W/2))`."""
        return super().convolve(self.normalize(x))


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
        for layer in (self.expand, self.depthwise):
            if isinstance(layer, ConvNormAct):
                shrink(layer.conv)
        self.drop_path = DropPath(drop_path) if s == 1 and c1 == c2 else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(B, c1, H, W) -> (B, c2, ceil(H/s), ceil(W/s))`."""
        if fast.runs_in_strips(self, x):
            return fast.mbconv(self, x)
        y = self.project(self.se(self.depthwise(self.expand(x))))
        return y if self.drop_path is None else self.drop_path(x, y)


class FusedMBConv(nn.Module):
    """MBConv whose expansion and depthwise convolution are one dense convolution: faster where channels are few.

    References:
        EfficientNetV2, https://arxiv.org/abs/2104.00298, section 3.2 and Figure 2.
    """

    def __init__(
        self,
        c1: int,
        c2: int,
        k: int = 3,
        s: int = 1,
        expand_ratio: float = 4,
        se_ratio: float = 0,
        drop_path: float = 0.0,
    ):
        """Initialize the block.

        Args:
            c1 (int): Input channels.
            c2 (int): Output channels.
            k (int): Kernel size of the dense convolution, odd.
            s (int): Its stride, 1 or 2.
            expand_ratio (float): Its channels relative to `c1`; with 1 it is the only one and has an activation.
            se_ratio (float): Squeezed channels relative to `c1`; 0 leaves out the gate.
            drop_path (float): As in `MBConv`.

        Raises:
            ValueError: If a value is outside its range.
        """
        super().__init__()
        check_values(
            "FusedMBConv", c1=c1, c2=c2, k=k, s=s, expand_ratio=expand_ratio, se_ratio=se_ratio, drop_path=drop_path
        )
        expanded = round(c1 * expand_ratio)
        single = expanded == c1
        dense = _dense_conv(c1, c2 if single else expanded, k, s)
        self.expand = nn.Identity() if single else dense
        self.se = SqueezeExcite(expanded, expanded, se_ratio * c1 / expanded) if se_ratio else nn.Identity()
        self.project = dense if single else ConvNormAct(expanded, c2, 1, act=False)
        self.drop_path = DropPath(drop_path) if s == 1 and c1 == c2 else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(B, c1, H, W) -> (B, c2, ceil(H/s), ceil(W/s))`."""
        y = self.project(self.se(self.expand(x)))
        return y if self.drop_path is None else self.drop_path(x, y)


def _dense_conv(c1: int, c2: int, k: int, s: int) -> ConvNormAct:
    return StridedConv(c1, c2, k) if s == 2 else ConvNormAct(c1, c2, k)


class EfficientNetStage(nn.Sequential):
    """Chain of MBConv blocks; the first one strides and changes the channels, the others keep both.

    References:
        EfficientNet, https://arxiv.org/abs/1905.11946, Table 1.
    """

    block = MBConv

    def __init__(
        self, c1: int, c2: int, n: int = 1, k: int = 3, s: int = 1, expand_ratio: float = 6, se_ratio: float = 0.25
    ):
        """Initialize the stage, which maps `(B, c1, H, W) -> (B, c2, ceil(H/s), ceil(W/s))`.

        Args:
            c1 (int): Input channels.
            c2 (int): Output channels.
            n (int): Number of blocks, the `repeats` of a model YAML.
            k (int): Kernel size, odd.
            s (int): Stride of the first block, 1 or 2.
            expand_ratio (float): As in the block.
            se_ratio (float): As in the block.

        Raises:
            ValueError: If a value is outside its range.
        """
        owner = type(self).__name__
        check_values(owner, c1=c1, c2=c2, n=n, k=k, s=s, expand_ratio=expand_ratio, se_ratio=se_ratio)
        super().__init__(
            *(self.block(c2 if i else c1, c2, k, 1 if i else s, expand_ratio, se_ratio) for i in range(n)),
        )


class FusedStage(EfficientNetStage):
    """Chain of FusedMBConv blocks; the first one strides and changes the channels, the others keep both.

    References:
        EfficientNetV2, https://arxiv.org/abs/2104.00298, Table 4.
    """

    block = FusedMBConv

    def __init__(
        self, c1: int, c2: int, n: int = 1, k: int = 3, s: int = 1, expand_ratio: float = 4, se_ratio: float = 0
    ):
        """Initialize the stage; arguments and errors as in `EfficientNetStage`."""
        super().__init__(c1, c2, n, k, s, expand_ratio, se_ratio)


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
        if isinstance(m, ConvNormAct | PixelNormalization):
            for norm in m.modules():
                if isinstance(norm, nn.BatchNorm2d):
                    norm.momentum = momentum


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
    """Give the blocks of the stages in `model` drop-path rates that grow linearly from 0 towards `drop_path`.

    Block `i` of all `n` blocks, counted after depth scaling, gets `drop_path * i / n`, as in the authors' code.

    Raises:
        ValueError: If `drop_path` is not in [0, 1), or there is no block with one.
    """
    check_values("model", drop_path=drop_path)
    blocks = [m for m in model.modules() if isinstance(m, MBConv | FusedMBConv)]
    if drop_path and not blocks:
        raise ValueError(
            f"model: drop_path {drop_path!r} has no block to act on; TimmBackbone takes it as its second argument"
        )
    for i, block in enumerate(blocks):
        if block.drop_path is not None:
            block.drop_path.p = drop_path * i / len(blocks)


# What ULTRALYTICS_SAFE_LOAD=1 may unpickle from a checkpoint.
torch.serialization.add_safe_globals(
    [
        EfficientNetStem,
        EfficientNetStage,
        FusedStage,
        MBConv,
        FusedMBConv,
        SqueezeExcite,
        Classifier,
        ConvNormAct,
        StridedConv,
        DropPath,
    ]
)
