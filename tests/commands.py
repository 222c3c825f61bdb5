"""The command `yolo`, run as a user would."""

import os
import sys
from pathlib import Path

from installed import run


def yolo(*words, folder: Path) -> str:
    """Run the command `yolo` with `words` in `folder`, without a hub, and return what it printed."""
    command = [sys.executable, "-c", "from ultralytics.cfg import entrypoint; entrypoint()", *map(str, words)]
    return run(command, cwd=folder, env={**os.environ, "HF_HUB_OFFLINE": "1"}).stdout
