"""The inside of a fused MBConv on a CPU, computed strip by strip so that its expanded feature map stays in cache."""

import math
import threading

import torch
import torch.nn.functional as F
from torch import nn

from yolo_effnet.nn import gate
from yolo_effnet.nn.kernels import activate, convolve, dilation
from yolo_effnet.nn.layers import ConvNormAct, StridedConv

# Bytes of an expanded strip for each of up to 8 threads: they fit into the caches of today's cores, and take so long
# that the calls do not matter.
_STRIP_BYTES = 2**21


_scratch = threading.local()  # its `buffer` is memory for the feature maps of one thread


def are_possible(
    expand: nn.Module, depthwise: nn.Module, project: nn.Module, block: nn.Module, x: torch.Tensor
) -> bool:
    """Return whether `compute` can stand in for the layers of an MBConv, here and now.

    They must be fused, untouched, and only infer, in float32 on a CPU. So must be all else in `block`, which is left
    out too. The input `x` is `(B, c1, H, W)`; without an expansion `expand` is `nn.Identity`.
    """
    if block.training or torch.is_grad_enabled() or x.dtype != torch.float32 or not gate.is_allowed(x):
        return False
    if not x.numel() or autocasts() or not all(map(gate.is_untouched, block._modules.values())):
        return False
    layers = [layer for layer in (expand, depthwise, project) if type(layer) is not nn.Identity]
    return all(isinstance(m, ConvNormAct) and not hasattr(m, "bn") and _is_as_built(m) for m in layers)


def autocasts() -> bool:
    """Return whether autocast is on for the CPU."""
    try:
        return torch.is_autocast_enabled("cpu")
    except TypeError:  # before torch 2.4
        return torch.is_autocast_cpu_enabled()


def _is_as_built(layer: ConvNormAct) -> bool:
    """Return whether the convolution of a layer has the geometry that `compute` takes for granted."""
    conv = layer.conv
    kernel = conv.kernel_size[0]
    size = kernel // 2
    if isinstance(layer, StridedConv) and layer.padding == "same" and size:
        size += 1
    return (
        conv.kernel_size == (kernel, kernel)
        and conv.padding == (size, size)
        and conv.dilation == (1, 1)
        and conv.padding_mode == "zeros"
        and conv.weight.dtype == torch.float32
    )


def _scratch_map(channels: int, height: int, width: int) -> torch.Tensor:
    """Return an uninitialised `(1, C, H, W)` map in `channels_last`, in memory that this thread uses again and again.

    Fresh memory is several times slower to write than memory that the system has already mapped.
    """
    size = channels * height * width
    if not hasattr(_scratch, "buffer") or _scratch.buffer.numel() < size:
        with torch.inference_mode(False):  # such tensors may be written in every mode
            _scratch.buffer = torch.empty(size, dtype=torch.float32, device="cpu")
    return _scratch.buffer[:size].view(1, height, width, channels).permute(0, 3, 1, 2)


def _expand_and_convolve(expand: nn.Module, depthwise: ConvNormAct, x: torch.Tensor) -> torch.Tensor:
    """Return the depthwise feature map of a `(1, c1, H, W)` image, its rows computed strip by strip."""
    conv, (height, width) = depthwise.conv, x.shape[-2:]
    kernel, stride, channels = conv.kernel_size[0], conv.stride[0], conv.out_channels
    top = left = kernel // 2
    drop = 0
    if stride == 2 and kernel > 1 and depthwise.padding == "same":
        top -= 1 - height % 2
        if width % 2 == 0:
            left, drop = left + 1, 1  # as in StridedConv.convolve
    out_height, out_width = -(-height // stride), -(-width // stride)
    strips = 4 * channels * width * height / (_STRIP_BYTES * min(8, torch.get_num_threads()))
    rows = math.ceil(out_height / min(out_height, max(1, round(strips))))
    y = _scratch_map(channels, out_height, out_width)
    for first in range(0, out_height, rows):
        last = min(first + rows, out_height)
        start, end = first * stride - top, (last - 1) * stride - top + kernel
        strip = x[:, :, max(start, 0) : min(end, height)]
        if type(expand) is not nn.Identity:
            strip = activate(expand.act, convolve(expand.conv, strip))
        # A convolution pads above as below: the first and last strips give a few rows too many, here left out.
        above = max(-start, 0)
        skip = max(0, math.ceil((end - height - above) / stride))
        padding = (above + skip * stride, left)
        strip = F.conv2d(strip, conv.weight, conv.bias, stride, padding, 1, channels)
        strip = strip[:, :, skip : skip + last - first, drop:]
        if type(depthwise.act) is nn.SiLU:
            torch.ops.aten.silu.out(strip, out=y[:, :, first:last])  # saves the pass of a copy
        else:
            y[:, :, first:last] = activate(depthwise.act, strip)
    return y


def compute(
    expand: nn.Module, depthwise: ConvNormAct, se: nn.Module, project: ConvNormAct, x: torch.Tensor
) -> torch.Tensor:
    """Return `project(se(depthwise(expand(x))))`, `(B, c1, H, W) -> (B, c2, ceil(H/s), ceil(W/s))`.

    An MBConv's time goes into the memory of its expanded feature map, six times as large as its input. Here that map
    lives in a strip of rows that stays in cache, image by image, and squeeze-and-excite weighs the columns of the
    projection's matrix in place of the map.
    """
    conv, outputs = project.conv, []
    for image in x.split(1):
        if image.stride(1) != 1:
            image = image.contiguous(memory_format=torch.channels_last)
        y = _expand_and_convolve(expand, depthwise, image)
        weight = conv.weight if type(se) is nn.Identity else conv.weight * se.gate(y)
        outputs.append(F.conv2d(y, weight, conv.bias, dilation=dilation(conv)))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)
