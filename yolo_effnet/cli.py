"""The `yolo-effnet` command: `list` the models, a `yaml` to edit, ImageNet `weights`, a `benchmark`, and `info`."""

import argparse
import os
import platform
import sys
from importlib.metadata import version
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
_SUFFIXES = {**{task: suffix for suffix, (task, *_) in names.TASKS.items()}, "classify": names.CLASSIFICATION}


def _list(args) -> None:
    """Print a table of all models, of those with the neck of a letter, or of timm's for a `TimmBackbone` row."""
    if args.timm:
        return _list_timm(args.timm)
    if args.neck:
        return _list_with_neck(f"yolov8{args.neck}")
    width = max(map(len, names.model_names())) + 2
    print(f"{'model':<{width}}{'parameters':>12}{'GFLOPs@640':>12}  {'neck P3/P4/P5':<16}default ImageNet weights")
    for name, architecture in zip(names.model_names(), ARCHITECTURES.values(), strict=True):
        neck = "/".join(map(str, architecture.neck_channels))
        print(f"{name:<{width}}{architecture.parameters / 1e6:>11.1f}M{architecture.gflops:>12.1f}  {neck:<16}", end="")
        print(architecture.weights or "none")
    print(f"\nNames in full: {names.GRAMMAR}.")


def _list_with_neck(peer: str) -> None:
    """Print what every backbone costs under the neck of one of YOLOv8's models, each as it is counted."""
    from yolo_effnet.host.written_out import count

    theirs = count(peer)
    print(f"{'model':<31}{'parameters':>12}{'GFLOPs@640':>12}  relative to {peer}")
    for name in [peer, *names.model_names(series=peer)]:
        ours = count(name)
        ratios = ", ".join(f"{a / b:.2f}" for a, b in zip(ours, theirs, strict=True))
        print(f"{name:<31}{ours[0] / 1e6:>11.1f}M{ours[1]:>12.1f}  {ratios}", flush=True)


def _list_timm(pattern: str) -> None:
    from yolo_effnet.nn.timm_models import STRIDES, feature_maps, fitting_models
    from yolo_effnet.weights.sources import default_of_timm

    print(f"{'TimmBackbone':<44}{'Index of P3, P4, P5':<34}default weights")
    for name in fitting_models(pattern):
        maps = {m.stride: f"[{m.channels}, {m.index}]" for m in feature_maps(name)}
        weights = default_of_timm(name) or "none"
        print(f"{name:<44}{' '.join(maps[stride] for stride in STRIDES):<34}{weights}", flush=True)


def _yaml(args) -> None:
    """Print the YAML of one model, or of one of a scale of one's own."""
    own = {name: value for name in ("width", "depth") if (value := getattr(args, name)) is not None}
    if args.name and (own or args.task):
        raise ValueError(f"give either a name or a scale and a task, got '{args.name}' and more")
    if args.name:
        print(configs.model_yaml(args.name), end="")
    elif not own:
        raise ValueError("give the name of a model of `yolo-effnet list`, or --width and --depth")
    else:
        print(configs.scaled_yaml(_SUFFIXES[args.task or "detect"], **own), end="")


