"""Int8 on any processor. One without VNNI adds products in 16 bits, which overflow."""

import re
from pathlib import Path

CPU = Path("/proc/cpuinfo")
OVERFLOWS = CPU.is_file() and bool(re.search(r"\bavx2\b(?!.*vnni)", CPU.read_text()))


def exact_session(file):
    """Return a session of ONNX Runtime that computes layers between int8 values in float, without its int8 kernels."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
