"""How far what a model computes is from what its teacher or its donor does."""

import torch
import torch.nn.functional as F

from yolo_effnet.host.heads import Seen


def distance(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> torch.Tensor:
    """Return the mean squared error of maps over the variance of what is wanted, in float32, the mean over the maps."""
    pairs = [(a.float(), b.float()) for a, b in zip(found, wanted, strict=True)]
    return sum(((a - b) ** 2).mean() / b.var() for a, b in pairs) / len(pairs)


def _flat(maps: dict[int, torch.Tensor]) -> torch.Tensor:
    """Return maps `(B, C, H, W)` of several levels as `(B, C, places)`, in float32."""
    return torch.cat([maps[level].float().flatten(2) for level in sorted(maps)], 2)


def are_alike(ours: Seen, theirs: Seen) -> bool:
    """Return whether two heads take maps of the same shapes, so that their inputs can be compared."""
    return all(a.shape == b.shape for a, b in zip(ours.inputs, theirs.inputs, strict=True))


def compare(ours: Seen, theirs: Seen, reg_max: int) -> list[torch.Tensor]:
    """Return how far what a head took and gave is from what a teacher's did, four numbers, 0 where they are equal.

    Each place of the pyramid counts as much as the teacher is sure that there is something.

    Args:
        ours (Seen): Of the model that follows.
        theirs (Seen): Of its teacher, on the same pictures.
        reg_max (int): Bins of a distance; 1 where it is one number.

    Returns:
        (list[torch.Tensor]): Mean squared error of the inputs over the teacher's variance, 0 if widths differ;
            divergence of the class scores; of the distributions of distances, or error of distances over the size of
            the box; and squared error of coefficients, keypoints or angles over their variance, with that of the
            prototypes of masks.

    References:
        Revisiting Model Stitching, https://arxiv.org/abs/2603.12433: matching final features.
    """
    zero = ours.inputs[0].new_zeros((), dtype=torch.float32)
    inputs, scores, boxes, more = zero, zero, zero, zero
    if are_alike(ours, theirs):
        inputs = distance(ours.inputs, theirs.inputs)
    for (s, b, m), (ts, tb, tm) in zip(ours.assignments(), theirs.assignments(), strict=True):
        s, ts = _flat(s), _flat(ts)
        wanted = ts.sigmoid()
        sure = wanted.amax(1)  # (B, places)
        norm = sure.sum().clamp_min(1)
        entropy = F.binary_cross_entropy_with_logits(ts, wanted, reduction="sum")
        scores = scores + (F.binary_cross_entropy_with_logits(s, wanted, reduction="sum") - entropy) / norm
        b, tb = (_flat(x).unflatten(1, (4, -1)) for x in (b, tb))
        if reg_max > 1:
            away = F.kl_div(b.log_softmax(2), tb.log_softmax(2), reduction="none", log_target=True).sum(2).mean(1)
        else:
            away = (b - tb).abs().mean((1, 2)) / tb.abs().mean((1, 2)).clamp_min(1)
        boxes = boxes + (away * sure).sum() / norm
        for a, ta in zip(m, tm, strict=False):
            a, ta = _flat(a), _flat(ta)
            if a.shape == ta.shape:
                weight = sure[:, None] / norm / a.shape[1]
                middle = (ta * weight).sum((0, 2), keepdim=True) * a.shape[1]
                spread = ((ta - middle) ** 2 * weight).sum().clamp_min(1e-3)
                more = more + ((a - ta) ** 2 * weight).sum() / spread
    if ours.masks is not None and ours.masks.shape == theirs.masks.shape:
        more = more + distance([ours.masks], [theirs.masks])
    return [inputs, scores, boxes, more]
