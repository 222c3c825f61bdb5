"""The seam to Ultralytics: the only room that touches its internals."""

import ultralytics.nn.tasks  # noqa: F401  # first, as in yolo_effnet.nn
