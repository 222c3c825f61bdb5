"""From what a training starts: named once, by what really came from a checkpoint, and what follows from the name."""

import contextlib
import copy
from pathlib import Path

import pictures
import pytest
import torch
import yaml
from backbones import reference
from ultralytics import YOLO
from ultralytics.engine import trainer as engine
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils import DEFAULT_CFG, DEFAULT_CFG_DICT, YAML

import yolo_effnet
from yolo_effnet.arguments import Start
from yolo_effnet.nn.origin import DONOR, IMAGENET, RANDOM, TRAINED, Origin, note, origin

QUICK = {"imgsz": 64, "epochs": 1, "batch": 4, "workers": 0, "plots": False, "verbose": False, "device": "cpu"}


class Seen(Exception):
    """Ends a training once its start was looked at."""


def started(model: YOLO, event: str = "on_train_start", **arguments):
    """Return the trainer of a training that ends at an event, before its weights change."""
    found = []

    def look(trainer):
        found.append(trainer)
        raise Seen

    model.add_callback(event, look)
    with contextlib.suppress(Seen):
        model.train(**{**QUICK, **arguments})
    model.clear_callback(event)
    return found[0]


@pytest.fixture(scope="module")
def lite(tmp_path_factory):
    """A YAML of Lite0 that names weights, random ones of timm beside it."""
    folder = tmp_path_factory.mktemp("lite")
    reference("tf_efficientnet_lite0.in1k", folder / "weights.safetensors")
    config = {**yolo_effnet.model_config("yolov8-efflite0"), "backbone_weights": "weights.safetensors"}
    (folder / "lite.yaml").write_text(yaml.safe_dump(config))
    return folder / "lite.yaml"


def noted(name: str, backbone: str, rest: str) -> torch.nn.Module:
    model = YOLO(f"{name}.yaml").model
    note(model, backbone, rest)
    return model


def loaded(name: str, source: torch.nn.Module) -> torch.nn.Module:
    model = YOLO(f"{name}.yaml").model
    model.load(source)
    return model


def by_hand(name: str) -> torch.nn.Module:
    model = YOLO(f"{name}.yaml").model
    model.load_state_dict(copy.deepcopy(model.state_dict()))
    return model


def of_before(trained: bool, **keys) -> torch.nn.Module:
    """Return a model as a checkpoint of an earlier version holds it."""
    model = by_hand("yolov8-efflite0")
    model.yaml |= keys
    for row in model.model[:8]:
        vars(row).pop("origin", None)
        row.trained = trained
    return model


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (lambda lite: YOLO(lite).model, Start.RANDOM),
        (lambda lite: loaded("yolov8-efflite0", YOLO(lite).model), Start.RANDOM),
        (lambda lite: loaded("yolov8-efflite0", YOLO("yolov8n.yaml").model), Start.RANDOM),
        (lambda lite: loaded("yolov8-efflite0", noted("yolov8-efflite2", TRAINED, TRAINED)), Start.RANDOM),
        (lambda lite: loaded("yolov8-efflite0", noted("yolov8-efflite0", TRAINED, TRAINED)), Start.TRAINED),
        (lambda lite: loaded("yolov8-efflite0-seg", noted("yolov8-efflite0", TRAINED, TRAINED)), Start.TRAINED),
        (lambda lite: loaded("yolov8-efflite0", noted("yolov8-efflite0-cls", TRAINED, TRAINED)), Start.BACKBONE),
        (lambda lite: loaded("yolov8-efflite0", noted("yolov8-efflite0", IMAGENET, RANDOM)), Start.IMAGENET),
        (lambda lite: loaded("yolov8-efflite0", noted("yolov8-efflite0", IMAGENET, DONOR)), Start.GRAFTED),
        (lambda lite: by_hand("yolov8-efflite0"), Start.BACKBONE),
        (lambda lite: of_before(trained=True), Start.TRAINED),
        (lambda lite: of_before(trained=False), Start.IMAGENET),
        (lambda lite: of_before(trained=False, graft={"confidence": 1.0}), Start.GRAFTED),
    ],
)
def test_a_start_is_what_came_from_a_checkpoint(how, expected, lite):
    assert origin(how(lite)).start is expected


def test_every_origin_has_a_start():
    starts = {
        (backbone, rest): Origin(backbone, rest).start
        for backbone in (RANDOM, IMAGENET, TRAINED)
        for rest in (RANDOM, TRAINED, DONOR)
    }
    assert {start for (backbone, _), start in starts.items() if backbone == RANDOM} == {Start.RANDOM}
    assert {start for (_, rest), start in starts.items() if rest == DONOR} == {Start.RANDOM, Start.GRAFTED}


def test_imagenet_weights_are_a_start(lite):
    model = YOLO(lite)
    yolo_effnet.load_backbone_weights(model)
    assert origin(model.model) == (IMAGENET, RANDOM)
    model.load(noted("yolov8-efflite0", RANDOM, RANDOM))  # which overwrites them
    assert origin(model.model).start is Start.RANDOM


