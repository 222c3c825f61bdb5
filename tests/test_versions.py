"""Releases of Ultralytics: the printed table, a tiny training, its checkpoint in a new process, the supported range."""

import os
import re
import subprocess
import sys
from ast import literal_eval

import pictures
import pytest
import ultralytics
from installed import PREAMBLE, Environment, build
from packaging.requirements import Requirement

from yolo_effnet import patches, startup
from yolo_effnet.zoo.table import ARCHITECTURES

B0 = ARCHITECTURES["effb0"]
WARNING = "yolo_effnet is tested with"
FLOOR = patches.dotted(patches.SUPPORTED[0])
# What to install for a release besides the packages that the newest one needs; "installed" should be the newest.
RELEASES = {FLOOR: [f"ultralytics=={FLOOR}", "pandas"], "8.4.60": ["ultralytics==8.4.60"], "installed": []}

PREDICT = """
def predict(checkpoint, image):
    from ultralytics import YOLO
    model = YOLO(checkpoint)
    boxes = model.predict(image, imgsz=64, conf=1e-5, device="cpu", verbose=False)[0].boxes
    return type(model.model.model[1]).__module__, boxes.data[:9].tolist()
"""
TRAIN = f"""{PREAMBLE}{PREDICT}
import sys
from importlib.metadata import version
import ultralytics
data, image = sys.argv[1:]
model = ultralytics.YOLO("yolov8-effb0.yaml", verbose=True)
built = sum(p.numel() for p in model.model.parameters())
options = dict(data=data, imgsz=64, batch=2, workers=0, plots=False, device="cpu")
model.train(epochs=1, pretrained=False, project="runs", **options)
metrics = sorted(model.val(**options).results_dict)
best = str(model.trainer.best.resolve())
report([[ultralytics.__version__, version("ultralytics")], built, metrics, best, predict(best, image)])
"""
TASKS = f"""{PREAMBLE}
import sys
import numpy, onnxruntime, torch
import yolo_effnet
from ultralytics import YOLO

def stop(trainer):
    if trainer.epoch == 1:
        raise KeyboardInterrupt

model = YOLO("yolov8-effb0-seg.yaml")
model.add_callback("on_train_epoch_start", stop)
options = dict(imgsz=64, batch=4, workers=0, plots=False, device="cpu")
try:
    model.train(data=sys.argv[1], epochs=2, pretrained=False, project="runs", **options)
except KeyboardInterrupt:
    resumed = YOLO(model.trainer.last)
    resumed.train(resume=True)
best = resumed.trainer.best
x = torch.rand(1, 3, 64, 64)
with torch.no_grad():
    expected = YOLO(best).model.eval()(x)[0]
expected = expected[0] if isinstance(expected, (list, tuple)) else expected
session = onnxruntime.InferenceSession(YOLO(best).export(format="onnx", imgsz=64))
got = session.run(None, {{session.get_inputs()[0].name: x.numpy()}})[0]
error = float(numpy.abs(got - expected.numpy()).max() / expected.abs().max())
tasks = [YOLO(f"yolov8-effb0{{suffix}}.yaml").task for suffix in ("", "-seg", "-pose", "-obb", "-cls", "-p2", "-p6")]
try:
    newest = YOLO("yolo26-effb0.yaml").task
except ValueError as problem:
    newest = str(problem)
acts = [type(YOLO(f"{{name}}.yaml").model.model[0].act).__name__ for name in ("yolov8-efflite0", "yolov8n")]
left = {{}}
for name in ("yolov8-effv2b0-dw", "yolov8-ghostnet_100", "yolov8-mobilenetv3_large_100-seg-p2"):
    fused = YOLO(f"{{name}}.yaml").model.eval().fuse(verbose=False)
    left[name] = sum(isinstance(m, torch.nn.BatchNorm2d) for m in fused.modules())
    fused(x)
YOLO("yolo11n-seg.yaml").save("donor.pt")
grafted = yolo_effnet.graft("donor.pt", "yolov8-effb0", sys.argv[1], number=2, imgsz=64, allow_random=True)
grafted.train(data=sys.argv[1], epochs=1, project="runs", **options)
rows = [type(row).__name__ for row in YOLO(grafted.trainer.best).model.model]
report([resumed.trainer.start_epoch, resumed.trainer.epoch, error, tasks, newest, acts, left, rows])
"""
ROW = re.compile(r"\s*(\d+) +(\S.*?) +(\d+) +(\d+)  (\S+) +(\[.*\])\s*")


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fresh")
    return Environment.create(folder / "environment", build(folder))


@pytest.fixture(params=RELEASES)
def release(request, tmp_path):
    """Return the name of a release and the environment variables that put it first on the path."""
    variables = {"YOLO_CONFIG_DIR": str(tmp_path)}  # each release would rewrite the settings of another
    if packages := RELEASES[request.param]:
        folder = tmp_path / "release"
        pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-compile", "--only-binary=:all:"]
        done = subprocess.run([*pip, "--target", folder, *packages], capture_output=True, text=True)
        if done.returncode:
            stop = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
            stop(f"pip could not fetch {packages}: {done.stderr}")
        variables["PYTHONPATH"] = str(folder)
    return request.param, variables


