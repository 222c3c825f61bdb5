"""Ultralytics' detection trainer on two CPU ranks, which its own launcher starts with `torch.distributed.run`.

Ultralytics trains on several devices only where they are GPUs; overridden is no more than what names CUDA.
"""

from pathlib import Path
from unittest.mock import patch

import torch
from torch import nn
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils import LOCAL_RANK, RANK

RANKS = 2


class CPUParallel(nn.parallel.DistributedDataParallel):
    """DistributedDataParallel that takes no device index, as a CPU has none."""

    def __init__(self, module, device_ids, **kwargs):
        assert device_ids == [None]
        super().__init__(module, **kwargs)


class GlooTrainer(DetectionTrainer):
    """In the process that is asked to train the launcher, in those that it starts one rank each."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.world_size = RANKS
        self.ddp = LOCAL_RANK == -1

    def _setup_ddp(self):
        torch.distributed.init_process_group("gloo", rank=RANK, world_size=RANKS)

    def _do_train(self):
        with patch.object(nn.parallel, "DistributedDataParallel", CPUParallel):
            super()._do_train()

    def final_eval(self):
        """Leave out the validation of `best.pt`, which takes the device of a rank from CUDA."""


def record(moment: str, folder: Path):
    """Return a callback that saves model and EMA of each rank."""

    def save(trainer):
        models = {"model": trainer.model.module, "ema": trainer.ema.ema}
        torch.save(
            {k: m.state_dict() for k, m in models.items()}, folder / f"{moment}{torch.distributed.get_rank()}.pt"
        )

    return save
