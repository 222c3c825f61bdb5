"""How sure a donor is of what pictures show, which says how much of it a training has to keep."""

import torch

from yolo_effnet.grafting.donor import Donor
from yolo_effnet.grafting.pictures import Pictures
from yolo_effnet.grafting.seams import head_inputs
from yolo_effnet.host.heads import class_branches


@torch.no_grad()
def confidence(donor: Donor, pictures: Pictures, device: torch.device) -> float:
    """Return the highest score that a donor gives to any class in a picture, 0 to 1, the mean over pictures.

    A detector of COCO has 0.8 on photographs of what COCO shows, and 0.1 on blood cells. The donor is on `device`.
    """
    branches, scores = class_branches(donor.head), []
    for x in pictures.batches(4):
        maps = head_inputs(donor.model, x.to(device))
        highest = [branch(y).amax((1, 2, 3)) for branch, y in zip(branches, maps, strict=True)]
        scores.append(torch.stack(highest).amax(0).sigmoid())
    return float(torch.cat(scores).mean())