def expected_rows() -> list[tuple]:
    """Return the stem's and the stages' rows of the table that Ultralytics prints: index, repeats, class, arguments."""
    rows = [(0, 1, "yolo_effnet.nn.stages.EfficientNetStem", [3, B0.stem_channels, 3, 2])]
    c1 = B0.stem_channels
    for i, stage in enumerate(B0.stages, start=1):
        arguments = [c1, stage.channels, stage.repeats, stage.kernel, stage.stride, stage.expand_ratio]
        rows.append((i, stage.repeats, "yolo_effnet.nn.stages.EfficientNetStage", arguments))
        c1 = stage.channels
    return rows


def test_release(fresh, release, tiny_data, tmp_path):
    name, variables = release
    image = next(tiny_data.parent.glob("images/val/*.png"))
    done = fresh.start("-c", TRAIN, tiny_data, image, cwd=tmp_path, **variables)
    (used, declared), built, metrics, best, predicted = fresh.result(done)
    assert used == declared
    assert name in (used, "installed")
    assert WARNING not in done.stdout + done.stderr
    assert built == B0.parameters
    cells = [match.groups() for match in map(ROW.fullmatch, done.stdout.splitlines()) if match]
    rows = [(int(i), int(n), int(count), kind, literal_eval(args)) for i, _, n, count, kind, args in cells]
    table = rows[:22]  # of 80 classes; what follows is that of the trainer, whose data set has two
    assert sum(count for _, _, count, _, _ in table) == B0.parameters
    assert [(i, n, kind, args) for i, n, _, kind, args in table[: len(B0.stages) + 1]] == expected_rows()
    assert metrics == ["fitness", *(f"metrics/{name}(B)" for name in ("mAP50", "mAP50-95", "precision", "recall"))]
    module, boxes = fresh.report(PREDICT + f"report(predict({best!r}, {str(image)!r}))", **variables)
    assert module == predicted[0] == "yolo_effnet.nn.stages"
    assert boxes
    assert boxes == [pytest.approx(box, rel=1e-3, abs=1e-3) for box in predicted[1]]


def test_tasks_resume_and_onnx_on_a_release(fresh, release, tmp_path):
    name, variables = release
    data = pictures.draw("segment", tmp_path / "data")
    done = fresh.start("-c", TASKS, data, cwd=tmp_path, **variables)
    start, end, error, tasks, newest, acts, left, rows = fresh.result(done)
    assert (start, end) == (1, 1)
    assert error < 1e-4
    assert acts == ["ReLU6", "SiLU"]
    assert set(left.values()) == {0}
    assert (rows[0], rows[-1], "C3k2" in rows) == ("EfficientNetStem", "Segment", True)
    assert tasks == ["detect", "segment", "pose", "obb", "classify", "detect", "detect"]
    if name == FLOOR:
        assert newest == (
            f"'yolo26-effb0.yaml' needs ultralytics>=8.4, which has YOLO26, not {FLOOR}; "
            "yolov8-effb0.yaml works with both"
        )
    else:
        assert newest == "detect"


def test_requirement_is_the_supported_range(fresh):
    requirements = map(
        Requirement, fresh.report("from importlib.metadata import requires\nreport(requires('yolo_effnet'))")
    )
    (requirement,) = (r for r in requirements if r.name == "ultralytics")
    assert requirement == Requirement(patches.supported())


@pytest.mark.parametrize(
    ("version", "warnings"),
    [("8.3", 1), ("8.3.69", 1), (FLOOR, 0), ("8.4.0", 0), ("8.10.0rc1", 0), ("8.999.0", 0), ("9.0.0", 1), ("10.1", 1)],
)
def test_supported_range(monkeypatch, version, warnings):
    messages = []
    monkeypatch.setattr(ultralytics.utils.LOGGER, "warning", messages.append)
    monkeypatch.setattr(ultralytics, "__version__", version)
    patches.warn_of_release.cache_clear()
    startup.register()
    startup.register()
    assert len(messages) == warnings
    assert all(patches.supported() in message and patches.dotted(patches.release()) in message for message in messages)


def test_one_warning_in_a_process_of_another_version(fresh):
    done = fresh.start(
        "-c",
        f"""{PREAMBLE}
import sys
import ultralytics
too_late = "ultralytics.nn.tasks" in sys.modules
ultralytics.__version__ = "9.0.0"
built = parameters()
import yolo_effnet
yolo_effnet.startup.register()
report([too_late, built])
""",
    )
    assert fresh.result(done) == [False, B0.parameters]
    (warning,) = [line for line in (done.stdout + done.stderr).splitlines() if WARNING in line]
    assert f"{patches.supported()}, not with 9.0.0" in warning
