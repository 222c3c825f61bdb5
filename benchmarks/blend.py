"""What blending is worth on pictures that had no say: `python benchmarks/blend.py start.pt mine.yaml best.pt ..`.

Train with `blend=1` first. The share is chosen on every other picture of the validation split and reported on the rest,
both ways. If the data has a test split, it is chosen on the whole validation split as well, and reported on that.
"""

import argparse
import contextlib
import copy
import tempfile

import numpy as np
import torch
from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.utils.metrics import DetMetrics

from yolo_effnet.host import blend


class Halves(DetectionValidator):
    """A validator that measures the whole split, its even and its odd pictures, in one pass."""

    def get_stats(self) -> dict:
        """Return the metrics of the whole split, and keep mAP50-95 of all three in `found`."""
        stats = {name: list(parts) for name, parts in self.metrics.stats.items()}
        self.found = []
        for start, step in ((0, 1), (0, 2), (1, 2)):
            metrics = DetMetrics(self.metrics.names)
            metrics.stats = {name: parts[start::step] for name, parts in stats.items()}
            metrics.process()
            self.found.append(metrics.box.map)
        return super().get_stats()


def measure(model, data: str, split: str, imgsz: int) -> list[float]:
    """Return mAP50-95 of a model on a split, on its even and on its odd pictures."""
    args = {"data": data, "split": split, "imgsz": imgsz, "plots": False, "verbose": False, "workers": 0, "rect": False}
    validator = Halves(args={**args, "device": "cpu", "mode": "val", "task": "detect", "model": "blend.pt"})
    validator(model=copy.deepcopy(model).float())
    return validator.found


def start_of(file: str, data: str, imgsz: int) -> dict:
    """Return the weights that a training starts from, with the rows of classes that it solves for first."""
    start = {}

    def stop(trainer):
        start.update(torch.load(trainer.wdir / "start.pt", weights_only=True))
        raise KeyboardInterrupt

    model = YOLO(file)
    model.add_callback("on_train_start", stop)
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(KeyboardInterrupt):
        model.train(data=data, imgsz=imgsz, blend=0.5, project=folder, device="cpu", workers=0, plots=False)
    return start


def main() -> None:
    """Print a line for each training: mAP50-95 for each share, and the gains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("start", help="the checkpoint that the trainings started from")
    parser.add_argument("data", help="their data YAML")
    parser.add_argument("trained", nargs="+", help="their best.pt, not blended")
    parser.add_argument("--imgsz", type=int, default=320, help="side of the pictures in pixels (default: 320)")
    args = parser.parse_args()
    with open(args.data) as file:
        splits = ["val", "test"] if any(line.startswith("test:") for line in file) else ["val"]
    print("run", *(f"{share:g}" for share in blend.SHARES), "gains", sep=",")
    gains, start = [], start_of(args.start, args.data, args.imgsz)
    for trained in args.trained:
        model = YOLO(trained).model.float()
        mixed = [blend.mix(model, start, share) for share in blend.SHARES]
        table = np.array([[v for split in splits for v in measure(m, args.data, split, args.imgsz)] for m in mixed])
        pairs = [(1, 2), (2, 1)] if len(splits) == 1 else [(1, 2), (2, 1), (0, 3)]  # chosen on, reported on
        row = [table[table[:, a].argmax(), b] - table[0, b] for a, b in pairs]
        gains += row
        print(trained, *(f"{v:.3f}" for v in table[:, 0]), *(f"{v:+.3f}" for v in row), sep=",", flush=True)
    spread = np.std(gains, ddof=1) / len(gains) ** 0.5
    print(f"mean gain {np.mean(gains):+.4f}, its standard error {spread:.4f}")


if __name__ == "__main__":
    main()
