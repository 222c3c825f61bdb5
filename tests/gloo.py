"""Ultralytics' detection trainer on two CPU ranks, which its own launcher starts with `torch.distributed.run`.

Ultralytics trains on several devices only where they are GPUs; overridden is no more than what names CUDA.
"""

from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import torch
from torch import nn
from ultralytics.engine import validator
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
        backend, on_gpu = validator.AutoBackend, SimpleNamespace(current_device=lambda: 0)
        with ExitStack() as stack:
            stack.enter_context(patch.object(nn.parallel, "DistributedDataParallel", CPUParallel))
            # The last validation, which takes the device of a rank from CUDA.
            on_cpu = {"AutoBackend": lambda **options: backend(**{**options, "device": torch.device("cpu")})}
            if hasattr(validator, "get_torch_device_backend"):
                on_cpu["get_torch_device_backend"] = lambda device: on_gpu
            stack.enter_context(patch.multiple(validator, **on_cpu))
            super()._do_train()


def record(moment: str, folder: Path):
    """Return a callback that saves model and EMA of each rank."""

    def save(trainer):
        models = {"model": trainer.model.module, "ema": trainer.ema.ema}
        torch.save(
            {k: m.state_dict() for k, m in models.items()}, folder / f"{moment}{torch.distributed.get_rank()}.pt"
        )

    return save
