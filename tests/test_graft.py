"""Other backbones under trained necks and heads."""

import copy
import random
import shutil
import subprocess
import sys

import gloo
import numpy as np
import pictures
import pytest
import torch
from backbones import reference
from donors import QUICK, checkpoint, output, rebuilt, teacher
from safetensors.torch import load_file
from trainings import interrupt
from ultralytics import YOLO
from ultralytics.nn.modules import Conv
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import DEFAULT_CFG, LOGGER

import yolo_effnet
from yolo_effnet import cli
from yolo_effnet.grafting.pictures import Pictures, find


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A data set of which 16 pictures are to train on."""
    return pictures.draw("detect", tmp_path_factory.mktemp("images"), train=16, val=2)


@pytest.mark.parametrize(
    ("name", "taps"),
    [
        ("yolov8-effb0", "narrow"),
        ("yolov8-efflite0-seg", "narrow"),
        ("yolov8-efflite0-seg", "wide"),
        ("yolo26-effb0", "wide"),
        ("yolov8-effb0-p6", "narrow"),
    ],
)
def test_the_donors_own_backbone_gives_its_output_back(name, taps, images, tmp_path):
    donor = checkpoint(name, tmp_path)
    grafted = yolo_effnet.graft(donor, donor, images, taps=taps, **{**QUICK, "imgsz": 128})
    x = torch.rand(2, 3, 128, 128)
    wanted = output(YOLO(donor).model, x)
    error = (output(grafted.model, x) - wanted).abs().max() / wanted.abs().max()
    assert error < 1e-4


@pytest.mark.parametrize("name", ["yolov8n", "yolov8-effb0", "yolo26n-seg"])
def test_a_detector_that_was_fine_tuned_is_a_donor(name, images, tmp_path):
    """Newer releases of Ultralytics leave its class branches as wide as COCO's classes had them."""
    wide = YOLO(checkpoint(name, tmp_path)).model
    tuned = type(wide)(copy.deepcopy(wide.yaml), nc=2, verbose=False)
    tuned.load(wide, verbose=False)
    tuned.names = {0: "cat", 1: "dog"}
    torch.save({"model": tuned.eval(), "train_args": {}}, tmp_path / "best.pt")
    backbone = f"{name[:6]}-efflite0"
    options = {**QUICK, "number": 4, "match": 2, "activation": "relu6"}
    for more in ({}, options):
        grafted = yolo_effnet.graft(tmp_path / "best.pt", backbone, images, **{**QUICK, "number": 2, **more}).model
        ours, theirs = grafted.model[-1].cv3.state_dict(), tuned.model[-1].cv3.state_dict()
        assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}
        if not more:
            torch.testing.assert_close(ours, theirs)
        assert more == {} or not any(isinstance(m, torch.nn.SiLU) for m in grafted.modules())
        again = type(grafted)(copy.deepcopy(grafted.yaml), verbose=False)
        again.names = grafted.names
        again.load(grafted, verbose=False)
        x = torch.rand(1, 3, 64, 64)
        torch.testing.assert_close(output(again, x), output(grafted, x))


@pytest.mark.parametrize("scale", "nsmlx")
def test_a_donor_of_every_size(scale, images, tmp_path):
    """Its neck and head are kept but for what takes the backbone's maps; the YAML builds the result without it."""
    donor = checkpoint(f"yolov8{scale}", tmp_path)
    yolo_effnet.graft(donor, "yolov8-effb0", images, tmp_path / "grafted.pt", **{**QUICK, "number": 2})
    (tmp_path / f"yolov8{scale}.pt").unlink()
    grafted = YOLO(tmp_path / "grafted.pt").model
    assert isinstance(grafted, DetectionModel)
    x = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(output(rebuilt(grafted), x), output(grafted, x))
    assert grafted.names[0] == "kind 0"
    assert set(grafted.yaml["graft"]) == {"donor", "backbone", "pictures", "imgsz", "seed", "confidence", "fit"}


