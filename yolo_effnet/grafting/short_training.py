"""A short training that follows a donor, by Ultralytics' trainer without its log, files and loggers."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn
from ultralytics import YOLO
from ultralytics.utils import LOGGER, TQDM

from yolo_effnet.checkpoints import save_checkpoint
from yolo_effnet.grafting import footage
from yolo_effnet.grafting.donor import Donor
from yolo_effnet.grafting.following import outcome
from yolo_effnet.grafting.pictures import Pictures

_BATCH = 8


@contextmanager
def _as_before() -> Iterator[None]:
    """Leave random numbers and the log after the `with` block as they were before it, in which only warnings pass."""
    level, states = LOGGER.level, (random.getstate(), np.random.get_state())
    LOGGER.setLevel("WARNING")
    try:
        with torch.random.fork_rng():
            yield
    finally:
        LOGGER.setLevel(level)
        random.setstate(states[0])
        np.random.set_state(states[1])


def match(
    model: nn.Module, donor: Donor, pictures: Pictures, folder: Path, *, steps: int, seed: int, device: torch.device
) -> nn.Module:
    """Return a grafted model after a training that follows its donor; every tenth picture is not trained on.

    Args:
        model (nn.Module): The grafted model.
        donor (Donor): Whose neck and head it has.
        pictures (Pictures): Pictures without labels.
        folder (Path): Where to write what the trainer reads.
        steps (int): Number of steps of 8 pictures.
        seed (int): Of the choice of pictures and of their augmentation.
        device (torch.device): Where to compute.
    """
    files, imgsz = [str(Path(file).absolute()) for file in pictures.files], pictures.imgsz
    start, teacher = folder / "graft.pt", folder / "teacher" / f"{Path(donor.name).stem}.pt"
    teacher.parent.mkdir()
    save_checkpoint(model, start, task=donor.mode, imgsz=imgsz)
    save_checkpoint(donor.model, teacher, task=donor.mode, imgsz=imgsz)
    data = footage.describe_steps(files, steps, _BATCH, donor.model, folder / "match", seed)
    options = {
        "task": donor.mode, "model": str(start), "match": str(teacher), "data": str(data), "epochs": 1,
        "batch": _BATCH, "imgsz": imgsz, "seed": seed, "device": str(device), "amp": False, "val": False, "save": False,
        "plots": False, "verbose": False, "project": str(folder), "name": "run",
    }  # fmt: skip
    # The loggers of Ultralytics, such as W&B, go to classes with "Trainer" in their name.
    kind = type("ShortTraining", (YOLO(start).task_map[donor.mode]["trainer"],), {"save_model": lambda _self: None})
    bar = TQDM(total=steps, desc="match")
    with _as_before():
        trainer = kind(overrides=options)
        trainer.add_callback("on_train_batch_end", lambda _: bar.update(1))
        trainer.train()
    bar.close()
    model = trainer.ema.ema.float()
    del model.criterion
    record = model.yaml["graft"]["followed"]
    first, last = record["error"]
    LOGGER.info(
        f"matched in {steps} steps: {outcome(record)}; error at the inputs of the head {first:.3f} -> {last:.3f}"
    )
    return model
