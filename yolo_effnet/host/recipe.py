"""The recipe of `yolo_effnet.recipe` in one of Ultralytics' trainers."""

import functools
import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn
from ultralytics.utils import DEFAULT_CFG, LOGGER, RANK

from yolo_effnet.nn.backbone import BackboneRow
from yolo_effnet.nn.settings import set_drop_path
from yolo_effnet.recipe import ARGUMENTS, DEFAULTS, GRAFTED, Recipe, keeping_rate
from yolo_effnet.wrapping import once


def world_size() -> int:
    """Return the number of processes that train together."""
    running = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if running else 1


def given(args, config: dict) -> dict:
    """Return what a user says about the recipe: the arguments of a run, and else the keys of its model YAML.

    Args:
        args (Namespace): Arguments of the run.
        config (dict): The model YAML.
    """
    said = {name: getattr(args, name, None) for name in ARGUMENTS}
    said = {name: config.get(name) if value is None else value for name, value in said.items()}
    return {name: value for name, value in said.items() if value is not None}


def _check(recipe: Recipe, args) -> None:
    """Check that a recipe goes with the other arguments of a run.

    Raises:
        ValueError: If it does not.
    """
    if recipe.growth(0, 1000) < 1 and getattr(args, "multi_scale", None):
        raise ValueError(f"progressive={recipe.progressive} and multi_scale={args.multi_scale} both set the size")
    if recipe.freeze_epochs and getattr(args, "compile", None):
        raise ValueError(
            f"freeze_epochs={recipe.freeze_epochs} and compile={args.compile} exclude each other: a compiled model "
            "does not thaw"
        )


def _split(optimizer: torch.optim.Optimizer, rows: list[BackboneRow], ratio: float) -> None:
    """Move the backbone's parameters into groups of their own with `ratio` of the learning rate, after all others."""
    backbone = {id(parameter) for row in rows for parameter in row.parameters()}
    split = []
    for group in optimizer.param_groups:
        ours = [p for p in group["params"] if id(p) in backbone]
        if ours:
            group["params"] = [p for p in group["params"] if id(p) not in backbone]
            # Under another name than "bias", whose learning rate starts high: these are not new.
            split.append({**group, "params": ours, "lr": group["lr"] * ratio, "param_group": "backbone"})
    optimizer.param_groups += split