@pytest.mark.parametrize(
    ("donor", "backbone", "cost"),
    [
        ("yolov8m", "yolov8m-efflite2", "yolov8m 25.9M, 79.3 GFLOPs -> 19.0M, 50.2 GFLOPs (0.74, 0.63)"),
        ("yolov8n-seg", "yolov8n-efflite1", "The graft has more parameters and GFLOPs than yolov8n-seg; "),
        ("yolov8n-efflite2-p6", "yolov8n-efflite0", "8.9M, 15.7 GFLOPs -> 7.4M, 12.5 GFLOPs (0.83, 0.79)"),
    ],
)
def test_the_donors_letter_may_be_said_and_the_cost_is_told_first(donor, backbone, cost, images, tmp_path, caplog):
    giver = checkpoint(donor, tmp_path)
    grafted = yolo_effnet.graft(giver, backbone, images, **{**QUICK, "number": 2}).model.state_dict()
    messages = [record.getMessage() for record in caplog.records]
    (told,) = [i for i, message in enumerate(messages) if cost in message]
    assert told < next(i for i, message in enumerate(messages) if message.startswith("Backbone of"))
    assert ("The graft has more" in caplog.text) == ("more" in cost)
    plain = yolo_effnet.graft(
        giver, backbone.replace("yolov8n", "yolov8").replace("yolov8m", "yolov8"), images, **{**QUICK, "number": 2}
    )
    assert all(torch.equal(t, grafted[key]) for key, t in plain.model.state_dict().items())


@pytest.mark.parametrize(
    ("donor", "backbone"),
    [
        ("yolov8n-seg", "yolov8-effb0"),
        ("yolov8n-pose", "yolov8-effb1"),
        ("yolov8n-obb", "yolov8-effv2b0"),
        ("yolov8n-p2", "yolov8-efflite0"),
        ("yolov8n-p6", "yolov8-effb0"),
        ("yolo26n", "yolo26-effb0"),
        ("yolo11n", "yolov8-effb0"),
        ("yolov8n", "yolov8-mobilenetv2_100"),
        ("yolov8-effb0", "yolov8-effb3"),
    ],
)
def test_every_task_pyramid_and_series(donor, backbone, images, tmp_path):
    giver = checkpoint(donor, tmp_path)
    grafted = yolo_effnet.graft(giver, backbone, images, **{**QUICK, "number": 2})
    assert torch.isfinite(output(grafted.model, torch.rand(1, 3, 64, 64))).all()
    model = YOLO(giver).model
    found = output(model, next(Pictures(find(images, 2), 64).batches()))
    head = model.model[-1]
    scores = found[:, :, 4] if getattr(head, "end2end", False) else found[:, 4 : 4 + head.nc].amax(1)
    assert grafted.model.yaml["graft"]["confidence"] == pytest.approx(float(scores.amax(1).mean()), abs=1e-3)
    assert type(grafted.model.model[-1]) is type(YOLO(giver).model.model[-1])
    grafted.model.fuse(verbose=False)
    assert not any(isinstance(m, Conv) and hasattr(m, "bn") for m in grafted.model.modules())


@pytest.fixture
def weights(tmp_path):
    """A file of random weights of B0, as timm writes it."""
    reference("tf_efficientnet_b0.ns_jft_in1k", tmp_path / "weights.safetensors")
    return str(tmp_path / "weights.safetensors")


TRAINING = {"imgsz": 64, "batch": 4, "workers": 0, "plots": False, "verbose": False, "device": "cpu"}


def test_an_argument_grafts_as_training_starts(images, weights, tmp_path, caplog):
    """Classes that the donor knows by name keep their rows; a resumed training is not grafted again."""
    donor = checkpoint("yolov8n", tmp_path, {5: "reddish"})
    seen = {}

    model = YOLO("yolov8-effb0.yaml")
    model.add_callback("on_train_start", lambda t: seen.update(copy.deepcopy(t.model.state_dict())))
    arguments = {**TRAINING, "data": images, "project": tmp_path, "backbone_weights": weights}
    interrupt(model, "on_train_epoch_end", graft=donor, epochs=3, **arguments)
    giver, taken = YOLO(donor).model.state_dict(), YOLO(model.trainer.save_dir / "grafted.pt").model
    assert torch.equal(seen["model.0.conv.weight"], load_file(weights)["conv_stem.weight"])
    for k in ("model.8.cv1.conv.weight", "model.14.m.0.cv1.conv.weight"):
        torch.testing.assert_close(seen[k], taken.state_dict()[k])
    torch.testing.assert_close(seen["model.21.cv2.0.2.weight"], giver["model.22.cv2.0.2.weight"])
    if hasattr(taken, "_remap_cls_by_names"):  # in newer releases of Ultralytics
        torch.testing.assert_close(seen["model.21.cv3.0.2.weight"][1], giver["model.22.cv3.0.2.weight"][5])
    assert model.trainer.args.nbs == 16
    (tmp_path / "yolov8n.pt").unlink()
    (model.trainer.save_dir / "grafted.pt").unlink()
    caplog.clear()
    YOLO(model.trainer.last).train(resume=True)
    assert not any(word in caplog.text for word in ("R2", "ImageNet", "Neck and head"))


