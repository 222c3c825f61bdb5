"""The rows of an EfficientNet from its first to its last: stem, stages and classifier."""

from collections.abc import Sequence

import torch
from torch import nn
from ultralytics.nn.modules import Classify

from yolo_effnet.checks import check_values
from yolo_effnet.nn.backbone import IMAGENET_MEAN, IMAGENET_STD, BackboneRow, PixelNormalization
from yolo_effnet.nn.blocks import FusedMBConv, MBConv
from yolo_effnet.nn.layers import ConvNormAct, StridedConv
from yolo_effnet.nn.registry import ARGUMENT, ONCE, block


@block(repeats=ONCE)
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

    def convolve(self, x: torch.Tensor, fast: bool = False) -> torch.Tensor:
        """Normalise pixels, then convolve: `(B, c1, H, W) -> (B, c2, ceil(H/2), ceil(W/2))`."""
        return super().convolve(self.normalize(x), fast)


@block(repeats=ARGUMENT)
class EfficientNetStage(BackboneRow, nn.Sequential):
    """Chain of MBConv blocks; the first one strides and changes the channels, the others keep both.

    References:
        EfficientNet, https://arxiv.org/abs/1905.11946, Table 1.
    """

    kind = MBConv

    def __init__(
        self,
        c1: int,
        c2: int,
        n: int = 1,
        k: int = 3,
        s: int = 1,
        expand_ratio: float = 6,
        se_ratio: float = 0.25,
        tap: bool = False,
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
            tap (bool): Whether it gives two maps, which `Index` rows take: 0, the wide one that its last block
                projects, and 1, its output.

        Raises:
            ValueError: If a value is outside its range, or the last block has no wide map.
        """
        owner = type(self).__name__
        check_values(owner, c1=c1, c2=c2, n=n, k=k, s=s, expand_ratio=expand_ratio, se_ratio=se_ratio, tap=tap)
        super().__init__(
            *(self.kind(c2 if i else c1, c2, k, 1 if i else s, expand_ratio, se_ratio) for i in range(n)),
        )
        if tap and not self[-1].has_wide_map:
            raise ValueError(f"{owner}: its blocks have no wide map to tap where expand_ratio is 1")
        if tap:
            self[-1].tap = True

    def forward(self, x: torch.Tensor | dict[int, torch.Tensor]) -> torch.Tensor | dict[int, torch.Tensor]:
        """Map `(B, c1, H, W)`, which may be the output among the maps of a tapped stage, as `__init__` says."""
        return super().forward(x[1] if isinstance(x, dict) else x)

    @property
    def tap_channels(self) -> tuple[int, int] | None:
        """Channels of the two maps of a tapped stage, None for one that gives its output only."""
        conv = self[-1].project.conv
        return (conv.in_channels, conv.out_channels) if self[-1].tap else None


@block(repeats=ARGUMENT)
class FusedStage(EfficientNetStage):
    """Chain of FusedMBConv blocks; the first one strides and changes the channels, the others keep both.

    References:
        EfficientNetV2, https://arxiv.org/abs/2104.00298, Table 4.
    """

    kind = FusedMBConv

    def __init__(
        self,
        c1: int,
        c2: int,
        n: int = 1,
        k: int = 3,
        s: int = 1,
        expand_ratio: float = 4,
        se_ratio: float = 0,
        tap: bool = False,
    ):
        """Initialize the stage; arguments and errors as in `EfficientNetStage`."""
        super().__init__(c1, c2, n, k, s, expand_ratio, se_ratio, tap)


@block(repeats=ONCE)
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
