"""EfficientNet backbones for Ultralytics YOLOv8: `yolo train model=yolov8-effb0.yaml` with the stock `yolo`."""

from yolo_effnet import startup

__version__ = "0.1.0"

_HOMES = {
    "C2fSeparable": "neck",
    "Classifier": "blocks",
    "EfficientNetStage": "blocks",
    "EfficientNetStem": "blocks",
    "FusedMBConv": "blocks",
    "FusedStage": "blocks",
    "MBConv": "blocks",
    "SeparableConv": "neck",
    "SqueezeExcite": "blocks",
    "TimmBackbone": "timm_backbone",
    "load_backbone_weights": "weights",
    "model_config": "configs",
    "model_names": "names",
    "register": "parser",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module 'yolo_effnet' has no attribute '{name}'")
    from importlib import import_module

    if _HOMES[name] not in ("configs", "names"):
        import_module(startup.HOST)  # registers, which should not happen halfway through the import of a block
    return getattr(import_module(f"yolo_effnet.{_HOMES[name]}"), name)


def __dir__():
    return sorted({*globals(), *__all__})


startup.hook()
