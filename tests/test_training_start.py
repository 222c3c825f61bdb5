"""ImageNet weights as training starts: automatic, on every rank, through an interruption, and without a network."""

import copy
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import gloo
import pytest
import torch
import torchvision
import yaml
from backbones import assert_equal, expected, features, reference
from torch import nn
from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils import DEFAULT_CFG
from ultralytics.utils.callbacks import get_default_callbacks

import yolo_effnet
from yolo_effnet import cli
from yolo_effnet.nn.origin import TRAINED, note, origin

TAG = "tf_efficientnet_b0.ns_jft_in1k"
QUICK = {"imgsz": 64, "batch": 4, "workers": 0, "plots": False, "verbose": False, "device": "cpu"}
CLOSED = "http://127.0.0.1:9"


def write_model(folder: Path, tag: str = TAG, half: bool = False) -> tuple[Path, nn.Module]:
    """Write random weights of timm and a YAML of B0 that names them; return the YAML's path and timm's model."""
    classifier = reference(tag, folder / f"{tag}.safetensors", half=half)
    text = (Path(__file__).parent.parent / "models" / "yolov8-effb0.yaml").read_text(encoding="utf-8")
    text = text.replace(f"backbone_weights: {TAG}", f"backbone_weights: {tag}.safetensors")
    (folder / "mine.yaml").write_text(text)
    return folder / "mine.yaml", classifier


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """A YAML of B0 that names random weights of timm beside it, and those weights."""
    file, classifier = write_model(tmp_path_factory.mktemp("imagenet"))
    return file, classifier.state_dict()


def first_weights(model: YOLO, **arguments) -> tuple:
    """Train one epoch and return stem weights of model and EMA just before it."""
    seen = []
    model.add_callback(
        "on_train_start",
        lambda t: seen.extend(copy.deepcopy(m.model[0].conv.weight.detach()) for m in (t.model, t.ema.ema)),
    )
    model.train(epochs=1, **QUICK, **arguments)
    return tuple(seen)


def test_training_starts_from_them(imagenet, tiny_data, tmp_path):
    file, state_dict = imagenet
    for weight in first_weights(YOLO(file), data=tiny_data, project=tmp_path):
        torch.testing.assert_close(weight, state_dict["conv_stem.weight"])


def test_training_of_a_timm_backbone_starts_from_them(tiny_data, tmp_path):
    tag = "mobilenetv2_100.ra_in1k"
    state_dict = reference(tag, tmp_path / "weights.safetensors").state_dict()
    config = {**yolo_effnet.model_config("yolov8-mobilenetv2_100"), "backbone_weights": "weights.safetensors"}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    seen = []
    model = YOLO(tmp_path / "mine.yaml")
    model.add_callback("on_train_start", lambda t: seen.extend([copy.deepcopy(t.model), copy.deepcopy(t.ema.ema)]))
    model.train(data=tiny_data, epochs=1, project=tmp_path, **QUICK)
    for started in seen:
        body = started.model[0].body.blocks[3][0]
        torch.testing.assert_close(body.conv_dw.conv.weight, state_dict["blocks.3.0.conv_dw.weight"])
        torch.testing.assert_close(body.conv_dw.bn.running_var, state_dict["blocks.3.0.bn2.running_var"])
    best = YOLO(model.trainer.best)  # timm's module inside a checkpoint
    assert best.val(data=tiny_data, **QUICK).box.map >= 0


def test_every_rank_of_several_starts_from_them(imagenet, tiny_data, tmp_path):
    """Started by Ultralytics' own launcher, whose workers parse the YAML anew, each with a seed of its own."""
    file, state_dict = imagenet
    model = YOLO(file)
    model.add_callback("on_train_start", gloo.record("start", tmp_path))
    model.add_callback("on_fit_epoch_end", gloo.record("end", tmp_path))
    model.train(trainer=gloo.GlooTrainer, data=tiny_data, epochs=1, project=tmp_path, **QUICK)
    for moment in ("start", "end"):
        ranks = [torch.load(tmp_path / f"{moment}{rank}.pt") for rank in range(gloo.RANKS)]
        for k, weight in ranks[0]["model"].items():
            if "running_" not in k and "num_batches" not in k:
                torch.testing.assert_close(ranks[1]["model"][k], weight, rtol=0, atol=0)
        if moment == "start":
            for saved in (r[k] for r in ranks for k in ("model", "ema")):
                torch.testing.assert_close(saved["model.0.conv.weight"], state_dict["conv_stem.weight"])
                torch.testing.assert_close(
                    saved["model.7.0.project.bn.running_var"], state_dict["blocks.6.0.bn3.running_var"]
                )