OWN = {"optimizer": "AdamW", "lr0": 0.01}


@pytest.mark.parametrize(
    ("score", "asked", "expected"),
    [(9, {}, 0.25), (-9, {}, 1), (9, {"lr_ratio": 0.5}, 0.5), (9, {"epochs": 2000}, 1), (9, OWN, 1)],
)
def test_a_small_training_keeps_what_the_donor_knows(score, asked, expected, images, weights, tmp_path, caplog):
    """The score is that of class 3 anywhere, before the sigmoid."""
    donor = checkpoint("yolov8n", tmp_path)
    giver = torch.load(donor, weights_only=False)
    for branch in giver["model"].model[-1].cv3:
        branch[-1].weight.data.zero_()
        branch[-1].bias.data[:] = -20
        branch[-1].bias.data[3] = score
    torch.save(giver, donor)
    seen = []

    def note(trainer):
        ultralytics = asked.get("lr0", round(0.002 * 5 / (4 + trainer.data["nc"]), 6))
        seen.extend((group["initial_lr"], ultralytics) for group in trainer.optimizer.param_groups)
        raise KeyboardInterrupt

    model = YOLO("yolov8-effb0.yaml")
    model.add_callback("on_train_start", note)
    arguments = {**TRAINING, "nbs": 4, "backbone_weights": weights, "epochs": 1, **asked}
    with pytest.raises(KeyboardInterrupt):
        model.train(graft=donor, data=images, project=tmp_path, **arguments)
    assert all(rate == expected * ultralytics for rate, ultralytics in seen)
    assert model.trainer.args.lr_ratio == expected
    written = YOLO(model.trainer.save_dir / "grafted.pt").model.yaml
    record = written["graft"]
    assert record["confidence"] == pytest.approx(1 / (1 + np.exp(-score)), abs=1e-3)
    assert any(name == "Index" for _, _, name, _ in written["backbone"]) == (record["confidence"] >= 0.3)  # wide maps
    kept = f"donor's confidence in these pictures was {record['confidence']}"
    assert ((kept in caplog.text), f"learning rate 0.25 x {seen[0][1]:g}" in caplog.text) == (expected == 0.25,) * 2


def test_ranks_start_equal_from_a_graft(images, weights, tmp_path):
    model = YOLO("yolov8-effb0.yaml")
    model.add_callback("on_train_start", gloo.record("start", tmp_path))
    arguments = {**TRAINING, "data": images, "project": tmp_path, "backbone_weights": weights}
    model.train(trainer=gloo.GlooTrainer, graft=checkpoint("yolov8n", tmp_path), epochs=1, **arguments)
    ranks = [torch.load(tmp_path / f"start{rank}.pt") for rank in range(gloo.RANKS)]
    for k, weight in ranks[0]["model"].items():
        assert torch.equal(ranks[1]["model"][k], weight), k
    assert torch.equal(ranks[1]["model"]["model.0.conv.weight"], load_file(weights)["conv_stem.weight"])


