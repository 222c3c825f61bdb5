"""A backbone without some of its residual blocks, where the last projection that stays gives what its stage gave."""

import copy
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn
from ultralytics.utils import LOGGER
from ultralytics.utils.torch_utils import fuse_conv_and_bn

from yolo_effnet.arguments import WEIGHTS_KEYS
from yolo_effnet.grafting.anatomy import watched
from yolo_effnet.grafting.new_backbone import Backbone
from yolo_effnet.grafting.pictures import Pictures
from yolo_effnet.grafting.seams import run
from yolo_effnet.grafting.solve import RIDGE, Sums, batches, columns, fitted, install, places
from yolo_effnet.host.written_out import explicit_rows
from yolo_effnet.nn.stages import EfficientNetStage

_SCALING = ("scales", "scale", "depth_multiple", "width_multiple")


def _without_last_stage(backbone: Backbone) -> Backbone:
    """Return a backbone whose map at stride 32 is that of the stage before its last, where the last does not stride."""
    anatomy, top = backbone.anatomy, backbone.anatomy.taps[5]
    before = top - 1
    stages = all(isinstance(backbone.model.model[row], EfficientNetStage) for row in (before, top))
    if stages and anatomy.levels[before] == 5:
        return replace(backbone, anatomy=replace(anatomy, start=top, taps={**anatomy.taps, 5: before}))
    return backbone


def _stages(backbone: Backbone) -> dict[int, EfficientNetStage]:
    """Return the stages that have residual blocks, by their rows."""
    rows = list(backbone.model.model)[: backbone.anatomy.start]
    stages = [row for row in rows if isinstance(row, EfficientNetStage) and len(row) > 1 and row[0].has_wide_map]
    return {stage.i: stage for stage in stages}


def _shortened(backbone: Backbone, kept: dict[int, int]) -> Backbone:
    """Return a copy of a backbone whose stages have their first blocks alone, so many as `kept` says by row."""
    model = copy.deepcopy(backbone.model)
    rows = explicit_rows(model, backbone.anatomy.channels)
    for row, number in kept.items():
        stage = model.model[row]
        tapped = stage[-1].tap
        del stage[number:]
        stage[-1].tap = tapped
        rows[row][1] = number
    split = len(model.yaml["backbone"])
    config = {key: value for key, value in model.yaml.items() if key not in (*_SCALING, *WEIGHTS_KEYS)}
    model.yaml = {**config, "backbone": rows[:split], "head": rows[split:]}
    return replace(backbone, model=model)


def _output(y) -> torch.Tensor:
    """Return the output of a stage or a block, which gives two maps where it is tapped."""
    return y[1] if isinstance(y, dict) else y


def _sums(block: nn.Module, taken: torch.Tensor, inner: torch.Tensor, y: torch.Tensor) -> Sums:
    """Return the sums over what the projection of a block took, and has to give so that the block gives `y`."""
    return Sums.of(columns(block.project.conv, inner), places(y if block.drop_path is None else y - taken))


def _weights(block: nn.Module) -> torch.Tensor:
    """Return the weights of the projection of a block as `Sums` have them, `(n, m)` with the constant last."""
    folded = fuse_conv_and_bn(copy.deepcopy(block.project.conv), block.project.bn)
    return torch.cat([folded.weight.flatten(1).T, folded.bias[None]]).cpu().double()


def _losses(
    backbone: Backbone, stages: dict[int, EfficientNetStage], pictures: Pictures, device: torch.device
) -> dict[tuple[int, int], float]:
    """Return the share of the variance of a stage's output that is lost where so many of its blocks stay."""
    blocks = {(row, i + 1): block for row, stage in stages.items() for i, block in enumerate(stage)}
    sums: dict[tuple[int, int], Sums] = {}
    variances = dict.fromkeys(stages, 0.0)
    with watched(blocks) as seen, watched({key: block.project for key, block in blocks.items()}) as projected:
        for _, x in batches(pictures, device, "residual blocks"):
            run(backbone.model, x, max(stages))
            for row, stage in stages.items():
                y = _output(seen[row, len(stage)][1])
                variances[row] += float(places(y).double().var(0).sum()) * y[:, 0].numel()
                for kept in range(1, len(stage)):
                    found = _sums(stage[kept - 1], seen[row, kept][0], projected[row, kept][0], y)
                    sums[row, kept] = sums[row, kept] + found if (row, kept) in sums else found
    losses = {(row, len(stage)): 0.0 for row, stage in stages.items()}
    for key, found in sums.items():
        row, kept = key
        weights = found.solution(RIDGE, _weights(stages[row][kept - 1]).to(found.xx.device))
        losses[key] = found.residual(weights) / variances[row]
    return losses


