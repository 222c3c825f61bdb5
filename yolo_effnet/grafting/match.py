"""Gradient steps on pictures without labels that bring the inputs of the head to the donor's."""

import math
import random

import torch
from torch import nn
from ultralytics.utils import LOGGER, TQDM

from yolo_effnet.grafting.anatomy import Anatomy
from yolo_effnet.grafting.donor import Donor
from yolo_effnet.grafting.pictures import Pictures
from yolo_effnet.grafting.seams import head_inputs
from yolo_effnet.host.heads import branch_outputs

RATE, _BACKBONE_RATE = 1e-4, 2e-5  # five times as much leads away from what was solved
_ANEW = 5  # times these where neck and head get another activation, which leaves little of it
_WARM_UP, _BATCH = 20, 8  # steps, pictures


def _to_match(model: nn.Module, x: torch.Tensor, head_too: bool) -> list[torch.Tensor]:
    """Return the inputs of the head for images `x`, and with `head_too` also what its branches make of them."""
    maps = head_inputs(model, x)
    return maps + branch_outputs(model.model[-1], maps) if head_too else maps


def distance(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> torch.Tensor:
    """Return the mean squared error of maps over the variance of what is wanted, in float32, the mean over the maps."""
    pairs = [(a.float(), b.float()) for a, b in zip(found, wanted, strict=True)]
    return sum(((a - b) ** 2).mean() / b.var() for a, b in pairs) / len(pairs)


def match(
    donor: Donor, model: nn.Module, anatomy: Anatomy, pictures: Pictures, steps: int, seed: int, device, head_too: bool
) -> tuple[float, float]:
    """Train backbone and neck of a grafted model towards the donor's inputs of the head.

    Statistics of BatchNorm stay as they are.

    Args:
        donor (Donor): Whose neck and head the model has.
        model (nn.Module): The grafted model, in eval mode.
        anatomy (Anatomy): What its rows are.
        pictures (Pictures): Pictures without labels.
        steps (int): Number of steps of 8 pictures.
        seed (int): Of the choice of pictures and their parts.
        device (torch.device): Where both models are.
        head_too (bool): Whether the head is trained as well, towards the donor's outputs.

    Returns:
        (tuple[float, float]): Mean squared error over the donor's variance, mean of the first and of the last steps.

    References:
        Revisiting Model Stitching, https://arxiv.org/abs/2603.12433: matching final features.
    """
    rng = random.Random(seed)
    model.requires_grad_(False)
    layers = list(model.model)
    backbone = [p for layer in layers[: anatomy.start] for p in layer.parameters()]
    neck = [p for layer in layers[anatomy.start : None if head_too else -1] for p in layer.parameters()]
    for parameter in (*backbone, *neck):
        parameter.requires_grad_(True)
    factor = _ANEW if head_too else 1
    groups = [{"params": backbone, "lr": factor * _BACKBONE_RATE}, {"params": neck, "lr": factor * RATE}]
    optimizer = torch.optim.AdamW(groups, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / _WARM_UP) * 0.5 * (1 + math.cos(math.pi * step / steps))
    )
    errors = []
    for _ in TQDM(range(steps), total=steps, desc="match"):
        x = pictures.crops(_BATCH, rng).to(device)
        with torch.no_grad():
            wanted = _to_match(donor.model, x, head_too)
        found = _to_match(model, x, head_too)
        error = distance(found, wanted)
        optimizer.zero_grad()
        error.backward()
        nn.utils.clip_grad_norm_([*backbone, *neck], 10.0)
        optimizer.step()
        schedule.step()
        errors.append(error.item())
    few = max(1, min(_WARM_UP, steps // 4))
    first, last = (sum(part) / len(part) for part in (errors[:few], errors[-few:]))
    LOGGER.info(f"matched in {steps} steps: error at the inputs of the head {first:.3f} -> {last:.3f}")
    return first, last
