"""Any backbone of timm with feature maps at strides 8, 16 and 32 as one row of a model YAML."""

import torch
from torch import nn

from yolo_effnet.checks import check_values
from yolo_effnet.nn.backbone import IMAGENET_MEAN, IMAGENET_STD, PixelNormalization
from yolo_effnet.nn.layers import ConvNormAct, FeatureMaps, StridedConv, shrink
from yolo_effnet.nn.registry import ONCE, block, picklable
from yolo_effnet.nn.timm_models import (
    batchnorms_after_convolutions,
    create,
    feature_maps,
    padding_of,
    to_nchw,
    wide_maps,
)

_INVERTED = ("InvertedResidual", "DepthwiseSeparableConv", "UniversalInvertedResidual")  # MBConv and its like


def _joined(conv: nn.Conv2d, bn: nn.BatchNorm2d) -> ConvNormAct | None:
    """Return convolution, BatchNorm and its activation as our own layer, or None where it cannot do the same."""
    kernel, stride = conv.kernel_size, conv.stride
    if not isinstance(bn, nn.BatchNorm2d):
        return None
    if type(conv) is nn.Conv2d:
        joined = ConvNormAct(1, 1)
        joined.conv = conv
    elif type(conv).__name__ == "Conv2dSame" and conv.bias is None:
        if stride != (2, 2) or conv.dilation != (1, 1) or kernel[0] != kernel[1] or kernel[0] % 2 == 0:
            return None
        joined = StridedConv(conv.in_channels, conv.out_channels, kernel[0], conv.groups)
        joined.conv.weight = conv.weight
    else:
        return None
    plain = nn.BatchNorm2d(bn.num_features, bn.eps, bn.momentum)
    plain.weight, plain.bias = bn.weight, bn.bias
    for name, value in bn.named_buffers(recurse=False):
        setattr(plain, name, value)
    act, drop = getattr(bn, "act", nn.Identity()), getattr(bn, "drop", nn.Identity())
    joined.bn, joined.act = plain, act if isinstance(drop, nn.Identity) else nn.Sequential(drop, act)
    return joined


@picklable
class InputHook:
    """A hook that keeps what a layer takes, until it is asked for."""

    def __init__(self):
        self.seen: torch.Tensor | None = None

    def __call__(self, _layer, args: tuple) -> None:
        """Keep the input of a layer."""
        self.seen = args[0]

    def take(self) -> torch.Tensor:
        """Return what the layer took last, and keep it no longer."""
        seen, self.seen = self.seen, None
        return seen


@block(repeats=ONCE)
class TimmBackbone(PixelNormalization, nn.Module):
    """A backbone of timm; `Index` rows after it take its feature maps.

    Where a BatchNorm follows a convolution, both become one of our layers, so that `fuse()` folds it and training and
    inference run as lean as in the other backbones. Padding is timm's own, that of its name.

    Attributes:
        name (str): Timm's name of the model.
        maps (tuple[FeatureMap, ...]): What its feature maps are.
        padding (str): `same` for weights that come from TensorFlow, else `symmetric`.
        body (torch.nn.Module): Timm's module.
        norms (dict[str, str]): Timm's name of each BatchNorm that was joined to a convolution, by the latter's name.
        inside (tuple[InputHook, ...]): Hooks that keep the wide maps, which are the first of `maps`.

    References:
        PyTorch Image Models, https://github.com/huggingface/pytorch-image-models, `features_only`.
    """

    inside: tuple[InputHook, ...] = ()  # of checkpoints from before there were wide maps

    def __init__(self, c1: int, c2: int, name: str, drop_path: float = 0.0, tap: bool = False):
        """Initialize the backbone with random weights; it maps images as `forward` tells.

        Args:
            c1 (int): Channels of the image.
            c2 (int): Of no effect; a model YAML's parser gives every row one.
            name (str): A model of timm that gives feature maps at strides 8, 16 and 32 of images of any size.
            drop_path (float): Rate of stochastic depth, of models that have it.
            tap (bool): Whether it also gives the wide maps that its last blocks project, where timm names them.

        Raises:
            ValueError: If timm has no such model, it gives no such maps, or a value is outside its range.
        """
        super().__init__()
        check_values("TimmBackbone", c1=c1, drop_path=drop_path, tap=tap)
        wide = wide_maps(name) if tap else ()
        if tap and not wide:
            raise ValueError(f"TimmBackbone: timm names no wide maps in the blocks of '{name}', which tap would give")
        outputs = feature_maps(name)
        self.name, self.maps = name, (*wide, *outputs)  # to a function of torch the maps are the last of them
        options = {"drop_path_rate": drop_path} if drop_path else {}
        try:
            self.body = create(name, c1, out_indices=[m.out_index for m in outputs], **options)
        except TypeError as error:
            raise ValueError(f"TimmBackbone: '{name}' takes no drop_path, got {drop_path} ({error})") from error
        self._register_statistics(c1, IMAGENET_MEAN, IMAGENET_STD)
        self.padding = padding_of(self.body)
        self.norms = {}
        # Their random weights are drawn as those of our own blocks, with which they learn faster from scratch; others,
        # of which GhostNet was tried, learn faster with timm's.
        inverted = any(type(m).__name__ in _INVERTED for m in self.body.modules())
        for conv_name, bn_name in batchnorms_after_convolutions(name):
            joined = _joined(self.body.get_submodule(conv_name), self.body.get_submodule(bn_name))
            if joined is None:
                continue
            self.norms[conv_name] = bn_name
            for place, module in ((conv_name, joined), (bn_name, nn.Identity())):
                parent, _, attribute = place.rpartition(".")
                setattr(self.body.get_submodule(parent), attribute, module)  # `set_submodule` is of torch 2.5
            if inverted:
                joined.conv.reset_parameters()
                if joined.conv.groups == joined.conv.in_channels or joined.conv.out_channels > joined.conv.in_channels:
                    shrink(joined.conv)
        self.inside = tuple(InputHook() for _ in wide)
        for known, hook in zip(wide, self.inside, strict=True):
            self.body.get_submodule(known.module).register_forward_pre_hook(hook)

    @staticmethod
    def parse_row(args: list) -> list:
        """Return what Ultralytics' parser gets for the arguments of a row: first channels, of which `Index` decides."""
        if not (args and isinstance(args[0], str)):
            raise ValueError(f"the first argument must be the name of a timm model, got {args}")
        return [feature_maps(args[0])[-1].channels, *args]

    def timm_names(self) -> dict[str, str]:
        """Return timm's name of each layer of `body` that has tensors, by its name in this module."""
        names = {}
        for name, module in self.body.named_modules():
            if not module._parameters and not module._buffers:
                continue
            theirs, (parent, _, role) = name, name.rpartition(".")
            if parent in self.norms and role in ("conv", "bn"):
                theirs = parent if role == "conv" else self.norms[parent]
            if hasattr(self.body, "model"):  # timm puts some of its models into a wrapper
                theirs = f"{theirs}.".removeprefix("model.").rstrip(".")
            names[f"body.{name}".rstrip(".")] = theirs
        return names

    def forward(self, x: torch.Tensor) -> dict[int, torch.Tensor]:
        """Return the map `(B, C, H/s, W/s)` of each index in `maps`, of `(B, c1, H, W)` images in [0, 1]."""
        outputs = to_nchw(self.body, self.body(self.normalize(x)))
        maps = [*(hook.take() for hook in self.inside), *outputs]
        return FeatureMaps.of({known.index: y for known, y in zip(self.maps, maps, strict=True)})
