"""ImageNet weights as a training of Ultralytics starts: on every rank, and said where they are missing."""

from weakref import WeakKeyDictionary

import torch
from torch import nn
from ultralytics.utils import LOGGER, RANK

from yolo_effnet.nn.layers import PixelNormalization
from yolo_effnet.weights.loading import backbone_of, load_backbone_weights
from yolo_effnet.weights.sources import WeightsUnavailableError

_warnings = WeakKeyDictionary()  # what a trainer has to repeat at its end


def _unwrapped(model: nn.Module) -> nn.Module:
    """Return the detection model inside DistributedDataParallel, torch.compile and distillation."""
    for attribute in ("module", "_orig_mod", "student_model"):
        model = getattr(model, attribute, model)
    return model


def load_as_training_starts(trainer) -> None:
    """Load the weights that a model's YAML names; callback `on_pretrain_routine_end` of Ultralytics' trainers.

    Only for `pretrained=True` and a backbone that is still random: resuming, a `.pt` model, `pretrained=x.pt` and
    `YOLO(...).load()` are left as they are. Rank 0 loads and the other ranks receive.

    Raises:
        ValueError: If quantisation-aware training would start from a backbone that is random.
    """
    model = _unwrapped(trainer.model)
    config = getattr(model, "yaml", None) or {}
    stem = next((m for m in model.modules() if isinstance(m, PixelNormalization)), None)
    if stem and not stem.loaded and getattr(trainer.args, "quantize", None) == 8:
        # Its ranges are calibrated by now, on a random network whose activations fade away: the loss would be NaN.
        raise ValueError(
            "quantize=8 takes the ranges of a trained model, and this backbone is random: train without it first, then "
            "train model=best.pt quantize=8"
        )
    if (
        trainer.args.pretrained is not True
        or trainer.resume
        or not (config.get("weights") or config.get("weights_file"))
    ):
        return
    layers = backbone_of(model)
    if layers[0].loaded:
        return
    if RANK in (-1, 0):
        try:
            LOGGER.info(str(load_backbone_weights(model)))
        except WeightsUnavailableError as error:
            _warnings[trainer] = f"The backbone starts from random weights: {error}"
            LOGGER.warning(_warnings[trainer])
    backbone = nn.ModuleList(layers)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        for tensor in backbone.state_dict().values():
            torch.distributed.broadcast(tensor, 0)
    if trainer.ema:
        nn.ModuleList(backbone_of(_unwrapped(trainer.ema.ema))).load_state_dict(backbone.state_dict())


def warn_as_training_ends(trainer) -> None:
    """Repeat the warning of missing weights; callback `on_train_end` of Ultralytics' trainers."""
    if warning := _warnings.get(trainer):
        LOGGER.warning(warning.replace("starts", "started", 1))


CALLBACKS = {"on_pretrain_routine_end": load_as_training_starts, "on_train_end": warn_as_training_ends}
