"""What libraries call the tensors of an EfficientNet, and how they trained them: an object per library."""

import re
from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from torch import nn

from yolo_effnet.nn.backbone import IMAGENET_MEAN, IMAGENET_STD
from yolo_effnet.nn.blocks import FusedMBConv
from yolo_effnet.nn.stages import Classifier
from yolo_effnet.nn.timm_backbone import TimmBackbone
from yolo_effnet.weights.sources import Pretraining

_ROLES = ("expand", "depthwise", "se", "project")


class Naming(ABC):
    """Names of the layers of a backbone in one library.

    Attributes:
        library (str): Its name.
        stem (tuple[str, str]): Convolution and BatchNorm of the stem.
    """

    library: str
    stem: tuple[str, str]

    @property
    def first(self) -> str:
        """Return the tensor by which the names are known."""
        return f"{self.stem[0]}.weight"

    def pretraining(self, source: Pretraining) -> Pretraining:
        """Return how weights in a file of these names were trained, where `source` is what the tag says."""
        return source

    @abstractmethod
    def block_prefix(self, stage: int, block: int, index: int) -> str:
        """Return what the names of a block begin with: block `block` of stage `stage`, `index` of all, from 0 on."""

    @abstractmethod
    def block(self, block: nn.Module, roles: list[str]) -> dict[str, str]:
        """Return the library's name for each layer with tensors in a block that has layers of these roles."""

    @abstractmethod
    def head(self, stages: int) -> tuple[str, str, str]:
        """Return convolution, BatchNorm and linear layer of the classifier after so many stages."""

    @abstractmethod
    def belongs_to_backbone(self, name: str) -> bool:
        """Return whether a tensor of that name is one of a backbone, so that it must find a place."""

    def layers(self, layers: list[Any]) -> dict[str, str]:
        """Return the library's name for each layer with tensors of stem, stages and, if there is one, classifier."""
        names, index = dict(zip(("0.conv", "0.bn"), self.stem, strict=True)), 0
        for i, layer in enumerate(layers[1:], start=1):
            if isinstance(layer, Classifier):
                names |= dict(zip((f"{i}.conv.conv", f"{i}.conv.bn", f"{i}.linear"), self.head(i - 1), strict=True))
                continue
            for j, block in enumerate(layer):
                roles = [role for role in _ROLES if not isinstance(getattr(block, role, nn.Identity()), nn.Identity)]
                prefix = self.block_prefix(i - 1, j, index)
                index += 1
                names |= {f"{i}.{j}.{ours}": f"{prefix}.{theirs}" for ours, theirs in self.block(block, roles).items()}
        return names


class Timm(Naming):
    """Names of timm, of a model whose classifier has tensors of the names `tensors`."""

    library = "timm"
    stem = ("conv_stem", "bn1")

    def __init__(self, tensors: Collection[str]):
        """Initialize with the names of all tensors of the classifier."""
        self.tensors, self.has_blocks = tensors, True

    @property
    def first(self) -> str:
        """Return the tensor by which the names are known, of any model."""
        return next(iter(self.tensors))

    def layers(self, layers: list[Any]) -> dict[str, str]:
        """Return the names as `Naming` does; a `TimmBackbone` knows its own."""
        if isinstance(layers[0], TimmBackbone):
            self.has_blocks = False  # of which features_only may leave out the last
            return {f"0.{ours}": theirs for ours, theirs in layers[0].timm_names().items()}
        return super().layers(layers)

    def block_prefix(self, stage: int, block: int, index: int) -> str:
        """Return `blocks.0.0` and the like."""
        return f"blocks.{stage}.{block}"

    def block(self, block: nn.Module, roles: list[str]) -> dict[str, str]:
        """Return the names, which depend on whether there is an expansion."""
        fused, whole = isinstance(block, FusedMBConv), "expand" in roles
        convs = {
            "expand": "conv_exp" if fused else "conv_pw",
            "depthwise": "conv_dw",
            "project": "conv_pwl" if whole else "conv" if fused else "conv_pw",
        }
        names: dict[str, str] = {}
        for i, role in enumerate((role for role in roles if role != "se"), start=1):
            names |= {f"{role}.conv": convs[role], f"{role}.bn": f"bn{i}"}
        if "se" in roles:
            names |= {"se.reduce": "se.conv_reduce", "se.expand": "se.conv_expand"}
        return names

    def head(self, stages: int) -> tuple[str, str, str]:
        """Return the names, which are the same for all."""
        return "conv_head", "bn2", "classifier"

    def belongs_to_backbone(self, name: str) -> bool:
        """Return whether it is one of a block of an EfficientNet, or of another model than the classifier."""
        return name not in self.tensors or (self.has_blocks and name.startswith("blocks."))