def test_an_argument_that_cannot_be_is_one_error(images, weights, tmp_path, caplog):
    donor = checkpoint("yolov8n", tmp_path)
    arguments = {**TRAINING, "data": images, "project": tmp_path, "epochs": 1, "backbone_weights": weights}
    for wrong, message in (
        ({"graft": 7}, "graft must be the name or the path of a trained .pt file, got 7$"),
        ({"graft": YOLO(donor)}, "of a trained .pt file, got a YOLO object: save it, and give its path$"),
        ({"graft": YOLO(donor).model}, "got a DetectionModel object: save it, and give its path$"),
        ({"graft": donor, "pretrained": False}, "pretrained=False contradicts graft="),
        ({"graft": checkpoint("yolov8n-seg", tmp_path)}, "is a model to segment, not to detect"),
    ):
        with pytest.raises(ValueError, match=message):
            YOLO("yolov8-effb0.yaml").train(**arguments, **wrong)
    assert "Neck and head" not in caplog.text  # nothing was loaded or computed for any of them
    with pytest.raises(ValueError, match=r"'yolov8n\.yaml' has no backbone of yolo_effnet"):
        YOLO("yolov8n.yaml").train(**{**arguments, "backbone_weights": None}, graft=donor)


@pytest.mark.parametrize("donor", ["yolov8n", "yolo26n-seg"])
def test_another_activation_of_neck_and_head(donor, images, tmp_path):
    """The head learns what it gave before, too."""
    giver = teacher(donor, tmp_path)
    options = {**QUICK, "number": 4, "match": 8, "activation": "relu6"}
    grafted = yolo_effnet.graft(giver, f"{donor[:6]}-efflite0", images, tmp_path / "relu6.pt", **options)
    facts = grafted.model.yaml["graft"]
    first, last = facts["followed"]["error"]
    assert last < first
    plain = yolo_effnet.graft(giver, f"{donor[:6]}-efflite0", images, **{**QUICK, "number": 4})
    assert facts["fit"] == plain.model.yaml["graft"]["fit"]  # solved with the donor's activation
    assert not any(isinstance(m, torch.nn.SiLU) for m in grafted.model.modules())
    assert "backbone_activation" not in grafted.model.yaml
    again = YOLO(tmp_path / "relu6.pt").model.model[-1]
    assert isinstance(again.cv2[0][0].act, torch.nn.ReLU6)


def test_matching_leaves_nothing_behind(images, tmp_path, monkeypatch, capfd):
    """No folder of a run, no log of its training, other random numbers for nobody; the same seed gives the same."""
    monkeypatch.chdir(tmp_path)
    giver = teacher("yolov8n", tmp_path)
    giver = shutil.move(giver, tmp_path / "graft.pt")
    ends, drawn, level = [], [], LOGGER.level
    for number in range(3):
        torch.manual_seed(7)
        random.seed(7)
        if number:
            model = yolo_effnet.graft(giver, "yolov8-efflite0", images, match=3, **{**QUICK, "number": 8})
            ends.append(model.model.state_dict())
        drawn.append((torch.rand(1).item(), random.random()))
    assert drawn[0] == drawn[1] == drawn[2]
    for a, b in zip(ends[0].values(), ends[1].values(), strict=True):
        assert torch.equal(a, b)
    assert model.model.yaml["graft"]["followed"]["teacher"] == "graft.pt"
    assert {file.name for file in tmp_path.iterdir()} == {"graft.pt"}
    assert "Starting training" not in "".join(capfd.readouterr())
    assert LOGGER.level == level


