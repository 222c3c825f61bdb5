"""EfficientNet backbones for Ultralytics YOLOv8: `yolo train model=yolov8-effb0.yaml` with the stock `yolo`."""

from yolo_effnet import startup

TYPE_CHECKING = False  # as in typing, which takes time to import at every start; type checkers know the name
if TYPE_CHECKING:
    from yolo_effnet.grafting.graft import graft
    from yolo_effnet.nn.blocks import FusedMBConv, MBConv, SqueezeExcite
    from yolo_effnet.nn.gate import fast_paths
    from yolo_effnet.nn.neck import C2fSeparable, FittedSPPF, SeparableConv
    from yolo_effnet.nn.stages import Classifier, EfficientNetStage, EfficientNetStem, FusedStage
    from yolo_effnet.nn.timm_backbone import TimmBackbone
    from yolo_effnet.weights.loading import load_backbone_weights
    from yolo_effnet.zoo.configs import model_config
    from yolo_effnet.zoo.names import model_names

__version__ = "0.1.0"
__all__ = [
    "C2fSeparable",
    "Classifier",
    "EfficientNetStage",
    "EfficientNetStem",
    "FittedSPPF",
    "FusedMBConv",
    "FusedStage",
    "MBConv",
    "SeparableConv",
    "SqueezeExcite",
    "TimmBackbone",
    "__version__",
    "fast_paths",
    "graft",
    "load_backbone_weights",
    "model_config",
    "model_names",
]
_HOMES = {
    "nn.neck": ("C2fSeparable", "FittedSPPF", "SeparableConv"),
    "nn.stages": ("Classifier", "EfficientNetStage", "EfficientNetStem", "FusedStage"),
    "nn.blocks": ("FusedMBConv", "MBConv", "SqueezeExcite"),
    "nn.timm_backbone": ("TimmBackbone",),
    "nn.gate": ("fast_paths",),
    "grafting.graft": ("graft",),
    "weights.loading": ("load_backbone_weights",),
    "zoo.configs": ("model_config",),
    "zoo.names": ("model_names",),
}


def __getattr__(name):
    home = next((home for home, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module 'yolo_effnet' has no attribute '{name}'")
    from importlib import import_module

    if not home.startswith("zoo."):
        import_module(startup.MODELS)  # registers, which should not happen halfway through the import of a block
    return getattr(import_module(f"yolo_effnet.{home}"), name)


def __dir__():
    return sorted({*globals(), *__all__})


startup.hook()