def _weights(args) -> None:
    """Write a checkpoint of one model with ImageNet weights in its backbone."""
    from ultralytics import YOLO

    from yolo_effnet.checkpoints import check_output, save_checkpoint

    kind = names.find_model(args.name)  # an unknown name is told before anything is loaded
    check_output(args.output, args.backbone_weights)
    model = YOLO(f"{kind.name}.yaml")
    print(yolo_effnet.load_backbone_weights(model, args.backbone_weights))
    train_args = {"task": model.task}
    if kind.task == names.CLASSIFICATION:  # predicts at the size of the weights, in multiples of the stride
        train_args["imgsz"] = -(-kind.architecture.train_size // 32) * 32
    save_checkpoint(model.model, args.output, **train_args)
    print(f"saved to {args.output}; train from it with pretrained={args.output} or model={args.output}")


def _graft(args) -> None:
    """Write a checkpoint of a trained detector with another backbone."""
    yolo_effnet.graft(**vars(args))
    print(f"saved to {args.output}; it detects as it is, and trains with model={args.output}")


def _benchmark(args) -> None:
    """Measure models in PyTorch and in other runtimes."""
    from yolo_effnet.tools import compare

    compare.run(**vars(args))


def _info(_args) -> None:
    """Print versions, and whether Ultralytics knows our models."""
    print(f"{'yolo_effnet':<13}{yolo_effnet.__version__}")
    for package in ("ultralytics", "torch", "torchvision", "timm"):
        print(f"{package:<13}{version(package)}")
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

    told = ", ".join(f"yolov8-{variant} ({origin})" for variant, origin in default_on_disk().items())
    print(f"{'weights on disk':<15} {told or 'none; training downloads them'}")


def _command(commands, name: str, run, text: str, **options):
    command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", **options)
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
    command.add_argument("--task", choices=_SUFFIXES, help="what a model of one's own scale is for (default: detect)")
    command = _command(commands, "weights", _weights, "write a checkpoint of a model with ImageNet weights inside")
    command.add_argument("name", metavar="NAME", help="a model of `yolo-effnet list`, such as yolov8-effb0")
    command.add_argument("-o", "--output", required=True, metavar="FILE.pt", help="the checkpoint to write")
    command.add_argument("--backbone-weights", metavar="TAG_OR_FILE", help="timm tag or file (default: of the model)")
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
        "--taps", choices=("auto", "narrow", "wide"), default="auto",
        help="what the neck takes of each stage: its output, or also the map inside its last block and, at the same "
        "size, its input (default: auto, which is wide if the donor is sure of the pictures)",
    )  # fmt: skip
    command.add_argument(
        "--max-gflops", type=float, metavar="N",
        help="leave out residual blocks of the backbone until the result has no more at 640 pixels (default: all stay)",
    )  # fmt: skip
    command.add_argument(
        "--match", type=int, default=0, metavar="STEPS",
        help="gradient steps that bring what the head takes and gives to the donor's (default: 0; 300 are worth it)",
    )  # fmt: skip
    command.add_argument("--activation", metavar="NAME", help="of neck and head, relu6 or relu (default: the donor's)")
    command.add_argument("--backbone-weights", metavar="TAG_OR_FILE", help="timm tag or file (default: of its YAML)")
    command.add_argument("--allow-random", action="store_true", help="go on where the backbone has no weights")
    command.add_argument("--seed", type=int, default=0, help="of random weights and --match (default: 0)")
    command.add_argument("--device", default="cpu", help="cpu, mps, or cuda:0 (default: cpu)")
    command = _command(
        commands, "benchmark", _benchmark, "time models here, by turns, in PyTorch and as exported files",
        aliases=["compare"],
    )  # fmt: skip
    command.add_argument(
        "models", nargs="+", metavar="MODEL",
        help="a trained .pt, or a name or YAML to measure with random weights, such as yolov8-effb0 or yolov8n",
    )  # fmt: skip
    command.add_argument(
        "--formats", nargs="+", default=["onnx"], metavar="NAME",
        help="besides pytorch, of yolo export, with options after commas: onnx openvino,int8=True ncnn,imgsz=320 "
        "(default: onnx)",
    )  # fmt: skip
    command.add_argument("--data", metavar="YAML", help="data set to validate .pt files on, and to calibrate int8 with")
    command.add_argument("--imgsz", type=int, help="side of the pictures in pixels (default: of the training, or 640)")
    command.add_argument("--batch", type=int, default=1, help="pictures at once (default: 1)")
    command.add_argument("--device", default="cpu", help="cpu, mps, or the number of a GPU (default: cpu)")
    command.add_argument("--repeats", type=int, default=10, help="turns of each file, of two timed calls (default: 10)")
    command.add_argument("--output", default="benchmark", type=Path, help="folder of the files, the CSV and the plot")
    _command(commands, "info", _info, "print versions, whether Ultralytics knows the models, and what is supported")
    args = parser.parse_args(argv)
    run = vars(args).pop("run")
    try:
        run(args)
        sys.stdout.flush()
    except BrokenPipeError:  # `yolo-effnet list | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter's last flush fails again
        return 1
    except (ValueError, RuntimeError, OSError) as error:
        print(f"yolo-effnet: {error}", file=sys.stderr)
        return 2
    return 0
