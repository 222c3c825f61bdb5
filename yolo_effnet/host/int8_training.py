"""Quantizers in a backbone's blocks, where Ultralytics' training in int8 puts them on convolutions alone."""

import functools
import threading
from contextlib import contextmanager
from importlib.util import find_spec

from torch import nn
from ultralytics.utils import torch_utils
from ultralytics.utils.checks import check_requirements

from yolo_effnet.nn.backbone import backbone_rows
from yolo_effnet.nn.blocks import SqueezeExcite
from yolo_effnet.nn.layers import DropPath

_BLOCKS = (SqueezeExcite, DropPath)
_quantizing = threading.Lock()


@functools.cache
def _quantized_blocks() -> dict[type, type]:
    """Return what ModelOpt puts in the place of our blocks.

    References:
        NVIDIA's EfficientNet for TensorRT, https://github.com/NVIDIA/TensorRT, tools/tensorflow-quantization: int8 at
        the residual, at the mean and at both inputs of the product of squeeze-and-excite.
    """
    from modelopt.torch.quantization.nn import QuantInputBase, TensorQuantizer

    class Quantized(QuantInputBase):
        def _setup(self):
            self._register_temp_attribute("input_quantizer", TensorQuantizer(self.default_quant_desc_input))

        def modelopt_post_restore(self, prefix=""):
            """Leave the quantizers where they are: Ultralytics moves the whole model afterwards."""

    class QuantizedSqueezeExcite(Quantized):
        def _setup(self):
            super()._setup()
            self._register_temp_attribute("gate_input_quantizer", TensorQuantizer(self.default_quant_desc_input))

        def forward(self, x):
            """Weigh the channels of `(B, C, H, W)`."""
            x = self.input_quantizer(x)
            return x * self.gate_input_quantizer(self.gate(x))

    class QuantizedDropPath(Quantized):
        def forward(self, x, branch):
            """Add a branch to `x`; a convolution computes the branch, and TensorRT fuses the sum into it."""
            return super(QuantInputBase, self).forward(self.input_quantizer(x), branch)

    return {SqueezeExcite: QuantizedSqueezeExcite, DropPath: QuantizedDropPath}


@contextmanager
def _known_to_modelopt():
    """Have ModelOpt, which Ultralytics installs where it may, quantize our blocks, in one thread at a time."""
    needed = torch_utils.MODELOPT_REQUIREMENTS
    check_requirements(needed)
    if find_spec("modelopt") is None:
        raise ImportError(f"int8 training needs NVIDIA ModelOpt: pip install {' '.join(map(repr, needed))}")
    import modelopt.torch.quantization as mtq

    with _quantizing:
        for block in _BLOCKS:
            mtq.register(block, _quantized_blocks()[block])
        try:
            yield mtq
        finally:
            for block in _BLOCKS:
                mtq.unregister(block)


def wrap_prepare(prepare):
    """Return Ultralytics' `prepare_qat` with quantizers in our blocks, and the convolutions of the gates in float."""

    @functools.wraps(prepare)
    def wrapper(model: nn.Module, *args, **kwargs):
        if not backbone_rows(model):
            return prepare(model, *args, **kwargs)
        gates = [name for name, module in model.named_modules() if isinstance(module, SqueezeExcite)]
        floats = [f"{name}.{conv}." for name in gates for conv in ("reduce", "expand")]
        with _known_to_modelopt() as mtq:
            model = prepare(model, *args, **kwargs)
        mtq.disable_quantizer(model, lambda name: name.startswith(tuple(floats)))
        return model

    return wrapper


def wrap_restore(restore):
    """Return Ultralytics' `restore_qat` for models with quantizers in our blocks, and for those from before them."""

    @functools.wraps(restore)
    def wrapper(model: nn.Module, state: dict):
        student = getattr(model, "student_model", model)
        blocks = {name for name, module in student.named_modules() if isinstance(module, _BLOCKS)}
        if not any(key.rpartition(".")[0].rpartition(".")[0] in blocks for key in (state["ranges"] if blocks else ())):
            return restore(model, state)
        with _known_to_modelopt():
            return restore(model, state)

    return wrapper
