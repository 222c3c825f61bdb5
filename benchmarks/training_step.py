"""Time and memory of a training step, by turns: `python benchmarks/training_step.py yolov8-effb0 timm-b0 yolov8n`."""

import argparse

import torch
from peers import MODELS, build
from torch import nn
from ultralytics.utils import DEFAULT_CFG

from yolo_effnet.tools.timing import by_turns, parse_device, peak


class Step:
    """Forward pass, loss and backward pass as Ultralytics' trainer computes them: on a GPU mixed and channels_last.

    Args:
        model (nn.Module): A detection model.
        shape (tuple): `(B, 3, H, W)`.
        device (torch.device): Where to run.
    """

    def __init__(self, model: nn.Module, shape: tuple, device: torch.device):
        self.model, self.device = model.train().to(device), device
        model.args = DEFAULT_CFG
        boxes = 4
        generator = torch.Generator().manual_seed(0)
        batch = {
            "img": torch.rand(shape, generator=generator),
            "batch_idx": torch.arange(shape[0]).float().repeat_interleave(boxes),
            "cls": torch.zeros(shape[0] * boxes, 1),
            "bboxes": torch.rand(shape[0] * boxes, 4, generator=generator) * 0.3 + 0.3,
        }
        self.batch = {k: v.to(device) for k, v in batch.items()}

    def __call__(self) -> float:
        """Compute loss and gradients once, and return the loss."""
        torch.manual_seed(0)  # drop path draws
        with torch.autocast(self.device.type, enabled=self.device.type == "cuda"):
            loss = self.model(self.batch)[0].sum()
        loss.backward()
        self.model.zero_grad(set_to_none=True)
        return loss.item()


def main() -> None:
    """Print a line for each model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", choices=MODELS, metavar="NAME", help="as in peers.py")
    parser.add_argument("--imgsz", type=int, default=320, help="side of the pictures in pixels (default: 320)")
    parser.add_argument("--batch", type=int, default=8, help="pictures at once (default: 8)")
    parser.add_argument("--device", default="cpu", help="cpu, or the number of a GPU (default: cpu)")
    parser.add_argument("--repeats", type=int, default=10, help="turns, of two timed steps (default: 10)")
    args = parser.parse_args()
    device = parse_device(args.device)
    steps = {}
    for name in args.models:
        model = build(name)
        if device.type == "cuda":
            model = model.to(memory_format=torch.channels_last)
        steps[name] = Step(model, (args.batch, 3, args.imgsz, args.imgsz), device)
        steps[name]()  # the first statistics stay
    memory = {name: peak(step, device) / args.batch for name, step in steps.items()}
    for name, milliseconds in (times := by_turns(steps, device, args.repeats)).items():
        ratio = milliseconds / times[args.models[0]]
        print(f"{name:<32}{milliseconds:>10.1f} ms{ratio:>8.3f}{memory[name]:>10.1f} MiB per picture")


if __name__ == "__main__":
    main()
