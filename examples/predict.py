"""Find objects in pictures with a trained model and print one line for each.

python examples/predict.py runs/detect/train/weights/best.pt picture.jpg
python examples/predict.py best.pt folder/ --save
"""

import argparse

from ultralytics import YOLO


def main() -> None:
    """Predict as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", help="a trained .pt, or an exported model such as .onnx")
    parser.add_argument("source", help="a picture, folder, video, stream or glob, as Ultralytics takes it")
    parser.add_argument("--imgsz", type=int, default=160, help="side of the pictures in pixels (default: %(default)s)")
    parser.add_argument("--conf", type=float, default=0.25, help="lowest confidence to report (default: %(default)s)")
    parser.add_argument("--save", action="store_true", help="also save the pictures with their boxes drawn")
    args = parser.parse_args()

    model = YOLO(args.weights)
    results = model.predict(args.source, imgsz=args.imgsz, conf=args.conf, save=args.save, stream=True, verbose=False)
    for result in results:
        print(f"{result.path}: {len(result.boxes)} objects")
        for box in result.boxes:
            x1, y1, x2, y2 = box.xyxy[0].tolist()
            name = result.names[int(box.cls)]
            print(f"  {name:<12} {float(box.conf):.2f}  ({x1:.0f}, {y1:.0f}) - ({x2:.0f}, {y2:.0f})")


if __name__ == "__main__":
    main()
