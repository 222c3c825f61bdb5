"""The backbone's learning rate, freezing, BatchNorm and the growth of pictures, in real trainings."""

import contextlib
import copy
import json
import os
import subprocess
import sys

import gloo
import pictures
import pytest
import torch
import yaml
from torch import nn
from ultralytics import YOLO
from ultralytics.engine import trainer as engine
from ultralytics.utils import DEFAULT_CFG

import yolo_effnet
from yolo_effnet.nn.backbone import backbone_rows
from yolo_effnet.recipe import SMALL_BATCH, Recipe, keeping_rate

QUICK = {"imgsz": 64, "batch": 4, "workers": 0, "plots": False, "verbose": False, "device": "cpu", "pretrained": False}


def test_it_is_a_function_of_the_epoch():
    recipe = Recipe(freeze_epochs=0.1, progressive=0.5)
    assert [recipe.is_frozen(epoch, 25) for epoch in range(5)] == [True, True, True, False, False]
    assert [Recipe(freeze_epochs=2).is_frozen(epoch, 25) for epoch in (0, 1, 2)] == [True, True, False]
    assert [recipe.size(epoch, 10, 320, 32) for epoch in range(10)] == [160] * 3 + [224] * 3 + [256] * 2 + [320] * 2
    assert [recipe.size(epoch, 2, 320, 32) for epoch in range(2)] == [160, 320]
    for off in (0, 1):
        assert Recipe(progressive=off).size(0, 10, 320, 32) == 320


@pytest.mark.parametrize(
    ("nbs", "batch", "images", "expected"),
    [
        (64, 16, 205, 16),  # 80 updates in 25 epochs become 320
        (64, 16, 1300, 32),  # 508 become 1016
        (64, 16, 2560, 64),  # 1000 are enough
        (64, 4, 205, 16),  # no less than 16 pictures to an update,
        (64, 24, 205, 24),  # nor than a batch
        (64, 128, 205, 64),
    ],
)
def test_small_data_sets_update_more_often(nbs, batch, images, expected):
    assert Recipe(min_updates=1000).nominal_batch(nbs, batch, images, 25) == expected
    assert Recipe().nominal_batch(nbs, batch, images, 25) == nbs


def test_a_small_training_keeps_what_a_sure_donor_knows():
    rates = [keeping_rate(0.29, 100), keeping_rate(0.3, 100), keeping_rate(0.9, 999), keeping_rate(0.9, 1000)]
    assert rates == [1, 0.25, 0.25, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lr_ratio": 0}, "lr_ratio must be a number above 0, or auto, got 0"),
        ({"backbone_lr_ratio": 2}, "backbone_lr_ratio must be a number from 0 to 1, got 2"),
        ({"backbone_lr_ratio": "0.5x"}, "backbone_lr_ratio must be a number from 0 to 1, got '0.5x'"),
        ({"freeze_epochs": 1.5}, "freeze_epochs must be a number of epochs, or a share of them below 1, got 1.5"),
        ({"freeze_bn": 1}, "freeze_bn must be True, False or auto, got 1"),
        ({"progressive": -1}, "progressive must be a share of imgsz from 0 to 1, got -1"),
        ({"min_updates": "all"}, "min_updates must be a number of updates of the weights, got 'all'"),
        ({"progressive": 0.5, "multi_scale": 0.5}, r"progressive=0\.5 and multi_scale=0\.5 both set the size"),
        ({"freeze_epochs": 1, "compile": True}, "freeze_epochs=1 and compile=True exclude each other"),
        (
            {"freeze_epochs": 0.5, "time": 1},
            r"freeze_epochs=0\.5 goes by the number of epochs, which time=1 leaves open",
        ),
        ({"progressive": 0.5, "time": 1}, r"progressive=0\.5 goes by the number of epochs, which time=1 leaves open"),
    ],
)
def test_what_cannot_be_is_one_error(arguments, message, tiny_data, tmp_path):
    with pytest.raises(ValueError, match=message):
        YOLO("yolov8-effb0.yaml").train(data=tiny_data, epochs=1, project=tmp_path, **QUICK, **arguments)


def test_a_model_without_our_backbone_is_one_error(tiny_data, tmp_path):
    with pytest.raises(ValueError, match=r"freeze_bn=True: DetectionModel has no backbone of yolo_effnet"):
        YOLO("yolov8n.yaml").train(data=tiny_data, epochs=1, project=tmp_path, **QUICK, freeze_bn=True)


