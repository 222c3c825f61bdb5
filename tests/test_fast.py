"""The leaner ways give the numbers of the plain ones, and step aside where they do not apply."""

import copy

import pytest
import torch
from backbones import fused, randomize
from torch import nn

from yolo_effnet.nn import kernels, strips
from yolo_effnet.nn.blocks import MBConv
from yolo_effnet.nn.settings import set_padding
from yolo_effnet.nn.stages import EfficientNetStem


def runs_in_strips(block: MBConv, x: torch.Tensor) -> bool:
    return strips.are_possible(block.expand, block.depthwise, block.project, block, x)


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize(("stride", "c2"), [(1, 8), (1, 16), (2, 8)])
@pytest.mark.parametrize("size", [(32, 32), (31, 17), (8, 33)])
@pytest.mark.parametrize(("expand_ratio", "se_ratio"), [(6, 0.25), (1, 0.25), (4, 0)])
@pytest.mark.parametrize("padding", ["same", "symmetric"])
def test_strips_give_the_same_numbers(monkeypatch, kernel, stride, c2, size, expand_ratio, se_ratio, padding):
    """In strips of one row, of a few and in a single one, for three images at once."""
    block = fused(randomize(MBConv(8, c2, kernel, stride, expand_ratio, se_ratio)))
    set_padding(block, padding)
    x = torch.rand(3, 8, *size)
    with torch.no_grad():
        block.project.register_forward_hook(lambda *_: None)
        assert not runs_in_strips(block, x)
        expected = block(x)
        block.project._forward_hooks.clear()
        assert runs_in_strips(block, x)
        row = 4 * stride * block.depthwise.conv.out_channels * size[1]
        for rows in (1, 3, 100):
            monkeypatch.setattr(strips, "_STRIP_BYTES", -(-row * rows // torch.get_num_threads()))
            torch.testing.assert_close(block(x), expected)


def test_strips_step_aside():
    block, x = MBConv(8, 8).eval(), torch.rand(1, 8, 16, 16)
    ready = fused(block)
    with torch.no_grad():
        assert not runs_in_strips(block, x)
        assert runs_in_strips(ready, x)
        assert not runs_in_strips(ready.train(), x)
        assert not runs_in_strips(ready.eval(), x.bfloat16())
        with torch.autocast("cpu", torch.bfloat16):
            assert not runs_in_strips(ready, x)
        seen = []
        hook = ready.expand.conv.register_forward_hook(lambda *_: seen.append(1))
        ready(x)
        assert seen
        hook.remove()
        ready.depthwise.conv = type("Quantized", (nn.Conv2d,), {})(48, 48, 3, 1, 1, groups=48)
        assert not runs_in_strips(ready, x)
    assert not runs_in_strips(fused(block), x)


@pytest.mark.parametrize("compiled", ["fused", "training"])
def test_compiled_graphs_hold_the_plain_operators(compiled):
    """The whole model is one graph, and gives the numbers of the model itself."""
    model = randomize(nn.Sequential(EfficientNetStem(3, 8), MBConv(8, 8), MBConv(8, 16, 5, 2)))
    model = fused(model) if compiled == "fused" else model.train()
    x = torch.rand(2, 3, 32, 32)
    names = []

    def backend(graph, _):
        names.extend(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    with torch.set_grad_enabled(compiled == "training"):
        expected = copy.deepcopy(model)(x)
        torch.testing.assert_close(torch.compile(model, backend=backend, fullgraph=True)(x), expected)
    assert not any("mkldnn" in name or "impl_index" in name for name in names)


def train(norm_act, dtype) -> dict[str, torch.Tensor]:
    """Return output, gradients and statistics after two forward passes and their backward pass."""
    torch.manual_seed(0)
    bn, x = randomize(nn.BatchNorm2d(6, eps=1e-3, momentum=0.03)), torch.randn(4, 6, 9, 7, dtype=dtype).mul_(3)
    x.requires_grad_()
    y = norm_act(bn, nn.SiLU(), norm_act(bn, nn.SiLU(), x))
    (y.float() * torch.randn(4, 6, 9, 7)).sum().backward()
    return {"y": y.detach(), "x": x.grad, "weight": bn.weight.grad, "bias": bn.bias.grad, **dict(bn.named_buffers())}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norm_act_trains_as_the_plain_layers_do(dtype):
    plain = train(lambda bn, act, x: act(bn(x)), dtype)
    for name, value in train(kernels.norm_act, dtype).items():
        torch.testing.assert_close(value, plain[name], msg=lambda text, name=name: f"{name}: {text}")


def kept_bytes(function, x: torch.Tensor) -> int:
    """Return the bytes that autograd keeps for the backward pass of `function(x)`, besides those of `x`."""
    kept = {}

    def pack(tensor):
        if tensor.data_ptr() != x.data_ptr():
            kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = function(x)
    del y
    return sum(kept.values())


def test_norm_act_keeps_one_map_less():
    bn, act = nn.BatchNorm2d(16), nn.SiLU()
    x = torch.rand(2, 16, 32, 32, requires_grad=True)
    size = x.numel() * x.element_size()
    assert kept_bytes(lambda x: act(bn(x)), x) > size
    assert kept_bytes(lambda x: kernels.norm_act(bn, act, x), x) < 0.1 * size


def test_a_frozen_batchnorm_keeps_its_statistics():
    bn = randomize(nn.BatchNorm2d(6)).eval()
    before = copy.deepcopy(bn.state_dict())
    x = torch.rand(2, 6, 8, 8, requires_grad=True)
    kernels.norm_act(bn, nn.SiLU(), x).sum().backward()
    assert x.grad is not None
    assert all(torch.equal(v, before[k]) for k, v in bn.state_dict().items())
