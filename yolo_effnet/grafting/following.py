"""The argument `match` of a training: the model follows a teacher in place of labels, in Ultralytics' own trainer."""

import math
from pathlib import Path

import torch
from torch import nn
from ultralytics import YOLO
from ultralytics.utils import LOCAL_RANK, LOGGER, RANK, SETTINGS

from yolo_effnet.arguments import ARGUMENTS, value_of
from yolo_effnet.checkpoints import open_checkpoint
from yolo_effnet.checks import few
from yolo_effnet.grafting import footage
from yolo_effnet.grafting.distance import are_alike, compare
from yolo_effnet.grafting.donor import load_detector, mode_of
from yolo_effnet.grafting.morphing import is_new, set_out
from yolo_effnet.host.heads import Seen, kind, watch
from yolo_effnet.host.schedule import fix_statistics, world_size
from yolo_effnet.host.training import models_of, unwrapped

# In place of Ultralytics' defaults, where the model is a graft or trained: higher rates lead away from what it knows.
DEFAULTS = {"optimizer": "AdamW", "weight_decay": 1e-4, "cos_lr": True, "warmup_epochs": 0.0}
_RATE, _BATCH = 1e-4, 8  # pictures; it grows with the root of their number, as https://arxiv.org/abs/2205.10287 has it
_WARM_UP = 40  # steps
_ANEW = 3  # times the rate, where neck and head have another activation than their weights know
_NAMES = ("match_loss", "cls_loss", "box_loss", "more_loss")  # inputs of the head; what its branches give
_OUTPUTS = 0.1  # of what the branches give relative to the inputs, which makes both about as large


class Criterion:
    """What Ultralytics' trainer calls for a loss, in whose place the distance to a teacher stands.

    It is in no checkpoint and in no copy of the model, and the model is hooked for one batch only.
    """

    def __init__(self, teacher: nn.Module, number: int, as_dict: bool):
        """Take the teacher, how many of the four distances have a name, and what the trainer takes them as."""
        self.teacher, self.number, self.as_dict = teacher, number, as_dict
        self.wanted, self.seen, self.handles = Seen(), Seen(), []
        watch(teacher.model[-1], self.wanted)

    def __deepcopy__(self, memo) -> None:
        """Return nothing: a copy of the model follows nobody."""

    def __reduce__(self):
        """Be nothing in a checkpoint."""
        return type(None), ()

    def put_on(self, model: nn.Module) -> None:
        """Be the loss of a model for its next batch."""
        self.take_off()
        model.criterion = self
        self.seen = Seen()
        self.handles = watch(model.model[-1], self.seen)

    def take_off(self) -> None:
        """Leave the model without hooks."""
        while self.handles:
            self.handles.pop().remove()

    def items(self, distances: list[torch.Tensor]):
        """Return distances as the trainer takes the parts of a loss."""
        parts = [distance.detach() for distance in distances[: self.number]]
        return dict(zip(_NAMES, parts, strict=False)) if self.as_dict else torch.stack(parts)

    def __call__(self, _predictions, batch: dict):
        """Return the distance to the teacher on a batch, and its parts."""
        self.take_off()
        with torch.no_grad():
            self.teacher(batch["img"].float())
        inputs, *outputs = distances = compare(self.seen, self.wanted, self.teacher.model[-1].reg_max)
        share = _OUTPUTS if are_alike(self.seen, self.wanted) else 1  # where what the head gives is all there is
        self.seen = Seen()
        loss = inputs + share * sum(outputs)
        return loss / world_size(), self.items(distances)  # Ultralytics' loss is a sum over all ranks; this is a mean


def _follower(args) -> YOLO | None:
    """Return the trained model that follows; None for one of a YAML, or that gets the neck and head of a donor."""
    file = Path(str(args.model))
    if value_of(args, "graft") or file.suffix != ".pt" or not file.is_file():
        return None
    return open_checkpoint(file, "model")


