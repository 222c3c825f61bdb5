"""Trainings that follow a teacher in place of labels."""

import copy
import json
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import gloo
import numpy as np
import pictures
import pytest
import torch
import torch.nn.functional as F
import yaml
from donors import QUICK, checkpoint, seen, teacher
from trainings import interrupt
from ultralytics import YOLO
from ultralytics.nn.modules import Conv

import yolo_effnet
from yolo_effnet.arguments import Start
from yolo_effnet.grafting.following import compare
from yolo_effnet.nn.layers import ConvNormAct
from yolo_effnet.nn.origin import origin

TRAINING = {"imgsz": 64, "batch": 4, "workers": 0, "plots": False, "verbose": False, "device": "cpu", "epochs": 2}


def shaken(file: str, folder: Path, amount: float = 0.1) -> str:
    """Return a copy of a checkpoint whose weights are off by a share of their size."""
    held = torch.load(file, weights_only=False)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in held["model"].float().named_parameters():
            if parameter.ndim == 4 and ".dfl." not in name:  # which never learns
                parameter += amount * parameter.std() * torch.randn_like(parameter)
    torch.save(held, folder / "shaken.pt")
    return str(folder / "shaken.pt")


@pytest.fixture(scope="module")
def footage(tmp_path_factory):
    """A folder with 20 pictures, and beside them labels that nobody should read."""
    folder = tmp_path_factory.mktemp("footage")
    pictures.draw("detect", folder, train=20, val=4)
    for file in folder.rglob("*.txt"):
        file.write_text("this is no label")
    return folder / "images" / "train"


@pytest.fixture(scope="module")
def grafted(footage, tmp_path_factory):
    """A teacher, and a graft of it, in one folder."""
    folder = tmp_path_factory.mktemp("grafted")
    giver = teacher("yolov8n", folder)
    yolo_effnet.graft(giver, "yolov8-efflite0", footage, folder / "b0.pt", **{**QUICK, "number": 4})
    return giver, str(folder / "b0.pt")


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def record(model: YOLO) -> dict:
    return model.model.yaml["graft"]["followed"]


@pytest.mark.parametrize(
    ("name", "backbone"),
    [
        ("yolov8n", "yolov8-efflite0"),
        ("yolov8n-seg", "yolov8-efflite0-seg"),
        ("yolov8n-pose", "yolov8-efflite0-pose"),
        ("yolov8n-obb", "yolov8-efflite0-obb"),
        ("yolo26n", "yolo26-efflite0"),
        ("yolo26n-seg", "yolo26-efflite0-seg"),
        ("yolo26n-pose", "yolo26-efflite0-pose"),
    ],
)
def test_every_task_from_a_graft_in_the_same_training(name, backbone, footage, tmp_path, caplog):
    """Without labels; nothing is written beside the pictures, and the result is a graft for what comes next."""
    giver = teacher(name, tmp_path)
    before = files_below(footage.parent.parent)
    model = YOLO(f"{backbone}.yaml")
    model.train(
        data=str(footage),
        graft=giver,
        match=True,
        project=tmp_path,
        lr0=0.01,
        **{**TRAINING, "epochs": 1, "plots": True},
    )  # at a rate that leads away: a graft of random weights can be its donor's equal
    assert files_below(footage.parent.parent) == before
    sees = next(m for r in caplog.records if " sees " in (m := r.getMessage()))
    assert int(sees.split()[2]) > 0
    assert sees.endswith("objects in 4 pictures to validate on")
    best = YOLO(model.trainer.best)
    facts = record(best)
    assert facts["teacher"] == f"{name}.pt"
    assert facts["pictures"] == 16
    assert facts["steps"] == 4
    assert 0 <= facts["before"] <= 1
    assert f"agrees with {name}.pt to " in caplog.text
    assert origin(best.model).start is Start.GRAFTED
    assert best.model.names == YOLO(giver).model.names
    rows = (Path(model.trainer.save_dir) / "results.csv").read_text().splitlines()
    named = dict(zip(rows[0].split(","), rows[-1].split(","), strict=True))
    assert float(named["train/match_loss"]) > 0
    assert float(named["val/match_loss"]) > 0
    assert ("train/more_loss" in named) == (name not in ("yolov8n", "yolo26n"))


