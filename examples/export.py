"""Export a trained model to ONNX (or another format) and compare its raw outputs with PyTorch's.

pip install "yolo_effnet[export]"
python examples/export.py runs/detect/train/weights/best.pt
python examples/export.py best.pt --format engine      # TensorRT, on a machine with an NVIDIA GPU
"""

import argparse

import torch
from ultralytics import YOLO
from ultralytics.nn.autobackend import AutoBackend


def main() -> None:
    """Export and compare as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", help="a trained .pt")
    parser.add_argument("--format", default="onnx", help="onnx, engine, openvino ... (default: %(default)s)")
    parser.add_argument("--imgsz", type=int, default=160, help="side of the pictures in pixels (default: %(default)s)")
    args = parser.parse_args()

    file = YOLO(args.weights).export(format=args.format, imgsz=args.imgsz)

    device = torch.device("cuda:0" if args.format == "engine" else "cpu")
    image = torch.rand(1, 3, args.imgsz, args.imgsz, device=device)
    network = YOLO(args.weights).model.to(device).eval()
    with torch.no_grad():
        expected = network(image)[0]
        exported = AutoBackend(file, device=device)(image)
    exported = exported[0] if isinstance(exported, (list, tuple)) else exported
    error = (exported - expected).abs().max() / expected.abs().max()
    print(f"{file}: largest difference from PyTorch {error:.1e} of the largest output")


if __name__ == "__main__":
    main()
