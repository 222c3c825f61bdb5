"""The recipe of a training at work in one of Ultralytics' trainers: rates, freezing, sizes of pictures, updates."""

import functools
import math
import os
from collections.abc import Iterable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn
from ultralytics.utils import DEFAULT_CFG, LOGGER, RANK

from yolo_effnet import arguments
from yolo_effnet.arguments import RECIPE, Start
from yolo_effnet.nn.backbone import BackboneRow
from yolo_effnet.nn.settings import set_drop_path
from yolo_effnet.recipe import Recipe, keeping_rate

_SAID = "YOLO_EFFNET_SAID_NBS"  # for the processes of several GPUs, which get every argument as if it had been said


def world_size() -> int:
    """Return the number of processes that train together."""
    running = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if running else 1


def fix_statistics(module: nn.Module) -> None:
    """Let the statistics of all BatchNorm in a module stay as they are, until it is set to train again."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eval()


def wrap_init(init):
    """Return the method that makes a trainer, which notes what was said: `nbs=64` may be a wish or the default."""

    @functools.wraps(init)
    def wrapper(self, *args, **kwargs):
        overrides = kwargs.get("overrides", args[1] if len(args) > 1 else None) or {}
        if RANK == -1:
            os.environ.pop(_SAID, None)
            if "nbs" in overrides:
                os.environ[_SAID] = "1"
        self.said = overrides
        # A process that Ultralytics starts gets all arguments of the first one, `save_dir` among them.
        self.said_nbs = os.environ.get(_SAID) == "1" if "save_dir" in overrides else "nbs" in overrides
        init(self, *args, **kwargs)

    return wrapper


def _check(recipe: Recipe, args) -> None:
    """Check that a recipe goes with the other arguments of a run."""
    multi_scale, compiles = getattr(args, "multi_scale", None), getattr(args, "compile", None)
    if recipe.grows and multi_scale:
        raise ValueError(f"progressive={recipe.progressive} and multi_scale={multi_scale} both set the size")
    for name, is_share in (("progressive", recipe.grows), ("freeze_epochs", 0 < recipe.freeze_epochs < 1)):
        if is_share and args.time:
            goes_by = f"{name}={getattr(recipe, name)} goes by the number of epochs"
            raise ValueError(f"{goes_by}, which time={args.time} leaves open: leave out one of them")
    if recipe.freeze_epochs and compiles:
        both = f"freeze_epochs={recipe.freeze_epochs} and compile={compiles}"
        raise ValueError(f"{both} exclude each other: a compiled model does not thaw")


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


def _rates(groups: Iterable[dict]) -> str:
    """Return the learning rates of groups of parameters, as text."""
    return " and ".join(f"{rate:g}" for rate in sorted({group["lr"] for group in groups}))


class _Applied:
    """A recipe at work in one training; all of it follows from the epoch, so a resumed training goes on alike."""

    def __init__(self, trainer, model: nn.Module, rows: list[BackboneRow], recipe: Recipe, start: Start):
        self.trainer, self.model, self.rows, self.recipe, self.start = trainer, model, rows, recipe, start
        self.logged: dict[str, object] = {}
        self.counted: int | None = None  # the epoch for which updates were counted last
        self.nbs, self.pictures = trainer.args.nbs, 0
        self.own_nbs = trainer.resume or getattr(trainer, "said_nbs", False) or self.nbs != DEFAULT_CFG.nbs
        trainer.build_optimizer = self.build_optimizer(trainer.build_optimizer)
        trainer.preprocess_batch = self.preprocess_batch(trainer.preprocess_batch)
        trainer.get_dataloader = self.get_dataloader(trainer.get_dataloader)
        trainer.add_callback("on_train_batch_start", lambda trainer: self.set_epoch(trainer.epoch))

    def log(self, what: str, state, text: str) -> bool:
        """Log a state that is another than before, and return whether it is."""
        new = self.logged.get(what) != state
        if new and RANK in (-1, 0):
            LOGGER.info(text)
        self.logged[what] = state
        return new

    def settle_rate(self, updates: float, build) -> None:
        """Put a number in place of `lr_ratio=auto`, by the updates of the weights in the whole training."""
        args, ratio, reason = self.trainer.args, 1.0, None
        confidence = ((getattr(self.model, "yaml", None) or {}).get("graft") or {}).get("confidence", 0)
        by_ultralytics = getattr(build, "__module__", "").startswith("ultralytics.")
        if self.start is not Start.GRAFTED or args.optimizer != "auto" or keeping_rate(confidence, 0) == 1:
            pass  # there is nothing to keep, or the rate is a number of the user's
        elif not by_ultralytics:
            reason = f"lr_ratio=auto leaves the rate to {type(self.trainer).__name__}"
        elif args.time:
            reason = "lr_ratio=auto is 1 with time=, whose updates nobody can count"
        elif (ratio := keeping_rate(confidence, updates)) != 1:
            reason = f"lr_ratio={ratio:g} keeps what it knows"
        if reason:
            self.log("auto", ratio, f"the donor's confidence in these pictures was {confidence}: {reason}")
        args.lr_ratio = ratio
        self.recipe = replace(self.recipe, lr_ratio=ratio)

    def build_optimizer(self, build):
        """Return Ultralytics' method, whose optimizer has the recipe's rates, and groups for the backbone."""

        @functools.wraps(build)
        def wrapper(*args, **kwargs):
            if self.recipe.lr_ratio == "auto":
                self.settle_rate(kwargs.get("iterations", math.inf), build)
            optimizer = build(*args, **kwargs)
            groups = optimizer.param_groups
            if (ratio := self.recipe.lr_ratio) != 1:
                self.log("rate", ratio, f"learning rate {ratio:g} x {_rates(groups)}")
                for group in groups:
                    group["lr"] *= ratio
                if not self.trainer.resume:  # whose arguments have it already
                    self.trainer.args.warmup_bias_lr *= ratio
            if (ratio := self.recipe.backbone_lr_ratio) != 1:
                number = len(groups)
                _split(optimizer, self.rows, ratio)
                rates = _rates({"lr": group["lr"] / ratio if ratio else 0} for group in groups[number:])
                self.log("ratio", ratio, f"backbone: learning rate {ratio:g} x {rates}, {self.start.value}")
            return optimizer

        return wrapper

    def get_dataloader(self, get):
        """Return Ultralytics' method, whose pictures decide on `nbs` before anything is counted in it."""

        @functools.wraps(get)
        def wrapper(*args, **kwargs):
            loader = get(*args, **kwargs)
            # Calibration takes pictures too, and before Ultralytics has found a batch size if it is to find one.
            if kwargs.get("mode") == "train" and self.trainer.batch_size >= 1:
                self.pictures = len(loader.dataset)
                self.settle_nbs(0 if self.trainer.args.time else self.trainer.epochs)
            return loader

        return wrapper

    def settle_nbs(self, epochs: int) -> bool:
        """Set `nbs` for so many epochs, 0 for an unknown number, and return whether it has changed."""
        args = self.trainer.args
        nbs = self.nbs
        if not self.own_nbs:
            nbs = self.recipe.nominal_batch(nbs, self.trainer.batch_size, self.pictures, epochs)
        if nbs == args.nbs:
            return False
        args.nbs = nbs
        updates = [self.pictures * epochs // n for n in (nbs, self.nbs)]
        counts = f"for {updates[0]} updates of the weights in place of {updates[1]}"
        if not epochs:
            counts = "until the first epoch tells how many updates time= allows"
        if nbs != self.nbs:
            counts += f"; min_updates=0 keeps nbs={self.nbs}"
        self.log("nbs", nbs, f"nbs={nbs}, {counts}")
        return True

    def preprocess_batch(self, preprocess):
        """Return Ultralytics' method, whose pictures have the size of the epoch."""

        @functools.wraps(preprocess)
        def wrapper(batch, *args, **kwargs):
            batch = preprocess(batch, *args, **kwargs)
            epoch = getattr(self.trainer, "epoch", None)
            return batch if epoch is None else self.resized(batch, epoch)  # none in calibration

        return wrapper

    def set_epoch(self, epoch: int) -> None:
        """Freeze, thaw and count as an epoch asks for."""
        trainer, recipe = self.trainer, self.recipe
        if trainer.args.time and self.counted not in (None, epoch):
            # By the epochs that Ultralytics now expects, alike on all ranks.
            epochs = [trainer.epochs]
            if world_size() > 1:
                torch.distributed.broadcast_object_list(epochs, 0)
            if self.settle_nbs(epochs[0]):
                trainer.accumulate = max(round(trainer.args.nbs / trainer.batch_size), 1)
        self.counted = epoch
        frozen = recipe.is_frozen(epoch, trainer.epochs)
        if recipe.freeze_epochs:
            self.log("frozen", frozen, f"backbone: {'frozen' if frozen else 'learns'} from epoch {epoch + 1}")
        fixed = recipe.fixes_statistics(trainer.batch_size // world_size())
        if fixed:
            self.log("freeze_bn", True, f"backbone: statistics of BatchNorm stay those of {self.start.value}")
        for row in self.rows:
            row.frozen = frozen
            if frozen:
                row.eval()
            elif fixed:
                fix_statistics(row)

    def resized(self, batch: dict, epoch: int) -> dict:
        """Return a batch with its pictures, `(B, C, H, W)`, at the size of an epoch."""
        trainer, recipe = self.trainer, self.recipe
        if not recipe.grows:
            return batch
        imgsz, stride = trainer.args.imgsz, trainer.stride
        size = recipe.size(epoch, trainer.epochs, imgsz, stride)
        new = self.log("size", size, f"progressive: pictures of {size} pixels from epoch {epoch + 1}")
        if new and (rate := self.model.yaml.get("drop_path")):
            set_drop_path(nn.ModuleList(self.rows), rate * recipe.growth(epoch, trainer.epochs))
        if size < imgsz:
            sides = [max(round(side * size / imgsz / stride), 1) * stride for side in batch["img"].shape[2:]]
            batch["img"] = F.interpolate(batch["img"], size=sides, mode="bilinear", align_corners=False)
        return batch


def apply(trainer, model: nn.Module, rows: list[BackboneRow], start: Start) -> None:
    """Decide on the recipe of a training, write it into its arguments, which checkpoints keep, and apply it.

    The trainer has not built its optimizer yet; from `start` follow defaults, and what is logged.

    Raises:
        ValueError: If a value is out of its range, or does not go with another argument or with the model.
    """
    config = getattr(model, "yaml", None) or {}
    said = arguments.said_by_user(trainer.args, {} if trainer.resume else config)
    if said and not rows:
        name, value = next(iter(said.items()))
        raise ValueError(f"{name}={value}: {type(model).__name__} has no backbone of yolo_effnet")
    asked = {**arguments.defaults(start), **said}
    if not asked:
        return
    recipe = Recipe(**asked)
    _check(recipe, trainer.args)
    for name in arguments.ours() & {argument.name for argument in RECIPE}:
        setattr(trainer.args, name, getattr(recipe, name))
    if recipe != Recipe():
        _Applied(trainer, model, rows, recipe, start)