@pytest.mark.parametrize("how", ["in this process", "in processes of its own", "saved"])
def test_a_model_that_was_never_loaded_gets_its_weights(how, lite, tiny_data, tmp_path, monkeypatch):
    """Ultralytics trains on a list of data sets, and from a file, without the YAML of the model."""
    wanted = YOLO(lite)
    yolo_effnet.load_backbone_weights(wanted)
    wanted = wanted.model.model[0].conv.weight
    model, frozen = YOLO(lite), {"freeze": 8, "warmup_epochs": 0}
    if how == "saved":
        model.save(tmp_path / "never.pt")
        trainer = started(YOLO(tmp_path / "never.pt"), data=tiny_data, project=tmp_path)
        found = trainer.model.model[0].conv.weight
        torch.testing.assert_close(found, wanted)
        return
    if not hasattr(engine, "MultiTrainer"):
        pytest.skip("this release of Ultralytics trains on one data set")
    if how == "in this process":
        model.add_callback("on_train_end", lambda trainer: None)
    model.train(data=[str(tiny_data)], project=tmp_path, **QUICK, **frozen)
    (run,) = model.trainer.trainers
    torch.testing.assert_close(YOLO(run.last).model.model[0].conv.weight.float(), wanted, atol=1e-3, rtol=1e-3)


def test_quantisation_is_not_fooled_by_a_saved_random_model(tiny_data, tmp_path):
    model = YOLO("yolov8-effb0.yaml")
    model.model.yaml["backbone_weights"] = None
    model.save(tmp_path / "random.pt")
    with pytest.raises(ValueError, match=r"quantize=8 (takes the ranges of a trained model|needs)"):
        YOLO(tmp_path / "random.pt").train(data=tiny_data, project=tmp_path, quantize=8, **QUICK)


def test_weights_of_another_size_do_not_make_it_trained(lite, tiny_data, tmp_path):
    torch.save({"model": noted("yolov8-efflite2", TRAINED, TRAINED), "train_args": {}}, tmp_path / "other.pt")
    arguments = {"data": tiny_data, "project": tmp_path}
    plain = started(YOLO(lite), **arguments)
    other = started(YOLO(lite), pretrained=str(tmp_path / "other.pt"), **arguments)
    assert (plain.args.nbs, other.args.nbs) == (16, 16)
    assert torch.equal(plain.model.model[0].conv.weight, other.model.model[0].conv.weight)


def grafted(tiny_data, file: Path) -> YOLO:
    """Return a graft whose donor is sure of everything."""
    YOLO("yolov8n.yaml").save(file.with_name("donor.pt"))
    options = {"number": 4, "imgsz": 64, "allow_random": True}
    model = yolo_effnet.graft(file.with_name("donor.pt"), "yolov8-efflite0", tiny_data, file, **options)
    model.model.yaml["graft"]["confidence"] = 0.8
    note(model.model, backbone=IMAGENET)
    return model


def test_a_training_begins_with_its_first_update(tiny_data, tmp_path):
    model = grafted(tiny_data, tmp_path / "graft.pt")
    arguments = {"data": tiny_data, "project": tmp_path}
    tries = [started(model, **arguments).args for _ in range(2)]
    assert [(args.nbs, args.lr_ratio) for args in tries] == [(16, 0.25)] * 2
    seen = []
    model.add_callback("on_train_batch_end", lambda t: seen.append(origin(t.ema.ema).start))
    model.train(**arguments, **{**QUICK, "nbs": 4})
    assert seen[-1] is Start.TRAINED
    assert origin(YOLO(model.trainer.last).model).start is Start.TRAINED
    again = started(YOLO(model.trainer.last), **arguments).args
    assert (again.nbs, getattr(again, "lr_ratio", 1)) == (64, 1)


def test_the_yaml_of_a_graft_is_no_graft(tiny_data, tmp_path):
    d = dict(grafted(tiny_data, tmp_path / "graft.pt").model.yaml)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({**d, "backbone_weights": None}))
    args = started(YOLO(tmp_path / "mine.yaml"), data=tiny_data, project=tmp_path).args
    assert (args.nbs, args.lr_ratio) == (16, 1)


@pytest.mark.parametrize(("name", "value"), [("graft", False), ("backbone_weights", "x"), ("backbone_lr_ratio", 1.0)])
def test_an_argument_that_ultralytics_has_is_its_own(name, value, tiny_data, tmp_path, monkeypatch):
    """A release that gets one of a name of ours trains its own models with it."""
    monkeypatch.setitem(DEFAULT_CFG_DICT, name, value)
    monkeypatch.setattr(DEFAULT_CFG, name, value, raising=False)
    args = started(YOLO("yolov8n.yaml"), data=tiny_data, project=tmp_path).args
    assert getattr(args, name) == value


