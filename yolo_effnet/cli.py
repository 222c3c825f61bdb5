"""The `yolo-effnet` command: `list` the models, a `yaml` to edit, ImageNet `weights`, a `benchmark`, and `info`."""

import argparse
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import yolo_effnet
from yolo_effnet import startup
from yolo_effnet.zoo import configs, names
from yolo_effnet.zoo.table import ARCHITECTURES

_DESCRIPTION = """\
EfficientNet backbones for Ultralytics YOLOv8.

Training, validation, prediction and export are Ultralytics' own; the names that `list` prints work wherever
Ultralytics takes a model YAML, from any folder:

  yolo train model=yolov8-effb0.yaml data=coco8.yaml epochs=100 imgsz=640
  yolo segment train model=yolov8-effb0-seg.yaml data=coco8-seg.yaml epochs=100 imgsz=640
"""


# Suffix of a model's name by Ultralytics' name of the task.
_SUFFIXES = {"detect": "", "segment": "-seg", "pose": "-pose", "obb": "-obb", "classify": names.CLASSIFICATION}


def _list(args) -> None:
    """Print a table of all models, of those with the neck of a letter, or of timm's for a `TimmBackbone` row."""
    if args.timm:
        _list_timm(args.timm)
        return
    if args.neck:
        from yolo_effnet.tools import peers

        peers.print_sizes(args.neck)
        return
    width = max(map(len, names.model_names())) + 2
    print(f"{'model':<{width}}{'parameters':>12}{'GFLOPs@640':>12}  {'neck P3/P4/P5':<16}default ImageNet weights")
    for name, architecture in zip(names.model_names(), ARCHITECTURES.values(), strict=True):
        neck = "/".join(map(str, architecture.neck_channels))
        print(f"{name:<{width}}{architecture.parameters / 1e6:>11.1f}M{architecture.gflops:>12.1f}  {neck:<16}", end="")
        print(architecture.weights or "none")
    print(f"\nNames in full: {names.GRAMMAR}.")


def _list_timm(pattern: str) -> None:
    import timm

    from yolo_effnet.nn.timm_models import STRIDES, feature_maps, fitting_models

    print(f"{'TimmBackbone':<44}{'Index of P3, P4, P5':<34}default weights")
    for name in fitting_models(pattern):
        maps = {m.stride: f"[{m.channels}, {m.index}]" for m in feature_maps(name)}
        config = timm.get_pretrained_cfg(name)
        weights = f"{name}.{config.tag}" if config and config.has_weights and config.tag else "none"
        print(f"{name:<44}{' '.join(maps[stride] for stride in STRIDES):<34}{weights}", flush=True)


def _yaml(args) -> None:
    """Print the YAML of one model, or of one of a scale of one's own."""
    own = (args.width, args.depth, args.phi)
    if args.name and (own != (None, None, None) or args.task):
        raise ValueError(f"give either a name or a scale and a task, got '{args.name}' and more")
    if args.name:
        print(configs.model_yaml(args.name), end="")
    elif own == (None, None, None):
        raise ValueError("give the name of a model of `yolo-effnet list`, or --width and --depth, or --phi")
    else:
        print(configs.scaled_yaml(_SUFFIXES[args.task or "detect"], *own), end="")


