"""What libraries call the tensors of an EfficientNet, and how they trained them: a class per library."""

import re
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
_LAYERS = {"se": ("reduce", "expand")}  # of a role; the others have a convolution and its BatchNorm


class Naming:
    """Names of the layers of a backbone in one library.

    Attributes:
        library (str): Its name.
        stem (tuple[str, str]): Convolution and BatchNorm of the stem.
        block_prefix (str): What the names of a block begin with: `block` of its `stage`, which is `row` of the
            backbone, and `index` of all blocks, all counted from 0 on.
        head (tuple[str, str, str]): Convolution, BatchNorm and linear layer of the classifier, which is in `row`.
        in_blocks (str): What only names of tensors of blocks have in them.
    """

    library: str
    stem: tuple[str, str]
    block_prefix: str
    head: tuple[str, str, str]
    in_blocks: str

    @property
    def first(self) -> str:
        """Return the tensor by which the names are known."""
        return f"{self.stem[0]}.weight"

    def pretraining(self, source: Pretraining) -> Pretraining:
        """Return how weights in a file of these names were trained, where `source` is what the tag says."""
        return source

    def pair(self, role: str, block: nn.Module, roles: list[str]) -> tuple[str, str]:
        """Return the library's names of the two layers of a role, in a block that has layers of all these roles."""
        raise NotImplementedError

    def belongs_to_backbone(self, name: str) -> bool:
        """Return whether a tensor of that name is one of a backbone, so that it must find a place."""
        return self.in_blocks in name

    def layers(self, layers: list[Any]) -> dict[str, str]:
        """Return the library's name for each layer with tensors of stem, stages and, if there is one, classifier."""
        names, index = dict(zip(("0.conv", "0.bn"), self.stem, strict=True)), 0
        for i, layer in enumerate(layers[1:], start=1):
            if isinstance(layer, Classifier):
                parts = zip(("conv.conv", "conv.bn", "linear"), self.head, strict=True)
                names |= {f"{i}.{ours}": theirs.format(row=i) for ours, theirs in parts}
                continue
            for j, block in enumerate(layer):
                roles = [role for role in _ROLES if not isinstance(getattr(block, role, nn.Identity()), nn.Identity)]
                prefix = self.block_prefix.format(row=i, stage=i - 1, block=j, index=index)
                index += 1
                for role in roles:
                    pair = zip(_LAYERS.get(role, ("conv", "bn")), self.pair(role, block, roles), strict=True)
                    names |= {f"{i}.{j}.{role}.{ours}": f"{prefix}.{theirs}" for ours, theirs in pair}
        return names


class Timm(Naming):
    """Names of timm, of a model whose classifier has tensors of the names `tensors`."""

    library = "timm"
    stem = ("conv_stem", "bn1")
    block_prefix = "blocks.{stage}.{block}"
    head = ("conv_head", "bn2", "classifier")

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

    def pair(self, role: str, block: nn.Module, roles: list[str]) -> tuple[str, str]:
        """Return the names, which depend on whether there is an expansion."""
        fused, whole = isinstance(block, FusedMBConv), "expand" in roles
        conv = {
            "expand": "conv_exp" if fused else "conv_pw",
            "depthwise": "conv_dw",
            "se": "se.conv_reduce",
            "project": "conv_pwl" if whole else "conv" if fused else "conv_pw",
        }[role]
        return conv, "se.conv_expand" if role == "se" else f"bn{[r for r in roles if r != 'se'].index(role) + 1}"

    def belongs_to_backbone(self, name: str) -> bool:
        """Return whether it is one of a block of an EfficientNet, or of another model than the classifier."""
        return name not in self.tensors or (self.has_blocks and name.startswith("blocks."))


class Torchvision(Naming):
    """Names of torchvision: layers by their place, and the classifier's after those of the stages."""

    library = "torchvision"
    stem = ("features.0.0", "features.0.1")
    block_prefix = "features.{row}.{block}"
    head = ("features.{row}.0", "features.{row}.1", "classifier.1")
    in_blocks = ".block."

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

    def pair(self, role: str, block: nn.Module, roles: list[str]) -> tuple[str, str]:
        """Return the names: the place of each layer in the block."""
        first, second = ("fc1", "fc2") if role == "se" else (0, 1)
        return f"block.{roles.index(role)}.{first}", f"block.{roles.index(role)}.{second}"


class Lukemelas(Naming):
    """Names of EfficientNet-PyTorch by Luke Melas-Kyriazi and of the EfficientNet-Lite that was derived from it."""

    library = "EfficientNet-PyTorch"
    stem = ("_conv_stem", "_bn0")
    block_prefix = "_blocks.{index}"
    head = ("_conv_head", "_bn1", "_fc")
    in_blocks = "_blocks."

    def pretraining(self, source: Pretraining) -> Pretraining:
        """Return the padding and epsilon of TensorFlow, which all of its weights have."""
        return replace(source, library=self.library, bn_eps=1e-3, padding="same")

    def pair(self, role: str, block: nn.Module, roles: list[str]) -> tuple[str, str]:
        """Return the names, whose numbers do not depend on whether there is an expansion."""
        last = {"expand": "bn0", "depthwise": "bn1", "se": "se_expand", "project": "bn2"}[role]
        return "_se_reduce" if role == "se" else f"_{role}_conv", f"_{last}"
