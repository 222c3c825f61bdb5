"""Rows of a neck: a light one of separable convolutions, and the pooling of a neck that another backbone had."""

import torch
from torch import nn
from ultralytics.nn.modules import SPPF, C2f, Conv, DWConv

from yolo_effnet.checks import check_values
from yolo_effnet.nn.layers import shrink
from yolo_effnet.nn.registry import ARGUMENT, ONCE, block


@block(repeats=ONCE)
class SeparableConv(nn.Module):
    """Depthwise convolution, then a 1x1 convolution, each with BatchNorm and activation.

    References:
        MobileNets, https://arxiv.org/abs/1704.04861, section 3.1.
    """

    def __init__(self, c1: int, c2: int, k: int = 3, s: int = 1):
        """Initialize the layer, which maps `(B, c1, H, W) -> (B, c2, ceil(H/s), ceil(W/s))`.

        Args:
            c1 (int): Input channels.
            c2 (int): Output channels.
            k (int): Kernel size of the depthwise convolution, odd.
            s (int): Its stride, 1 or 2.

        Raises:
            ValueError: If a value is outside its range.
        """
        super().__init__()
        check_values("SeparableConv", c1=c1, c2=c2, k=k, s=s)
        self.depthwise = DWConv(c1, c1, k, s)
        self.pointwise = Conv(c1, c2)
        shrink(self.depthwise.conv)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply both convolutions."""
        return self.pointwise(self.depthwise(x))


@block(repeats=ARGUMENT)
class C2fSeparable(C2f):
    """Ultralytics' `C2f` with separable convolutions in its bottlenecks, a fifth of the operations and less."""

    def __init__(self, c1: int, c2: int, n: int = 1, shortcut: bool = False, g: int = 1, e: float = 0.5):
        """Initialize the block; arguments and shapes as in `C2f`, but without groups.

        Raises:
            ValueError: If a value is outside its range.
        """
        check_values("C2fSeparable", c1=c1, c2=c2, n=n, g=g)
        super().__init__(c1, c2, n, shortcut, g, e)
        for bottleneck in self.m:
            bottleneck.cv1, bottleneck.cv2 = SeparableConv(self.c, self.c), SeparableConv(self.c, self.c)


@block(repeats=ONCE)
class FittedSPPF(SPPF):
    """Ultralytics' `SPPF` whose inner width is an argument, so that the one of another backbone's neck fits here.

    Attributes:
        project (Conv | None): What is added to the output in place of the input, which has other channels.

    References:
        Ultralytics' `SPPF`, whose inner width is half of its input channels, and which adds its input in YOLO26.
    """

    def __init__(self, c1: int, c2: int, hidden: int, k: int = 5, n: int = 3, shortcut: bool = False, act: bool = True):
        """Initialize the layer, which maps `(B, c1, H, W) -> (B, c2, H, W)`.

        Args:
            c1 (int): Input channels.
            c2 (int): Output channels.
            hidden (int): Channels that are pooled.
            k (int): Kernel size of the pooling, odd.
            n (int): Number of poolings.
            shortcut (bool): Whether to add the input, projected to `c2` channels.
            act (bool): Whether the first convolution has an activation, as in YOLOv8 and unlike YOLO26.

        Raises:
            ValueError: If a value is outside its range.
        """
        check_values("FittedSPPF", c1=c1, c2=c2, hidden=hidden, k=k, n=n)
        super().__init__(c1, c2, k)
        self.cv1 = Conv(c1, hidden, 1, act=act)
        self.cv2 = Conv(hidden * (n + 1), c2, 1)
        self.n, self.add = n, False
        self.project = Conv(c1, c2, 1, act=False) if shortcut else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pool `n` times and join what comes out of each."""
        y = [self.cv1(x)]
        for _ in range(self.n):
            y.append(self.m(y[-1]))
        joined = self.cv2(torch.cat(y, 1))
        return joined if self.project is None else joined + self.project(x)