@pytest.mark.filterwarnings("ignore")  # torch's exporter warns of its own age, at every step
def test_what_was_shaken_comes_back(learned, tmp_path, caplog):
    """Towards a detector that sees what is there, from one whose weights were shaken."""
    best, data = learned
    labels = files_below(data.parent)
    model = YOLO(shaken(best, tmp_path))
    model.train(data=data, match=str(best), project=tmp_path, **{**TRAINING, "epochs": 10, "mosaic": 0})
    facts = record(YOLO(model.trainer.best))
    assert facts["before"] + 0.05 < facts["agreement"] <= 1
    before, after = facts["error"]
    assert after < before / 2
    rows = (Path(model.trainer.save_dir) / "results.csv").read_text().splitlines()
    first, last = (dict(zip(rows[0].split(","), row.split(","), strict=True)) for row in (rows[1], rows[-1]))
    assert float(last["val/match_loss"]) < before / 2
    outputs = [sum(float(row[f"val/{name}_loss"]) for name in ("cls", "box")) for row in (first, last)]
    assert outputs[1] < outputs[0] / 2
    assert files_below(data.parent) == labels
    (told,) = [r.getMessage() for r in caplog.records if r.getMessage().startswith("agrees with")]
    assert f"before {facts['before']:.2f}; mAP50-95 on the labels of these pictures 0." in told
    real = YOLO(model.trainer.best).val(data=data, imgsz=64, plots=False, workers=0, device="cpu", project=tmp_path)
    assert float(told.rpartition(" ")[2]) == pytest.approx(real.box.map, abs=0.02)
    assert Path(YOLO(model.trainer.best).export(format="torchscript", imgsz=64)).is_file()


def test_the_teacher_itself_is_nothing_to_learn(learned, tmp_path, caplog):
    best, data = learned
    model = YOLO(best)
    model.train(data=data, match=str(best), project=tmp_path, **{**TRAINING, "epochs": 1})
    rows = (Path(model.trainer.save_dir) / "results.csv").read_text().splitlines()
    named = dict(zip(rows[0].split(","), rows[-1].split(","), strict=True))
    assert float(named["train/match_loss"]) < 1e-2
    assert record(YOLO(model.trainer.best))["before"] > 0.98


@pytest.mark.parametrize("form", ["folder", "glob", "list", "YAML", "YAML of other classes"])
def test_what_data_can_be(form, footage, tmp_path):
    giver = teacher("yolov8n", tmp_path)
    places = {"folder": footage, "glob": footage / "*.png", "list": tmp_path / "list.txt"}
    (tmp_path / "list.txt").write_text("\n".join(map(str, sorted(footage.glob("*.png")))))
    if form.startswith("YAML"):
        names = ["a", "b"] if form.endswith("classes") else list(YOLO(giver).names.values())
        places[form] = tmp_path / "data.yaml"
        places[form].write_text(yaml.safe_dump({"train": str(footage), "val": str(footage), "names": names}))
    model = YOLO("yolov8n.yaml")
    model.train(data=str(places[form]), match=giver, project=tmp_path, **{**TRAINING, "epochs": 1, "val": False})
    folder = Path(model.trainer.args.data).parent
    train, val = ((folder / f"{name}.txt").read_text().splitlines() for name in ("train", "val"))
    assert sorted({*train, *val}) == sorted(map(str, footage.glob("*.png")))
    assert (len(train), len(val)) == ((20, 20) if form.startswith("YAML") else (16, 4))
    assert model.trainer.data["nc"] == 80


