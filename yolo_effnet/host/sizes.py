"""What models cost, without drawing a weight of them."""

import torch
from torch import nn
from ultralytics.nn.tasks import DetectionModel, parse_model, yaml_model_load
from ultralytics.utils.torch_utils import get_flops, get_num_params


def count(name: str) -> tuple[int, float]:
    """Return parameters and GFLOPs at 640 pixels of a detection model by name, as Ultralytics counts them.

    It is one of ours or of Ultralytics with outputs at strides 8, 16 and 32, without `.yaml`.
    """
    model = DetectionModel.__new__(DetectionModel)  # whose __init__ computes, which tensors without data cannot
    nn.Module.__init__(model)
    with torch.device("meta"):
        model.model, model.save = parse_model(yaml_model_load(f"{name}.yaml"), 3, verbose=False)
    model.stride = model.model[-1].stride = torch.tensor([8.0, 16.0, 32.0])
    return get_num_params(model), get_flops(model, 640)
