"""Export a trained model, run each file in its own runtime on a picture, and compare with PyTorch.

pip install "yolo_effnet[export]"
python examples/export.py runs/detect/train/weights/best.pt
python examples/export.py best.pt --formats onnx,half=True openvino torchscript --data mine.yaml
python examples/export.py best.pt --formats engine --device 0      # TensorRT, on a machine with an NVIDIA GPU
"""

import argparse

import cv2
import torch
from ultralytics import ASSETS, YOLO
from ultralytics.cfg import smart_value
from ultralytics.data.augment import LetterBox
from ultralytics.nn.autobackend import AutoBackend


def letterboxed(file, size: int):
    """Return the RGB pixels of a picture, `(size, size, 3)`."""
    return LetterBox((size, size))(image=cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB))


def infer(file: str, picture, device: torch.device) -> torch.Tensor:
    """Return the raw output of a model file for one picture."""
    backend = AutoBackend(file, device=device, fp16=False)
    x = torch.from_numpy(picture).to(device).permute(2, 0, 1)[None].contiguous().float() / 255
    with torch.no_grad():
        output = backend(x.half() if backend.fp16 else x)
    while isinstance(output, (list, tuple)):
        output = output[0]
    return torch.as_tensor(output).float()


def main() -> None:
    """Export and compare as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", help="a trained .pt")
    parser.add_argument("--formats", nargs="+", default=["onnx"], help="of yolo export, with options after commas")
    parser.add_argument("--imgsz", type=int, default=160, help="side of the pictures in pixels (default: %(default)s)")
    parser.add_argument("--data", help="data set on which to validate each file too, and to calibrate int8")
    parser.add_argument("--picture", default=ASSETS / "bus.jpg", help="picture to compare on (default: a bus)")
    parser.add_argument("--device", default="cpu", help="cpu, or the number of a GPU (default: %(default)s)")
    args = parser.parse_args()
    device = torch.device("cpu" if args.device == "cpu" else f"cuda:{args.device}")

    def score(file: str) -> float:
        # Most exported files take square pictures only, so PyTorch gets them too.
        options = {"imgsz": args.imgsz, "rect": False, "batch": 1, "workers": 0, "plots": False, "verbose": False}
        metrics = YOLO(file, task=task).val(data=args.data, device=args.device, **options).results_dict
        return [value for name, value in metrics.items() if "mAP50-95" in name or "top1" in name][-1]

    picture = letterboxed(args.picture, args.imgsz)
    task = YOLO(args.weights).task
    expected = infer(args.weights, picture, device)
    reference = score(args.weights) if args.data else None
    for line in args.formats:
        name, *options = line.split(",")
        options = {k: smart_value(v) for k, v in (option.split("=") for option in options)}
        if args.data and options.keys() & {"int8", "quantize"}:
            options["data"] = args.data
        file = YOLO(args.weights).export(format=name, imgsz=args.imgsz, device=args.device, **options)
        exported = infer(file, picture, device)
        report = "another output than PyTorch's"
        if exported.shape == expected.shape:
            error = (exported - expected).abs().max()
            share = error / expected.abs().max()
            report = f"largest difference from PyTorch {error:.1e}, that is {share:.1e} of the largest output"
        if args.data:
            report += f"; mAP50-95 or top-1 {score(file):.4f}, PyTorch's {reference:.4f}"
        print(f"{line}: {file}: {report}")


if __name__ == "__main__":
    main()