def test_pictures_that_cannot_be_read_are_left_as_they_are(tmp_path, caplog):
    """Ultralytics' own check writes a JPEG anew that is cut off."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(8):
        cv2.imwrite(str(folder / f"{i}.jpg"), np.random.default_rng(i).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    (folder / "6.jpg").write_bytes((folder / "6.jpg").read_bytes()[:-100])
    (folder / "7.jpg").write_bytes(b"no picture")
    before = files_below(folder)
    model = YOLO("yolov8n.yaml")
    model.train(data=str(folder), match=teacher("yolov8n", tmp_path), project=tmp_path, **{**TRAINING, "epochs": 1})
    assert files_below(folder) == before
    assert "7.jpg is left out: it cannot be read" in caplog.text


@pytest.mark.parametrize(("name", "follower"), [("yolov8s", "yolov8-efflite0"), ("yolov8s", "yolov8n")])
def test_a_teacher_of_other_widths_is_followed_by_its_outputs(name, follower, footage, tmp_path):
    """By a stock model, too."""
    model = YOLO(f"{follower}.yaml")
    model.train(data=str(footage), match=teacher(name, tmp_path), project=tmp_path, **TRAINING)
    rows = [row.split(",") for row in (Path(model.trainer.save_dir) / "results.csv").read_text().splitlines()]
    first, last = (dict(zip(rows[0], row, strict=True)) for row in (rows[1], rows[-1]))
    assert float(last["train/match_loss"]) == 0
    assert 0 < float(last["train/cls_loss"]) < float(first["train/cls_loss"])


def test_its_settings_are_its_own_where_nothing_is_said(footage, grafted, tmp_path):
    seen = []

    def note(trainer):
        fixed = not any(m.training for m in trainer.model.modules() if isinstance(m, torch.nn.BatchNorm2d))
        seen.append((trainer.args.optimizer, trainer.args.lr0, trainer.args.nbs, trainer.args.cos_lr, fixed))
        seen.append({round(group["initial_lr"] / trainer.args.lr0, 3) for group in trainer.optimizer.param_groups})
        items = trainer.loss_items
        inputs, *outputs = items.values() if isinstance(items, dict) else items
        assert trainer.loss.item() == pytest.approx((inputs + 0.1 * sum(outputs)).item())
        raise KeyboardInterrupt

    giver, file = grafted
    for said in ({}, {"optimizer": "SGD", "nbs": 8, "freeze_bn": False, "backbone_lr_ratio": 0.2}, {"lr0": 0.001}):
        model = YOLO(file)
        model.add_callback("on_train_batch_end", note)
        with pytest.raises(KeyboardInterrupt):
            model.train(data=str(footage), match=giver, project=tmp_path, **TRAINING, **said)
    assert seen == [
        ("AdamW", 7.1e-5, 4, True, True), {1.0},
        ("SGD", 0.01, 8, True, False), {0.2, 1.0},
        ("AdamW", 0.001, 4, True, True), {1.0},
    ]  # fmt: skip


def test_another_activation_comes_step_by_step(footage, grafted, tmp_path):
    """The model goes from its donor's to its own, and what is validated and saved has its own from the start."""
    ways, x = [], torch.linspace(-8, 8, 33)

    def note(trainer):
        act = trainer.model.model[-1].cv2[0][0].act
        ways.append(round(act.way, 3))
        torch.testing.assert_close(act(x.clone()), torch.lerp(F.silu(x), F.relu6(x), act.way))
        assert trainer.args.lr0 == 2.12e-4
        assert activations(trainer.model) == {"backbone": {"ReLU6", "Identity"}, "rest": {"Between"}}
        assert activations(trainer.ema.ema) == after

    def activations(model):
        acts = {"backbone": set(), "rest": set()}
        for m in model.modules():
            if isinstance(m, Conv):
                acts["backbone" if isinstance(m, ConvNormAct) else "rest"].add(type(m.act).__name__)
        return acts

    after = {"backbone": {"ReLU6", "Identity"}, "rest": {"ReLU6"}}
    model = YOLO("yolov8-efflite0.yaml")
    model.add_callback("on_train_batch_end", note)
    arguments = {**TRAINING, "epochs": 3, "data": str(footage), "match": grafted[0], "project": tmp_path}
    model.train(graft=grafted[0], activation="relu6", **arguments)
    assert ways == [min(1, round(i / 12 / 0.6, 3)) for i in range(12)]
    again = YOLO(model.trainer.best)
    assert activations(again.model) == after
    again.train(**arguments)  # knows its activation by now
    assert activations(again.trainer.model) == after


def test_a_checkpoint_knows_nothing_of_following(footage, grafted, tmp_path):
    model = YOLO(grafted[1])
    model.train(data=str(footage), match=grafted[0], project=tmp_path, **TRAINING)
    for file in (model.trainer.best, model.trainer.last):
        with zipfile.ZipFile(file) as archive:
            (pickled,) = [archive.read(name) for name in archive.namelist() if name.endswith("data.pkl")]
        assert b"grafting" not in pickled
        loaded = YOLO(file).model
        assert getattr(loaded, "criterion", None) is None
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in loaded.modules())
    code = "import sys; from ultralytics import YOLO; YOLO(sys.argv[1])([]) if 0 else YOLO(sys.argv[1]); "
    code += "print([n for n in sys.modules if n in ('yolo_effnet.grafting.following', 'yolo_effnet.grafting.footage')])"
    done = subprocess.run([sys.executable, "-c", code, file], text=True, capture_output=True, check=True)
    assert done.stdout.strip().endswith("[]")
    again = YOLO(model.trainer.best)  # with labels
    data = pictures.draw("detect", tmp_path / "labelled", train=4, val=2)
    again.train(data=data, project=tmp_path, **{**TRAINING, "epochs": 1})
    assert torch.isfinite(again.trainer.loss)