def test_a_detector_detects_before_training_and_matching_helps(learned, tmp_path):
    """Pictures of one data set, no label; the backbone is another that has learnt them, of Lite0."""
    best, data = learned
    other = YOLO("yolov8-efflite0.yaml")
    other.train(data=data, project=tmp_path, **pictures.LEARNING)
    options = {"number": 64, "imgsz": 64}
    validate = {"data": data, "imgsz": 64, "workers": 0, "plots": False, "verbose": False, "device": "cpu"}
    solved = yolo_effnet.graft(best, other.trainer.best, data, **options)
    state = copy.deepcopy(solved.model.state_dict())  # older releases fuse a model that they validate
    assert solved.val(**validate).box.map50 > 0.3
    again = yolo_effnet.graft(best, other.trainer.best, data, **options)
    for a, b in zip(state.values(), again.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    matched = yolo_effnet.graft(best, other.trainer.best, data, tmp_path / "matched.pt", match=40, **options)
    facts = matched.model.yaml["graft"]["followed"]
    first, last = facts["error"]
    assert last < first
    assert facts["steps"] == 40
    assert min(facts["agreement"], facts["before"]) > 0.3  # of 6 pictures, which tell no more
    stem = matched.model.model[0].conv
    start, seen = stem.weight.detach().clone(), []

    def note(trainer):
        model = getattr(trainer.model, "student_model", trainer.model)
        seen.append(model.model[0].conv.weight.detach().clone())

    matched.add_callback("on_train_start", note)
    distilled = {"distill_model": str(best)} if hasattr(DEFAULT_CFG, "distill_model") else {}
    matched.train(data=data, project=tmp_path, **{**pictures.LEARNING, "epochs": 1, "pretrained": True}, **distilled)
    torch.testing.assert_close(seen[0].float(), start.float())  # ImageNet weights are not loaded over it


@pytest.mark.parametrize(
    ("donor", "backbone", "message"),
    [
        ("yolov8n", "yolov8-effb0-dw", "its light neck is its own; take yolov8-effb0"),
        ("yolov8n", "yolov8-effb0-cls", "its head is its own; take yolov8-effb0"),
        ("yolov8n", "yolov8-effb0-seg", "is not what donor 'yolov8n.pt' is; take yolov8-effb0"),
        ("yolov8n", "yolo26-effb0", "has another neck than donor 'yolov8n.pt'; take yolov8-effb0"),
        ("yolov8n", "yolov8s-effb0", "'yolov8s-effb0' has another neck than donor 'yolov8n.pt'; take yolov8-effb0"),
        ("yolov8m-effb0-p2", "yolov8n-effb1", "another neck than donor 'yolov8m-effb0-p2.pt'; take yolov8-effb1-p2"),
        ("yolov8n", "yolov8-effb9", "'yolov8-effb9' is neither a file nor a model of yolo_effnet"),
        ("yolov8n-cls", "yolov8-effb0", "donor 'yolov8n-cls.pt' has a head Classify"),
        ("yolov8-effb0-dw", "yolov8-effb0", "has a light neck"),
    ],
)
def test_what_cannot_be_is_one_clear_error(donor, backbone, message, images, tmp_path):
    with pytest.raises(ValueError, match=message):
        yolo_effnet.graft(checkpoint(donor, tmp_path), backbone, images, **QUICK)


def test_wrong_files_numbers_and_pictures(images, tmp_path, caplog):
    donor = checkpoint("yolov8n", tmp_path)
    for wrong, message in {
        "yolov8n.yaml": "is a model YAML, whose weights are random; give a trained .pt",
        "yolov8n.onnx": "is no checkpoint; give a trained .pt",
    }.items():
        with pytest.raises(ValueError, match=message):
            yolo_effnet.graft(wrong, "yolov8-effb0", images, **QUICK)
    for options, message in (
        ({"imgsz": 0}, "imgsz must be a number of pixels >= 1, got 0"),
        ({"device": "99"}, "device '99' cannot be used"),
        ({"device": "gpu"}, "device 'gpu' cannot be used"),
        ({"match": -1}, "match must be a number of steps >= 0, got -1"),
        ({"number": 0}, "number of pictures must be an integer >= 1, got 0"),
        ({"activation": "gelu", "match": 9}, "activation must be one of relu6, relu, got 'gelu'"),
        ({"activation": "relu6"}, "activation=relu6 changes what neck and head compute, and needs match"),
    ):
        with pytest.raises(ValueError, match=message):
            yolo_effnet.graft(donor, "yolov8-effb0", images, **{**QUICK, **options})
    (tmp_path / "broken.pt").write_text("no checkpoint")
    for wrong in ("nowhere.pt", "broken.pt"):
        with pytest.raises(ValueError, match=f"{wrong}' is no checkpoint that Ultralytics can load"):
            yolo_effnet.graft(tmp_path / wrong, "yolov8-effb0", images, **QUICK)
    (tmp_path / "no.yaml").write_text("train: images")
    for wrong, message in (
        (str(tmp_path / "nowhere" / "*.jpg"), r"no pictures in .*nowhere.\*\.jpg; give"),
        ([str(tmp_path / "a")] * 99, "no pictures in .*a and 98 more; give"),
        ([np.zeros((64, 64, 3))], "given as files, folders, globs or data YAMLs, not ndarray$"),
        (None, "given as files, folders, globs or data YAMLs, not NoneType$"),
        (tmp_path / "no.yaml", r"no\.yaml' is no data set that Ultralytics can load \(.*'val:' key missing"),
    ):
        with pytest.raises(ValueError, match=message):
            yolo_effnet.graft(donor, "yolov8-effb0", wrong, **QUICK)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="none of 1 pictures can be read"):
        yolo_effnet.graft(donor, "yolov8-effb0", tmp_path / "broken.png", **QUICK)
    yolo_effnet.graft(donor, "yolov8-effb0", images, **{**QUICK, "number": 2})
    assert "2 pictures are few" in caplog.text
    assert "AGPL-3.0" in caplog.text