class _Applied:
    """A recipe at work in one training; all of it follows from the epoch, so a resumed training goes on alike."""

    def __init__(self, trainer, model: nn.Module, rows: list[BackboneRow], recipe: Recipe, start: str):
        self.trainer, self.model, self.rows, self.recipe, self.start = trainer, model, rows, recipe, start
        self.said: dict[str, object] = {}
        trainer.build_optimizer = self.build_optimizer(trainer.build_optimizer)
        trainer.preprocess_batch = self.preprocess_batch(trainer.preprocess_batch)
        trainer.get_dataloader = self.get_dataloader(trainer.get_dataloader)
        if recipe.freeze_bn:
            self.is_new("freeze_bn", True, f"backbone: statistics of BatchNorm stay those of {start}")
        if share := recipe.ema_share:
            self.is_new("ema", share, f"average of weights: mean age {share:g} of the training so far")

    def is_new(self, what: str, state, text: str) -> bool:
        """Return whether a state is another than before, and log it then."""
        new = self.said.get(what) != state
        if new and RANK in (-1, 0):
            LOGGER.info(text)
        self.said[what] = state
        return new

    def settle_rate(self, updates: float) -> None:
        """Put a number in place of `lr_ratio=auto`, by the updates of the weights in the whole training."""
        chosen = self.trainer.args.optimizer == "auto"  # and the rate not a number of the user's
        confidence = self.model.yaml["graft"].get("confidence", 0) if chosen and self.start == GRAFTED else 0
        self.trainer.args.lr_ratio = ratio = keeping_rate(confidence, updates)
        self.recipe = replace(self.recipe, lr_ratio=ratio)
        if ratio != 1:
            text = "the donor's confidence in these pictures was {}: lr_ratio={:g} keeps what it knows"
            self.is_new("auto", ratio, text.format(confidence, ratio))

    def build_optimizer(self, build):
        """Return Ultralytics' method, whose optimizer has the recipe's rates, and groups for the backbone."""

        @functools.wraps(build)
        def wrapper(*args, **kwargs):
            if self.recipe.lr_ratio == "auto":
                self.settle_rate(kwargs.get("iterations", math.inf))
            optimizer = build(*args, **kwargs)
            rate = optimizer.param_groups[-1]["lr"]
            if (ratio := self.recipe.lr_ratio) != 1:
                for group in optimizer.param_groups:
                    group["lr"] *= ratio
                self.is_new("rate", ratio, f"learning rate {ratio:g} x {rate:g}")
                rate *= ratio
            if (ratio := self.recipe.backbone_lr_ratio) != 1:
                _split(optimizer, self.rows, ratio)
                self.is_new("ratio", ratio, f"backbone: learning rate {ratio:g} x {rate:g}, {self.start}")
            return optimizer

        return wrapper

    def get_dataloader(self, get):
        """Return Ultralytics' method, whose pictures decide on `nbs` before anything is counted in it."""

        @functools.wraps(get)
        def wrapper(*args, **kwargs):
            loader = get(*args, **kwargs)
            arguments, epochs = self.trainer.args, self.trainer.epochs
            if kwargs.get("mode") == "train" and arguments.nbs == DEFAULT_CFG.nbs:  # and not a number of the user's
                pictures = len(loader.dataset)
                nbs = self.recipe.nominal_batch(arguments.nbs, self.trainer.batch_size, pictures, epochs)
                if nbs != arguments.nbs:
                    updates = [pictures * epochs // n for n in (nbs, arguments.nbs)]
                    text = "nbs={}, for {} updates of the weights in place of {}; min_updates=0 keeps nbs={}"
                    self.is_new("nbs", nbs, text.format(nbs, *updates, arguments.nbs))
                arguments.nbs = nbs
            return loader

        return wrapper

    def preprocess_batch(self, preprocess):
        """Return Ultralytics' method, which is called between `model.train()` and the model for every batch."""

        @functools.wraps(preprocess)
        def wrapper(batch, *args, **kwargs):
            batch = preprocess(batch, *args, **kwargs)
            epoch = getattr(self.trainer, "epoch", None)
            if epoch is None:  # calibration
                return batch
            self.set_epoch(epoch)
            self.set_average()
            return self.shrink(batch, epoch)

        return wrapper

    def set_epoch(self, epoch: int) -> None:
        """Freeze, thaw and regularise as an epoch asks for."""
        frozen = self.recipe.is_frozen(epoch, self.trainer.epochs)
        if self.recipe.freeze_epochs:
            self.is_new("frozen", frozen, f"backbone: {'frozen' if frozen else 'learns'} from epoch {epoch + 1}")
        for row in self.rows:
            row.frozen = frozen
            if frozen:
                row.eval()
            elif self.recipe.freeze_bn:
                for module in row.modules():
                    if isinstance(module, nn.BatchNorm2d):
                        module.eval()

    def set_average(self) -> None:
        """Have the average of weights follow the recipe; Ultralytics makes a new one where it recovers from a NaN."""
        ema = getattr(self.trainer, "ema", None)
        if ema and self.recipe.ema_share:
            ema.decay = once(ema.decay, lambda decay: lambda update: max(decay(update), self.recipe.ema_decay(update)))

    def shrink(self, batch: dict, epoch: int) -> dict:
        """Return a batch with its pictures, `(B, C, H, W)`, at the size of an epoch."""
        trainer, recipe = self.trainer, self.recipe
        if recipe.progressive in (0, 1):
            return batch
        imgsz, stride = trainer.args.imgsz, trainer.stride
        size = recipe.size(epoch, trainer.epochs, imgsz, stride)
        new = self.is_new("size", size, f"progressive: pictures of {size} pixels from epoch {epoch + 1}")
        if new and (rate := self.model.yaml.get("drop_path")):
            set_drop_path(nn.ModuleList(self.rows), rate * recipe.growth(epoch, trainer.epochs))
        if size < imgsz:
            sides = [max(round(side * size / imgsz / stride), 1) * stride for side in batch["img"].shape[2:]]
            batch["img"] = F.interpolate(batch["img"], size=sides, mode="bilinear", align_corners=False)
        return batch


def apply(trainer, model: nn.Module, rows: list[BackboneRow], start: str) -> None:
    """Decide on the recipe of a training, write it into its arguments, which checkpoints keep, and apply it.

    Args:
        trainer (BaseTrainer): One of Ultralytics' trainers, before it builds an optimizer.
        model (nn.Module): Its model.
        rows (list[BackboneRow]): The rows of its backbone.
        start (str): What the weights of the backbone are, for the defaults and the log.

    Raises:
        ValueError: If a value is out of its range, or does not go with another argument or with the model.
    """
    config = getattr(model, "yaml", None) or {}
    said = given(trainer.args, {} if trainer.resume else config)
    if said and not rows:
        name, value = next(iter(said.items()))
        raise ValueError(f"{name}={value}: {type(model).__name__} has no backbone of yolo_effnet")
    asked = {**DEFAULTS.get(start, {}), **said}
    if not asked:
        return
    recipe = Recipe(**asked).decided(trainer.batch_size // world_size())
    _check(recipe, trainer.args)
    for name in ARGUMENTS:
        setattr(trainer.args, name, getattr(recipe, name))
    if recipe != Recipe():
        _Applied(trainer, model, rows, recipe, start)
