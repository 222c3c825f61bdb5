"""ImageNet weights in a training of Ultralytics: on every rank, and said where they are missing."""

import functools
from pathlib import Path

import torch
import ultralytics
from torch import nn
from ultralytics.nn.modules import Detect
from ultralytics.nn.tasks import ClassificationModel
from ultralytics.utils import LOGGER, RANK, torch_utils

from yolo_effnet.arguments import ARGUMENTS, WEIGHTS_KEYS, Start, value_of
from yolo_effnet.host import blend, class_rows, memory, schedule
from yolo_effnet.host.heads import keep_class_branches
from yolo_effnet.nn.backbone import backbone_rows
from yolo_effnet.nn.origin import (
    DONOR,
    IMAGENET,
    RANDOM,
    TRAINED,
    note,
    note_rows,
    noting_load,
    origin,
    random_tensors,
    take_new_rows,
)
from yolo_effnet.nn.settings import draw_again
from yolo_effnet.weights.loading import adopt_padding, backbone_of, load_backbone_weights, named_by
from yolo_effnet.weights.sources import WeightsUnavailableError


def wrap_load(load):
    """Return `BaseModel.load`, after which a model knows where its weights come from."""

    @functools.wraps(load)
    def wrapper(self, weights, *args, **kwargs):
        if not backbone_rows(self):
            return load(self, weights, *args, **kwargs)
        source = (weights.get("ema") or weights.get("model")) if isinstance(weights, dict) else weights
        _hint_at_graft(self, source)
        with noting_load(self, source):
            _keep_class_branches(self, source)
            load(self, weights, *args, **kwargs)
        note_rows(self, source)

    return wrapper


def _hint_at_graft(model: nn.Module, source: nn.Module) -> None:
    """Say what keeps more of a detector with another backbone, of which next to nothing fits `model`, one of ours."""
    if backbone_rows(source) or not isinstance(getattr(source, "model", None), nn.Sequential):
        return
    ours, theirs = model.model[-1], source.model[-1]
    if isinstance(ours, Detect) and type(ours) is type(theirs):
        name = Path(getattr(source, "pt_path", None) or "x.pt").name
        LOGGER.warning(f"{name} has another backbone and other widths; graft={name} keeps its neck and head")