def test_what_is_written_is_checked_before_anything_is_computed(images, tmp_path):
    donor = checkpoint("yolov8n", tmp_path)
    kept = (tmp_path / "yolov8n.pt").read_bytes()
    for name, message in (
        ("b0.onnx", r"must be called \.pt, got '.*b0\.onnx'"),
        ("yolov8n.pt", r"yolov8n\.pt', is what it is made of; give it another name"),
    ):
        with pytest.raises(ValueError, match=message):
            yolo_effnet.graft(donor, "yolov8-effb0", images, tmp_path / name, **QUICK)
    assert (tmp_path / "yolov8n.pt").read_bytes() == kept
    yolo_effnet.graft(donor, "yolov8-effb0", images, tmp_path / "new" / "b0.pt", **{**QUICK, "number": 2})
    assert (tmp_path / "new" / "b0.pt").is_file()


def test_without_weights_it_goes_on_only_when_told_to(images, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(RuntimeError, match="HF_HUB_OFFLINE is set"):
        yolo_effnet.graft(checkpoint("yolov8n", tmp_path), "yolov8-effb0", images, number=2, imgsz=64)


@pytest.mark.filterwarnings("ignore")  # torch's exporter warns of its own age
def test_a_graft_in_memory_is_a_model_like_any_other(images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grafted = yolo_effnet.graft(checkpoint("yolov8n", tmp_path), "yolov8-efflite0", images, **{**QUICK, "number": 2})
    assert grafted.export(format="torchscript", imgsz=64) == "yolov8-efflite0-grafted.torchscript"
    assert (tmp_path / "yolov8-efflite0-grafted.torchscript").is_file()
    grafted.save("saved.pt")
    assert "save it first" in grafted.overrides["model"]
    with pytest.raises(OSError):  # noqa: PT011 (of many kinds)
        YOLO(grafted.overrides["model"])  # as another process does
    before = grafted.model.model[0].conv.weight.detach().clone()
    torch.testing.assert_close(YOLO("saved.pt").model.model[0].conv.weight, before, atol=1e-3, rtol=1e-3)
    grafted.train(data=images, epochs=1, project=tmp_path, **{**TRAINING, "lr0": 0, "optimizer": "SGD"})
    torch.testing.assert_close(grafted.model.model[0].conv.weight.float(), before, atol=1e-2, rtol=1e-2)
    assert grafted.val(data=images, imgsz=64, plots=False, workers=0, device="cpu", project=tmp_path).box.map50 >= 0
    assert len(grafted.predict(images.parent / "images" / "val", imgsz=64, project=tmp_path, verbose=False)) == 2


def test_the_command(images, tmp_path, capsys):
    donor = checkpoint("yolov8n", tmp_path)
    line = ["graft", donor, "yolov8-effb0", "--images", str(images), "-o", str(tmp_path / "b0.pt"), "--allow-random"]
    assert cli.main([*line, "--number", "2", "--imgsz", "64"]) == 0
    assert f"trains with model={tmp_path / 'b0.pt'}" in capsys.readouterr().out
    code = "import sys; from ultralytics import YOLO; print(YOLO(sys.argv[1]).model.yaml['graft']['donor'])"
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "b0.pt"], cwd=tmp_path, text=True, capture_output=True, check=True
    )
    assert done.stdout.strip() == "yolov8n.pt"
