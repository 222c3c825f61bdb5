"""ImageNet weights into backbones, by hand and as training starts."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from torch import nn
from ultralytics.utils import ROOT

from yolo_effnet.nn.backbone import PixelNormalization
from yolo_effnet.nn.layers import ConvNormAct
from yolo_effnet.nn.origin import IMAGENET, note
from yolo_effnet.nn.settings import set_padding
from yolo_effnet.nn.stages import Classifier, EfficientNetStage, EfficientNetStem
from yolo_effnet.nn.timm_backbone import TimmBackbone
from yolo_effnet.weights.files import SUFFIXES, read_state_dict, tag_of_file
from yolo_effnet.weights.naming import Naming, Timm
from yolo_effnet.weights.sources import Pretraining, default_tag, download, on_disk, pretraining

if TYPE_CHECKING:
    from ultralytics import YOLO

_UNMATCHED = ("num_batches_tracked", "mean", "std")  # tensors without a counterpart, or of no consequence

# Rows of a backbone, and those of whole stages that stand for them.
_STAGES = {
    **dict.fromkeys(("MBConv", "EfficientNetStage"), "EfficientNetStage"),
    **dict.fromkeys(("FusedMBConv", "FusedStage"), "FusedStage"),
}


@dataclass(frozen=True)
class LoadReport:
    """What `load_backbone_weights` did.

    Attributes:
        pretraining (Pretraining): How the weights were trained.
        source (str): The file, package, cache or repository of the hub that they came from.
        tensors (int): Tensors of the backbone that were replaced, which is all of them.
    """

    pretraining: Pretraining
    source: str
    tensors: int

    def __str__(self) -> str:
        """Return the log line."""
        return f"ImageNet weights {self.pretraining} from {self.source}: {self.tensors}/{self.tensors} backbone tensors"


def backbone_of(model: nn.Module) -> list[Any]:
    """Return the stem, the stages and the classifier, if it has one, of a model in order, or its `TimmBackbone`."""
    kinds = (EfficientNetStem, EfficientNetStage, Classifier, TimmBackbone)
    layers, name = [m for m in model.modules() if isinstance(m, kinds)], type(model).__name__
    if not layers or not isinstance(layers[0], PixelNormalization):
        raise ValueError(f"{name} has no EfficientNetStem or TimmBackbone to load ImageNet weights into")
    if any(isinstance(m, ConvNormAct) and not hasattr(m, "bn") for m in layers[0].modules()):
        raise ValueError(f"{name} is fused; load ImageNet weights into it before fuse()")
    return layers[:1] if isinstance(layers[0], TimmBackbone) else layers


def _remedy(config: dict) -> str:
    """Return the end of an error: what in a model YAML makes its backbone another one than it is meant to be, if it is.

    Multiples act on the rows of the backbone as on all others, and rows of one stage count as several.
    """
    rows = [row for row in config.get("backbone") or () if row[2] in _STAGES and isinstance(row[3][0], int)]
    scales = config.get("scales") or {}
    scale = config.get("scale") or next(iter(scales), None)
    depth, width, *limit = scales.get(scale) or [config.get(f"{key}_multiple", 1.0) for key in ("depth", "width")]
    if (depth, width) != (1, 1) or any(row[3][0] > most for row in rows for most in limit):
        named = f"`scales:` of its YAML, {scale}: {scales[scale]}," if scales else "multiples of its YAML"
        return (
            f"; the {named} change the backbone too, whose rows are absolute: take 1.0 for depth and width and no "
            f"limit below its widths, and write the widths of neck and head out"
        )
    for row, after in pairwise(rows):
        if row[3][0] == after[3][0] and (after[3][2:3] or [1]) == [1]:
            stage = [-1, row[1] + after[1], _STAGES[row[2]], row[3]]
            both = f"; the rows {row} and {after} of its YAML are one stage"
            return f"{both}, which is one row with all its blocks: {stage}"
    for row in rows:
        if row[1] == 1 and row[2] != _STAGES[row[2]]:
            return f"; the row {row} of its YAML is a block alone, and a stage is a row of {_STAGES[row[2]]}"
    return ""


def _convert(
    state_dict: dict, naming: Naming, layers: list[Any], source: Pretraining, origin: str, config: dict
) -> dict[str, torch.Tensor]:
    """Return `state_dict` under the names of `layers`, exact in eval mode for their BatchNorm eps and channels.

    Raises:
        ValueError: If the model fixes another padding, or a tensor is missing, left over, of another shape, not finite.
    """
    from timm.models import adapt_input_conv

    def misfit(name: str, tensor: str) -> ValueError:
        where = f"{origin} is not of this backbone ({source.tag})"
        return ValueError(f"{where}: tensor '{name}' {tensor}{_remedy(config)}")

    if source.padding != layers[0].padding and not layers[0].follows_weights:
        raise ValueError(
            f"{origin}: weights {source} were trained with padding: {source.padding}, but the model has padding: "
            f"{layers[0].padding}; leave `padding:` in its YAML empty, or take weights of the other kind"
        )
    backbone, channels = nn.ModuleList(layers), layers[0].mean.shape[1]
    ours = {k: v for k, v in backbone.state_dict().items() if k.rpartition(".")[2] not in _UNMATCHED}
    if isinstance(layers[0], TimmBackbone) and not isinstance(naming, Timm):
        raise ValueError(
            f"{origin} has the names of {naming.library}, and a TimmBackbone takes those of timm: weights of "
            f"{source.tag}, or in a model of EfficientNetStem and EfficientNetStage rows"
        )
    names = naming.layers(layers)
    # Timm's models of feature maps flatten names of its classifiers: stages_0 for stages.0.
    known = {k.replace(".", "_"): k for k in state_dict}
    converted, used = {}, set()
    for key, value in ours.items():
        layer, _, attribute = key.rpartition(".")
        theirs = f"{names[layer]}.{attribute}".lstrip(".")
        theirs = known.get(theirs.replace(".", "_"), theirs)
        tensor = state_dict.get(theirs)
        if tensor is not None and tensor.ndim == 4 and (tensor.shape[1], value.shape[1]) == (3, channels):
            tensor = adapt_input_conv(channels, tensor)
        if tensor is not None and layer.endswith(".linear") and len(tensor) != len(value):
            continue  # the last layer of a classifier learns its own classes
        if tensor is None or tensor.shape != value.shape:
            found = "is missing" if tensor is None else f"is {tuple(tensor.shape)}"
            raise misfit(theirs, f"{found}, expected {tuple(value.shape)} for '{key}'")
        if not (tensor.is_meta or tensor.isfinite().all()):
            raise ValueError(f"{origin} is broken: tensor '{theirs}' has values that are NaN or infinite")
        converted[key] = tensor
        used.add(theirs)
    left = [k for k in state_dict.keys() - used if k.rpartition(".")[2] not in _UNMATCHED]
    if left := sorted(filter(naming.belongs_to_backbone, left)):
        raise misfit(left[0], f"{tuple(state_dict[left[0]].shape)} is left over, as {len(left)} are in all")
    for name, module in backbone.named_modules():
        if isinstance(module, nn.BatchNorm2d) and module.eps != source.bn_eps:
            # Ultralytics sets eps at every rebuild of a model, and a state dict does not hold it, but gamma stays.
            variance = converted[f"{name}.running_var"].double()
            scale = ((variance + module.eps) / (variance + source.bn_eps)).sqrt()
            converted[f"{name}.weight"] = (converted[f"{name}.weight"].double() * scale).float()
    return converted


def _file(name: str | Path | None, config: dict) -> Path | None:
    """Return the path of a file, relative to the working directory or to the YAML; None for a tag."""
    if not isinstance(name, (str, Path)):
        return None
    path = Path(name).expanduser()
    beside = Path(config.get("yaml_file") or "").parent / path
    named = isinstance(name, Path) or name.endswith(SUFFIXES) or "/" in name or "\\" in name
    return next((p for p in (path, beside) if p.is_file()), path if named else None)


def named_by(config: dict) -> str | Path | None:
    """Return the tag or file that a model YAML names, by `backbone_weights` or a key of earlier versions."""
    file = config.get("weights_file")
    return config.get("backbone_weights") or (Path(file) if file else config.get("weights"))


def _tag(path: Path, layers: list[Any], config: dict) -> str:
    """Return the tag of the weights in a file: by its name, else that of the YAML, else that of the architecture."""
    said = [config.get(key) for key in ("backbone_weights", "weights")]
    tags = (name for name in said if name and not _file(name, config))
    tag = tag_of_file(path, getattr(layers[0], "name", None)) or next(tags, None) or default_tag(layers)
    if not tag:
        raise ValueError(
            f"weights file '{path}': nothing tells how its weights were trained; name the file after its timm tag, "
            f"such as efficientnet_b0.ra_in1k{path.suffix}"
        )
    return tag


def load_backbone_weights(model: "YOLO | nn.Module", backbone_weights: str | Path | None = None) -> LoadReport:
    """Load ImageNet weights into the backbone of a model; its features are then exactly those of their library.

    In a classification model that includes the head, and with 1000 classes its last layer and their names. Where the
    YAML leaves `padding:` empty, the model takes the padding of the weights. Its `yaml` says what was loaded, so that
    a model that is built from it starts from the same.

    Args:
        model (YOLO | torch.nn.Module): A YOLO object, or a module that holds the backbone, with three or any other
            number of input channels. Training from a model's YAML rebuilds the model and loses what was loaded by
            hand: save it first and train from the file, or name weights as an argument of the training.
        backbone_weights (str | Path | None): A full timm tag of that architecture, or a file that stands in for the
            download; by default what the model's YAML names. A file is a state dict in `.safetensors`, `.pth` or
            `.pt`, with the names of timm, torchvision or EfficientNet-PyTorch, of the whole classifier or its features.
            In a file of timm's, BN eps, pixel statistics and padding are those of its tag: that of its name or of the
            `config.json` beside it, else that of the YAML, else the default of the architecture.

    Returns:
        (LoadReport): What was loaded, and from where.

    Raises:
        ValueError: If tag or file do not fit the backbone, or the padding that its YAML fixes; nothing is loaded then.
        WeightsUnavailableError: If the weights are neither on disk nor to be downloaded, a RuntimeError.
    """
    module: Any = model if isinstance(model, nn.Module) and not hasattr(model, "ckpt") else model.model
    layers = backbone_of(module)
    config = getattr(module, "yaml", {})
    name = backbone_weights or named_by(config)
    if not name:
        raise ValueError("no weights named: give backbone_weights, a timm tag or a file, here or in the model YAML")
    path = _file(name, config)
    source = pretraining(_tag(path, layers, config) if path else str(name), getattr(layers[0], "name", None))
    if path:
        origin = f"weights file '{path}'"
        state_dict, naming = read_state_dict(path, source)
        source = naming.pretraining(source)
    else:
        # Weights that do not fit are refused before they are downloaded.
        _convert(source.tensors, Timm(source.tensors), layers, source, f"'{source.tag}'", config)
        found, origin = on_disk(source.tag, source.hub_id) or (download(source), f"'{source.hub_id}'")
        state_dict, naming = read_state_dict(found, source)
    converted = _convert(state_dict, naming, layers, source, origin, config)
    nn.ModuleList(layers).load_state_dict(converted, strict=False)
    unnamed = {i: str(i) for i in range(1000)}  # not those of a data set that happens to have a thousand
    if getattr(module, "names", None) == unnamed and any(k.endswith("linear.bias") for k in converted):
        module.names = yaml.safe_load((ROOT / "cfg/datasets/ImageNet.yaml").read_text(encoding="utf-8"))["names"]
    adopt_padding(module, source.padding)
    layers[0].set_statistics(source.mean, source.std)
    note(module, backbone=IMAGENET)
    if backbone_weights or "backbone_weights" in config:  # a YAML of earlier versions says it already
        config["backbone_weights"] = str(path or source.tag)
        if path and _tag(path, layers, config) != source.tag:
            config["weights"] = source.tag
    return LoadReport(source, origin, len(converted))


def adopt_padding(module: nn.Module, padding: str) -> None:
    """Give a model, and its `yaml`, the padding that its weights were trained with."""
    layers = backbone_of(module)
    if layers[0].follows_weights:
        set_padding(nn.ModuleList(layers), padding)
        layers[0].follows_weights = True  # of further weights
        getattr(module, "yaml", {})["padding"] = padding
