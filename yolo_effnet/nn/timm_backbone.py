"""Any backbone of timm with feature maps at strides 8, 16 and 32 as one row of a model YAML."""

import difflib
import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import nn

from yolo_effnet.checks import check_values
from yolo_effnet.nn.layers import IMAGENET_MEAN, IMAGENET_STD, ConvNormAct, PixelNormalization, StridedConv, shrink
from yolo_effnet.nn.registry import ONCE, block, picklable

_INVERTED = ("InvertedResidual", "DepthwiseSeparableConv", "UniversalInvertedResidual")  # MBConv and its like
_SIZE = (256, 320)  # of an image that tells what a model does
STRIDES = (8, 16, 32)  # of the maps that a YOLO neck takes
FITTING = "`yolo-effnet list --timm` prints those that fit, such as resnet50, convnext_tiny and mobilenetv3_large_100"


@picklable
class FeatureMap(NamedTuple):
    """One of the feature maps that a backbone gives.

    Attributes:
        channels (int): Its channels.
        stride (int): Pixels of the image per pixel of the map.
        index (int): Its place among the outputs of timm's model.
        out_index (int): What timm calls it in `out_indices`.
    """

    channels: int
    stride: int
    index: int
    out_index: int


def _create(name: str, in_chans: int = 3, **options) -> nn.Module:
    import timm

    return timm.create_model(name, features_only=True, pretrained=False, in_chans=in_chans, **options)


def padding_of(model: nn.Module) -> str:
    """Return the padding of the strided convolutions of timm's `model`, `same` or `symmetric`."""
    return "same" if any(type(m).__name__ == "Conv2dSame" for m in model.modules()) else "symmetric"