def _teacher_of(args, follower: YOLO | None) -> str:
    """Return the file or name of the teacher that `match=` stands for.

    Raises:
        ValueError: If it is True, and nothing tells which one.
    """
    if args.match is not True:
        return args.match
    if graft := value_of(args, "graft"):
        return graft
    file = Path(str(args.model))
    if follower is None:
        raise ValueError(f"match=True needs graft=, or the file of a graft as model=, not {file}; or name a detector")
    record = follower.model.yaml.get("graft") or {}
    name = (record.get("followed") or {}).get("teacher") or record.get("donor")
    if not name:
        raise ValueError(f"match=True: {file} is no graft, which would name its donor; name a trained detector")
    places = [folder / name for folder in (file.parent, Path(), Path(SETTINGS["weights_dir"]))]
    for place in places:
        if place.is_file():
            return str(place)
    raise ValueError(f"match=True: the donor of {file} was {name}, which is not here; give its path as match=")


def _check(args, teacher: nn.Module, follower: YOLO | None) -> None:
    """Check that a teacher goes with the arguments of a training and the model of it.

    Raises:
        ValueError: If it does not.
    """
    if (task := mode_of(teacher)) != args.task:
        raise ValueError(f"match={args.match} is a model to {task}, not to {args.task}")
    for name in ("distill_model", "single_cls", "classes", "compile"):
        if value := getattr(args, name, None):
            raise ValueError(f"{name}={value} contradicts match={args.match}: leave out one of them")
    what, source = "model", args.model
    if (graft := value_of(args, "graft")) and graft != args.match:
        what, source, follower = "donor", graft, open_checkpoint(graft, "donor")
    if follower is not None and list((names := follower.names).values()) != list(teacher.names.values()):
        raise ValueError(
            f"match={args.match} knows {len(teacher.names)} classes, {few(teacher.names.values())}, and {what} "
            f"{source} knows {len(names)}, {few(names.values())}: they must be the same, in the same order"
        )


def outcome(record: dict) -> str:
    """Return what the record of a model that followed a teacher tells, as text; nothing if it was not validated."""
    agreement, before = record.get("agreement"), record.get("before")
    if agreement is None:
        return ""
    since = f"; before {before:.2f}" if before is not None and math.isfinite(before) else ""
    return f"agrees with {record['teacher']} to {agreement:.2f}{since}"


def prepare(trainer) -> None:
    """Settle what a training that follows a teacher takes: the teacher, its pictures, and defaults of its own.

    It happens before Ultralytics reads the data set, which is then one that this writes into the folder of the run.

    Raises:
        ValueError: If an argument contradicts another, or teacher, model and pictures do not go together.
    """
    args, said = trainer.args, getattr(trainer, "said", {})
    ARGUMENTS["match"].check(args.match)
    if trainer.resume and said.get("match") not in (None, args.match):
        raise ValueError(f"a training that is resumed follows {args.match}: leave out match={said['match']}")
    if args.task not in ("detect", "segment", "pose", "obb"):
        raise ValueError(f"match={args.match} is for models that detect, segment, pose or obb, not {args.task}")
    follower = _follower(args)
    args.match = _teacher_of(args, follower)
    _, teacher = load_detector(args.match, "teacher")
    if Path(args.match).is_file():
        args.match = str(Path(args.match).resolve())  # for a training that is resumed elsewhere
    _check(args, teacher, follower)
    trainer.teacher, trainer.followed = teacher, str(args.data)
    if not footage.is_described(args.data):
        folder = Path(trainer.save_dir) / "match"
        trainer.followed = str(footage.describe(args.data, getattr(args, "split", None) or "val", teacher, folder))
    elif trainer.resume:
        return
    if not (value_of(args, "graft") or str(args.model).endswith(".pt") or isinstance(args.pretrained, (str, Path))):
        return  # nothing that a higher rate could lead away from
    batch = args.batch if args.batch >= 1 else 16  # until Ultralytics has found one
    anew = value_of(args, "activation") is not None if follower is None else is_new(follower.model)
    rate = _RATE * math.sqrt(batch / _BATCH) * (_ANEW if anew else 1)
    ours = {**DEFAULTS, "lr0": round(rate, 6), "nbs": batch}
    if "optimizer" in said:  # whose rates are others
        ours = {name: value for name, value in ours.items() if name not in ("lr0", "weight_decay")}
    for name in ours.keys() - said.keys():
        setattr(args, name, ours[name])


