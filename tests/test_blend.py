"""The mean of the weights at the start and at the end of a training, in real trainings."""

import re

import gloo
import pictures
import pytest
import torch
from backbones import reference
from donors import checkpoint
from trainings import interrupt
from ultralytics import YOLO

from yolo_effnet.host import blend
from yolo_effnet.nn.origin import take_new_rows

QUICK = {"imgsz": 64, "batch": 4, "workers": 0, "plots": False, "verbose": False, "device": "cpu", "epochs": 1}
MODEL = "yolov8-mobilenetv2_050"
TASKS = {
    "detect": MODEL, "segment": f"{MODEL}-seg", "pose": f"{MODEL}-pose", "obb": f"{MODEL}-obb",
    "classify": "yolov8-effb0-cls",
}  # fmt: skip


@pytest.fixture(scope="module", params=TASKS)
def before(request, tmp_path_factory):
    """A trained model of a task, its data set and the task."""
    folder = tmp_path_factory.mktemp(request.param)
    data = pictures.draw(request.param, folder, val=blend.FEWEST)
    model = YOLO(f"{TASKS[request.param]}.yaml")
    model.train(data=data, project=folder, pretrained=False, lr0=0.01, optimizer="AdamW", **QUICK)
    return model.trainer.best, data, request.param


def _weights(file) -> dict[str, torch.Tensor]:
    return YOLO(file).model.float().state_dict()


def _files(model) -> set[str]:
    return {file.name for file in model.trainer.wdir.iterdir()}


def test_a_share_is_a_mean_of_start_and_end(before, tmp_path, caplog):
    """Of all weights and statistics of BatchNorm, in each task; what validates is what is written."""
    start, data, _ = before
    model = YOLO(start)
    options = {**QUICK, "pretrained": True, "optimizer": "AdamW", "lr0": 0.01, "warmup_epochs": 0}
    model.train(data=data, project=tmp_path, blend=0.7, **options)
    assert "0.7 of the training and 0.3 of its start; blend=1 leaves it" in caplog.text
    assert _files(model) == {"best.pt", "best-unblended.pt", "last.pt"}
    first, last = _weights(start), _weights(model.trainer.wdir / "best-unblended.pt")
    assert any(not torch.equal(first[name], last[name]) for name in first)
    for name, found in _weights(model.trainer.best).items():
        if not found.is_floating_point():
            assert torch.equal(found, last[name]), name
        else:
            torch.testing.assert_close(found, first[name].lerp(last[name], 0.7), rtol=2e-3, atol=1e-4)
    saved = torch.load(model.trainer.best, weights_only=False)["model"]
    assert YOLO(model.trainer.best).val(data=data, **{k: QUICK[k] for k in ("imgsz", "plots", "device")}).fitness >= 0
    assert not any(isinstance(value, dict) and "start" in value for value in vars(saved).values())


@pytest.mark.parametrize("before", ["detect", "classify"], indirect=True)
def test_the_best_share_is_chosen_by_itself(before, tmp_path, caplog):
    """From a rate that ruins a model, its start is worth most; the line tells what was gained."""
    start, data, task = before
    model = YOLO(start)
    called = []
    model.add_callback("on_val_end", lambda v: called.append(v.args.plots))
    model.train(data=data, project=tmp_path, optimizer="SGD", lr0=1e-6, warmup_epochs=0, **QUICK)
    assert model.trainer.args.blend == "auto"
    line = next(line for line in caplog.messages if "of the training" in line or line.startswith("blend=auto"))
    metric = "accuracy_top1" if task == "classify" else "mAP50-95"
    number = r"\d\.\d{3}"
    chosen = re.fullmatch(
        rf"(0\.\d) of the training and 0\.\d of its start: {metric} {number}, {number} without; blend=1 leaves it", line
    )
    assert chosen or re.fullmatch(rf"blend=auto: the training alone is best: {metric} {number}", line)
    assert ("best-unblended.pt" in _files(model)) == bool(chosen)
    assert "start.pt" not in _files(model)
    assert len(called) == 1 + 1  # the epoch's and the last, none of the shares'