FOLLOW = """
import json, os, signal, sys
from ultralytics import YOLO

def note(trainer):
    rates = [round(g["lr"], 9) for g in trainer.optimizer.param_groups]
    bn = any(m.training for m in trainer.model.modules() if type(m).__name__ == "BatchNorm2d")
    losses = [*trainer.loss_items] if isinstance(trainer.loss_items, dict) else len(trainer.loss_items)
    facts = trainer.model.yaml["graft"]["followed"]
    with open(sys.argv[3], "a") as file:
        file.write(json.dumps([trainer.epoch, rates, bn, losses, facts["before"], trainer.ema.updates]) + chr(10))
    if len(sys.argv) > 4 and trainer.epoch == 2 and not trainer.resume:
        os.kill(os.getpid(), signal.SIGKILL)

model = YOLO(sys.argv[1])
model.add_callback("on_train_batch_end", note)
model.train(**json.loads(sys.argv[2]))
"""


def test_a_killed_training_goes_on_alike(footage, grafted, tmp_path):
    def train(model, arguments, log, *more):
        line = [sys.executable, "-c", FOLLOW, str(model), json.dumps(arguments), str(tmp_path / log), *more]
        return subprocess.run(line, text=True, capture_output=True, check=False)

    arguments = {**TRAINING, "epochs": 4, "data": str(footage), "project": str(tmp_path)}
    arguments["match"], file = grafted
    done = train(file, {**arguments, "name": "whole"}, "whole.txt")
    assert done.returncode == 0, done.stdout + done.stderr
    done = train(file, {**arguments, "name": "part"}, "part.txt", "die")
    assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr
    done = train(tmp_path / "part" / "weights" / "last.pt", {"resume": True}, "part.txt")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "; before " in done.stdout
    whole, part = (
        {state[0]: state for state in map(json.loads, (tmp_path / log).read_text().splitlines())}
        for log in ("whole.txt", "part.txt")
    )
    assert part == whole
    facts = [record(YOLO(tmp_path / name / "weights" / "last.pt")) for name in ("whole", "part")]
    assert facts[0]["steps"] == facts[1]["steps"] == 16
    rows = (tmp_path / "part" / "results.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == ["1", "2", "3", "4"]


def test_two_ranks_end_equal(footage, tmp_path):
    model = YOLO("yolov8-efflite0.yaml")
    model.add_callback("on_train_epoch_end", gloo.record("end", tmp_path))
    giver = teacher("yolov8n", tmp_path)
    model.train(trainer=gloo.GlooTrainer, data=str(footage), graft=giver, match=True, project=tmp_path, **TRAINING)
    ranks = [torch.load(tmp_path / f"end{rank}.pt") for rank in range(gloo.RANKS)]
    for k, weight in ranks[0]["model"].items():
        assert torch.equal(ranks[1]["model"][k], weight), k
    facts = record(YOLO(next(tmp_path.rglob("last.pt"))))
    assert facts["steps"] == 8
    assert "agreement" in facts


def test_true_is_the_donor_of_the_model(footage, grafted, tmp_path):
    for file in grafted:
        shutil.copy(file, tmp_path)
    model = YOLO(tmp_path / "b0.pt")
    model.train(data=str(footage), match=True, project=tmp_path, **{**TRAINING, "epochs": 1, "val": False})
    facts = model.trainer.model.yaml["graft"]
    assert facts["followed"]["teacher"] == "yolov8n.pt"
    assert facts["donor"] == "yolov8n.pt"
    (tmp_path / "yolov8n.pt").unlink()
    with pytest.raises(ValueError, match=r"match=True: the donor of .*b0\.pt was yolov8n\.pt, which is not here; give"):
        YOLO(tmp_path / "b0.pt").train(data=str(footage), match=True, project=tmp_path, **TRAINING)


def test_what_cannot_be_is_one_error(footage, tmp_path):
    giver = teacher("yolov8n", tmp_path)
    other = checkpoint("yolov8s", tmp_path, {5: "reddish"})
    base = {"data": str(footage), "project": tmp_path, **TRAINING, "match": giver}
    for model, wrong, message in (
        ("yolov8-effb0.yaml", {"match": 7}, "match must be the name or the path of a trained .pt file, or True, got 7"),
        ("yolov8-effb0.yaml", {"match": True}, "match=True needs graft=, or the file of a graft as model=, not"),
        (other, {"match": True}, r"match=True: .*yolov8s\.pt is no graft, which would name its donor; name a"),
        ("yolov8-effb0-seg.yaml", {}, r"match=.*yolov8n\.pt is a model to detect, not to segment"),
        ("yolov8-effb0-cls.yaml", {}, r"match=.* is for models that detect, segment, pose or obb, not classify"),
        (other, {}, r"knows 80 classes, kind 0, kind 1, kind 2, \.\., and model .*yolov8s\.pt knows 80"),
        ("yolo26-effb0.yaml", {}, r"match=.* has reg_max=16 in its head, and the model 1: they must be alike"),
        ("yolov8-effb0-p6.yaml", {}, r"match=.* has strides=\[8, 16, 32\] in its head"),
        ("yolov8-effb0.yaml", {"single_cls": True}, "single_cls=True contradicts match="),
        ("yolov8-effb0.yaml", {"classes": [0]}, r"classes=\[0\] contradicts match="),
        ("yolov8-effb0.yaml", {"activation": "relu6"}, "activation=relu6 is for a graft that follows its donor: add"),
        ("yolov8-effb0.yaml", {"activation": "gelu", "graft": giver}, "activation must be relu6 or relu, got 'gelu'"),
        ("yolov8-effb0.yaml", {"compile": True}, "compile=True contradicts match="),
        ("yolov8-effb0.yaml", {"distill_model": giver}, "distill_model=.* contradicts match="),
        ("yolov8-effb0.yaml", {"data": str(tmp_path / "no")}, "data=.*no has no pictures that can be read; give"),
        ("yolov8-effb0.yaml", {"data": str(tmp_path / "no.yaml")}, "data=.*no.yaml is no data set that Ultralytics"),
        ("yolov8-effb0.yaml", {"match": "yolov8n.yaml"}, "teacher 'yolov8n.yaml' is a model YAML, whose weights are"),
        ("yolov8-effb0.yaml", {"match": str(tmp_path / "no.pt")}, "no.pt' is no checkpoint that Ultralytics can load"),
        ("yolov8-effb0.yaml", {"graft": other}, r"knows 80 classes, .*, and donor .*yolov8s\.pt knows 80, kind 0"),
    ):
        with pytest.raises(ValueError, match=message):
            YOLO(model).train(**{**base, **wrong})


def test_a_resumed_training_keeps_its_teacher(footage, tmp_path):
    giver = teacher("yolov8n", tmp_path)

    model = YOLO("yolov8n.yaml")
    interrupt(model, "on_train_epoch_end", data=str(footage), match=giver, project=tmp_path, **TRAINING)
    with pytest.raises(ValueError, match=r"a training that is resumed follows .*: leave out match=other\.pt"):
        YOLO(model.trainer.last).train(resume=True, match="other.pt")


@pytest.mark.parametrize("name", ["yolov8n", "yolov8n-seg", "yolov8n-pose", "yolo26n-obb"])
def test_the_distance_is_that_of_what_the_head_takes_and_gives(name, tmp_path):
    """Nothing from itself, something from another, and a place of which the teacher is sure counts more."""
    model = YOLO(teacher(name, tmp_path)).model.float().eval()
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    x = torch.rand(2, 3, 64, 64)
    reg_max = model.model[-1].reg_max
    ours = seen(model, x)
    number = 3 if name == "yolov8n" else 4
    assert max(abs(float(d)) for d in compare(ours, seen(model, x), reg_max)) < 1e-4
    distances = compare(seen(other, x), ours, reg_max)
    assert all(float(d) > 0 for d in distances[:number])
    assert [float(d) for d in distances[number:]] == [0] * (4 - number)
    moved = copy.deepcopy(ours)
    sure = moved.branches["cv3"][0].amax(1).flatten(1)
    errors = []
    for place in (sure.argmax(1), sure.argmin(1)):
        moved.branches["cv2"] = {level: tensor.clone() for level, tensor in ours.branches["cv2"].items()}
        flat = moved.branches["cv2"][0].flatten(2)
        for i in range(2):
            flat[i, ::2, place[i]] += 3
        errors.append(float(compare(moved, ours, reg_max)[2]))
    assert errors[0] > errors[1] > 0
