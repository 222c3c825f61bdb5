"""A trained detector with another backbone."""

import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from ultralytics import YOLO
from ultralytics.utils import LOGGER
from ultralytics.utils.checks import check_imgsz
from ultralytics.utils.torch_utils import get_flops, get_num_params

from yolo_effnet.arguments import ACTIVATIONS
from yolo_effnet.checkpoints import check_output, save_checkpoint
from yolo_effnet.checks import check_value, is_number, why
from yolo_effnet.grafting.anatomy import anatomy
from yolo_effnet.grafting.confidence import confidence
from yolo_effnet.grafting.donor import Donor, load_donor
from yolo_effnet.grafting.morphing import activation_of
from yolo_effnet.grafting.new_backbone import Backbone, give_weights, load_backbone
from yolo_effnet.grafting.pictures import Pictures, find
from yolo_effnet.grafting.plan import grafted_yaml
from yolo_effnet.grafting.seams import Seam, find_seams
from yolo_effnet.grafting.short_training import match as follow_donor
from yolo_effnet.grafting.slimming import slimmed
from yolo_effnet.grafting.solve import solve
from yolo_effnet.grafting.taps import AUTO, NARROW, TAPS
from yolo_effnet.host.heads import keep_class_branches
from yolo_effnet.nn.backbone import backbone_rows
from yolo_effnet.nn.origin import DONOR, note
from yolo_effnet.nn.settings import set_activation
from yolo_effnet.recipe import SURE


@torch.random.fork_rng(devices=[])
def _build(donor: Donor, backbone: Backbone, taps: str, activation: str | None) -> tuple[nn.Module, list[list[Seam]]]:
    """Return the grafted model with the donor's neck and head, and what is to be solved for.

    Raises:
        ValueError: If a tensor of neck or head is not the donor's, or there is nothing to tap.
    """
    d = grafted_yaml(donor, backbone, taps, activation)
    model = type(donor.model)(d, ch=donor.model.yaml.get("channels", 3), verbose=False)
    model.names = dict(donor.model.names)
    if hasattr(donor.model, "kpt_shape"):  # which trainers set, and predictors of older releases read
        model.kpt_shape = donor.model.kpt_shape
    parts = anatomy(model, "the grafted model")
    shift = parts.start - donor.anatomy.start
    keep_class_branches(model.model[-1], donor.head)
    seams = find_seams(donor, model, parts)
    new = tuple(f"{s.row}.{s.name}".rstrip(".") + "." for row in seams for s in row)
    theirs = donor.model.model.state_dict()
    ours = model.model.state_dict()
    for key, tensor in ours.items():
        row, _, rest = key.partition(".")
        if int(row) < parts.start or key.startswith(new):
            continue
        twin = theirs.get(f"{int(row) - shift}.{rest}")
        if twin is None or twin.shape != tensor.shape:
            found = "is missing" if twin is None else f"is {tuple(twin.shape)}"
            raise ValueError(
                f"donor '{donor.name}': its tensor for '{key}', {tuple(tensor.shape)} as its YAML says, {found}"
            )
        tensor.copy_(twin)
    return model, seams


def _usable(device: str | int | torch.device) -> torch.device:
    """Return a device by its name, or by its number as Ultralytics' commands take it.

    Raises:
        ValueError: If it is not there.
    """
    try:
        found = torch.device(f"cuda:{device}" if str(device).isdigit() else device)
        torch.zeros(1, device=found)
    except Exception as error:  # of many kinds, AssertionError among them
        raise ValueError(f"device '{device}' cannot be used ({why(error)}); give such as cpu, mps or cuda:0") from error
    return found


def _in_memory(model: YOLO, name: str) -> YOLO:
    """Return a YOLO object that knows no file, and is exported under a name, as one built from a YAML is."""
    model.ckpt_path = model.model.pt_path = None
    model.model.yaml_file = f"{name}-grafted.yaml"
    model.model_name = model.overrides["model"] = f"{name}-grafted (in memory alone, save it first).pt"
    return model