@pytest.fixture(scope="module")
def knowing(learned, tmp_path_factory):
    """Weights that detect most of what is in a small data set, and such a set."""
    folder = tmp_path_factory.mktemp("knowing")
    return learned[0], pictures.draw("detect", folder, train=16, val=blend.FEWEST)


def test_few_pictures_choose_nothing(learned, tmp_path, caplog):
    model = YOLO(learned[0])
    data = pictures.draw("detect", tmp_path, val=blend.FEWEST - 1)
    model.train(data=data, project=tmp_path, **QUICK)
    assert "blend=auto: 19 pictures to validate are too few to choose by, it takes 20" in caplog.text
    assert _files(model) == {"best.pt", "last.pt"}


def test_the_choice_is_the_best_by_fitness(knowing, tmp_path, caplog):
    """A start that detects and a training that unlearns much of it: a mean is better than the training alone."""
    start, data = knowing
    model = YOLO(start)
    options = {**pictures.LEARNING, "epochs": 1, "pretrained": True, "optimizer": "AdamW", "lr0": 0.004}
    model.train(data=data, project=tmp_path, warmup_epochs=0, **{k: v for k, v in options.items() if k[0] != "w"})
    (line,) = (line for line in caplog.messages if "of the training and" in line)
    share, _, value, without = map(float, re.findall(r"\d\.\d+", line.replace("50-95", "")))
    assert value > without
    values = {}
    for name in ("best", "best-unblended"):
        validation = YOLO(model.trainer.wdir / f"{name}.pt").val(
            data=data, imgsz=64, batch=16, plots=False, device="cpu"
        )
        values[name] = validation.box.map
    assert values["best"] == pytest.approx(value, abs=0.01)
    assert values["best-unblended"] == pytest.approx(without, abs=0.01)
    unblended = YOLO(model.trainer.wdir / "best-unblended.pt").model
    start = {name: tensor for name, tensor in _weights(start).items() if not name.endswith("num_batches_tracked")}
    expected = blend.mix(unblended.float(), start, share).state_dict()
    torch.testing.assert_close(_weights(model.trainer.best), expected, rtol=2e-3, atol=1e-4)


def test_classes_that_the_start_did_not_know_stay_as_trained(tmp_path):
    """Rows that were kept by the names of classes are blended, others are not."""
    source = YOLO(checkpoint("yolov8-mobilenetv2_050", tmp_path, {5: "reddish"})).model
    model = type(source)(source.yaml, nc=2, verbose=False)
    model.names = {0: "bluish", 1: "reddish"}
    model.load(source)
    start = blend.start_of(model, take_new_rows(model))
    name = f"model.{len(model.model) - 1}.cv3.0.2.weight"
    kept = hasattr(model, "_remap_cls_by_names")  # in newer releases of Ultralytics
    assert start[name].isnan().all(dim=(1, 2, 3)).tolist() == [True, not kept]
    assert not any(tensor.isnan().any() for key, tensor in start.items() if ".cv3." not in key)
    trained = model
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter += 1
    mixed = blend.mix(trained, start, 0.5)
    for key, tensor in mixed.named_parameters():
        gain = trained.get_parameter(key) - tensor
        expected = torch.full_like(gain, 0.5)
        expected[start[key].isnan()] = 0
        torch.testing.assert_close(gain, expected, msg=key)


def test_a_graft_is_blended_with_what_it_was(tmp_path, caplog):
    """Not with the donor, nor with the ImageNet weights."""
    data = pictures.draw("detect", tmp_path)
    reference("tf_efficientnet_b0.ns_jft_in1k", tmp_path / "weights.safetensors")
    arguments = {**QUICK, "project": tmp_path, "backbone_weights": str(tmp_path / "weights.safetensors")}
    model = YOLO("yolov8-effb0.yaml")
    model.train(data=data, graft=checkpoint("yolov8n", tmp_path), blend=0.6, **arguments)
    assert "0.6 of the training and 0.4 of its start; blend=1 leaves it" in caplog.text
    first, last = _weights(model.trainer.save_dir / "grafted.pt"), _weights(model.trainer.wdir / "best-unblended.pt")
    for name, found in _weights(model.trainer.best).items():
        if found.is_floating_point() and ".cv3." not in name:
            torch.testing.assert_close(found, first[name].lerp(last[name], 0.6), rtol=2e-3, atol=1e-4)