class Torchvision(Naming):
    """Names of torchvision: layers by their place."""

    library = "torchvision"
    stem = ("features.0.0", "features.0.1")

    def pretraining(self, source: Pretraining) -> Pretraining:
        """Return what torchvision's recipes have in common, and where its models differ."""
        model = re.search(r"efficientnet(v2)?_(\w+)", source.tag)
        v2, size = model.groups() if model else (None, "")
        half = size == "l"  # of the V2 models, this one alone
        return replace(
            source,
            library=self.library,
            mean=(0.5,) * 3 if half else IMAGENET_MEAN,
            std=(0.5,) * 3 if half else IMAGENET_STD,
            bn_eps=1e-5 if size in ("b0", "b1", "b2", "b3", "b4") and not v2 else 1e-3,
            padding="symmetric",
        )

    def block_prefix(self, stage: int, block: int, index: int) -> str:
        """Return `features.1.0` and the like."""
        return f"features.{stage + 1}.{block}"

    def block(self, block: nn.Module, roles: list[str]) -> dict[str, str]:
        """Return the names: the place of each layer in the block."""
        names: dict[str, str] = {}
        for i, role in enumerate(roles):
            parts = {"reduce": "fc1", "expand": "fc2"} if role == "se" else {"conv": 0, "bn": 1}
            names |= {f"{role}.{ours}": f"block.{i}.{theirs}" for ours, theirs in parts.items()}
        return names

    def head(self, stages: int) -> tuple[str, str, str]:
        """Return the names, which stand after those of the stages."""
        return f"features.{stages + 1}.0", f"features.{stages + 1}.1", "classifier.1"

    def belongs_to_backbone(self, name: str) -> bool:
        """Return whether the tensor is one of a block; those of the classifier may be left over."""
        return ".block." in name


class Lukemelas(Naming):
    """Names of EfficientNet-PyTorch by Luke Melas-Kyriazi and of the EfficientNet-Lite that was derived from it."""

    library = "EfficientNet-PyTorch"
    stem = ("_conv_stem", "_bn0")

    def pretraining(self, source: Pretraining) -> Pretraining:
        """Return the padding and epsilon of TensorFlow, which all of its weights have."""
        return replace(source, library=self.library, bn_eps=1e-3, padding="same")

    def block_prefix(self, stage: int, block: int, index: int) -> str:
        """Return `_blocks.0` and the like, of which the stages do not count."""
        return f"_blocks.{index}"

    def block(self, block: nn.Module, roles: list[str]) -> dict[str, str]:
        """Return the names, whose numbers do not depend on whether there is an expansion."""
        return {
            "expand.conv": "_expand_conv",
            "expand.bn": "_bn0",
            "depthwise.conv": "_depthwise_conv",
            "depthwise.bn": "_bn1",
            "se.reduce": "_se_reduce",
            "se.expand": "_se_expand",
            "project.conv": "_project_conv",
            "project.bn": "_bn2",
        }

    def head(self, stages: int) -> tuple[str, str, str]:
        """Return the names, which are the same for all."""
        return "_conv_head", "_bn1", "_fc"

    def belongs_to_backbone(self, name: str) -> bool:
        """Return whether the tensor is one of a block."""
        return name.startswith("_blocks.")