OPTIMIZERS = ["auto", "AdamW", "SGD", *(["MuSGD"] if hasattr(engine, "MuSGD") else [])]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_backbone_learns_at_its_own_rate(optimizer, tiny_data, tmp_path):
    rates = {}

    def note(trainer):
        backbone = {id(p) for row in backbone_rows(trainer.model) for p in row.parameters()}
        groups = trainer.optimizer.param_groups
        assert sum(len(g["params"]) for g in groups) == len(list(trainer.model.parameters()))
        for group in groups:
            for p in group["params"]:
                rates.setdefault(id(p) in backbone, set()).add(group["initial_lr"])

    model = YOLO("yolov8-effb0.yaml")
    model.add_callback("on_train_start", note)
    arguments = {**QUICK, "data": tiny_data, "epochs": 1, "project": tmp_path, "optimizer": optimizer, "lr0": 0.01}
    model.train(**arguments, backbone_lr_ratio=0.25)
    assert rates[True] == {0.25 * min(rates[False])}
    stock = rates[False]
    rates.clear()
    model = YOLO("yolov8-effb0.yaml")
    model.add_callback("on_train_start", note)
    model.train(**arguments, lr_ratio=0.5, backbone_lr_ratio=0.25)
    assert rates[False] == {0.5 * rate for rate in stock}
    assert rates[True] == {0.25 * min(rates[False])}


def states(folder, **arguments) -> list[tuple]:
    """Train B0 and return weights of the stem, statistics of its BatchNorm and size of the pictures in each epoch."""
    found = []

    def note(trainer):
        stem = trainer.model.model[0]
        found.append((stem.conv.weight.detach().clone(), stem.bn.running_mean.clone()))

    sizes = []
    model = YOLO("yolov8-effb0.yaml")
    model.add_callback("on_train_start", note)
    model.add_callback("on_train_epoch_end", note)
    model.add_callback(
        "on_train_start",
        lambda t: t.model.model[0].register_forward_pre_hook(
            lambda module, args: sizes.append(args[0].shape[-1]) if module.training or module.frozen else None
        ),
    )
    model.train(project=folder, **{**QUICK, "nbs": 4, "epochs": 3, "warmup_epochs": 0, **arguments})
    assert not any(row.frozen for row in backbone_rows(YOLO(model.trainer.last).model))
    return [(*state, size) for state, size in zip(found, [None, *sizes[::2]], strict=True)]


def test_a_frozen_backbone_thaws(tiny_data, tmp_path, caplog):
    weights, means, _ = zip(*states(tmp_path, data=tiny_data, freeze_epochs=2), strict=True)
    for kept in (weights, means):
        assert torch.equal(kept[0], kept[1])
        assert torch.equal(kept[0], kept[2])
        assert not torch.equal(kept[0], kept[3])
    said = [record.getMessage() for record in caplog.records if record.getMessage().startswith("backbone:")]
    assert said == ["backbone: frozen from epoch 1", "backbone: learns from epoch 3"]


def test_frozen_statistics(tiny_data, tmp_path):
    weights, means, _ = zip(*states(tmp_path, data=tiny_data, freeze_bn=True), strict=True)
    assert torch.equal(means[0], means[3])
    assert not torch.equal(weights[0], weights[3])


@pytest.mark.parametrize("resumed", [False, True])
def test_statistics_of_small_batches_are_frozen_by_themselves(resumed, tiny_data, tmp_path):
    """Decided by the batches that there are in the end: of a resumed training these may be others."""
    decided = {batch: Recipe(freeze_bn="auto").fixes_statistics(batch) for batch in (1, SMALL_BATCH, SMALL_BATCH + 1)}
    assert decided == {1: True, SMALL_BATCH: True, SMALL_BATCH + 1: False}
    assert not Recipe().fixes_statistics(1)
    batches = (8, 1) if resumed else (1, 8)
    fixed, source, options = {}, "yolov8-effb0.yaml", {**QUICK, "data": tiny_data, "project": tmp_path, "epochs": 2}
    for batch in batches:
        model = YOLO(source)
        model.add_callback(
            "on_train_batch_end", lambda t: fixed.update({t.batch_size: not t.model.model[3][0].expand.bn.training})
        )
        model.add_callback("on_model_save", stop_after_an_epoch)
        with contextlib.suppress(KeyboardInterrupt):
            model.train(**{**options, "batch": batch}, freeze_bn="auto")
        if resumed:
            source, options = model.trainer.last, {"resume": True}
    assert fixed == {1: True, 8: False}


