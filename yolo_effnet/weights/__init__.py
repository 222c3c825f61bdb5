"""ImageNet weights: where they come from, how libraries name their tensors, and how they get into a backbone."""

import ultralytics.nn.tasks  # noqa: F401  # first, as in yolo_effnet.nn