def test_a_killed_training_keeps_its_start(tmp_path, caplog):
    """In the folder of the run; the file that it came from may be gone."""
    data = pictures.draw("detect", tmp_path)
    file = tmp_path / "before.pt"
    first = YOLO(f"{MODEL}.yaml")
    first.train(data=data, project=tmp_path, pretrained=False, **QUICK)
    file.write_bytes(first.trainer.best.read_bytes())
    start = _weights(file)
    model = YOLO(file)

    options = {**QUICK, "epochs": 3, "blend": 0.5, "optimizer": "AdamW", "lr0": 0.01}
    interrupt(model, "on_train_epoch_start", data=data, project=tmp_path, **options)
    file.unlink()
    assert "start.pt" in _files(model)
    resumed = YOLO(model.trainer.last)
    resumed.train(resume=True)
    last = _weights(resumed.trainer.wdir / "best-unblended.pt")
    for key, found in _weights(resumed.trainer.best).items():
        if found.is_floating_point():
            torch.testing.assert_close(found, start[key].lerp(last[key], 0.5), rtol=2e-3, atol=1e-4)
    assert "start.pt" not in _files(resumed)


def test_a_start_that_is_gone_is_one_warning(tmp_path, caplog):
    """And the training is kept."""
    data = pictures.draw("detect", tmp_path)
    first = YOLO(f"{MODEL}.yaml")
    first.train(data=data, project=tmp_path, pretrained=False, **QUICK)
    model = YOLO(first.trainer.best)
    model.add_callback("on_train_epoch_end", lambda trainer: (trainer.wdir / "start.pt").unlink())
    model.train(data=data, project=tmp_path, **QUICK)
    (line,) = (line for line in caplog.messages if "start.pt" in line)
    assert "blend=auto needs the weights at the start of the training, '" in line
    assert _files(model) == {"best.pt", "last.pt"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blend": 0}, r"blend must be a share above 0 and up to 1, or auto, got 0"),
        ({"blend": "best"}, r"blend must be a share above 0 and up to 1, or auto, got 'best'"),
        ({"blend": 0.5, "pretrained": False}, r"blend=0.5: this training starts from random weights: .*; leave out"),
    ],
)
def test_a_share_of_nothing_is_an_error(options, message, tiny_data, tmp_path):
    with pytest.raises(ValueError, match=message):
        YOLO(f"{MODEL}.yaml").train(data=tiny_data, project=tmp_path, **QUICK, **options)


@pytest.mark.parametrize("options", [{"blend": "auto", "pretrained": False}, {"val": False}, {"blend": 1}])
def test_it_is_off(options, tiny_data, tmp_path, caplog):
    """From random weights, without validation, and where a user says so."""
    first = YOLO(f"{MODEL}.yaml")
    first.train(data=tiny_data, project=tmp_path, pretrained=False, **QUICK)
    model = first if "pretrained" not in options else YOLO(f"{MODEL}.yaml")
    if model is first:
        model = YOLO(first.trainer.best)
    model.train(data=tiny_data, project=tmp_path, **QUICK, **options)
    assert model.trainer.args.blend == 1
    assert _files(model) == {"best.pt", "last.pt"}
    assert "of its start" not in caplog.text


def test_ranks_choose_together(knowing, tmp_path):
    """Both validate their part of the pictures, and one writes."""
    before, data = knowing
    model = YOLO(before)
    options = {**QUICK, "batch": 8, "optimizer": "AdamW", "lr0": 0.02, "warmup_epochs": 0}
    model.train(trainer=gloo.GlooTrainer, data=data, project=tmp_path, **options)
    assert _files(model) == {"best.pt", "best-unblended.pt", "last.pt"}
    start, last, found = (
        _weights(file)["model.0.conv.weight"]
        for file in (before, model.trainer.wdir / "best-unblended.pt", model.trainer.best)
    )
    errors = [(start.lerp(last, share) - found).abs().max() for share in blend.SHARES]
    assert min(errors[1:]) < 1e-3 < errors[0]
