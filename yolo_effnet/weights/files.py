"""Files of weights: the tensors of a backbone in whatever a training has wrapped around them."""

import argparse
import contextlib
import json
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from yolo_effnet.checks import why
from yolo_effnet.weights.naming import Lukemelas, Naming, Timm, Torchvision
from yolo_effnet.weights.sources import Pretraining, available_tags

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")
_LIBRARIES = "timm, torchvision or EfficientNet-PyTorch"
_HARMLESS = [argparse.Namespace, type(Path())]  # of timm's training script and others
_safe_globals = getattr(torch.serialization, "safe_globals", contextlib.nullcontext)  # of torch 2.5


def tag_of_file(file: Path, backbone: str | None = None) -> str | None:
    """Return the timm tag that a file says it holds: by its name, or by the `config.json` of the hub beside it."""
    import timm

    tags = available_tags(backbone)
    if file.stem in tags:
        return file.stem
    for tag in tags:
        url = getattr(timm.get_pretrained_cfg(tag), "url", None)
        if url and url.rpartition("/")[2] == file.name:
            return tag
    try:
        config = json.loads((file.parent / "config.json").read_text(encoding="utf-8"))
        tag = f"{config['architecture']}.{config['pretrained_cfg']['tag']}"
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return tag if tag in tags else None


def _looks_like(file: Path) -> str:
    """Return what a file is that does not hold tensors."""
    with file.open("rb") as stream:
        start = stream.read(512)
    if start.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS, not the file itself: run `git lfs pull`"
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "it is a web page, not the file itself"
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            pickles = [archive.read(name) for name in archive.namelist() if name.endswith("data.pkl")]
        if any(b"ultralytics" in content for content in pickles):
            return f"it is a checkpoint of Ultralytics: train from it with model={file} or pretrained={file}"
        if any(b"torch.nn.modules" in content for content in pickles):
            return "it holds a whole module, which unpickling would run: save its state_dict() instead"
    if file.suffix not in SUFFIXES:
        return f"its suffix is none of {', '.join(SUFFIXES)}"
    return "it may be cut off, or hold more than tensors: save the state_dict() of the model alone"


def _state_dicts(checkpoint) -> Iterator[dict[str, torch.Tensor]]:
    """Yield the state dicts in a checkpoint, averaged weights (EMA) first."""
    if not isinstance(checkpoint, Mapping):
        return
    tensors = {k: v for k, v in checkpoint.items() if isinstance(k, str) and isinstance(v, torch.Tensor)}
    if tensors:
        yield tensors
    for key in sorted((k for k in checkpoint if isinstance(k, str)), key=lambda k: "ema" not in k.lower()):
        if isinstance(checkpoint[key], Mapping):
            yield from _state_dicts(checkpoint[key])


def _prefix(state_dict: Mapping, first: str) -> str | None:
    """Return what stands before the names of a backbone whose first tensor is called `first`; None without one."""
    flat = first.replace(".", "_")  # as in timm's models of feature maps
    found = [
        key[: len(key) - len(first)]
        for key in state_dict
        if key.endswith(first) or (key.replace(".", "_").endswith(flat) and len(key) >= len(first))
    ]
    found = [prefix for prefix in found if not prefix or prefix.endswith(".")]
    return min(found, key=lambda p: ("ema" not in re.split(r"[._]", p.lower()), len(p)), default=None)


def read_state_dict(file: Path, source: Pretraining) -> tuple[dict[str, torch.Tensor], Naming]:
    """Return the tensors of a backbone in a file, and in whose names they are.

    The file is `.safetensors`, or what `torch.save` wrote of tensors: a state dict, or a checkpoint around one, with
    prefixes, and with averaged weights (EMA), which are preferred. A ValueError says why it is none of `source`.
    """
    from safetensors.torch import load_file

    wanted = f"expected a state dict of {source.tag} with the names of {_LIBRARIES}"
    if not file.is_file():
        raise ValueError(f"weights file '{file}' does not exist; {wanted}")
    state_dicts, fault, details = [], "it has no tensors", ""
    try:
        with _safe_globals(_HARMLESS):
            is_tensors = file.suffix == ".safetensors"
            checkpoint = load_file(file) if is_tensors else torch.load(file, map_location="cpu", weights_only=True)
        state_dicts = list(_state_dicts(checkpoint))
    except Exception as error:  # of pickle, zip, safetensors or the file system
        fault = _looks_like(file)
        if not isinstance(error, pickle.UnpicklingError):  # whose advice is to trust the file
            details = f" ({why(error)})"
    if not state_dicts:
        raise ValueError(f"weights file '{file}' is not a state dict: {fault}; {wanted}{details}")
    for state_dict in state_dicts:
        for naming in (Timm(source.tensors), Torchvision(), Lukemelas()):
            prefix = _prefix(state_dict, naming.first)
            if prefix is not None:
                return {k[len(prefix) :]: v for k, v in state_dict.items() if k.startswith(prefix)}, naming
    names = [k for k in state_dicts[0] if k.rpartition(".")[2] == "weight"] or list(state_dicts[0])
    kind = "is a state dict of an Ultralytics model" if re.match(r"(model\.)*\d+\.", names[0]) else "is of another kind"
    raise ValueError(f"weights file '{file}' {kind}, whose tensors are called '{names[0]}' and so on; {wanted}")
