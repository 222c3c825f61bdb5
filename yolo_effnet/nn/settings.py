"""What is set for a whole model once it is built: momentum of BatchNorm, activation, padding, stochastic depth."""

from torch import nn
from ultralytics.nn.modules import Conv

from yolo_effnet.checks import check_values
from yolo_effnet.nn.backbone import PixelNormalization
from yolo_effnet.nn.blocks import FusedMBConv, MBConv
from yolo_effnet.nn.layers import ConvNormAct, StridedConv, shrink


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


def draw_again(model: nn.Module) -> None:
    """Draw the small random weights of `model` again, where something has reset its layers to PyTorch's own."""
    for m in model.modules():
        if getattr(m, "is_shrunk", False):
            m.reset_parameters()
            shrink(m)


def set_activation(model: nn.Module, activation: nn.Module, *, backbone: bool = True) -> None:
    """Give the convolutions of the backbone in `model`, or of neck and head, an activation where they have one."""
    for m in model.modules():
        if isinstance(m, Conv) and isinstance(m, ConvNormAct) is backbone and not isinstance(m.act, nn.Identity):
            m.act = activation


def set_padding(model: nn.Module, padding: str | None) -> int:
    """Switch every strided convolution of the backbone in `model` to `same` or `symmetric` padding; return how many.

    None stands for the padding of the weights, `same` until some are loaded.
    """
    check_values("model", padding=padding or "same")
    strided = [m for m in model.modules() if isinstance(m, StridedConv)]
    for m in strided:
        m.set_padding(padding or "same")
        if isinstance(m, PixelNormalization):
            m.follows_weights = padding is None
    return len(strided)


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
