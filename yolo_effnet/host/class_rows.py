"""The rows of classes that a trained detector does not know, solved for from labels before a training."""

from collections import defaultdict
from collections.abc import Iterator
from copy import copy

import torch
import torch.nn.functional as F
from torch import nn
from ultralytics.nn.modules import Detect
from ultralytics.utils import LOGGER, RANK, TQDM
from ultralytics.utils.checks import check_imgsz

from yolo_effnet.checks import few

_PICTURES = 256  # as a graft takes
_EACH = 8  # of a class, where the pictures above have fewer
_MOST = 1024  # pictures in all
_BACKGROUND = (100, 1000)  # places of a picture without an object, at least and at most
_SCORES = 20_000_000  # of all classes in all pictures, for which there are as few as possible of these places
_PASSES = 2  # in the second, what an object is at depends on the scores too
# Penalty relative to the mean loss of a place, of which the one that fits unseen pictures best is taken. Smaller ones
# can fit better, but a training has to unlearn the large weights that they give (docs/results.md).
_RIDGES = (1e-2, 3e-3, 1e-3)
_STEPS = 20  # of Newton's method, of which it mostly takes a few
_BRANCHES = {"cv3": "one2many", "one2one_cv3": "one2one"}  # of a head that score classes, and what of a loss wants it