class OwnRates(DetectionTrainer):
    """A trainer that chooses its learning rates itself."""

    def build_optimizer(self, model, *args, **kwargs):
        """Return an optimizer with rates that no argument names."""
        return torch.optim.SGD([{"params": model.parameters(), "lr": 0.01, "param_group": "all"}])


def test_the_rate_of_a_trainers_own_is_left_alone(tiny_data, tmp_path, caplog):
    model = grafted(tiny_data, tmp_path / "graft.pt")
    trainer = started(model, trainer=OwnRates, data=tiny_data, project=tmp_path)
    assert {group["lr"] for group in trainer.optimizer.param_groups} == {0.01}
    assert any("leaves the rate to OwnRates" in record.getMessage() for record in caplog.records)


def test_a_graft_counts_no_updates_that_nobody_can_count(tiny_data, tmp_path, caplog):
    model = grafted(tiny_data, tmp_path / "graft.pt")
    assert started(model, data=tiny_data, project=tmp_path, time=1).args.lr_ratio == 1
    assert any("lr_ratio=auto is 1 with time=" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("how", ["argument", "file", "default"])
def test_a_nominal_batch_that_is_said_stays(how, tiny_data, tmp_path):
    """Also the default's own number, also after an interruption."""
    arguments = {"data": str(tiny_data), "project": str(tmp_path), "pretrained": False, "epochs": 2}
    if how == "argument":
        arguments["nbs"] = 64
    elif how == "file":
        YAML.save(tmp_path / "cfg.yaml", {"nbs": 64})
        arguments["cfg"] = str(tmp_path / "cfg.yaml")
    expected = 16 if how == "default" else 64
    model = YOLO("yolov8-effb0.yaml")
    assert started(model, "on_model_save", **arguments).args.nbs == expected
    last = tmp_path / "train" / "weights" / "last.pt"
    assert started(YOLO(last), resume=True, epochs=2).args.nbs == expected


def test_updates_are_counted_anew_when_time_limits_a_training(tmp_path):
    """Often at first, and as often as the epochs allow that Ultralytics then expects."""
    seen = []
    model = YOLO("yolov8-effb0.yaml")
    data = pictures.draw("detect", tmp_path, train=32)
    model.add_callback("on_train_start", lambda t: seen.append(t.args.nbs))
    model.add_callback("on_train_batch_end", lambda t: seen.append((t.args.nbs, t.accumulate)))
    model.add_callback("on_fit_epoch_end", lambda t: setattr(t, "epochs", 4000))
    model.add_callback("on_train_epoch_end", lambda t: setattr(t, "stop", t.epoch == 1))
    arguments = {**QUICK, "epochs": 9, "time": 1, "pretrained": False, "warmup_epochs": 0, "val": False}
    model.train(data=data, project=tmp_path, **arguments)
    assert seen[0] == 16
    assert seen[-1] == (64, 16)


def test_the_warm_up_of_biases_follows_the_rate(tiny_data, tmp_path):
    rates = []
    model = YOLO("yolov8-effb0.yaml")
    model.add_callback("on_train_batch_end", lambda t: rates.append(max(g["lr"] for g in t.optimizer.param_groups)))
    arguments = {**QUICK, "epochs": 2, "pretrained": False, "optimizer": "AdamW", "lr0": 0.001}
    model.train(data=tiny_data, project=tmp_path, **arguments, lr_ratio=0.1)
    assert max(rates) == pytest.approx(0.1 * DEFAULT_CFG_DICT["warmup_bias_lr"])


def test_small_initial_weights_of_a_classifier_stay(tiny_data, tmp_path):
    def deviation(name: str, data) -> float:
        trainer = started(YOLO(f"{name}.yaml"), data=data, project=tmp_path, pretrained=False)
        return trainer.model.model[1][0].depthwise.conv.weight.std().item()

    classes = pictures.draw("classify", tmp_path / "classes")
    assert deviation("yolov8-effb0-cls", classes) == pytest.approx(deviation("yolov8-effb0", tiny_data), rel=0.3)


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("name", ["yolov8-efflite0", "yolov8-mobilenetv3_large_100"])
def test_pixel_statistics_and_stem_come_to_other_channels(name, channels, tmp_path):
    source = YOLO(f"{name}.yaml").model
    source.model[0].set_statistics((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    note(source, TRAINED, TRAINED)
    model = type(source)(copy.deepcopy(source.yaml), ch=channels, verbose=False)
    model.load(source)
    assert {model.model[0].mean.unique().item(), model.model[0].std.unique().item()} == {0.5}
    grey = torch.rand(2, 1, 64, 64)
    for m in (source, model):
        m.eval()
    with torch.no_grad():
        wanted, found = (m.model[0](grey.expand(-1, n, -1, -1)) for m, n in ((source, 3), (model, channels)))
    if channels == 1:
        wanted, found = ([x] if torch.is_tensor(x) else list(x.values()) for x in (wanted, found))
        for a, b in zip(wanted, found, strict=True):
            torch.testing.assert_close(b, a, atol=1e-4, rtol=1e-3)
    assert model.model[0].mean.shape[1] == channels
