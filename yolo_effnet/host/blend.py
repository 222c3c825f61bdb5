"""A mean of the weights that a training started from and those that it found."""

import functools
import os
import shutil
from collections import defaultdict
from copy import copy, deepcopy

import torch
from torch import nn
from ultralytics.utils import LOGGER, RANK, TQDM
from ultralytics.utils.torch_utils import strip_optimizer

from yolo_effnet.arguments import Start, value_of
from yolo_effnet.checks import why

SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)  # of the training, of which `blend=auto` takes the best
FEWEST = 20  # pictures to choose by; with 7 the choice did harm (docs/results.md)
_TRAINED = (Start.GRAFTED, Start.TRAINED, Start.MATCHED)  # with neck and head


def _blended(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return what is blended: parameters and statistics of BatchNorm, and neither counters nor those of pixels."""
    statistics = {
        f"{name}.{key}": getattr(module, key)
        for name, module in model.named_modules()
        if isinstance(module, nn.BatchNorm2d)
        for key in ("running_mean", "running_var")
    }
    return {name: t.detach() for name, t in (*model.named_parameters(), *statistics.items())}


def start_of(model: nn.Module, new: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the weights of a model before its training, on the CPU, with NaN for rows that are `new`, and random."""
    start = {name: tensor.float().cpu().clone() for name, tensor in _blended(model).items()}
    for name in start.keys() & new.keys():
        start[name][new[name]] = torch.nan
    return start


def mix(model: nn.Module, start: dict[str, torch.Tensor], share: float) -> nn.Module:
    """Return a copy of a trained model with a mean of its weights and those of its start.

    Args:
        model (nn.Module): The trained model.
        start (dict[str, torch.Tensor]): What `start_of` returned; weights that are NaN there stay as trained.
        share (float): Of the training, 0 to 1.

    References:
        Robust fine-tuning of zero-shot models, https://arxiv.org/abs/2109.01903.
    """
    model = deepcopy(model)
    for name, tensor in _blended(model).items():
        if name in start and start[name].shape == tensor.shape:
            before = start[name].to(tensor.device)
            mean = before.lerp(tensor.float(), share)
            tensor.copy_(torch.where(before.isnan(), tensor.float(), mean))
    return model


def _mean_precision(results: dict) -> tuple[str, float]:
    """Return the name and the value of what is reported of a validation."""
    name = next((name for wanted in ("mAP50-95", "top1") for name in results if wanted in name), "fitness")
    return name.rpartition("/")[2].partition("(")[0], results[name]


def _choose(trainer, model: nn.Module, start: dict[str, torch.Tensor]) -> tuple[float, str, str]:
    """Return the share with the best fitness on the validation split, and what it and the training alone have there."""
    validator = trainer.validator
    own, level = (validator.args, validator.callbacks), LOGGER.level
    # The trainer's validator, which its own last validation follows, without output and callbacks of a user's.
    validator.args, validator.callbacks = copy(validator.args), defaultdict(list)
    quiet = dict.fromkeys(("plots", "save_json", "save_txt", "verbose", "compile"), False)
    vars(validator.args).update(quiet)
    found = []
    bar = TQDM(SHARES, total=len(SHARES), desc="blend")
    try:
        LOGGER.setLevel("WARNING")
        for share in bar:
            found.append(validator(model=mix(model, start, share).float()))
    finally:
        LOGGER.setLevel(level)
        validator.args, validator.callbacks = own
    if RANK > 0:
        return 1.0, "", ""
    best = max(range(len(SHARES)), key=lambda i: found[i]["fitness"])
    (name, value), (_, alone) = _mean_precision(found[best]), _mean_precision(found[0])
    return SHARES[best], f": {name} {value:.3f}", f", {alone:.3f} without"


def _blend(trainer, file) -> None:
    """Blend the best weights of a finished training with those of its start."""
    share = value_of(trainer.args, "blend")
    best = trainer.best
    if not best.exists():
        return
    try:
        start = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # of pickle or the file system
        LOGGER.warning(f"blend={share} needs the weights at the start of the training, '{file}' ({why(error)})")
        return
    checkpoint = torch.load(best, map_location="cpu", weights_only=False)
    key = "ema" if checkpoint.get("ema") is not None else "model"
    model = checkpoint[key]
    reached = alone = ""
    if share == "auto":
        if (number := len(trainer.validator.dataloader.dataset)) < FEWEST:
            LOGGER.info(f"blend=auto: {number} pictures to validate are too few to choose by, it takes {FEWEST}")
            return
        share, reached, alone = _choose(trainer, model, start)
    if RANK > 0:
        return
    if share == 1:
        LOGGER.info(f"blend=auto: the training alone is best{reached}")
        return
    unblended = best.with_stem("best-unblended")
    shutil.copyfile(best, unblended)
    strip_optimizer(unblended)
    checkpoint[key] = mix(model, start, share)
    part = best.with_suffix(".part")
    torch.save(checkpoint, part)
    os.replace(part, best)
    LOGGER.info(f"{share:g} of the training and {1 - share:g} of its start{reached}{alone}; blend=1 leaves it")


def apply(trainer, model: nn.Module, start: Start, new: dict[str, torch.Tensor]) -> None:
    """Keep the weights at the start of a training, and blend those at its end with them where the argument says so.

    Raises:
        ValueError: If the argument is a share, and there is nothing to blend with.
    """
    args = trainer.args
    share = value_of(args, "blend")
    if share in (None, 1):
        return
    reason = None
    if start not in (*_TRAINED, Start.RESUMED):
        reason = f"this training starts from {start.value}: there is no trained neck and head to blend with"
    elif getattr(args, "quantize", None) == 8:
        reason = "quantize=8 learns ranges for the trained weights alone"
    elif share == "auto" and not args.val:
        reason = "val=False leaves nothing to choose by"
    if reason and share != "auto":
        raise ValueError(f"blend={share}: {reason}; leave out blend")
    if reason:
        args.blend = 1.0
        return
    file = trainer.wdir / "start.pt"
    if RANK in (-1, 0) and start is not Start.RESUMED:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(start_of(model, new), file)
    final_eval = trainer.final_eval

    @functools.wraps(final_eval)
    def wrapper():
        _blend(trainer, file)
        final_eval()
        if RANK in (-1, 0):
            file.unlink(missing_ok=True)

    trainer.final_eval = wrapper