def test_pretrained_false_and_checkpoints_are_left_alone(imagenet, tiny_data, tmp_path):
    file, state_dict = imagenet
    other = YOLO("yolov8-effb0.yaml")
    note(other.model, TRAINED, TRAINED)
    other.save(tmp_path / "other.pt")
    own = other.model.model[0].conv.weight.detach()
    for weight in first_weights(YOLO(file), data=tiny_data, project=tmp_path, pretrained=False):
        assert not torch.allclose(weight, state_dict["conv_stem.weight"])
    path = str(tmp_path / "other.pt")
    for model, arguments in ((YOLO(file), {"pretrained": path}), (YOLO(path), {}), (YOLO(file).load(path), {})):
        for weight in first_weights(model, data=tiny_data, project=tmp_path, **arguments):
            torch.testing.assert_close(weight, own, atol=1e-3, rtol=1e-3)


def foreign(folder: Path) -> Path:
    """Write a checkpoint of yolov8n, of which next to nothing fits a backbone of ours."""
    YOLO("yolov8n.yaml").save(folder / "n.pt")
    return folder / "n.pt"


class OwnTrainer(DetectionTrainer):
    """A trainer as users write them: steps of its own, and callbacks that are not Ultralytics' default ones."""

    def __init__(self, cfg=DEFAULT_CFG, overrides=None, _callbacks=None):
        super().__init__(cfg, overrides, _callbacks={k: [] for k in get_default_callbacks()})

    def set_model_attributes(self):
        """Do what Ultralytics' own trainer does, without calling it."""
        self.model.names, self.model.nc, self.model.args = self.data["names"], self.data["nc"], self.args

    def _do_train(self):
        self.add_callback("on_train_start", lambda t: seen.append(t.model.model[0].conv.weight.detach().clone()))
        super()._do_train()


seen = []


@pytest.mark.parametrize("how", ["callbacks reset", "own trainer", "load", "pretrained"])
def test_loading_hangs_on_nothing_that_a_user_changes(how, imagenet, tiny_data, tmp_path):
    file, state_dict = imagenet
    model, arguments = YOLO(file), {"data": tiny_data, "project": tmp_path}
    if how == "callbacks reset":
        model.reset_callbacks()
    elif how == "own trainer":
        seen.clear()
        model.train(trainer=OwnTrainer, epochs=1, **QUICK, **arguments)
        torch.testing.assert_close(seen[0], state_dict["conv_stem.weight"])
        return
    elif how == "load":
        model.load(foreign(tmp_path))
    else:
        arguments["pretrained"] = str(foreign(tmp_path))
    for weight in first_weights(model, **arguments):
        torch.testing.assert_close(weight, state_dict["conv_stem.weight"])
    trained = YOLO(model.trainer.last)
    wanted = trained.model.model[0].conv.weight.detach().float()
    for weight in first_weights(trained, data=tiny_data, project=tmp_path):  # whose backbone has learnt since
        torch.testing.assert_close(weight, wanted)


@pytest.mark.skipif(not hasattr(torch.compiler, "set_stance"), reason="torch before 2.6 always compiles")
def test_a_compiled_model_trains_and_is_noted_as_trained(tiny_data, tmp_path):
    yolo = YOLO("yolov8-effb0.yaml")
    with torch.compiler.set_stance("force_eager"):  # to compile takes minutes
        yolo.train(data=tiny_data, epochs=1, pretrained=False, compile=True, project=tmp_path, **QUICK)
    found = origin(YOLO(yolo.trainer.best).model)
    assert (found.backbone, found.rest) == (TRAINED, TRAINED)


def test_a_detector_with_another_backbone_is_told_to_be_grafted(tmp_path, caplog):
    """Once, and not for one that has a backbone of ours, or is none."""
    detector = YOLO(foreign(tmp_path))
    YOLO("yolov8-effb0.yaml").load(detector.model)
    YOLO("yolov8-effb0.yaml").load(YOLO("yolov8-effb0.yaml").model)
    YOLO("yolov8n.yaml").load(detector.model)
    YOLO("yolov8-effb0-cls.yaml").load(YOLO("yolov8n-cls.yaml").model)
    lines = [record.getMessage() for record in caplog.records if "graft=" in record.getMessage()]
    assert len(lines) == 1
    assert lines[0].endswith("n.pt has another backbone and other widths; graft=n.pt keeps its neck and head")