def _keep_class_branches(model: nn.Module, source: nn.Module) -> None:
    """Keep what a trained head scores classes by, as newer releases do: its width is another with fewer classes."""
    ours, theirs = model.model[-1], getattr(source, "model", [None])[-1]
    if not isinstance(ours, Detect) or type(ours) is not type(theirs) or source.is_fused():
        return
    here, there = ([branch[0].conv.in_channels for branch in head.cv2] for head in (ours, theirs))
    if here == there:
        keep_class_branches(ours, theirs)


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the detection model inside DistributedDataParallel, torch.compile and distillation."""
    for attribute in ("module", "_orig_mod", "student_model"):
        model = getattr(model, attribute, model)
    return model


def models_of(trainer) -> list[nn.Module]:
    """Return the detection model that is trained, and its moving average on the rank that has one."""
    return [unwrapped(model) for model in (trainer.model, *([trainer.ema.ema] if trainer.ema else []))]


def _load(trainer, model: nn.Module, weights: str | None) -> bool:
    """Load the weights that the argument, or else the YAML, names; return whether there are any.

    Rank 0 loads, and the other ranks receive.
    """
    loaded = [None]
    if RANK in (-1, 0):
        try:
            LOGGER.info(str(load_backbone_weights(model, weights)))
            loaded = [{key: model.yaml[key] for key in (*WEIGHTS_KEYS, "padding") if key in model.yaml}]
        except WeightsUnavailableError as error:
            LOGGER.warning(f"The backbone starts from random weights: {error}")
            text = f"The backbone started from random weights: {error}"
            trainer.add_callback("on_train_end", lambda _: LOGGER.warning(text))
    if schedule.world_size() > 1:
        torch.distributed.broadcast_object_list(loaded, 0)
        layers = backbone_of(model)
        if loaded[0]:
            model.yaml.update(loaded[0])
            adopt_padding(model, loaded[0].get("padding") or layers[0].padding)
        for tensor in nn.ModuleList(layers).state_dict().values():
            torch.distributed.broadcast(tensor, 0)
        if loaded[0]:
            note(model, backbone=IMAGENET)
    return loaded[0] is not None


def load_into(trainer) -> None:
    """Load ImageNet weights into the finished model of one of Ultralytics' trainers, before anything is built on it.

    The argument `backbone_weights` always loads. The keys of the model YAML do unless `pretrained=False`, if most of
    the backbone is still random: resuming, a trained `.pt`, `pretrained=x.pt` and `YOLO(...).load()` of a model of the
    same kind are left as they are.

    Args:
        trainer (BaseTrainer): The trainer.

    Raises:
        ValueError: If the weights do not fit, an argument contradicts another or has no backbone to act on, or
            quantisation-aware training would start from a random backbone or is unknown to this release.
    """
    model, args = unwrapped(trainer.model), trainer.args
    rows = backbone_rows(model)
    weights = _checked_weights(args, model, rows)
    if rows and getattr(args, "quantize", None) == 8 and not hasattr(torch_utils, "prepare_qat"):
        raise ValueError(f"quantize=8 needs ultralytics>=8.4.150 to train with, not {ultralytics.__version__}")
    new = take_new_rows(model)
    if not rows or trainer.resume:
        schedule.apply(trainer, model, rows, Start.RESUMED)
        blend.apply(trainer, model, Start.RESUMED, new)
        return
    if args.pretrained is False and isinstance(model, ClassificationModel):
        draw_again(model)  # Ultralytics' trainer has reset the layers of this kind of model to PyTorch's own weights
    grafted = value_of(args, "graft") is not None  # with the weights that the argument names
    _load_weights(trainer, model, None if grafted else weights)
    start = origin(model).start
    if start is Start.RANDOM and getattr(args, "quantize", None) == 8:
        # The ranges of a random network, whose activations fade away, would make the loss NaN.
        raise ValueError(
            "quantize=8 takes the ranges of a trained model, and this backbone is random: train without it first, then "
            "train model=best.pt quantize=8"
        )
    follows = bool(value_of(args, "match"))
    if start in (Start.GRAFTED, Start.TRAINED):
        if follows:
            start = Start.MATCHED
        else:
            class_rows.apply(trainer, model, new)
    schedule.apply(trainer, model, rows, start)
    blend.apply(trainer, model, start, new)
    _note_first_update(trainer, DONOR if follows else TRAINED)


def _checked_weights(args, model: nn.Module, rows: list[nn.Module]) -> str | None:
    """Return the argument `backbone_weights`.

    Raises:
        ValueError: If it is no text, contradicts another argument or has no backbone to act on.
    """
    weights = value_of(args, "backbone_weights")
    if weights is not None:
        ARGUMENTS["backbone_weights"].check(weights)
    if weights and not rows:
        raise ValueError(f"backbone_weights={weights}: {type(model).__name__} has no backbone of yolo_effnet")
    if weights and args.pretrained is False:
        raise ValueError(f"pretrained=False contradicts backbone_weights={weights}: leave out one of them")
    return weights


def _load_weights(trainer, model: nn.Module, weights: str | None) -> None:
    """Load the weights that an argument names, or those of the YAML into a random backbone, and say what is random."""
    rows, config = backbone_rows(model), getattr(model, "yaml", None) or {}
    by_yaml = trainer.args.pretrained is not False and named_by(config)
    if weights or (by_yaml and origin(model).backbone == RANDOM):
        _load(trainer, model, weights)
        return
    random, total = random_tensors(rows)
    if random and any(row.random is not None for row in rows):  # for all that was loaded
        LOGGER.warning(f"{random} of {total} tensors of the backbone start from random values")


def _note_first_update(trainer, rest: str) -> None:
    """Note with its first update of the weights, and not before, that the model of a trainer was trained.

    Args:
        trainer (BaseTrainer): The trainer.
        rest (str): What neck and head then are: of a donor, if they follow one, so that labels come later.
    """
    step = trainer.optimizer_step

    @functools.wraps(step)
    def wrapper(*args, **kwargs):
        del trainer.optimizer_step
        step(*args, **kwargs)
        for model in models_of(trainer):
            note(model, TRAINED, rest)

    trainer.optimizer_step = wrapper


def wrap_setup(setup):
    """Return the method that prepares a training, which loads them too."""

    @functools.wraps(setup)
    def wrapper(self, *args, **kwargs):
        finish = self.set_model_attributes  # the last step before calibration, compilation, DDP and EMA

        def finish_and_load():
            finish()
            load_into(self)

        self.set_model_attributes = finish_and_load
        try:
            result = setup(self, *args, **kwargs)
        finally:
            del self.set_model_attributes
        if backbone_rows(unwrapped(self.model)):
            memory.keep_in(self)
        return result

    return wrapper