def _to_nchw(body: nn.Module, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return the maps of timm's `body` as `(B, C, H, W)`; some of its models give `(B, H, W, C)`."""
    nhwc = getattr(getattr(body, "output_fmt", None), "value", "NCHW") == "NHWC"
    return [x.permute(0, 3, 1, 2) if nhwc else x for x in maps]


@functools.cache
def feature_maps(name: str) -> tuple[FeatureMap, ...]:
    """Return the maps that timm's model `name` gives at strides of 4 and more; nothing is allocated.

    Args:
        name (str): A model of timm without a tag of weights, such as `mobilenetv3_large_100`.

    Raises:
        ValueError: If there is no such model, or it has no maps at strides 8, 16 and 32 of images of any size.
    """
    import timm

    architecture, _, tag = str(name).partition(".")
    if tag and timm.is_model(architecture):
        raise ValueError(f"write '{architecture}' in the row, and the timm tag '{name}' under `weights:`")
    if not timm.is_model(str(name)):
        close = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        hint = f"did you mean {', '.join(close)}? " if close else ""
        raise ValueError(f"timm has no model '{name}'; {hint}{FITTING}")
    try:
        with torch.device("meta"), torch.no_grad():
            body = _create(name).eval()
            maps = _to_nchw(body, body(torch.zeros(1, 3, *_SIZE)))
    except Exception as error:
        why = f"{type(error).__name__}: {str(error).strip() or 'no message'}".splitlines()[0].rstrip(".")
        raise ValueError(f"timm's '{name}' gives no feature maps of images of any size ({why}); {FITTING}") from error
    taken = body.feature_info.out_indices
    found = [FeatureMap(x.shape[1], _SIZE[0] // x.shape[2], i, taken[i]) for i, x in enumerate(maps)]
    strides = [m.stride for m in found]
    if not set(STRIDES) <= set(strides) or [m.channels for m in found] != body.feature_info.channels():
        raise ValueError(
            f"timm's '{name}' has feature maps at strides {', '.join(map(str, strides))}, and 8, 16 and 32 are "
            f"needed; {FITTING}"
        )
    return tuple(m for m in found if m.stride >= 4)  # larger ones are of no use, and hinder the folding of BatchNorm


def fitting_models(pattern: str = "*") -> Iterator[str]:
    """Yield the models of timm that can be a `TimmBackbone`; it takes a tenth of a second to look at one.

    Args:
        pattern (str): Only names of this shell pattern, or that begin with it.

    Raises:
        ValueError: If timm has no name of that pattern.
    """
    import timm

    names = timm.list_models(pattern) or timm.list_models(f"{pattern}*")
    if not names:
        raise ValueError(f"timm has no model of the pattern '{pattern}'; '*' stands for all of them")
    for name in names:
        try:
            feature_maps(name)
        except ValueError:
            continue
        yield name


@functools.cache
def _batchnorms_after_convolutions(name: str) -> tuple[tuple[str, str], ...]:
    """Return the names of each convolution in timm's model `name` and of the BatchNorm that alone takes its output.

    They are read off the graph that autograd records, which knows every use of a tensor; nothing is computed.
    """
    with torch.device("meta"), torch.inference_mode(False), torch.enable_grad():
        body = _create(name, out_indices=[m.out_index for m in feature_maps(name)]).eval()
        outputs = body(torch.zeros(1, 3, *_SIZE))
    names = {module: name for name, module in body.named_modules()}
    owners = {id(p): module for module in names for p in module.parameters(recurse=False)}
    nodes = [x.grad_fn for x in outputs]
    users, seen = Counter(nodes), set()
    while nodes:
        node = nodes.pop()
        if node in seen:
            continue
        seen.add(node)
        inputs = [source for source, _ in node.next_functions if source is not None]
        users.update(inputs)
        nodes += inputs

    def owner(node, argument: int):
        weight = node.next_functions[argument][0]
        return owners.get(id(getattr(weight, "variable", None)))

    pairs = []
    for node in seen:
        source = node.next_functions[0][0] if "BatchNorm" in node.name() else None
        if source is not None and "Convolution" in source.name() and users[source] == 1:
            pairs.append((owner(source, 1), owner(node, 1)))
    calls = Counter(module for pair in pairs for module in pair)
    return tuple((names[conv], names[bn]) for conv, bn in pairs if conv and bn and calls[conv] == calls[bn] == 1)


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

    References:
        PyTorch Image Models, https://github.com/huggingface/pytorch-image-models, `features_only`.
    """

    def __init__(self, c1: int, c2: int, name: str, drop_path: float = 0.0):
        """Initialize the backbone with random weights; it maps images as `forward` tells.

        Args:
            c1 (int): Channels of the image.
            c2 (int): Of no effect; a model YAML's parser gives every row one.
            name (str): A model of timm that gives feature maps at strides 8, 16 and 32 of images of any size.
            drop_path (float): Rate of stochastic depth, of models that have it.

        Raises:
            ValueError: If timm has no such model, it gives no such maps, or a value is outside its range.
        """
        super().__init__()
        check_values("TimmBackbone", c1=c1, drop_path=drop_path)
        self.name, self.maps = name, feature_maps(name)
        options = {"drop_path_rate": drop_path} if drop_path else {}
        try:
            self.body = _create(name, c1, out_indices=[m.out_index for m in self.maps], **options)
        except TypeError as error:
            raise ValueError(f"TimmBackbone: '{name}' takes no drop_path, got {drop_path} ({error})") from error
        self._register_statistics(c1, IMAGENET_MEAN, IMAGENET_STD)
        self.padding = padding_of(self.body)
        self.norms = {}
        # Their random weights are drawn as those of our own blocks, with which they learn faster from scratch; others,
        # of which GhostNet was tried, learn faster with timm's.
        inverted = any(type(m).__name__ in _INVERTED for m in self.body.modules())
        for conv_name, bn_name in _batchnorms_after_convolutions(name):
            joined = _joined(self.body.get_submodule(conv_name), self.body.get_submodule(bn_name))
            if joined is None:
                continue
            self.norms[conv_name] = bn_name
            self.body.set_submodule(conv_name, joined)
            self.body.set_submodule(bn_name, nn.Identity())
            if inverted:
                joined.conv.reset_parameters()
                if joined.conv.groups == joined.conv.in_channels or joined.conv.out_channels > joined.conv.in_channels:
                    shrink(joined.conv)

    @staticmethod
    def parse_row(args: list) -> list:
        """Return what Ultralytics' parser gets for the arguments of a row: output channels first.

        Those of its `Index` rows are what counts.

        Raises:
            ValueError: If there is no such model of timm.
        """
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
        outputs = _to_nchw(self.body, self.body(self.normalize(x)))
        return {known.index: y for known, y in zip(self.maps, outputs, strict=True)}
