"""EfficientNet backbones for Ultralytics YOLOv8: `yolo train model=yolov8-effb0.yaml` with the stock `yolo`."""

from yolo_effnet import startup

__version__ = "0.1.0"

_HOMES = {
    "C2fSeparable": "nn.neck",
    "Classifier": "nn.stages",
    "EfficientNetStage": "nn.stages",
    "EfficientNetStem": "nn.stages",
    "FittedSPPF": "nn.neck",
    "FusedMBConv": "nn.blocks",
    "FusedStage": "nn.stages",
    "MBConv": "nn.blocks",
    "SeparableConv": "nn.neck",
    "SqueezeExcite": "nn.blocks",
    "TimmBackbone": "nn.timm_backbone",
    "fast_paths": "nn.gate",
    "graft": "grafting.graft",
    "load_backbone_weights": "weights.loading",
    "model_config": "zoo.configs",
    "model_names": "zoo.names",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module 'yolo_effnet' has no attribute '{name}'")
    from importlib import import_module

    if not _HOMES[name].startswith("zoo."):
        import_module(startup.MODELS)  # registers, which should not happen halfway through the import of a block
    return getattr(import_module(f"yolo_effnet.{_HOMES[name]}"), name)


def __dir__():
    return sorted({*globals(), *__all__})


startup.hook()
