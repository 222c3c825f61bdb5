"""What binds the latency of a model: work and memory traffic of each row beside what the machine can do.

python benchmarks/roofline.py yolov8-effb0 timm-b0
"""

import argparse
import statistics
from collections import defaultdict
from dataclasses import dataclass

import torch
from peers import MODELS, build
from torch import nn
from ultralytics.nn.autobackend import AutoBackend
from ultralytics.utils import TQDM
from ultralytics.utils.ops import Profile

from yolo_effnet.tools.timing import parse_device, seconds

_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


@dataclass
class Limits:
    """What a device reaches at its best, measured.

    Attributes:
        gflops (float): GFLOP/s of the fastest of a matrix product, a 1x1 and a 3x3 convolution.
        gigabytes (float): GB/s, read and written, of the copy of a tensor larger than the caches.
    """

    gflops: float
    gigabytes: float


@dataclass
class Row:
    """One row of a model's YAML, or their sum.

    Attributes:
        name (str): Index and class.
        milliseconds (float): Median time.
        gflop (float): Operations of its convolutions and linear layers, two for each multiply-add.
        megabytes (float): What these layers read and write: inputs, weights and outputs, each once.
    """

    name: str
    milliseconds: float
    gflop: float
    megabytes: float

    def compute_ms(self, limits: Limits) -> float:
        """Return the time that the operations take at the limit."""
        return self.gflop / limits.gflops * 1e3

    def memory_ms(self, limits: Limits) -> float:
        """Return the time that reading and writing take at the limit, if nothing stays in the caches."""
        return self.megabytes / limits.gigabytes


def _median(call, device: torch.device, repeats: int) -> float:
    call()  # to warm up
    return statistics.median(seconds(call, device) for _ in range(repeats))


def limits(device: torch.device, half: bool = False, repeats: int = 10) -> Limits:
    """Measure what `device` reaches."""
    kind = {"device": device, "dtype": torch.float16 if half else torch.float32}
    side, channels, size = 2048, 256, 80
    matrix = torch.rand(side, side, **kind)
    image = torch.rand(1, channels, size, size, **kind).contiguous(memory_format=torch.channels_last)
    best = 2 * side**3 / _median(lambda: matrix @ matrix, device, repeats)
    for kernel in (1, 3):
        conv = nn.Conv2d(channels, channels, kernel, padding="same", **kind).to(memory_format=torch.channels_last)
        work = 2 * size**2 * channels**2 * kernel**2
        with torch.inference_mode():
            best = max(best, work / _median(lambda conv=conv: conv(image), device, repeats))
    source = torch.rand(2**26, device=device)  # 256 MiB
    target = torch.empty_like(source)
    bandwidth = 2 * source.nbytes / _median(lambda: target.copy_(source), device, repeats)
    return Limits(best / 1e9, bandwidth / 1e9)


def _work(network: nn.Module, x: torch.Tensor) -> dict[str, tuple[float, float]]:
    """Return FLOP and bytes of the convolutions and linear layers of each row."""
    work = defaultdict(lambda: [0, 0])

    def count(row):
        def hook(layer, inputs, output):
            values = inputs[0] if isinstance(layer, nn.ConvTranspose2d) else output
            work[row][0] += 2 * values.numel() * layer.weight[0].numel()
            work[row][1] += sum(t.nbytes for t in (inputs[0], layer.weight, output))

        return hook

    handles = [
        layer.register_forward_hook(count(row.i))
        for row in network.model
        for layer in row.modules()
        if isinstance(layer, _CONVOLUTIONS)
    ]
    network(x)
    for handle in handles:
        handle.remove()
    return work


def profile(
    name: str, imgsz: int, batch: int, device: torch.device, repeats: int = 20, half: bool = False
) -> list[Row]:
    """Return the rows of a model and their sum, as `yolo predict` runs it in PyTorch.

    Args:
        name (str): One of `peers.MODELS`.
        imgsz (int): Height and width of the images, a multiple of 32.
        batch (int): Images at once.
        device (torch.device): Where to run.
        repeats (int): Timed calls.
        half (bool): Infer in float16.
    """
    network = build(name).eval()
    backend = AutoBackend(network, device=device, fp16=half, verbose=False)  # fuses it
    x = torch.rand(batch, 3, imgsz, imgsz, device=device, dtype=torch.float16 if half else torch.float32)
    times, starts, clock = defaultdict(list), {}, Profile(device=device)

    def start(row, _):
        starts[row.i] = clock.time()

    def stop(row, *_):
        times[row.i].append(clock.time() - starts[row.i])

    with torch.inference_mode():
        work = _work(network, x)
        for row in network.model:
            row.register_forward_pre_hook(start)
            row.register_forward_hook(stop)
        for _ in TQDM(range(repeats + 2), desc=name):
            backend(x)
    rows = [
        Row(
            f"{row.i} {type(row).__name__}",
            statistics.median(times[row.i][2:]) * 1e3,
            work[row.i][0] / 1e9,
            work[row.i][1] / 1e6,
        )
        for row in network.model
    ]
    return [*rows, Row("all", *(sum(getattr(r, f) for r in rows) for f in ("milliseconds", "gflop", "megabytes")))]


def run(models: list[str], imgsz: int, batch: int, device: str, repeats: int = 20, half: bool = False) -> None:
    """Print what the device reaches, and the rows of each model beside it."""
    place = parse_device(device)
    reached = limits(place, half)
    print(f"limits: {reached.gflops:.0f} GFLOP/s, {reached.gigabytes:.1f} GB/s, {torch.get_num_threads()} threads")
    for name in models:
        print(f"\n{name + ', row':<28}{'ms':>8}{'GFLOP':>8}{'MB':>8}{'compute ms':>12}{'memory ms':>11}{'GFLOP/s':>9}")
        for row in profile(name, imgsz, batch, place, repeats, half):
            compute, memory = row.compute_ms(reached), row.memory_ms(reached)
            print(f"{row.name:<28}{row.milliseconds:>8.2f}{row.gflop:>8.2f}{row.megabytes:>8.1f}", end="")
            print(f"{compute:>12.2f}{memory:>11.2f}{row.gflop / row.milliseconds * 1e3:>9.0f}")


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="+", choices=MODELS, metavar="NAME", help="as in peers.py")
    parser.add_argument("--imgsz", type=int, default=640, help="side of the pictures in pixels (default: 640)")
    parser.add_argument("--batch", type=int, default=1, help="pictures at once (default: 1)")
    parser.add_argument("--device", default="cpu", help="cpu, or the number of a GPU (default: cpu)")
    parser.add_argument("--repeats", type=int, default=20, help="timed calls (default: 20)")
    parser.add_argument("--half", action="store_true", help="infer in float16")
    run(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
