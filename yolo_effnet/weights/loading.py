"""ImageNet weights of timm and torchvision in backbones, by hand and as training starts."""

from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from torch import nn
from ultralytics.utils import ROOT

from yolo_effnet.nn.layers import ConvNormAct, PixelNormalization
from yolo_effnet.nn.stages import Classifier, EfficientNetStage, EfficientNetStem
from yolo_effnet.nn.timm_backbone import TimmBackbone
from yolo_effnet.weights.naming import Timm, Torchvision
from yolo_effnet.weights.sources import Pretraining, download, pretraining, read_state_dict

_UNMATCHED = ("num_batches_tracked", "mean", "std")  # tensors without a counterpart, or of no consequence


@dataclass(frozen=True)
class LoadReport:
    """What `load_backbone_weights` did.

    Attributes:
        pretraining (Pretraining): Tag of the weights, and what it says about them.
        source (str): The file they came from, or the hub's repository.
        tensors (int): Tensors of the backbone that were replaced, which is all of them.
    """

    pretraining: Pretraining
    source: str
    tensors: int

    def __str__(self) -> str:
        """Return the log line."""
        return f"ImageNet weights {self.pretraining} from {self.source}: {self.tensors}/{self.tensors} backbone tensors"


def backbone_of(model: nn.Module) -> list[nn.Module]:
    """Return the stem, the stages and the classifier, if it has one, of a model in order, or its `TimmBackbone`."""
    kinds = (EfficientNetStem, EfficientNetStage, Classifier, TimmBackbone)
    layers = [m for m in model.modules() if isinstance(m, kinds)]
    if not layers or not isinstance(layers[0], PixelNormalization):
        raise ValueError(
            f"{type(model).__name__} has no EfficientNetStem or TimmBackbone to load ImageNet weights into"
        )
    if any(isinstance(m, ConvNormAct) and not hasattr(m, "bn") for m in layers[0].modules()):
        raise ValueError(f"{type(model).__name__} is fused; load ImageNet weights into it before fuse()")
    return layers[:1] if isinstance(layers[0], TimmBackbone) else layers


def _convert(state_dict: dict, layers: list[nn.Module], source: Pretraining, origin: str) -> dict[str, torch.Tensor]:
    """Return `state_dict` under the names of `layers`, exact in eval mode for their BatchNorm eps and channels.

    Raises:
        ValueError: If a tensor is missing, left over, or of another shape.
    """
    from timm.models import adapt_input_conv

    backbone = nn.ModuleList(layers)
    ours = {k: v for k, v in backbone.state_dict().items() if k.rpartition(".")[2] not in _UNMATCHED}
    naming = Torchvision() if Torchvision.fits(state_dict, source) else Timm(source.tensors)
    names = naming.layers(layers)
    # Timm's models of feature maps flatten names of its classifiers: stages_0 for stages.0.
    known = {k.replace(".", "_"): k for k in state_dict}
    converted, used = {}, set()
    for key, value in ours.items():
        layer, _, attribute = key.rpartition(".")
        theirs = f"{names[layer]}.{attribute}".lstrip(".")
        theirs = known.get(theirs.replace(".", "_"), theirs)
        tensor = state_dict.get(theirs)
        channels = layers[0].mean.shape[1]
        if tensor is not None and tensor.ndim == 4 and (tensor.shape[1], value.shape[1]) == (3, channels):
            tensor = adapt_input_conv(channels, tensor)
        if tensor is not None and layer.endswith(".linear") and len(tensor) != len(value):
            continue  # the last layer of a classifier learns its own classes
        if tensor is None or tensor.shape != value.shape:
            found = "is missing" if tensor is None else f"is {tuple(tensor.shape)}"
            raise ValueError(
                f"{origin} is not of this backbone ({source.tag}): tensor '{theirs}' {found}, expected "
                f"{tuple(value.shape)} for '{key}'"
            )
        converted[key] = tensor
        used.add(theirs)
    left = [
        k
        for k in state_dict
        if k not in used and k.rpartition(".")[2] not in _UNMATCHED and naming.belongs_to_backbone(k)
    ]
    if left:
        raise ValueError(
            f"{origin} is not of this backbone ({source.tag}): tensor '{left[0]}' {tuple(state_dict[left[0]].shape)} "
            f"is left over, as {len(left)} are in all"
        )
    for name, module in backbone.named_modules():
        if isinstance(module, nn.BatchNorm2d) and module.eps != source.bn_eps:
            # Ultralytics sets eps at every rebuild of a model, and a state dict does not hold it, but gamma stays.
            variance = converted[f"{name}.running_var"].double()
            scale = ((variance + module.eps) / (variance + source.bn_eps)).sqrt()
            converted[f"{name}.weight"] = (converted[f"{name}.weight"].double() * scale).float()
    return converted