def follow(trainer) -> None:
    """Make the model of a trainer follow its teacher.

    Raises:
        ValueError: If their heads are of different kinds.
    """
    model, teacher = unwrapped(trainer.model), trainer.teacher
    theirs, ours = kind(teacher.model[-1]), kind(model.model[-1])
    if theirs != ours:
        name = next(name for name in theirs if theirs[name] != ours[name])
        raise ValueError(
            f"match={trainer.args.match} has {name}={theirs[name]} in its head, and the model {ours[name]}: "
            "they must be alike"
        )
    trainer.args.data = trainer.followed  # from here on, also for the validation of best.pt and for resuming
    _Following(trainer, teacher)


class _Following:
    """A training that follows a teacher, at work."""

    def __init__(self, trainer, teacher: nn.Module):
        self.trainer, self.teacher, self.name = trainer, teacher, Path(trainer.args.match).name
        self.criterion: Criterion | None = None
        self.confidence, self.agreement, self.best, self.real = 0.0, None, None, None
        self.second = None  # validator, on labels of the user's
        self.epoch, self.batch, self.between = None, 0, None
        self.warm_up = 1 if "warmup_epochs" in getattr(trainer, "said", {}) else _WARM_UP
        self.build, self.finish = trainer.build_dataset, trainer.final_eval
        trainer.build_dataset, trainer.final_eval = self.build_dataset, self.final_eval
        trainer.plot_training_labels = lambda: None
        for event, callback in {
            "on_train_start": self.start,
            "on_train_batch_start": self.before_batch,
            "on_train_batch_end": lambda _: self.criterion.take_off(),
            "on_val_batch_start": self.before_validation,
            "on_val_end": self.after_validation,
            "on_train_end": self.tell,
        }.items():
            trainer.callbacks[event].insert(0, self.of_this(callback))  # before a user's, which may save the model

    def of_this(self, callback):
        """Return a callback for this training alone: older releases keep it for those that come after."""

        def wrapper(caller):
            if caller in (self.trainer, self.trainer.validator, self.second):
                callback(caller)

        return wrapper

    def build_dataset(self, img_path, mode="train", *args, **kwargs):
        """Return a data set of pictures without labels, or with what the teacher sees in them."""
        trainer = self.trainer
        if self.second:
            with footage.lent(footage.Labelled, cache_file=Path(trainer.args.data).with_name("labels.cache")):
                return self.build(img_path, mode, *args, **kwargs)
        with footage.lent(footage.Footage):
            dataset = self.build(img_path, mode, *args, **kwargs)
        if mode != "train":
            number, self.confidence = footage.label(dataset, self.teacher, trainer.args.match, trainer.device)
            log = LOGGER.info if number else LOGGER.warning
            log(f"{self.name} sees {number} objects in {len(dataset)} pictures to validate on")
        return dataset

    def record(self) -> dict:
        """Return what the model knows of whom it follows."""
        return models_of(self.trainer)[0].yaml.get("graft", {}).get("followed", {})

    def note(self, **facts) -> None:
        """Note in the record of the model what came of following."""
        for model in models_of(self.trainer):
            record = model.yaml.setdefault("graft", {"confidence": round(self.confidence, 3)})
            record["followed"] = {**record.get("followed", {}), **facts}

    def start(self, trainer) -> None:
        """Take over the loss of the trainer, and validate what it starts from."""
        has_more = trainer.args.task != "detect"
        self.teacher.to(trainer.device)
        names = _NAMES[: 3 + has_more]
        model, record = models_of(self.trainer)[0], self.record()
        morphs = record.get("morphs") if trainer.resume else is_new(model)
        self.criterion = Criterion(self.teacher, len(names), not trainer.loss_names)
        if trainer.loss_names:  # of releases that know them before the first batch
            trainer.loss_names = names
        if morphs:  # but not the average, which is validated and saved
            self.between = set_out(model, self.teacher)
        if trainer.resume:
            return
        LOGGER.info(f"follows the inputs and outputs of the head of {self.name}")
        pictures = len(set(trainer.train_loader.dataset.im_files))
        self.note(teacher=self.name, pictures=pictures, steps=0, error=[], morphs=morphs)
        if RANK not in (-1, 0) and not hasattr(trainer.validator, "gather_stats"):
            return  # older releases validate on one rank
        zeros = [torch.zeros((), device=trainer.device)] * len(_NAMES)
        before = {name: getattr(trainer, name, None) for name in ("loss", "loss_items", "epoch", "best_fitness")}
        trainer.loss, trainer.loss_items, trainer.epoch = zeros[0], self.criterion.items(zeros), trainer.start_epoch - 1
        trainer.validate()
        for name, value in before.items():
            setattr(trainer, name, value)
        self.best = None
        if self.agreement is not None:
            self.note(before=round(self.agreement, 3))

    def before_batch(self, trainer) -> None:
        """Hook the model for a batch, and keep the statistics of all its BatchNorm where those of the backbone stay.

        The rates follow Ultralytics' schedule from batch to batch, since a short training has few epochs.
        """
        model = unwrapped(trainer.model)
        self.criterion.put_on(model)
        batches = len(trainer.train_loader)
        self.batch = self.batch + 1 if trainer.epoch == self.epoch else 0
        self.epoch = trainer.epoch
        if self.between:
            self.between.go((self.epoch + self.batch / batches) / trainer.epochs)
        ramp = 1.0
        if not trainer.args.warmup_epochs:  # else Ultralytics sets the rates of the first batches after this
            ramp = min(1.0, (self.epoch * batches + self.batch + 1) / self.warm_up)
        for group in trainer.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * trainer.lf(self.epoch + self.batch / batches) * ramp
        if value_of(trainer.args, "freeze_bn") is True:
            fix_statistics(model)

    def before_validation(self, validator) -> None:
        """Hook the moving average for a batch."""
        if validator.training:
            self.criterion.put_on(unwrapped(self.trainer.ema.ema))

    def after_validation(self, validator) -> None:
        """Note how far the model agrees with its teacher."""
        found = float(validator.metrics.box.map)
        if validator is self.second:
            self.real = found
            return
        self.agreement = found
        self.best = found if self.best is None else max(found, self.best)
        if validator.training:
            error = validator.loss[_NAMES[0]] if isinstance(validator.loss, dict) else validator.loss[0]
            error = round(float(error) / len(validator.dataloader), 4)
            errors = [*self.record()["error"][:1], error]  # before, and now
            self.note(agreement=round(found, 3), error=errors, steps=self.trainer.ema.updates)
        else:
            self.best = found  # of best.pt

    def final_eval(self) -> None:
        """Validate best.pt, and once more where the data has labels of the teacher's classes."""
        trainer = self.trainer
        self.finish()
        if not (trainer.data.get("labelled") and trainer.best.is_file() and trainer.args.val):
            return
        self.second = trainer.get_validator()
        self.second.dataloader = trainer.get_dataloader(
            trainer.data["val"], batch_size=trainer.validator.dataloader.batch_size, rank=LOCAL_RANK, mode="val"
        )
        self.second.args.plots = False
        self.second(model=trainer.best)

    def tell(self, trainer) -> None:
        """Say how far the model agrees with its teacher."""
        record = {**self.record(), "agreement": self.best}
        if text := outcome(record):
            real = f"; mAP50-95 on the labels of these pictures {self.real:.3f}" if self.real is not None else ""
            LOGGER.info(text + real)
