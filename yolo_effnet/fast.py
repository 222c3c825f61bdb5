"""Leaner ways to compute what `blocks.py` defines: less memory in training, less memory traffic on a CPU."""

import math
import threading

import torch
import torch.nn.functional as F
from torch import nn

# Bytes of an expanded strip for each of up to 8 threads: they fit into the caches of today's cores, and take so long
# that the calls do not matter.
_STRIP_BYTES = 2**21
_IN_PLACE = {nn.SiLU: F.silu, nn.ReLU6: F.relu6}


class _Scratch(threading.local):
    """Memory for the feature maps of one thread."""

    buffer = torch.empty(0)


_scratch = _Scratch()


def is_exporting() -> bool:
    """Return whether a graph is being recorded, which must hold the plain operators only."""
    return torch.jit.is_tracing() or torch.compiler.is_exporting()


class _NormSiLU(torch.autograd.Function):
    """BatchNorm and SiLU that keep one feature map for the backward pass, not two.

    The normalised map is overwritten by its activation, and computed once more, from the map before it, when the
    gradient asks for it.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, running_mean, running_var, momentum, eps):
        y, mean, invstd, reserve, kernel = torch._batch_norm_impl_index(
            x, weight, bias, running_mean, running_var, True, momentum, eps, torch.backends.cudnn.enabled
        )
        ctx.save_for_backward(x, weight, bias, mean, invstd, reserve)
        ctx.kernel, ctx.eps = kernel, eps
        return F.silu(y, inplace=True)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        x, weight, bias, mean, invstd, reserve = ctx.saved_tensors
        y = F.batch_norm(x, mean, invstd.pow(-2) - ctx.eps, weight, bias, eps=ctx.eps)
        grad = torch.ops.aten.silu_backward.grad_input(grad, y, grad_input=y)
        grads = torch.ops.aten._batch_norm_impl_index_backward(
            ctx.kernel, x, grad, weight, None, None, mean, invstd, True, ctx.eps, [True] * 3, reserve
        )
        return *grads, None, None, None, None


def norm_act(bn: nn.Module, act: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return `act(bn(x))`, `(B, C, H, W)`; in training with SiLU, with a third less memory for the backward pass."""
    if not (
        type(bn) is nn.BatchNorm2d
        and type(act) is nn.SiLU
        and bn.training
        and bn.track_running_stats
        and bn.momentum is not None
        and x.device.type in ("cpu", "cuda")
        and torch.is_grad_enabled()
        and not torch.compiler.is_compiling()  # its own partitioner decides what to compute twice
    ):
        return act(bn(x))
    bn.num_batches_tracked.add_(1)
    return _NormSiLU.apply(x, bn.weight, bn.bias, bn.running_mean, bn.running_var, bn.momentum, bn.eps)


def is_plain(conv: nn.Module) -> bool:
    """Return whether nobody would miss the call of a convolution: it is no quantizer's and has no hooks."""
    return type(conv) is nn.Conv2d and not conv._forward_hooks and not conv._forward_pre_hooks


def _dilation(conv: nn.Conv2d, x: torch.Tensor) -> int:
    """Return a dilation that makes PyTorch choose the faster kernel.

    For one thread and fewer than 16 images it computes 1x1 convolutions without oneDNN, in twice the time, unless they
    are dilated, which is of no effect on a single tap.
    """
    one_thread = x.device.type == "cpu" and torch.get_num_threads() == 1
    onednn = torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled
    return 2 if one_thread and onednn and conv.kernel_size == (1, 1) else 1


def convolve(conv: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return `conv(x)`, `(B, c1, H, W) -> (B, c2, H', W')`."""
    if torch.compiler.is_compiling() or is_exporting() or not is_plain(conv) or _dilation(conv, x) == 1:
        return conv(x)
    return F.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding, 2, conv.groups)


def runs_in_strips(block: nn.Module, x: torch.Tensor) -> bool:
    """Return whether `mbconv` can stand in for the forward pass of an `MBConv`, here and now.

    It must be fused, plain (no quantizers, no hooks that would wait in vain) and only infer, in float32 on a CPU.
    """
    if x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_grad_enabled() or block.training:
        return False
    if torch.compiler.is_compiling() or is_exporting() or torch.is_autocast_enabled("cpu"):
        return False
    convs = [m for m in (block.expand, block.depthwise, block.project) if not isinstance(m, nn.Identity)]
    return not any(hasattr(m, "bn") or m._forward_hooks or m._forward_pre_hooks or not is_plain(m.conv) for m in convs)


def activate(act: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return `act(x)`, in place where nothing else needs `x`: it must be fresh, as the output of a convolution is."""
    in_place = _IN_PLACE.get(type(act))
    if in_place is None or torch.is_grad_enabled() or is_exporting():
        return act(x)
    return in_place(x, inplace=True)


def _scratch_map(channels: int, height: int, width: int) -> torch.Tensor:
    """Return an uninitialised `(1, C, H, W)` map in `channels_last`, in memory that this thread uses again and again.

    Fresh memory is several times slower to write than memory that the system has already mapped.
    """
    size = channels * height * width
    if _scratch.buffer.numel() < size:
        with torch.inference_mode(False):  # such tensors may be written in every mode
            _scratch.buffer = torch.empty(size, dtype=torch.float32, device="cpu")
    return _scratch.buffer[:size].view(1, height, width, channels).permute(0, 3, 1, 2)


def _expand_and_convolve(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return the depthwise feature map of a `(1, c1, H, W)` image, its rows computed strip by strip."""
    depthwise, (height, width) = block.depthwise, x.shape[-2:]
    conv = depthwise.conv
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
        if not isinstance(block.expand, nn.Identity):
            strip = activate(block.expand.act, convolve(block.expand.conv, strip))
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


def mbconv(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return the forward pass of a fused `MBConv` on a CPU: `(B, c1, H, W) -> (B, c2, ceil(H/s), ceil(W/s))`.

    A block's time goes into the memory of its expanded feature map, six times as large as its input. Here that map
    lives in a strip of rows that stays in cache, image by image, and squeeze-and-excite weighs the columns of the
    projection's matrix in place of the map.
    """
    project, outputs = block.project.conv, []
    for image in x.split(1):
        if image.stride(1) != 1:
            image = image.contiguous(memory_format=torch.channels_last)
        y = _expand_and_convolve(block, image)
        weight = project.weight if isinstance(block.se, nn.Identity) else project.weight * block.se.gate(y)
        outputs.append(F.conv2d(y, weight, project.bias, dilation=_dilation(project, y)))
    y = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
    return y if block.drop_path is None else y.add_(x)