def _find(file: str, config: dict) -> Path:
    """Return the path of `weights_file:`, relative to the working directory or to the YAML that names it."""
    beside = Path(config.get("yaml_file") or "").parent / file
    return beside if not Path(file).is_file() and beside.is_file() else Path(file)


def _imagenet_names() -> dict[int, str]:
    """Return the names of the 1000 classes of ImageNet-1k, in the order of all its weights."""
    file = ROOT / "cfg" / "datasets" / "ImageNet.yaml"
    return yaml.safe_load(file.read_text(encoding="utf-8"))["names"]


def load_backbone_weights(model, weights: str | None = None, file: str | Path | None = None) -> LoadReport:
    """Load ImageNet weights into the backbone of a model; its features are then exactly timm's.

    In a classification model that includes the head, and with 1000 classes its last layer and their names.

    Args:
        model (YOLO | torch.nn.Module): A YOLO object, or a module that holds the backbone, with three or any other
            number of input channels. Training from a model's YAML rebuilds the model and loses what was loaded by
            hand: save it first and train from the file, or name weights in the YAML.
        weights (str | None): Full timm tag of that architecture; by default that of the model's YAML.
        file (str | Path | None): State dict in `.safetensors`, `.pth` or `.pt` that stands in for the download, with
            timm's or torchvision's names, of the whole classifier or its features. What it does not say, BN eps,
            pixel statistics and padding, is taken from the tag.

    Returns:
        (LoadReport): What was loaded, and from where.

    Raises:
        ValueError: If tag or file do not fit the backbone or its padding; nothing is loaded then.
        WeightsUnavailableError: If the weights are neither in the cache nor to be downloaded, a RuntimeError.
    """
    module = model if isinstance(model, nn.Module) and not hasattr(model, "ckpt") else model.model
    layers = backbone_of(module)
    config = getattr(module, "yaml", {})
    tag = weights or config.get("weights")
    if not (file or weights) and config.get("weights_file"):
        file = _find(config["weights_file"], config)
    if not tag:
        raise ValueError(
            "no weights named: give a timm tag, here or with `weights:` in the model YAML; a file needs one too, as it "
            "does not say with what pixel statistics, BN eps and padding it was trained"
        )
    source = pretraining(tag, getattr(layers[0], "name", None))
    if source.padding != layers[0].padding:
        raise ValueError(
            f"weights '{tag}' were trained with padding: {source.padding}, but the model has padding: "
            f"{layers[0].padding}; write `padding: {source.padding}` in its YAML, or take weights of the other kind"
        )
    _convert(source.tensors, layers, source, f"'{tag}'")  # fits, before anything is downloaded
    path = Path(file) if file else download(source)
    origin = f"weights file '{path}'" if file else f"'{source.hub_id}'"
    converted = _convert(read_state_dict(path, source), layers, source, origin)
    nn.ModuleList(layers).load_state_dict(converted, strict=False)
    unnamed = {i: str(i) for i in range(1000)}  # not those of a data set that happens to have a thousand
    if getattr(module, "names", None) == unnamed and any(k.endswith("linear.bias") for k in converted):
        module.names = _imagenet_names()
    layers[0].set_statistics(source.mean, source.std)
    return LoadReport(source, str(path) if file else source.hub_id, len(converted))
