"""What libraries call the tensors of an EfficientNet: an object per library."""

from abc import ABC, abstractmethod
from collections.abc import Collection

from torch import nn

from yolo_effnet.nn.blocks import FusedMBConv, MBConv
from yolo_effnet.nn.stages import Classifier
from yolo_effnet.nn.timm_backbone import TimmBackbone

_ROLES = ("expand", "depthwise", "se", "project")


class Naming(ABC):
    """Names of the layers of a backbone in one library.

    Attributes:
        stem (tuple[str, str]): Convolution and BatchNorm of the stem.
    """

    stem: tuple[str, str]

    @abstractmethod
    def block_prefix(self, stage: int, block: int) -> str:
        """Return what the names of a block begin with, of the stage and the block of these indices, from 0 on."""

    @abstractmethod
    def block(self, block: MBConv | FusedMBConv, roles: list[str]) -> dict[str, str]:
        """Return the library's name for each layer with tensors in a block that has layers of these roles."""

    @abstractmethod
    def head(self, stages: int) -> tuple[str, str, str]:
        """Return convolution, BatchNorm and linear layer of the classifier after so many stages."""

    @abstractmethod
    def belongs_to_backbone(self, name: str) -> bool:
        """Return whether a tensor of that name is one of a backbone, so that it must find a place."""

    def layers(self, layers: list[nn.Module]) -> dict[str, str]:
        """Return the library's name for each layer with tensors of stem, stages and, if there is one, classifier."""
        names = dict(zip(("0.conv", "0.bn"), self.stem, strict=True))
        for i, layer in enumerate(layers[1:], start=1):
            if isinstance(layer, Classifier):
                names |= dict(zip((f"{i}.conv.conv", f"{i}.conv.bn", f"{i}.linear"), self.head(i - 1), strict=True))
                continue
            for j, block in enumerate(layer):
                roles = [role for role in _ROLES if not isinstance(getattr(block, role, nn.Identity()), nn.Identity)]
                prefix = self.block_prefix(i - 1, j)
                names |= {f"{i}.{j}.{ours}": f"{prefix}.{theirs}" for ours, theirs in self.block(block, roles).items()}
        return names


class Timm(Naming):
    """Names of timm, of a model whose classifier has tensors of the names `tensors`."""

    stem = ("conv_stem", "bn1")

    def __init__(self, tensors: Collection[str]):
        """Initialize with the names of all tensors of the classifier."""
        self.tensors, self.has_blocks = tensors, True

    def layers(self, layers: list[nn.Module]) -> dict[str, str]:
        """Return the names as `Naming` does; a `TimmBackbone` knows its own."""
        if isinstance(layers[0], TimmBackbone):
            self.has_blocks = False  # of which features_only may leave out the last
            return {f"0.{ours}": theirs for ours, theirs in layers[0].timm_names().items()}
        return super().layers(layers)

    def block_prefix(self, stage: int, block: int) -> str:
        """Return `blocks.0.0` and the like."""
        return f"blocks.{stage}.{block}"

    def block(self, block: MBConv | FusedMBConv, roles: list[str]) -> dict[str, str]:
        """Return the names, which depend on whether there is an expansion."""
        fused, whole = isinstance(block, FusedMBConv), "expand" in roles
        convs = {
            "expand": "conv_exp" if fused else "conv_pw",
            "depthwise": "conv_dw",
            "project": "conv_pwl" if whole else "conv" if fused else "conv_pw",
        }
        names = {}
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

    stem = ("features.0.0", "features.0.1")

    @staticmethod
    def fits(state_dict: dict, source) -> bool:
        """Return whether a state dict has these names, and not those of timm."""
        return not source.tensors.keys() & state_dict.keys() and any(k.startswith("features.0.") for k in state_dict)

    def block_prefix(self, stage: int, block: int) -> str:
        """Return `features.1.0` and the like."""
        return f"features.{stage + 1}.{block}"

    def block(self, block: MBConv | FusedMBConv, roles: list[str]) -> dict[str, str]:
        """Return the names: the place of each layer in the block."""
        names = {}
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
