"""The arguments `graft` and `match` of a training. Imports little: every training imports it, and few have them."""

import functools

import torch
from ultralytics.utils import RANK
from ultralytics.utils.checks import check_imgsz

from yolo_effnet.arguments import ARGUMENTS, value_of
from yolo_effnet.host.schedule import world_size


def _graft(trainer) -> None:
    """Put the model of a trainer under the neck and head of a donor.

    The grafted model becomes a file in the folder of the run, from which every rank builds its model.

    Raises:
        ValueError: If the argument contradicts another, or donor and model do not go together.
        WeightsUnavailableError: If the backbone's weights cannot be had, a RuntimeError.
    """
    args = trainer.args
    donor = args.graft
    ARGUMENTS["graft"].check(donor)
    if args.pretrained is not True:
        raise ValueError(f"pretrained={args.pretrained} contradicts graft={donor}: leave out one of them")
    from yolo_effnet.checkpoints import save_checkpoint  # not for other trainings: it needs all of Ultralytics
    from yolo_effnet.grafting.donor import load_donor
    from yolo_effnet.grafting.graft import solved
    from yolo_effnet.grafting.taps import AUTO

    file = trainer.save_dir / "grafted.pt"
    if RANK in (-1, 0):
        giver = load_donor(donor)
        if (task := giver.mode) != args.task:
            raise ValueError(f"graft={donor} is a model to {task}, not to {args.task}: yolo {task} train ..")
        size = check_imgsz(args.imgsz, stride=1, max_dim=1)  # one side, which is rounded for the donor
        file.parent.mkdir(parents=True, exist_ok=True)
        model, _, _, pictures = solved(
            giver.model, args.model, trainer.data["train"], number=256, imgsz=size, taps=AUTO, seed=args.seed,
            activation=value_of(args, "activation"), backbone_weights=value_of(args, "backbone_weights"),
            allow_random=False, device=torch.device(trainer.device),
        )  # fmt: skip
        save_checkpoint(model.cpu().requires_grad_(True), file, task=giver.mode, imgsz=pictures.imgsz)
    if world_size() > 1:
        torch.distributed.barrier()
    trainer.model = str(file)


def wrap_setup_model(setup_model):
    """Return the method that builds the model of a training, which arguments may graft, or let follow a teacher."""

    @functools.wraps(setup_model)
    def wrapper(self, *args, **kwargs):
        if (activation := value_of(self.args, "activation")) is not None:
            ARGUMENTS["activation"].check(activation)
            if not (value_of(self.args, "graft") and value_of(self.args, "match")):
                raise ValueError(
                    f"activation={activation} is for a graft that follows its donor: add graft= and match=True"
                )
        if value_of(self.args, "graft") is not None and not self.resume:
            _graft(self)
        checkpoint = setup_model(self, *args, **kwargs)
        if value_of(self.args, "match"):
            from yolo_effnet.grafting.following import follow

            follow(self)
        return checkpoint

    return wrapper


def wrap_get_dataset(get_dataset):
    """Return the method that reads the data set of a training, which is pictures alone where it follows a teacher."""

    @functools.wraps(get_dataset)
    def wrapper(self, *args, **kwargs):
        if value_of(self.args, "match") in (None, False):
            return get_dataset(self, *args, **kwargs)
        from yolo_effnet.grafting.following import prepare

        prepare(self)
        own, self.args.data = self.args.data, self.followed
        try:
            return get_dataset(self, *args, **kwargs)
        finally:
            self.args.data = own  # for other ranks: what starts them empties the folder of the run

    return wrapper