def solution(
    x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, ridge: float, start: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the weights `(n + 1, k)` of logistic regression with a penalty on all but the last, the constant.

    Args:
        x (torch.Tensor): Inputs `(places, n)`, about as large as 1.
        y (torch.Tensor): Probabilities that are wanted, `(places, k)`.
        weight (torch.Tensor): How much each place counts, `(places,)`.
        ridge (float): Penalty on the squares of the weights, relative to the mean loss of a place.
        start (torch.Tensor | None): Weights to begin from.
    """
    x, weight = torch.cat([x, torch.ones_like(x[:, :1])], 1), weight / weight.sum()
    if start is None:
        start = x.new_zeros(x.shape[1], y.shape[1])
        start[-1] = torch.logit((weight @ y).clamp(1e-6, 1 - 1e-6))
    penalty = torch.full_like(start[:, 0], ridge)
    penalty[-1] = 0
    columns = zip(start.T, y.T, strict=True)
    return torch.stack([_newton(x, wanted, weight, penalty, found) for found, wanted in columns], 1)


def _newton(x, y, weight, penalty, found: torch.Tensor) -> torch.Tensor:
    """Return the weights `(n + 1,)` of one class, by Newton's method with steps that are halved until they help."""

    def loss(found):
        return F.binary_cross_entropy_with_logits(x @ found, y, reduction="none") @ weight + penalty @ found**2

    before = loss(found)
    for _ in range(_STEPS):
        probability = (x @ found).sigmoid()
        gradient = x.T @ (weight * (probability - y)) + 2 * penalty * found
        curvature = (x * (weight * probability * (1 - probability))[:, None]).T @ x + torch.diag(2 * penalty)
        curvature = curvature.cpu().double()  # which not every device has
        curvature.diagonal().add_(1e-9)
        step = torch.linalg.solve(curvature, gradient.cpu().double()).to(x)
        size, after = 1.0, loss(found - step)
        while after > before and size > 1e-3:
            size /= 2
            after = loss(found - size * step)
        if not after < before:
            break
        found = found - size * step
        if before - after < 1e-5 * before:
            break
        before = after
    return found


class _Places:
    """What a convolution that scores classes takes at places of pictures, and what it should give there."""

    def __init__(self, samples: list[tuple[torch.Tensor, ...]]):
        """Take inputs `(places, n)`, scores that are wanted `(places, k)` and weights `(places,)` of each picture."""
        halves = [[torch.cat(parts) for parts in zip(*samples[i::2], strict=True)] for i in (0, 1)]
        total = sum(weight.sum() for _, _, weight in halves)
        self.mean = sum(weight @ x for x, _, weight in halves) / total
        self.spread = (sum(weight @ (x - self.mean) ** 2 for x, _, weight in halves) / total).sqrt() + 1e-3
        self.halves = [((x - self.mean) / self.spread, y, weight) for x, y, weight in halves]

    def unseen_losses(self) -> list[float]:
        """Return, for each ridge, the loss on each half of the weights that the other half gives."""
        losses = [0.0] * len(_RIDGES)
        for half, (x, y, weight) in (self.halves, self.halves[::-1]):
            found = None
            for i, ridge in enumerate(_RIDGES):
                found = solution(*half, ridge, found)
                scores = x @ found[:-1] + found[-1]
                losses[i] += float(F.binary_cross_entropy_with_logits(scores, y, reduction="none").sum(1) @ weight)
        return losses

    def rows(self, ridge: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return weights `(k, n)` and biases `(k,)` of the convolution."""
        found = solution(*(torch.cat(both) for both in zip(*self.halves, strict=True)), ridge)
        weight = found[:-1].T / self.spread
        return weight, found[-1] - weight @ self.mean


class _Head:
    """The head of a model, the rows of classes that it does not know, and what a loss wants of them.

    Attributes:
        convolutions (dict[str, nn.Conv2d]): Those that give scores of classes, by their names in the model.
        rows (torch.Tensor): Whether each class has a row to solve for, `(classes,)`.
    """

    def __init__(self, model: nn.Module, new: dict[str, torch.Tensor]):
        """Take a model, and what of it was not loaded.

        No row is to be solved for where more of a branch is new than its last convolution.
        """
        self.model, self.new, self.criterion = model, new, None
        self.convolutions, self.rows = {}, torch.ones(model.model[-1].nc, dtype=torch.bool)
        self.taken: dict[str, torch.Tensor] = {}
        self.wanted: dict[str, torch.Tensor] = {}
        self.handles: list = []
        for name in _BRANCHES:
            for level, branch in enumerate(getattr(model.model[-1], name, None) or ()):
                place = f"model.{len(model.model) - 1}.{name}.{level}."
                last = f"{place}{len(branch) - 1}"
                self.convolutions[last] = branch[-1]
                of_classes = branch[-1].out_channels == len(self.rows)  # and not of words, as in YOLO-World
                has_learnt = not any(key.startswith(place) and not key.startswith(last) for key in new)
                self.rows &= new.get(f"{last}.weight", torch.tensor(False)) if of_classes and has_learnt else False

    def watch(self) -> None:
        """Note what the convolutions take and what the loss wants, from now on."""
        self.criterion = self.model.init_criterion()
        for name, part in _BRANCHES.items():

            def note_wanted(_module, _args, output, name=name):
                self.wanted[name] = output[2]  # target scores `(B, places, classes)`

            if hasattr(self.model.model[-1], name):
                assigner = getattr(self.criterion, part, self.criterion).assigner
                self.handles.append(assigner.register_forward_hook(note_wanted))
        for name, conv in self.convolutions.items():

            def note_taken(_module, args, name=name):
                self.taken[name] = args[0]

            self.handles.append(conv.register_forward_pre_hook(note_taken))

    def close(self) -> None:
        """Note nothing any more."""
        for handle in self.handles:
            handle.remove()

    def sample(self, batch: dict, background: int, generator: torch.Generator) -> Iterator[tuple[str, tuple]]:
        """Yield, for each convolution, its inputs and wanted scores at places of a picture, and their weights."""
        self.criterion(self.model(batch["img"]), batch)
        for branch, wanted in self.wanted.items():
            taken = {name: x for name, x in self.taken.items() if f".{branch}." in name}
            sizes = [x[0, 0].numel() for x in taken.values()]
            share = min(1.0, background / sum(sizes))
            scores = wanted[..., self.rows].float().split(sizes, 1)
            for (name, x), y in zip(taken.items(), scores, strict=True):
                x, y = x.float().flatten(2).transpose(1, 2).flatten(0, 1), y.flatten(0, 1)
                has_object = y.any(1)
                keep = has_object | (torch.rand(len(y), generator=generator).to(y.device) < share)
                weight = torch.where(has_object, 1.0, 1 / share)
                yield name, (x[keep], y[keep], weight[keep])

    def solve(self, dataset, chosen: list[int], device: torch.device) -> float:
        """Write solved rows into the convolutions, and return their ridge."""
        background = min(max(_SCORES // (int(self.rows.sum()) * len(chosen)), _BACKGROUND[0]), _BACKGROUND[1])
        generator, samples = torch.Generator().manual_seed(0), defaultdict(list)
        for i in TQDM(chosen, total=len(chosen), desc="classes"):
            batch = dataset.collate_fn([dataset[i]])
            batch = {key: v.to(device) if isinstance(v, torch.Tensor) else v for key, v in batch.items()}
            batch["img"] = batch["img"].float() / 255
            for name, sample in self.sample(batch, background, generator):
                samples[name].append(sample)
        places = {name: _Places(found) for name, found in samples.items()}
        losses = [sum(loss) for loss in zip(*(p.unseen_losses() for p in places.values()), strict=True)]
        ridge = _RIDGES[losses.index(min(losses))]
        for name, found in places.items():
            weight, bias = found.rows(ridge)
            self.fill(name, weight[:, :, None, None], bias)
        return ridge

    def fill(self, name: str, weight, bias) -> None:
        """Fill the rows of a convolution, from which on they are known."""
        conv = self.convolutions[name]
        conv.weight.data[self.rows], conv.bias.data[self.rows] = weight, bias
        for kind in ("weight", "bias"):
            self.new[f"{name}.{kind}"] &= ~self.rows


def _labelled(trainer, stride: int):
    """Return the data set to train on, without augmentation; None if it is one of a user's own."""
    own = trainer.args
    trainer.args = copy(own)
    trainer.args.cache = False
    trainer.args.imgsz = check_imgsz(own.imgsz, stride=stride, floor=stride, max_dim=1)
    try:
        dataset = trainer.build_dataset(trainer.data["train"], "train", 1)
        if not hasattr(dataset, "build_transforms"):
            return None
        dataset.augment = False
        dataset.transforms = dataset.build_transforms(trainer.args)
    finally:
        trainer.args = own
    return dataset


def _chosen(dataset, classes: list[int]) -> list[int]:
    """Return the numbers of pictures, evenly chosen, and more of each class of which these have few."""
    number = len(dataset.labels)
    chosen = {i * number // _PICTURES for i in range(_PICTURES)} if number > _PICTURES else set(range(number))
    of_class = defaultdict(list)
    for i, label in enumerate(dataset.labels):
        for kind in {int(c) for c in label["cls"].flatten()}:
            of_class[kind].append(i)
    for kind in classes:
        more = min(_EACH - len(chosen.intersection(of_class[kind])), _MOST - len(chosen))
        chosen.update([i for i in of_class[kind] if i not in chosen][: max(more, 0)])
    return sorted(chosen)


@torch.no_grad()
def apply(trainer, model: nn.Module, new: dict[str, torch.Tensor]) -> None:
    """Give a trained detector the rows of classes that it does not know, from labels of the pictures to train on.

    Ultralytics draws such rows at random and keeps those of classes that have the name of one before, which stay.
    `cls_remap=False` leaves all to it. On several ranks the first one solves, and DDP sends its weights to the others.

    Args:
        trainer (BaseTrainer): The trainer, whose model has its arguments.
        model (nn.Module): The model, on the device of the training.
        new (dict[str, torch.Tensor]): What of it was not loaded (`nn.origin.note_rows`), less what is solved here.

    References:
        Training the last layer first: Kumar et al., https://arxiv.org/abs/2202.10054.
    """
    if RANK > 0 or not isinstance(model.model[-1], Detect) or not getattr(trainer.args, "cls_remap", True):
        return
    head = _Head(model, new)
    if not head.rows.any() or (dataset := _labelled(trainer, max(int(model.stride.max()), 32))) is None:
        return
    chosen = _chosen(dataset, head.rows.nonzero().flatten().tolist())
    shown = {int(c) for i in chosen for c in dataset.labels[i]["cls"].flatten()}
    head.rows &= torch.tensor([i in shown for i in range(len(head.rows))])
    if not head.rows.any() or len(chosen) < 2:
        return
    was_training = model.training
    model.eval()
    head.watch()
    try:
        for name in head.convolutions:
            head.fill(name, 0.0, 0.0)  # scores that are alike everywhere, at first
        for _ in range(_PASSES):
            ridge = head.solve(dataset, chosen, trainer.device)
    finally:
        head.close()
        model.train(was_training)
    names = [trainer.data["names"][i] for i in head.rows.nonzero().flatten().tolist()]
    LOGGER.info(f"rows of {few(names)} solved from the labels of {len(chosen)} pictures, ridge {ridge:g}")
