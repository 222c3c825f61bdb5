"""MBConv and FusedMBConv, built from Ultralytics' `Conv`, so that `model.fuse()` folds every BatchNorm."""

import torch
from torch import nn

from yolo_effnet.checks import check_values
from yolo_effnet.nn import gate, strips
from yolo_effnet.nn.layers import ConvNormAct, DropPath, FeatureMaps, StridedConv, shrink
from yolo_effnet.nn.registry import STACKED, block


@gate.known
@block(repeats=STACKED)
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
        self.act = nn.SiLU()  # whatever the model's activation is: on one pixel, and what ImageNet weights know
        self.expand = nn.Conv2d(squeezed, c1, 1)

    def gate(self, x: torch.Tensor) -> torch.Tensor:
        """Return the weight of every channel of `x`: `(B, c1, H, W) -> (B, c1, 1, 1)`, in [0, 1]."""
        return self.expand(self.act(self.reduce(x.mean((2, 3), keepdim=True)))).sigmoid()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x`, `(B, c1, H, W)`, with every channel weighed."""
        return x * self.gate(x)


@block(repeats="EfficientNetStage")
class MBConv(nn.Module):
    """Mobile inverted bottleneck: expand, depthwise convolution, squeeze-and-excite, project, residual.

    Attributes:
        has_wide_map (bool): Whether its projection takes another map than the block does.
        tap (bool): Whether it gives two maps, as `FeatureMaps`: 0, what its projection takes, and 1, its output.

    References:
        MobileNetV2, https://arxiv.org/abs/1801.04381, section 3.4; with squeeze-and-excite as in
        MnasNet, https://arxiv.org/abs/1807.11626, Figure 7.
    """

    has_wide_map = True
    tap = False

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
        self.depthwise = _spatial_conv(expanded, expanded, k, s, groups=expanded)
        self.se = _squeeze_excite(c1, expanded, se_ratio)
        self.project = ConvNormAct(expanded, c2, 1, act=False)
        for layer in (self.expand, self.depthwise):
            if isinstance(layer, ConvNormAct):
                shrink(layer.conv)
        self.drop_path = _residual(c1, c2, s, drop_path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(B, c1, H, W) -> (B, c2, ceil(H/s), ceil(W/s))`, or to both maps of that size with `tap`."""
        if not self.tap and strips.are_possible(self.expand, self.depthwise, self.project, self, x):
            y = strips.compute(self.expand, self.depthwise, self.se, self.project, x)
            return y if self.drop_path is None else y.add_(x)
        inner = self.se(self.depthwise(self.expand(x)))
        y = self.project(inner)
        y = y if self.drop_path is None else self.drop_path(x, y)
        return FeatureMaps.of({0: inner, 1: y}) if self.tap else y


@block(repeats="FusedStage")
class FusedMBConv(nn.Module):
    """MBConv whose expansion and depthwise convolution are one dense convolution: faster where channels are few.

    Attributes:
        has_wide_map (bool): As in `MBConv`.
        tap (bool): As in `MBConv`.

    References:
        EfficientNetV2, https://arxiv.org/abs/2104.00298, section 3.2 and Figure 2.
    """

    tap = False

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
        dense = _spatial_conv(c1, c2 if single else expanded, k, s)
        self.expand = nn.Identity() if single else dense
        self.se = _squeeze_excite(c1, expanded, se_ratio)
        self.project = dense if single else ConvNormAct(expanded, c2, 1, act=False)
        self.drop_path = _residual(c1, c2, s, drop_path)

    @property
    def has_wide_map(self) -> bool:
        """Whether its projection takes another map than the block does."""
        return not isinstance(self.expand, nn.Identity)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(B, c1, H, W) -> (B, c2, ceil(H/s), ceil(W/s))`, or to both maps of that size with `tap`."""
        inner = self.se(self.expand(x))
        y = self.project(inner)
        y = y if self.drop_path is None else self.drop_path(x, y)
        return FeatureMaps.of({0: inner, 1: y}) if self.tap else y


def _spatial_conv(c1: int, c2: int, k: int, s: int, groups: int = 1) -> ConvNormAct:
    """Return the one convolution of a block that sees more than a pixel."""
    return StridedConv(c1, c2, k, g=groups) if s == 2 else ConvNormAct(c1, c2, k, g=groups)


def _squeeze_excite(c1: int, expanded: int, se_ratio: float) -> nn.Module:
    """Return the gate of `expanded` channels that is squeezed to `se_ratio` of the block's `c1`."""
    return SqueezeExcite(expanded, expanded, se_ratio * c1 / expanded) if se_ratio else nn.Identity()


def _residual(c1: int, c2: int, s: int, drop_path: float) -> DropPath | None:
    """Return the sum of a block with its input, where they have the same shape."""
    return DropPath(drop_path) if s == 1 and c1 == c2 else None