def _chosen(losses: dict[tuple[int, int], float], costs: dict[int, float], saving: float) -> dict[int, int]:
    """Return how many blocks of each row stay, so that GFLOPs are saved where the least is lost for each of them.

    `costs` are the GFLOPs of one block by row.
    """
    kept = {row: max(number for r, number in losses if r == row) for row in costs}
    while saving > 1e-6:  # not what rounding leaves of a limit that is just met
        saved = {(row, n): (kept[row] - n) * costs[row] for row, n in losses if n < kept[row]}
        lost = {cut: losses[cut] - losses[cut[0], kept[cut[0]]] for cut in saved}
        enough = [cut for cut in saved if saved[cut] >= saving]
        cut = min(enough, key=lost.get) if enough else max(saved, key=lambda cut: saved[cut] / max(lost[cut], 1e-6))
        saving -= saved[cut]
        kept[cut[0]] = cut[1]
    return kept


def _refit(whole: Backbone, short: Backbone, row: int, pictures: Pictures, device: torch.device) -> float:
    """Solve for the last projection of a shortened stage, on what the rows before give now, and return its R2."""
    block = short.model.model[row][-1]
    halves: list[Sums] = []
    with watched({"block": block, "projection": block.project}) as seen:
        for half, x in batches(pictures, device, f"stage {row}"):
            run(short.model, x, row)
            y = _output(run(whole.model, x, row)[row])
            found = _sums(block, seen["block"][0], seen["projection"][0], y)
            halves[half : half + 1] = [halves[half] + found] if half < len(halves) else [found]
    weights, total, fit, _ = fitted(halves, _weights(block).to(halves[0].xx.device))
    install(block.project, None, weights, total)
    return fit


@torch.no_grad()
def slimmed(
    backbone: Backbone,
    cost: Callable[[Backbone], float],
    max_gflops: float,
    pictures: Pictures,
    device: torch.device,
) -> Backbone:
    """Return a backbone with which a graft has at most so many GFLOPs, itself if it has not more.

    The last stage goes first, if it does not stride, then residual blocks: those whose stage loses least for what they
    cost. The last block that stays is solved for what the whole stage gave.

    Args:
        backbone (Backbone): With its weights, in eval mode.
        cost (Callable[[Backbone], float]): GFLOPs of a graft with a backbone.
        max_gflops (float): Those that it may have.
        pictures (Pictures): On which what is lost is measured and made up for.
        device (torch.device): Where to compute.

    Raises:
        ValueError: If there are more without any residual block of `EfficientNetStage` or `FusedStage` rows.

    References:
        Practical Network Acceleration with Tiny Sets, https://arxiv.org/abs/2202.07861: whole blocks are left out.
    """
    before = cost(backbone)
    if before <= max_gflops:
        return backbone
    whole = _without_last_stage(backbone)
    stages = _stages(whole)
    left = cost(whole)
    costs = {row: left - cost(_shortened(whole, {row: len(stage) - 1})) for row, stage in stages.items()}
    least = left - sum(costs[row] * (len(stage) - 1) for row, stage in stages.items())
    if least > max_gflops:
        raise ValueError(
            f"max_gflops={max_gflops}: the graft with {backbone.name} has {before:.2f} GFLOPs, and {least:.2f} without "
            "any residual block; take a lighter backbone"
        )
    if left <= max_gflops:
        return whole
    whole.model.to(device).eval()
    kept = _chosen(_losses(whole, stages, pictures, device), costs, left - max_gflops)
    kept = {row: number for row, number in kept.items() if number < len(stages[row])}
    short = _shortened(whole, kept)
    for row, number in kept.items():
        fit = _refit(whole, short, row, pictures, device)
        LOGGER.info(f"stage {row}: {number} of {len(stages[row])} blocks stay, R2 {fit:.3f}")
    return short
