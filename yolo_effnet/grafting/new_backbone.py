"""The new backbone: its rows, and the weights that it has."""

from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn
from ultralytics.utils import LOGGER

from yolo_effnet.grafting.anatomy import Anatomy, anatomy
from yolo_effnet.grafting.donor import Donor, load
from yolo_effnet.host.written_out import build
from yolo_effnet.nn.backbone import backbone_rows
from yolo_effnet.nn.origin import RANDOM, note, origin
from yolo_effnet.weights.loading import load_backbone_weights, named_by
from yolo_effnet.weights.sources import WeightsUnavailableError
from yolo_effnet.zoo import configs, names


@dataclass(frozen=True)
class Backbone:
    """A backbone that takes the place of the donor's.

    Attributes:
        name (str): What it is called in logs.
        model (nn.Module): Its model, with random weights or those of a checkpoint.
        anatomy (Anatomy): What its rows are.
        trained (bool): Whether its weights are those of a checkpoint.
    """

    name: str
    model: nn.Module
    anatomy: Anatomy
    trained: bool


def _config_of_name(model: names.Model, donor: Donor) -> dict:
    """Return the YAML of a model by name, with the maps that the donor's neck takes.

    Raises:
        ValueError: If the name says something else than what the donor is.
    """
    if model.task == names.CLASSIFICATION or model.neck:
        raise ValueError(
            f"'{model.name}' cannot be grafted: its {'head' if model.task else 'light neck'} is its own; take "
            f"{donor.series}-{model.architecture.variant}"
        )
    wanted = replace(model, series=donor.series, task=donor.task, pyramid=donor.pyramid, letter="")
    for said, found in ((model.task, donor.task), (model.pyramid, donor.pyramid)):
        if said and said != found:
            raise ValueError(f"'{model.name}' is not what donor '{donor.name}' is; take {wanted.name}")
    if model.series != donor.series or (model.letter and not donor.has_letter(model)):
        raise ValueError(f"'{model.name}' has another neck than donor '{donor.name}'; take {wanted.name}")
    return {**configs.model_config(wanted.name), "yaml_file": f"{model.name}.yaml"}


def load_backbone(source, donor: Donor) -> Backbone:
    """Return the backbone of a model.

    Args:
        source (str | Path | dict | YOLO | nn.Module): A name as `model_names()` gives them, where that of the backbone
            alone also stands for the donor's letter, task and pyramid; a model YAML as file or dict; or a trained
            model, as `.pt`, YOLO object or module, whose weights it keeps.
        donor (Donor): Whose neck and head it gets.

    Raises:
        ValueError: If there is no such model, or it does not go with the donor.
    """
    if not isinstance(source, (str, Path, dict)) or str(source).endswith(".pt"):
        name, model = load(source, "backbone")
        trained = not backbone_rows(model) or origin(model).backbone != RANDOM
        return Backbone(name, model, anatomy(model, f"backbone '{name}'"), trained)
    named = None if isinstance(source, dict) or Path(source).is_file() else names.parse_name(Path(source).name)
    if named:
        name, config = named.name, _config_of_name(named, donor)
    elif isinstance(source, dict):
        name, config = "backbone", source
    elif str(source).endswith((".yaml", ".yml")):
        name, config = Path(source).name, source
    else:
        raise ValueError(
            f"backbone '{source}' is neither a file nor a model of yolo_effnet; {names.suggest(str(source))}"
        )
    model = build(config, donor.model.yaml.get("channels", 3))
    return Backbone(name, model, anatomy(model, f"backbone '{name}'"), False)


def give_weights(model: nn.Module, backbone: Backbone, backbone_weights: str | Path | None, allow_random: bool) -> str:
    """Give the backbone of a grafted model its weights and return what they are, for a log.

    They are those of `backbone_weights`, a full timm tag or a file, or by default of its checkpoint or its YAML.

    Raises:
        ValueError: If it names none, or they do not fit.
        WeightsUnavailableError: If they cannot be had, a RuntimeError.
    """
    if backbone.trained and not backbone_weights:
        theirs, ours = (m.yaml.get("channels", 3) for m in (backbone.model, model))
        if theirs != ours:
            raise ValueError(
                f"backbone '{backbone.name}' was trained on images of {theirs} channels, and the donor takes {ours}; "
                "take a name or a YAML in place of it"
            )
        layers = [layer for layer in model.model if layer.state_dict()]  # whose rows between them are others with taps
        theirs = [layer.state_dict() for layer in list(backbone.model.model)[: backbone.anatomy.start]]
        for layer, state in zip(layers, filter(None, theirs), strict=False):
            layer.load_state_dict(state)
        if backbone_rows(model):
            note(model, backbone=origin(backbone.model).backbone)
        return f"weights of {backbone.name}"
    if not backbone_rows(model):
        raise ValueError(f"'{backbone.name}' has no backbone of yolo_effnet, and its weights are random")
    try:
        if not (backbone_weights or named_by(model.yaml)):
            raise WeightsUnavailableError("of " + backbone.name, "its YAML names none")
        return str(load_backbone_weights(model, backbone_weights))
    except WeightsUnavailableError as error:
        if not allow_random:
            raise
        LOGGER.warning(f"The grafted backbone is random: {error}")
        return "random weights"