def test_what_is_left_random_is_said_with_numbers(tiny_data, tmp_path, caplog):
    config = {**yolo_effnet.model_config("yolov8-effb0"), "backbone_weights": None}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    YOLO(tmp_path / "mine.yaml").load(foreign(tmp_path)).train(data=tiny_data, epochs=1, project=tmp_path, **QUICK)
    (line,) = [record.getMessage() for record in caplog.records if "random values" in record.getMessage()]
    left, total = map(int, re.findall(r"\d+", line))
    assert left == total == 303  # all but the convolution of the image


def test_an_argument_names_a_tag_or_a_file(imagenet, tiny_data, tmp_path, monkeypatch):
    """In place of what the YAML names; with a file's padding, which the checkpoint's YAML keeps."""
    arguments = {"data": tiny_data, "project": tmp_path}
    monkeypatch.setenv("HOME", str(tmp_path))
    classifier = torchvision.models.efficientnet_b0()
    torch.save(classifier.state_dict(), tmp_path / "tv.pth")
    model = YOLO(imagenet[0])
    for weight in first_weights(model, backbone_weights="~/tv.pth", **arguments):
        torch.testing.assert_close(weight, classifier.features[0][0].weight.detach())
    best = YOLO(model.trainer.last)
    assert (best.model.yaml["padding"], best.model.model[0].padding) == ("symmetric", "symmetric")
    assert "backbone_weights: ~/tv.pth" in (model.trainer.save_dir / "args.yaml").read_text()
    for wrong, message in {
        "tf_efficientnet_b1.ns_jft_in1k": "is not of this backbone",
        "efficientnet_b0": "is not a full timm tag",
        "nowhere.pth": "'nowhere.pth' does not exist",
        7: "must be a timm tag or a file, got 7",
    }.items():
        with pytest.raises(ValueError, match=message):
            first_weights(YOLO("yolov8-effb0.yaml"), backbone_weights=wrong, **arguments)
    with pytest.raises(ValueError, match=r"backbone_weights=x\.pth: DetectionModel has no backbone of yolo_effnet"):
        YOLO("yolov8n.yaml").train(backbone_weights="x.pth", epochs=1, **QUICK, **arguments)
    with pytest.raises(ValueError, match=r"pretrained=False contradicts backbone_weights=x\.pth"):
        first_weights(YOLO(imagenet[0]), backbone_weights="x.pth", pretrained=False, **arguments)


def test_the_command_line_takes_the_argument(imagenet, tiny_data, tmp_path):
    """And only where it is given, so that other runs save what they save without this package."""
    weights = imagenet[0].parent / f"{TAG}.safetensors"
    options = [f"data={tiny_data}", "epochs=1", "imgsz=64", "batch=4", "workers=0", "plots=False", "device=cpu"]
    yolo = ["-c", "from ultralytics.cfg import entrypoint; entrypoint()"]
    done = run(
        *yolo, "train", "model=yolov8-effb0.yaml", *options, f"backbone_weights={weights}", f"project={tmp_path}"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"from weights file '{weights}': 304/304 backbone tensors" in done.stdout
    assert f"backbone_weights: {weights}" in (tmp_path / "train" / "args.yaml").read_text()
    done = run(*yolo, "train", "model=yolov8n.yaml", *options, f"project={tmp_path / 'stock'}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "backbone_weights" not in (tmp_path / "stock" / "train" / "args.yaml").read_text()
    for argument, message in {
        "backbone_weight=x": "'backbone_weight' is not a valid YOLO argument. Similar arguments .* \\['backbone_w",
        "backbone_weights": "'backbone_weights' is a valid argument but is missing its value",
    }.items():
        done = run(*yolo, "train", "model=yolov8-effb0.yaml", *options, argument)
        assert done.returncode != 0
        assert re.search(message, done.stdout + done.stderr)


def test_wrong_file_stops_before_training(imagenet, tiny_data, tmp_path):
    text = imagenet[0].read_text(encoding="utf-8")
    (tmp_path / "wrong.yaml").write_text(text.replace(f"{TAG}.safetensors", "nowhere.pth"))
    with pytest.raises(ValueError, match=r"nowhere\.pth' does not exist"):
        YOLO(tmp_path / "wrong.yaml").train(data=tiny_data, epochs=1, project=tmp_path, **QUICK)


def run(*command, **env) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *map(str, command)],
        env={**os.environ, **env},
        text=True,
        capture_output=True,
        check=False,
    )


