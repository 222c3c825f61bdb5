"""What timm's models are: their feature maps, padding, and the BatchNorm layers that follow a convolution."""

import contextlib
import difflib
import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from yolo_effnet.checks import why
from yolo_effnet.nn.registry import picklable

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
        module (str | None): Of a map inside a block, timm's name of the layer that takes it; None for an output.
    """

    channels: int
    stride: int
    index: int
    out_index: int
    module: str | None = None


def create(name: str, in_chans: int = 3, **options) -> nn.Module:
    """Return timm's model `name` as one of feature maps, with random weights."""
    import timm

    return timm.create_model(name, features_only=True, pretrained=False, in_chans=in_chans, **options)


def without_computing(run: Callable[[], Any]) -> Any:
    """Return what `run` builds, on PyTorch's meta device, where nothing is allocated.

    Older releases of timm build some models only where numbers are: there, after allocating.
    """
    try:
        with torch.device("meta"):
            return run()
    except (NotImplementedError, RuntimeError):
        with torch.random.fork_rng(devices=[]):  # a seed gives the same model with every release
            return run()


def padding_of(model: nn.Module) -> str:
    """Return the padding of the strided convolutions of timm's `model`, `same` or `symmetric`."""
    return "same" if any(type(m).__name__ == "Conv2dSame" for m in model.modules()) else "symmetric"


def to_nchw(body: nn.Module, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return the maps of timm's `body` as `(B, C, H, W)`; some of its models give `(B, H, W, C)`."""
    nhwc = getattr(getattr(body, "output_fmt", None), "value", "NCHW") == "NHWC"
    return [x.permute(0, 3, 1, 2) if nhwc else x for x in maps]


@functools.cache
def feature_maps(name: str) -> tuple[FeatureMap, ...]:
    """Return the maps that timm's model `name`, without a tag of weights, gives at strides of 4 and more.

    Raises:
        ValueError: If there is no such model, or it has no maps at strides 8, 16 and 32 of images of any size.
    """
    import timm

    architecture, _, tag = str(name).partition(".")
    if tag and timm.is_model(architecture):
        raise ValueError(f"write '{architecture}' in the row, and the timm tag '{name}' under `backbone_weights:`")
    if not timm.is_model(str(name)):
        close = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        hint = f"did you mean {', '.join(close)}? " if close else ""
        raise ValueError(f"timm has no model '{name}'; {hint}{FITTING}")

    def run():
        body = create(name).eval()
        return body, to_nchw(body, body(torch.zeros(1, 3, *_SIZE)))

    try:
        with torch.no_grad():
            body, maps = without_computing(run)
    except Exception as error:
        reason = why(error).rstrip(".")
        fault = f"gives no feature maps of images of any size ({reason})"
        raise ValueError(f"timm's '{name}' {fault}; {FITTING}") from error
    taken = body.feature_info.out_indices
    found = [FeatureMap(x.shape[1], _SIZE[0] // x.shape[2], i, taken[i]) for i, x in enumerate(maps)]
    strides = [m.stride for m in found]
    if not set(STRIDES) <= set(strides) or [m.channels for m in found] != body.feature_info.channels():
        fault = f"has feature maps at strides {', '.join(map(str, strides))}, and 8, 16 and 32 are needed"
        raise ValueError(f"timm's '{name}' {fault}; {FITTING}")
    return tuple(m for m in found if m.stride >= 4)  # larger ones are of no use, and hinder the folding of BatchNorm


@functools.cache
def wide_maps(name: str) -> tuple[FeatureMap, ...]:
    """Return the maps that are projected to the outputs of timm's model `name`, inside the last block of each stage.

    Timm's blocks name them as those at their expansion. Their indices follow those of all outputs.
    """
    body, found = without_computing(lambda: create(name)), []
    infos = body.feature_info.get_dicts()
    modules = dict(body.named_modules())
    for output in feature_maps(name):
        stage = infos[output.index]["module"]
        blocks = modules.get(stage)
        if not (isinstance(blocks, nn.Sequential) and hasattr(blocks[-1], "feature_info")):
            continue
        point = blocks[-1].feature_info("expansion")
        if point.get("hook_type") == "forward_pre" and point["num_chs"] > output.channels:
            layer = f"{stage}.{len(blocks) - 1}.{point['module']}"
            found.append(output._replace(channels=point["num_chs"], index=output.index + len(infos), module=layer))
    return tuple(found)


def fitting_models(pattern: str = "*") -> Iterator[str]:
    """Yield the models of timm that can be a `TimmBackbone`, in a tenth of a second each.

    Their names are of the shell pattern, or begin with it; a ValueError tells of one that timm has no name of.
    """
    import timm

    names = timm.list_models(pattern) or timm.list_models(f"{pattern}*")
    if not names:
        raise ValueError(f"timm has no model of the pattern '{pattern}'; '*' stands for all of them")
    for name in names:
        with contextlib.suppress(ValueError):
            feature_maps(name)
            yield name


@functools.cache
def batchnorms_after_convolutions(name: str) -> tuple[tuple[str, str], ...]:
    """Return the names of each convolution in timm's model `name` and of the BatchNorm that alone takes its output.

    They are read off the graph that autograd records, which knows every use of a tensor; nothing is computed.
    """

    def run():
        body = create(name, out_indices=[m.out_index for m in feature_maps(name)]).eval()
        return body, body(torch.zeros(1, 3, *_SIZE))

    with torch.inference_mode(False), torch.enable_grad():
        body, outputs = without_computing(run)
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
