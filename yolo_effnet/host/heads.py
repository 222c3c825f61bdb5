"""The branches of Ultralytics' heads, which have names of its own and no interface."""

import copy

import torch
from torch import nn
from ultralytics.nn.modules import Conv

from yolo_effnet.nn.settings import set_activation


def class_branches(head: nn.Module) -> nn.ModuleList:
    """Return the branches of a head that score classes at inference, one for each map that it takes."""
    return head.one2one_cv3 if getattr(head, "end2end", False) else head.cv3


def keep_class_branches(head: nn.Module, theirs: nn.Module) -> None:
    """Give a head class branches of the inner width that another has, which no YAML tells.

    Ultralytics leaves them as wide as they were for the classes that a detector had before it was fine-tuned. Both
    heads are of one kind; branches that differ are replaced by copies of `theirs`.
    """
    for name in ("cv3", "one2one_cv3"):
        ours, branches = getattr(head, name, None), getattr(theirs, name, None)
        if ours is None or branches is None or ours[0][-1].in_channels == branches[0][-1].in_channels:
            continue
        act = next(m.act for m in ours.modules() if isinstance(m, Conv))
        branches = copy.deepcopy(branches)
        set_activation(branches, act, Conv)
        setattr(head, name, branches)


def branch_outputs(head: nn.Module, maps: list[torch.Tensor]) -> list[torch.Tensor]:
    """Return what all branches of a head make of the maps that it takes, `(B, C, H, W)` each."""
    branches = [m for m in head.children() if isinstance(m, nn.ModuleList) and len(m) == len(maps)]
    return [module(x) for branch in branches for module, x in zip(branch, maps, strict=True)]
