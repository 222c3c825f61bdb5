"""Train an EfficientNet YOLOv8 with Ultralytics' own trainer, then report its validation metrics.

python examples/train.py
python examples/train.py --model yolov8-effb3.yaml --data coco8.yaml --epochs 100 --imgsz 640
"""

import argparse
from pathlib import Path

from ultralytics import YOLO

SHAPES = Path(__file__).with_name("shapes.yaml")  # a data set that is drawn on first use


def main() -> None:
    """Train and validate as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="yolov8-effb0.yaml", help="a name of `yolo-effnet list`, a YAML or a .pt")
    parser.add_argument("--data", default=str(SHAPES), help="an Ultralytics data YAML (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=10, help="passes over the data (default: %(default)s)")
    parser.add_argument("--imgsz", type=int, default=160, help="side of the pictures in pixels (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=16, help="pictures per step (default: %(default)s)")
    parser.add_argument("--project", help="folder for the run (default: Ultralytics' runs/)")
    args = parser.parse_args()

    # No import of yolo_effnet: once installed, Ultralytics knows its models. Any argument of Ultralytics works here.
    model = YOLO(args.model)
    model.train(data=args.data, epochs=args.epochs, imgsz=args.imgsz, batch=args.batch, project=args.project)

    metrics = model.val(data=args.data, imgsz=args.imgsz, batch=args.batch, project=args.project)
    print(f"mAP50 {metrics.box.map50:.3f}, mAP50-95 {metrics.box.map:.3f}, best weights: {model.trainer.best}")


if __name__ == "__main__":
    main()