TRAIN_AND_DIE = """
import os, signal, sys
from ultralytics import YOLO

def die(trainer):
    if trainer.epoch == 1:  # after the first of two batches
        os.kill(os.getpid(), signal.SIGKILL)

model = YOLO(sys.argv[1])
model.add_callback("on_train_batch_end", die)
options = dict(imgsz=64, batch=4, workers=0, plots=False, device="cpu")
model.train(data=sys.argv[2], project=sys.argv[3], epochs=3, freeze=8, **options)
"""
RESUME = """
import sys, torch
from ultralytics import YOLO

def record(trainer):
    state = {k: getattr(trainer, k).state_dict() for k in ("model", "optimizer")}
    torch.save({**state, "ema": trainer.ema.ema.state_dict(), "epoch": trainer.start_epoch}, sys.argv[2])

model = YOLO(sys.argv[1])
model.add_callback("on_train_start", record)
model.train(resume=True)
"""


def test_a_killed_training_resumes_from_the_same_numbers(tiny_data, tmp_path):
    """With a frozen backbone, and weights that the half precision of checkpoints holds, P3-P5 stay timm's."""
    tag = "tf_efficientnet_b0.ap_in1k"
    file, classifier = write_model(tmp_path, tag, half=True)
    offline = {"HF_HOME": str(tmp_path / "hub"), "HF_ENDPOINT": CLOSED}
    done = run("-c", TRAIN_AND_DIE, file, tiny_data, tmp_path, **offline)
    assert done.returncode == -9, done.stdout + done.stderr
    log = f"ImageNet weights {tag} (mean (0.5, 0.5, 0.5), std (0.5, 0.5, 0.5), BN eps 0.001, padding same) from "
    (line,) = [line for line in done.stdout.splitlines() if "ImageNet" in line]
    assert line.startswith(log)
    assert line.endswith(f"{tag}.safetensors': 304/304 backbone tensors")

    last = tmp_path / "train" / "weights" / "last.pt"
    results = tmp_path / "train" / "results.csv"
    before = torch.load(last, weights_only=False)
    first_epoch = results.read_text().splitlines()
    assert len(first_epoch) == 2
    done = run("-c", RESUME, last, tmp_path / "resumed.pt", **offline)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ImageNet" not in done.stdout + done.stderr
    resumed = torch.load(tmp_path / "resumed.pt")
    assert resumed["epoch"] == 1
    for k, v in before["ema"].float().state_dict().items():
        assert torch.equal(resumed["model"][k], v)
        assert torch.equal(resumed["ema"][k], v)
    for i, state in before["optimizer"]["state"].items():
        assert torch.equal(resumed["optimizer"]["state"][i]["exp_avg"], state["exp_avg"].float())
    rows = results.read_text().splitlines()
    assert rows[:2] == first_epoch
    assert [row.split(",")[0] for row in rows[1:]] == ["1", "2", "3"]
    image = torch.rand(1, 3, 64, 96)
    assert_equal(features(YOLO(last).model.eval(), image), expected(classifier, tag, image))


def test_without_network_training_goes_on_after_a_warning(tiny_data, tmp_path):
    """A fresh cache and a closed port for the hub, in a process of its own, which reads both at its start."""
    code = (
        "from ultralytics import YOLO\n"
        f"YOLO('yolov8-effb0.yaml').train(data=r'{tiny_data}', epochs=1, imgsz=64, batch=4, workers=0, plots=False, "
        f"device='cpu', project=r'{tmp_path}')\n"
    )
    done = run("-c", code, HF_HOME=str(tmp_path / "hub"), HF_ENDPOINT=CLOSED)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    warnings = [line for line in lines if "from random weights" in line]
    assert len(warnings) == 2
    for word in (TAG, CLOSED, "HF_ENDPOINT", "backbone_weights=FILE", "pretrained=False"):
        assert word in warnings[0]
    assert "starts" in warnings[0]
    assert "started" in warnings[1]
    assert warnings[1] == lines[-1]