def _weights(args) -> None:
    """Write a checkpoint of one model with ImageNet weights in its backbone."""
    from ultralytics import YOLO

    from yolo_effnet.weights.checkpoints import check_output, save_checkpoint

    kind = names.find_model(args.name)  # an unknown name is told before anything is loaded
    check_output(args.output, args.file)
    model = YOLO(f"{kind.name}.yaml")
    print(yolo_effnet.load_backbone_weights(model, weights=args.weights, file=args.file))
    train_args = {"task": model.task}
    if kind.task == names.CLASSIFICATION:  # predicts at the size of the weights, in multiples of the stride
        train_args["imgsz"] = -(-kind.architecture.train_size // 32) * 32
    save_checkpoint(model.model, args.output, **train_args)
    print(f"saved to {args.output}; train from it with pretrained={args.output} or model={args.output}")


def _graft(args) -> None:
    """Write a checkpoint of a trained detector with another backbone."""
    options = {name: value for name, value in vars(args).items() if name != "run"}
    yolo_effnet.graft(**options)
    print(f"saved to {args.output}; it detects as it is, and trains with model={args.output}")


def _compare(args) -> None:
    """Export a model and set each file beside PyTorch."""
    from yolo_effnet.tools import compare

    compare.run(**{name: value for name, value in vars(args).items() if name != "run"})


def _benchmark(args) -> None:
    """Measure our models beside their peers, and what binds them."""
    from yolo_effnet.tools import benchmark

    models = args.models or benchmark.DEFAULT
    options = {name: value for name, value in vars(args).items() if name not in ("run", "models", "profile")}
    benchmark.run(models=models, **options)
    if args.profile:
        from yolo_effnet.tools import roofline

        roofline.run(models, args.imgsz[0], args.batch[0], args.device, args.repeats, args.half)


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _info(_args) -> None:
    """Print versions, and whether Ultralytics knows our models."""
    print(f"{'yolo_effnet':<13}{yolo_effnet.__version__}")
    for package in ("ultralytics", "torch", "torchvision", "timm"):
        print(f"{package:<13}{_installed(package)}")
    print(f"{'python':<13}{platform.python_version()}")
    if startup.autoloaded:
        hook = "active: the stock yolo command and ultralytics.YOLO know these models"
    elif startup.OPT_OUT in os.environ:
        hook = f"off, {startup.OPT_OUT}={os.environ[startup.OPT_OUT]}: import yolo_effnet by hand"
    else:
        hook = "absent (python -S, or not installed with pip): import yolo_effnet by hand"
    print(f"{'start-up hook':<15}{hook}")
    from yolo_effnet import patches
    from yolo_effnet.host.lending import BLOCKS

    print(f"{'supported':<15}{patches.supported()}")
    print(f"{'blocks':<15}{', '.join(BLOCKS)}")
    print(f"{'models':<15}{', '.join(names.model_names())}")
    from yolo_effnet.weights.sources import default_on_disk

    found = default_on_disk()
    told = ", ".join(f"yolov8-{variant} ({origin})" for variant, origin in found.items())
    print(f"{'weights on disk':<15} {told or 'none; training downloads them'}")


def _command(commands, name: str, run, text: str):
    command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    command.set_defaults(run=run)
    return command


def main(argv: list[str] | None = None) -> int:
    """Run the command line `argv`, by default the process's, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="yolo-effnet", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=yolo_effnet.__version__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    command = _command(commands, "list", _list, "list the models with parameters, GFLOPs, neck widths, default weights")
    choice = command.add_mutually_exclusive_group()
    choice.add_argument(
        "--neck", choices=names.LETTERS, help="list them with the neck of a letter, beside YOLOv8's own"
    )
    choice.add_argument(
        "--timm", nargs="?", const="*", metavar="PATTERN",
        help="list the models of timm that a TimmBackbone row takes instead, all (which takes minutes) or of a pattern",
    )  # fmt: skip
    command = _command(commands, "yaml", _yaml, "print the YAML of a model, to edit and to train from")
    command.add_argument("name", nargs="?", metavar="NAME", help="a model of `yolo-effnet list`, such as yolov8-effb0")
    command.add_argument("--width", type=float, help="in place of a name: channels relative to B0, 0.25 to 5")
    command.add_argument("--depth", type=float, help="in place of a name: blocks relative to B0, 0.25 to 8")
    command.add_argument("--phi", type=float, help="in place of both: the paper's compound coefficient, -4 to 10")
    command.add_argument("--task", choices=_SUFFIXES, help="what a model of one's own scale is for (default: detect)")
    command = _command(commands, "weights", _weights, "write a checkpoint of a model with ImageNet weights inside")
    command.add_argument("name", metavar="NAME", help="a model of `yolo-effnet list`, such as yolov8-effb0")
    command.add_argument("-o", "--output", required=True, metavar="FILE.pt", help="the checkpoint to write")
    command.add_argument("--weights", metavar="TAG", help="full timm tag (default: that of the model)")
    command.add_argument("--file", help="state dict in .safetensors or .pth that stands in for the download")
    command = _command(commands, "graft", _graft, "change the backbone of a trained detector, and keep neck and head")
    command.add_argument("donor", metavar="DONOR.pt", help="a trained detector, such as yolov8n.pt or a best.pt")
    command.add_argument("backbone", metavar="BACKBONE", help="a model of `yolo-effnet list`, a YAML, or a trained .pt")
    command.add_argument(
        "--images", required=True, help="pictures, whose labels are not read: data YAML, folder or glob"
    )
    command.add_argument("-o", "--output", required=True, metavar="FILE.pt", help="the checkpoint to write")
    command.add_argument("--number", type=int, default=256, help="pictures to take, evenly (default: 256)")
    command.add_argument("--imgsz", type=int, default=640, help="side of the pictures in pixels (default: 640)")
    command.add_argument(
        "--taps", choices=("narrow", "wide"),
        help="what the neck takes of each stage: its output, or also the map inside its last block (default: wide)",
    )  # fmt: skip
    command.add_argument(
        "--match", type=int, default=0, metavar="STEPS",
        help="gradient steps that bring the inputs of the head to the donor's (default: 0; 300 are worth it)",
    )  # fmt: skip
    command.add_argument("--activation", metavar="NAME", help="of neck and head, relu6 or relu (default: the donor's)")
    command.add_argument("--weights", metavar="TAG", help="full timm tag of the backbone's weights")
    command.add_argument("--weights-file", metavar="FILE", help="file of the backbone's weights")
    command.add_argument("--allow-random", action="store_true", help="go on where the backbone has no weights")
    command.add_argument("--seed", type=int, default=0, help="of random weights and --match (default: 0)")
    command.add_argument("--device", default="cpu", help="cpu, mps, or cuda:0 (default: cpu)")
    command = _command(commands, "compare", _compare, "export a trained model and set each file beside PyTorch")
    command.add_argument("weights", metavar="BEST.pt", help="a trained model")
    command.add_argument("--data", metavar="YAML", help="data set to validate on, and to calibrate int8 with")
    command.add_argument(
        "--formats", nargs="+", default=["onnx"], metavar="NAME",
        help="of yolo export, with options after commas: onnx openvino,int8=True (default: onnx)",
    )  # fmt: skip
    command.add_argument("--imgsz", type=int, help="side of the pictures in pixels (default: that of the training)")
    command.add_argument("--device", default="cpu", help="cpu, or the number of a GPU (default: cpu)")
    command.add_argument("--repeats", type=int, default=10, help="turns of each file, of two timed calls (default: 10)")
    command.add_argument("--output", default="comparison", type=Path, help="folder of the files, the CSV and the plot")
    command = _command(commands, "benchmark", _benchmark, "time models beside yolov8, torchvision and timm peers")
    command.add_argument(
        "--models",
        nargs="+",
        default=[],
        metavar="NAME",
        help="models to time (default: B0 to B7, their peers and yolov8)",
    )
    command.add_argument(
        "--runtimes", nargs="+", default=["pytorch"], metavar="NAME",
        help="pytorch, train (a training step), or formats of yolo export: onnx, openvino, engine, openvino-int8 "
        "(default: pytorch)",
    )  # fmt: skip
    command.add_argument("--imgsz", nargs="+", type=int, default=[640], help="image sizes (default: 640)")
    command.add_argument("--batch", nargs="+", type=int, default=[1], help="batch sizes (default: 1)")
    command.add_argument("--device", default="cpu", help="cpu, mps, or the number of a GPU (default: cpu)")
    command.add_argument("--half", action="store_true", help="infer in float16")
    command.add_argument("--data", metavar="YAML", help="data set that calibrates int8")
    command.add_argument(
        "--repeats", type=int, default=10, help="turns of each model, of two timed calls (default: 10)"
    )
    command.add_argument(
        "--profile", action="store_true", help="print time, work and memory traffic of each row of the models as well"
    )
    command.add_argument("--output", default="benchmark", type=Path, help="folder of the CSV and plots to write")
    _command(commands, "info", _info, "print versions, whether Ultralytics knows the models, and what is supported")
    args = parser.parse_args(argv)
    try:
        args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:  # `yolo-effnet list | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter's last flush fails again
        return 1
    except (ValueError, RuntimeError, OSError) as error:
        print(f"yolo-effnet: {error}", file=sys.stderr)
        return 2
    return 0