def _tell_cost(donor: Donor, model: nn.Module) -> None:
    """Log parameters and GFLOPs at 640 pixels of donor and graft, and warn where the graft has more."""
    name = Path(donor.name).stem
    (n, gflops), (ours, our_gflops) = ((get_num_params(m), get_flops(m, 640)) for m in (donor.model, model))
    ratios = ours / n, our_gflops / gflops if gflops else 0  # without a counter of operations
    LOGGER.info(
        f"{name} {n / 1e6:.1f}M, {gflops:.1f} GFLOPs -> {ours / 1e6:.1f}M, {our_gflops:.1f} GFLOPs "
        f"({ratios[0]:.2f}, {ratios[1]:.2f})"
    )
    if max(ratios) > 1:
        more = " and ".join(what for what, r in zip(("parameters", "GFLOPs"), ratios, strict=True) if r > 1)
        LOGGER.warning(f"The graft has more {more} than {name}; `yolo-effnet list --neck LETTER` tells what costs less")


def solved(
    donor,
    backbone,
    images,
    *,
    number: int,
    imgsz: int,
    taps: str,
    activation: str | None,
    backbone_weights,
    allow_random: bool,
    seed: int,
    device: torch.device,
    max_gflops: float | None = None,
) -> tuple[nn.Module, Donor, str, Pictures]:
    """Return a grafted model in eval mode, its donor, both on the device, the backbone's name, and the pictures.

    Arguments and errors are those of `graft`. With another activation neck and head give nothing of use until they
    follow the donor.
    """
    if activation is not None and activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
    giver = load_donor(donor)
    imgsz = check_imgsz(imgsz, stride=giver.head.stride, max_dim=1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        taker = load_backbone(backbone, giver)
        model, seams = _build(giver, taker, NARROW if taps == AUTO else taps, activation)
    files = find(images, number)
    given = give_weights(model if max_gflops is None else taker.model, taker, backbone_weights, allow_random)
    pictures = Pictures(files, imgsz, giver.model.yaml.get("channels", 3))
    giver.model.to(device)
    sure = round(confidence(giver, pictures, device), 3)
    giver.model.cpu()  # beside which models are built
    if taps == AUTO and (sure < SURE or max_gflops is not None):  # which wide maps would have to be paid out of
        taps = NARROW
    if max_gflops is not None:

        def cost(backbone: Backbone) -> float:
            return get_flops(_build(giver, backbone, taps, activation)[0], 640)

        taker = replace(slimmed(taker, cost, max_gflops, pictures, device), trained=True)
    elif taps == AUTO:
        taker = Backbone(taker.name, model, anatomy(model, "the narrow graft"), trained=True)
    if max_gflops is not None or taps == AUTO:
        model, seams = _build(giver, taker, taps, activation)
        give_weights(model, taker, None, allow_random)
    _tell_cost(giver, model)
    LOGGER.info(f"Backbone of {taker.name}: {given}")
    LOGGER.info(
        f"Neck and head of {giver.name}, whose licence holds for the result too: AGPL-3.0 for weights of Ultralytics"
    )
    is_wider = taps == AUTO and model.yaml["backbone"] != taker.model.yaml["backbone"]  # than the narrow graft
    so = ", so that the neck takes wide maps (yolo-effnet graft --taps narrow does without)" if is_wider else ""
    LOGGER.info(f"{giver.name} has a confidence of {sure} in what these pictures show{so}")
    giver.model.to(device)
    model.to(device).eval()
    record = {
        "donor": giver.name, "backbone": taker.name, "pictures": len(pictures), "imgsz": imgsz, "seed": seed,
        "confidence": sure,
    }  # fmt: skip
    if activation:
        record["activation"], own = activation, activation_of(model)
        set_activation(model, activation_of(giver.model), backbone=False)  # for which the weights are
    record["fit"] = solve(giver, model, seams, pictures, device)
    if activation:
        set_activation(model, own, backbone=False)
    model.yaml["graft"] = record
    if backbone_rows(model):
        note(model, rest=DONOR)
    return model, giver, taker.name, pictures


def graft(
    donor,
    backbone,
    images,
    output: str | Path | None = None,
    *,
    number: int = 256,
    imgsz: int = 640,
    taps: str = AUTO,
    max_gflops: float | None = None,
    match: int = 0,
    activation: str | None = None,
    backbone_weights: str | Path | None = None,
    allow_random: bool = False,
    seed: int = 0,
    device: str | int | torch.device = "cpu",
) -> YOLO:
    """Change the backbone of a trained detector and keep its neck and head; no label is read.

    The convolutions of the neck that take the backbone's maps are solved for, from the top of the pyramid down, so that
    they give what the donor's gave on the same pictures. The model detects the donor's classes at once, worse than the
    donor does, and training from it starts there.

    Args:
        donor (str | Path | YOLO | nn.Module): A trained YOLOv8, YOLO11 or YOLO26 for boxes, masks,
            poses or oriented boxes: Ultralytics' name of it, which it downloads, a `.pt` file or a YOLO object.
        backbone (str | Path | dict | YOLO | nn.Module): A model whose backbone is taken: a name as `model_names()`
            gives them, where `yolov8-effb0` stands for the donor's letter, task and pyramid as well; a YAML; or a
            trained model, whose backbone's weights are kept.
        images (str | Path | Iterable): A data set's YAML, whose train split is taken, a folder, a text file that lists
            pictures, a glob, or a list of these. Grey ones are read for a donor of one channel.
        output (str | Path | None): Checkpoint to write. Without one the model is in memory alone: an export goes to the
            working directory, and training it on several GPUs needs it saved.
        number (int): Pictures that are taken, evenly, each with its mirror image.
        imgsz (int): Side in pixels to which they are letterboxed; rounded up to a multiple of the donor's stride.
        taps (str): What the neck takes: `narrow`, the outputs of the backbone's stages, or `wide`, also what their last
            blocks project, six times as wide, and what those stages take at the same size, of stages of ours. `auto`
            is `wide` where the donor is sure of the pictures, there are such maps, and nothing says what the result
            may cost.
        max_gflops (float | None): GFLOPs at 640 pixels that the result may have. Where it has more, the last stage of
            the backbone is left out, if it does not stride, and then residual blocks.
        match (int): Gradient steps of 8 pictures that follow, which bring what the head takes and gives to the donor's;
            every tenth picture is kept to tell how far both agree.
        activation (str | None): Activation that neck and head get in place of the donor's, `relu6` or `relu`, for
            devices that compute it faster; needs `match`, which then leads both from one to the other.
        backbone_weights (str | Path | None): Full timm tag, or file, of the backbone's weights; by default what its
            YAML names.
        allow_random (bool): Whether to go on with a random backbone where there are no weights.
        seed (int): Of random weights, and of the pictures of `match`.
        device (str | int | torch.device): Where to compute: `cpu`, `mps`, `cuda:0`, or the number of a GPU.

    Returns:
        (YOLO): The grafted model. Its `model.yaml` builds it without donor and pictures, and has a record under
            `graft`: what it is made of, how sure the donor is of the pictures, and R2 of each solved convolution on
            pictures it was not solved on.

    Raises:
        ValueError: If donor, backbone, pictures, output or a number is not what it has to be.
        WeightsUnavailableError: If the backbone's weights cannot be had, a RuntimeError.
    """
    if isinstance(match, bool) or not isinstance(match, int) or match < 0:
        raise ValueError(f"match must be a number of steps >= 0, got {match!r}")
    if taps not in TAPS:
        raise ValueError(f"taps must be {', '.join(TAPS[:-1])} or {TAPS[-1]}, got {taps!r}")
    if activation and not match:
        raise ValueError(f"activation={activation} changes what neck and head compute, and needs match, such as 300")
    if isinstance(imgsz, bool) or not isinstance(imgsz, int) or imgsz < 1:
        raise ValueError(f"imgsz must be a number of pixels >= 1, got {imgsz!r}")
    if max_gflops is not None:
        check_value("max_gflops", max_gflops, lambda n: is_number(n) and n > 0, "a number above 0")
    device = _usable(device)
    if output is not None:
        check_output(output, donor, backbone)
    model, giver, name, pictures = solved(
        donor, backbone, images, number=number, imgsz=imgsz, taps=taps, activation=activation,
        backbone_weights=backbone_weights, allow_random=allow_random, seed=seed, device=device, max_gflops=max_gflops,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        if match:
            model = follow_donor(model, giver, pictures, Path(folder), steps=match, seed=seed, device=device)
        file = output or Path(folder) / "grafted.pt"
        save_checkpoint(model.cpu().requires_grad_(True), file, task=giver.mode, imgsz=pictures.imgsz)
        return YOLO(file) if output else _in_memory(YOLO(file), Path(name).stem)