class Answer(BaseHTTPRequestHandler):
    """One answer of a `Hub`."""

    def do_HEAD(self):
        """Tell of a file."""
        self.answer(b"")

    def do_GET(self):
        """Send a file, or an empty object of the API."""
        self.answer(self.server.content if "resolve" in self.path else b"{}")

    def answer(self, content: bytes):
        """Send headers and `content`."""
        failure = self.server.failure
        if failure == "stalls":
            self.server.over.wait()
        redirected = failure == "redirects to a closed port"
        self.send_response(503 if failure == "is busy" else 302 if redirected else 200)
        if redirected:
            self.send_header("Location", f"{CLOSED}/file")
        if failure != "is no hub":
            self.send_header("ETag", '"0123abcd"')
            self.send_header("X-Repo-Commit", "0123abcd" * 5)
        self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        """Print nothing."""


class Hub(ThreadingHTTPServer):
    """A hub on this machine that holds one file, or fails in the way of `failure`."""

    daemon_threads = True

    def __init__(self, content: bytes, failure: str | None):
        super().__init__(("127.0.0.1", 0), Answer)
        self.content, self.failure, self.over = content, failure, threading.Event()

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *args):
        self.over.set()
        self.shutdown()
        super().__exit__(*args)


WRITE_WEIGHTS = """
import sys
from yolo_effnet.cli import main
sys.exit(main(["weights", "yolov8-effb0", "-o", sys.argv[1]]))
"""


def test_weights_come_from_a_hub_once(imagenet, tmp_path):
    content = (imagenet[0].parent / f"{TAG}.safetensors").read_bytes()
    with Hub(content, None) as hub:
        endpoint = f"http://127.0.0.1:{hub.server_port}"
        for HF_ENDPOINT in (endpoint, CLOSED):
            done = run(
                "-c", WRITE_WEIGHTS, tmp_path / "start.pt", HF_HOME=str(tmp_path / "hub"), HF_ENDPOINT=HF_ENDPOINT
            )
            assert done.returncode == 0, done.stderr
            assert "304/304 backbone tensors" in done.stdout
    torch.testing.assert_close(
        YOLO(tmp_path / "start.pt").model.model[0].conv.weight.detach(), imagenet[1]["conv_stem.weight"]
    )


DOWNLOAD = """
import time
from yolo_effnet.weights import sources
source, start = sources.pretraining("tf_efficientnet_b0.ns_jft_in1k"), time.monotonic()
try:
    sources.download(source)
except sources.WeightsUnavailableError as error:
    print(f"{time.monotonic() - start} {error}")
"""


@pytest.mark.parametrize("failure", ["is busy", "stalls", "redirects to a closed port", "is no hub"])
def test_a_hub_that_fails_is_told_soon(failure, tmp_path):
    """Long before huggingface_hub has made its retries, which take 23 s and more."""
    with Hub(b"weights", failure) as hub:
        endpoint = f"http://127.0.0.1:{hub.server_port}"
        done = run("-c", DOWNLOAD, HF_HOME=str(tmp_path), HF_ENDPOINT=endpoint)
    seconds, _, message = done.stdout.strip().partition(" ")
    assert float(seconds) < 10
    assert f"'{TAG}' are not in the cache and could not be downloaded from {endpoint}" in message
    assert "\n" not in message


def test_a_filled_cache_needs_no_network(imagenet, tmp_path):
    snapshot = tmp_path / "hub/models--timm--tf_efficientnet_b0.ns_jft_in1k/snapshots/0123abcd"
    snapshot.mkdir(parents=True)
    refs = snapshot.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text("0123abcd")
    (snapshot / "model.safetensors").write_bytes((imagenet[0].parent / f"{TAG}.safetensors").read_bytes())
    out = tmp_path / "start.pt"
    done = run("-c", WRITE_WEIGHTS, out, HF_HUB_CACHE=str(tmp_path / "hub"), HF_ENDPOINT=CLOSED)
    assert done.returncode == 0, done.stderr
    assert "backbone tensors" in done.stdout
    torch.testing.assert_close(YOLO(out).model.model[0].conv.weight.detach(), imagenet[1]["conv_stem.weight"])


def test_cli_takes_a_file_and_names_errors(imagenet, tmp_path, capsys):
    weights = imagenet[0].parent / f"{TAG}.safetensors"
    out = tmp_path / "start.pt"
    assert cli.main(["weights", "yolov8-effb0.yaml", "-o", str(out), "--backbone-weights", str(weights)]) == 0
    assert str(weights) in capsys.readouterr().out
    assert out.is_file()
    assert cli.main(["weights", "yolov8-effb1", "-o", str(out), "--backbone-weights", str(weights)]) == 2
    assert "is not of this backbone" in capsys.readouterr().err