def stop_after_an_epoch(trainer):
    """Leave a training that can be resumed."""
    if trainer.epoch == 0:
        raise KeyboardInterrupt


def test_pictures_grow_and_so_does_stochastic_depth(tiny_data, tmp_path):
    config = {**yolo_effnet.model_config("yolov8-effb0"), "drop_path": 0.2}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({**config, "progressive": 0.5}))
    sizes, rates, validated = [], [], []
    model = YOLO(tmp_path / "mine.yaml")

    def note(trainer):
        sizes.append(trainer.loss_size)
        rates.append(trainer.model.model[6][-1].drop_path.p)

    def watch(trainer):
        def hook(module, args):
            trainer.loss_size = args[0].shape[-1]

        trainer.model.model[0].register_forward_pre_hook(hook)

    model.add_callback("on_train_start", watch)
    model.add_callback("on_train_epoch_end", note)
    model.add_callback("on_val_end", lambda v: validated.append(v.args.imgsz))
    model.train(data=tiny_data, project=tmp_path, **{**QUICK, "imgsz": 128, "epochs": 4})
    assert sizes == [64, 96, 96, 128]
    whole = 0.2 * 14 / 16  # of the block before the last two of sixteen
    assert rates == pytest.approx([0, whole / 3, whole / 3, whole])
    assert set(validated) == {128}
    assert model.trainer.args.progressive == 0.5
    model = YOLO(tmp_path / "mine.yaml")
    model.train(data=tiny_data, project=tmp_path, **{**QUICK, "epochs": 1}, progressive=0)  # the argument wins
    assert model.trainer.args.imgsz == 64


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("yolov8-effb0", {}, 16),
        ("yolov8-effb0", {"min_updates": 0}, 64),
        ("yolov8-effb0", {"nbs": 32}, 32),
        ("yolov8-effb0-cls", {}, 16),
        ("yolov8n", {}, 64),
    ],
)
def test_updates_of_the_weights(name, options, expected, tmp_path):
    """By themselves often enough; a number of one's own stays, and so do trained models and those that are not ours."""
    seen = []
    model = YOLO(f"{name}.yaml")
    model.add_callback("on_train_end", lambda t: seen.append((t.args.nbs, min(t.accumulate, len(t.train_loader)))))
    data = pictures.draw("classify" if name.endswith("-cls") else "detect", tmp_path, train=32)
    model.train(data=data, epochs=1, project=tmp_path, **{**QUICK, "batch": 2, "warmup_epochs": 0}, **options)
    assert seen == [(expected, min(expected // 2, 16))]
    assert torch.load(model.trainer.last, weights_only=False)["train_args"]["nbs"] == expected
    if not options:
        again = YOLO(model.trainer.last)
        again.train(data=data, epochs=1, project=tmp_path, **{**QUICK, "pretrained": True})
        assert again.trainer.args.nbs == 64


ALL = {
    "lr_ratio": 0.5,
    "backbone_lr_ratio": 0.5,
    "freeze_epochs": 1,
    "freeze_bn": True,
    "progressive": 0.5,
    "min_updates": 9,
}


def test_ranks_stay_equal(tiny_data, tmp_path):
    model = YOLO("yolov8-effb0.yaml")
    model.add_callback("on_fit_epoch_end", gloo.record("end", tmp_path))
    model.train(trainer=gloo.GlooTrainer, data=tiny_data, epochs=2, project=tmp_path, **QUICK, **ALL)
    ranks = [torch.load(tmp_path / f"end{rank}.pt")["model"] for rank in range(gloo.RANKS)]
    for k, weight in ranks[0].items():
        if "running_" not in k and "num_batches" not in k:
            torch.testing.assert_close(ranks[1][k], weight, rtol=0, atol=0)


TRAIN = """
import json, os, signal, sys
from ultralytics import YOLO

def note(trainer):
    rows = trainer.model.model[:8]
    rates = [g["lr"] for g in trainer.optimizer.param_groups]
    decay = trainer.ema.decay(trainer.ema.updates)
    state = [trainer.epoch, rates, rows[0].frozen, rows[3][0].expand.bn.training, trainer.ema.updates, decay]
    with open(sys.argv[3], "a") as file:
        file.write(json.dumps(state) + chr(10))
    if len(sys.argv) > 4 and trainer.epoch == 2 and not trainer.resume:
        os.kill(os.getpid(), signal.SIGKILL)

model = YOLO(sys.argv[1])
model.add_callback("on_train_batch_end", note)
arguments = json.loads(sys.argv[2])
model.train(**arguments)
"""


def test_a_resumed_training_goes_on_alike(tiny_data, tmp_path):
    def train(model, arguments, log, *more):
        line = [sys.executable, "-c", TRAIN, str(model), json.dumps(arguments), str(tmp_path / log), *more]
        return subprocess.run(line, env=dict(os.environ), text=True, capture_output=True, check=False)

    arguments = {**QUICK, "nbs": 4, "epochs": 5, "data": str(tiny_data), "project": str(tmp_path)}
    arguments |= {**ALL, "freeze_epochs": 3}
    done = train("yolov8-effb0.yaml", {**arguments, "name": "whole"}, "whole.txt")
    assert done.returncode == 0, done.stdout + done.stderr
    done = train("yolov8-effb0.yaml", {**arguments, "name": "part"}, "part.txt", "die")
    assert done.returncode == -9, done.stdout + done.stderr
    saved = torch.load(tmp_path / "part" / "weights" / "last.pt", weights_only=False)
    assert {name: saved["train_args"][name] for name in ALL} == {**ALL, "freeze_epochs": 3}
    done = train(tmp_path / "part" / "weights" / "last.pt", {"resume": True}, "part.txt")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [(tmp_path / log).read_text().splitlines() for log in ("whole.txt", "part.txt")]
    whole, part = ({state[0]: state for state in map(json.loads, log)} for log in lines)
    assert part == whole
    assert [whole[epoch][2] for epoch in range(5)] == [True, True, True, False, False]
    assert not any(state[3] for state in whole.values())


@pytest.mark.filterwarnings("ignore")  # ModelOpt's own
@pytest.mark.parametrize("how", ["distillation", "quantisation", "freeze", "early stopping", "time"])
def test_beside_other_settings_of_ultralytics(how, learned, tmp_path):
    """Two epochs from a trained model, of which the backbone sits out the first."""
    best, data = learned
    options = {"freeze": {"freeze": 2}, "early stopping": {"patience": 1}, "time": {"time": 0.001}}.get(how, {})
    if how == "distillation":
        if not hasattr(DEFAULT_CFG, "distill_model"):
            pytest.skip("this release of Ultralytics has no distillation")
        options = {"distill_model": str(best)}
    elif how == "quantisation":
        pytest.importorskip("modelopt")
        options = {"quantize": 8}
    weights = []

    def note(trainer):
        model = getattr(trainer.model, "student_model", trainer.model)
        weights.append(model.model[4][0].project.conv.weight.detach().clone())

    model = YOLO(best)
    model.add_callback("on_train_start", note)
    model.add_callback("on_train_epoch_end", note)
    arguments = {**QUICK, "batch": 8, "lr0": 1e-4, "optimizer": "AdamW", "pretrained": True, **options}
    model.train(data=data, project=tmp_path, epochs=2, **arguments, backbone_lr_ratio=0.5, freeze_epochs=1)
    assert torch.equal(weights[0], weights[1])
    if how != "time":  # which ends before
        assert not torch.equal(weights[0], weights[2])
    assert torch.isfinite(model.trainer.loss)


def test_where_weights_come_from_is_known(tiny_data, tmp_path, caplog):
    """The log line names it: random, trained before, or those of ImageNet."""
    model = YOLO("yolov8-effb0.yaml")
    model.train(data=tiny_data, epochs=1, project=tmp_path, **QUICK, backbone_lr_ratio=0.5)
    again = YOLO(model.trainer.last)
    again.train(data=tiny_data, epochs=1, project=tmp_path, **{**QUICK, "pretrained": True}, backbone_lr_ratio=0.5)
    lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith("backbone: learning rate 0.5 x")]
    assert [line.rpartition(", ")[2] for line in lines] == ["random weights", "trained before"]


def test_a_frozen_row_is_no_part_of_a_copy():
    row = yolo_effnet.EfficientNetStage(16, 24, 1, 3, 2)
    x = torch.rand(1, 16, 8, 8)
    row.frozen = True
    assert not row(x).requires_grad
    assert not copy.deepcopy(row).frozen
    row.frozen = False
    assert row(x).requires_grad
    assert isinstance(row, nn.Sequential)
