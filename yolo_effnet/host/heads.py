"""The branches of Ultralytics' heads, which have names of its own and no interface."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field

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
    heads are of one kind and take maps of the same widths. Branches that differ are replaced by copies of `theirs`,
    with new rows for another number of classes.
    """
    for name in ("cv3", "one2one_cv3"):
        ours, branches = getattr(head, name, None), getattr(theirs, name, None)
        if ours is None or branches is None or ours[0][-1].in_channels == branches[0][-1].in_channels:
            continue
        act = next(m.act for m in ours.modules() if isinstance(m, Conv))
        branches = copy.deepcopy(branches).to(ours[0][-1].weight).train(head.training).requires_grad_(True)
        set_activation(branches, act, backbone=False)
        setattr(head, name, branches)
        for own, branch in zip(ours, branches, strict=True):
            if (number := own[-1].out_channels) != branch[-1].out_channels:
                branch[-1] = nn.Conv2d(branch[-1].in_channels, number, 1).to(branch[-1].weight)
        head.bias_init()


@dataclass
class Seen:
    """What a head took and gave in its last call, maps `(B, C, H, W)` of each level of its pyramid.

    Attributes:
        inputs (list[torch.Tensor]): What it took.
        branches (dict[str, dict[int, torch.Tensor]]): What each branch gave, by its name and the number of the map.
        masks (torch.Tensor | None): Prototypes of masks, of a head that segments.
    """

    inputs: list[torch.Tensor] = field(default_factory=list)
    branches: dict[str, dict[int, torch.Tensor]] = field(default_factory=dict)
    masks: torch.Tensor | None = None

    def assignments(self) -> Iterator[tuple[dict, dict, list[dict]]]:
        """Yield class scores before the sigmoid, distances of boxes, and the rest, of one-to-many, then of one-to-one.

        Older releases of Ultralytics, and all in training, give other objects; these do not depend on that.
        """
        for prefix in ("", "one2one_"):
            ours = {n: b for n, b in self.branches.items() if n.startswith("one2one_") == bool(prefix)}
            if ours:
                scores, boxes = ours.pop(f"{prefix}cv3"), ours.pop(f"{prefix}cv2")
                yield scores, boxes, [ours[name] for name in sorted(ours)]


def watch(head: nn.Module, seen: Seen) -> list:
    """Note in `seen` what a head takes and gives, until the handles that are returned are removed."""

    def note_inputs(_module, args):
        seen.inputs = list(args[0])  # some releases put their outputs into that list

    def note_masks(_module, _args, output):
        seen.masks = output[0] if isinstance(output, tuple) else output

    handles = [head.register_forward_pre_hook(note_inputs)]
    if hasattr(head, "proto"):
        handles.append(head.proto.register_forward_hook(note_masks))
    for name, branch in head.named_children():
        if isinstance(branch, nn.ModuleList) and len(branch) == len(head.f):
            for i, module in enumerate(branch):

                def note(_module, _args, output, name=name, i=i):
                    seen.branches.setdefault(name, {})[i] = output

                handles.append(module.register_forward_hook(note))
    return handles


def kind(head: nn.Module) -> dict[str, object]:
    """Return what two heads must have in common, so that one can follow the other."""
    facts = {name: getattr(head, name, None) for name in ("nc", "reg_max", "nm", "ne", "kpt_shape")}
    strides = [int(stride) for stride in head.stride]
    return {"head": type(head).__name__, **facts, "strides": strides, "end2end": hasattr(head, "one2one_cv2")}
