"""Neck and head on their way from their teacher's activation to their own, while they follow it."""

import copy

import torch
from torch import nn
from ultralytics.nn.modules import Conv

from yolo_effnet.nn.settings import set_activation

_SHARE = 0.6  # of a training, after which they have arrived


class Between(nn.Module):
    """An activation on its way from one to another: the mean of both, by how far it has come, from 0 to 1."""

    def __init__(self, first: nn.Module, last: nn.Module):
        """Take both activations, as copies that leave what they take as it is: Ultralytics' work in place."""
        super().__init__()
        self.first, self.last, self.way = copy.deepcopy(first), copy.deepcopy(last), 0.0
        for act in (self.first, self.last):
            act.inplace = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the activation to `x` of any shape."""
        return torch.lerp(self.first(x), self.last(x), self.way)

    def go(self, share: float) -> None:
        """Go as far as belongs to a share of the training."""
        self.way = min(1.0, share / _SHARE)


def activation_of(model: nn.Module) -> nn.Module:
    """Return the activation of the head of a model, which its neck has too."""
    acts = (m.act for m in model.model[-1].modules() if isinstance(m, Conv))
    return next(act for act in acts if not isinstance(act, nn.Identity))


def is_new(model: nn.Module) -> bool:
    """Return whether neck and head of a graft have got an activation that their weights do not know yet."""
    record = model.yaml.get("graft") or {}
    return bool(record.get("activation")) and "followed" not in record


def set_out(model: nn.Module, teacher: nn.Module) -> Between:
    """Give neck and head of a model an activation between their teacher's and their own."""
    between = Between(activation_of(teacher), activation_of(model))
    set_activation(model, between, backbone=False)
    return between
