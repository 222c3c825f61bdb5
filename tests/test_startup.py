"""The wheel that users install, and its start-up hook, in new interpreters."""

import importlib.machinery
import os
import pkgutil
import shutil
import subprocess
import sys
import zipfile

import cv2
import numpy as np
import pytest
from installed import OUTER, PREAMBLE, ROOT, Environment, build

from yolo_effnet import patches, startup
from yolo_effnet.zoo.table import ARCHITECTURES

PARAMETERS = ARCHITECTURES["effb0"].parameters
# All that the hook may import; each module costs every Python process of the environment.
STARTUP_IMPORTS = {"yolo_effnet", "yolo_effnet.startup"}
OFF = {"YOLO_EFFNET_AUTOLOAD": "0"}


def trace(environment, **variables) -> list[str]:
    """Return the modules and the finders on the meta path of a new interpreter."""
    code = "import sys; print(*sys.modules, *(getattr(f, '__qualname__', type(f).__qualname__) for f in sys.meta_path))"
    return environment.start("-c", code, **variables).stdout.split()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def fresh(tmp_path_factory, wheel):
    return Environment.create(tmp_path_factory.mktemp("fresh"), wheel)


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    return Environment.create(tmp_path_factory.mktemp("bare"))


def test_wheel_content(wheel):
    with zipfile.ZipFile(wheel) as archive:
        files = {name: archive.read(name).decode() for name in archive.namelist()}
    (info,) = {name.split("/")[0] for name in files if ".dist-info/" in name}
    assert {name.split("/")[0] for name in files} == {"yolo_effnet", "yolo_effnet.pth", "yolo_effnet.start", info}
    folder = ROOT / "yolo_effnet"
    package = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix in (".py", ".typed")}
    assert "py.typed" in package
    assert {name.split("/", 1)[1] for name in files if name.startswith("yolo_effnet/")} == package
    assert files[f"{info}/licenses/LICENSE"] == (ROOT / "LICENSE").read_text(encoding="utf-8")
    # Python 3.15 reads the .start file in place of the import line of the .pth file of the same name (PEP 829).
    assert files["yolo_effnet.pth"].splitlines() == ["import yolo_effnet.startup; yolo_effnet.startup.install()"]
    (entry_point,) = files["yolo_effnet.start"].splitlines()
    assert pkgutil.resolve_name(entry_point) is startup.install


def test_yolo_command_knows_the_names(fresh, tmp_path):
    cv2.imwrite(str(tmp_path / "image.png"), np.zeros((32, 32, 3), np.uint8))
    command = "from importlib.metadata import entry_points as e; e(group='console_scripts')['yolo'].load()()"
    arguments = ["predict", "model=yolov8-effb0.yaml", "source=image.png", "imgsz=32", "save=False"]
    assert "32x32 (no detections)" in fresh.start("-c", command, *arguments, cwd=tmp_path).stdout


def test_startup_imports_only_the_hook(fresh, bare):
    started = trace(fresh)
    assert set(started) - set(trace(bare)) == {*STARTUP_IMPORTS, "_HostFinder"}
    assert {"ultralytics", "torch", "timm", "yaml", "numpy"}.isdisjoint(started)


def test_building_a_model_imports_no_more_than_ultralytics(fresh, bare):
    """Of torchvision, timm and the like, which take seconds to import."""
    code = "import sys, ultralytics; {}; report(sorted({{name.partition('.')[0] for name in sys.modules}}))"
    model = "ultralytics.YOLO('{}').info(verbose=False)"
    ours = fresh.report(code.format(model.format("yolov8-effb0.yaml")))
    assert set(ours) - set(bare.report(code.format(model.format("yolov8n.yaml")))) <= {"yolo_effnet"}


def test_hook_waits_for_the_parser(fresh):
    early, *facts = fresh.report("""
import sys
early = ["ultralytics" in sys.modules]
import ultralytics
early += ["yolo_effnet.host.parser" in sys.modules, "ultralytics.nn.tasks" in sys.modules]
import ultralytics.nn.tasks as tasks
import yolo_effnet
patched = [hasattr(f, "yolo_effnet") for f in (tasks.parse_model, tasks.yaml_model_load)]
report([early, patched, yolo_effnet.startup.autoloaded, yolo_effnet.__file__])
""")
    assert not early[0]
    assert early[1] == early[2]
    assert facts == [[True, True], True, str(fresh.site / "yolo_effnet" / "__init__.py")]


@pytest.mark.parametrize("value", ["0", "false", " No ", "OFF"])
def test_opt_out_leaves_no_trace(fresh, bare, value):
    assert trace(fresh, YOLO_EFFNET_AUTOLOAD=value) == trace(bare)


def test_import_after_ultralytics_under_opt_out(fresh):
    facts = fresh.report(
        """
import sys
import ultralytics.nn.tasks as tasks
untouched = not hasattr(tasks.parse_model, "yolo_effnet") and "yolo_effnet" not in sys.modules
import yolo_effnet
report([untouched, parameters(), yolo_effnet.startup.autoloaded])
""",
        **OFF,
    )
    assert facts == [True, PARAMETERS, False]


# `blocks` is the trap: it imports Ultralytics, which runs the hook, which imports the parser, which needs `blocks`.
@pytest.mark.parametrize(
    ("first", "variables"),
    [
        *(
            (f"import yolo_effnet.{name}", {})
            for name in ("nn.blocks", "nn.layers", "nn.neck", "nn.timm_backbone", "weights.loading")
        ),
        ("import yolo_effnet.nn.blocks", OFF),
        ("from yolo_effnet import MBConv", OFF),
        ("from yolo_effnet import TimmBackbone", OFF),
    ],
)
def test_import_before_ultralytics(fresh, first, variables):
    assert fresh.report(f"{first}\nreport(parameters())", **variables) == PARAMETERS


def test_without_site_an_import_registers(fresh):
    path = os.pathsep.join([str(fresh.site), *OUTER])
    code = "import sys\nstarted = 'yolo_effnet' in sys.modules\nimport yolo_effnet\nreport([started, parameters()])"
    assert fresh.report(code, "-S", PYTHONPATH=path) == [False, PARAMETERS]


def test_spawned_process_knows_the_names(fresh, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(f"""{PREAMBLE}
def child(queue):
    queue.put(parameters())

if __name__ == "__main__":
    import multiprocessing
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=child, args=(queue,))
    process.start()
    process.join(300)
    print(process.exitcode, queue.get(timeout=10))
""")
    assert fresh.start(script).stdout.splitlines()[-1] == f"0 {PARAMETERS}"


def test_failing_registration_leaves_ultralytics_alone(fresh, tmp_path):
    shutil.copytree(fresh.site / "yolo_effnet", tmp_path / "yolo_effnet")
    (tmp_path / "yolo_effnet" / "host" / "parser.py").write_text("raise RuntimeError('broken on purpose')")
    code = f"{PREAMBLE}import yolo_effnet\nprint(yolo_effnet.__file__)\nreport(parameters('yolov8n.yaml'))"
    done = fresh.start("-c", code, PYTHONPATH=str(tmp_path))
    assert str(tmp_path) in done.stdout
    assert done.stdout.splitlines()[-1] == "3157200"  # that of the Ultralytics documentation
    (warning,) = [line for line in done.stderr.splitlines() if "RuntimeWarning" in line]
    assert "RuntimeError: broken on purpose" in warning
    assert "YOLO_EFFNET_AUTOLOAD=0" in warning


LEFT = """
import json, sys
from pathlib import Path
import ultralytics.engine.exporter, ultralytics.engine.model, ultralytics.engine.trainer
from ultralytics.nn import tasks
from ultralytics.utils import callbacks, checks, torch_utils

def left():
    owners = [ultralytics.cfg, tasks, checks, torch_utils, ultralytics.engine.model, tasks.BaseModel]
    owners += [ultralytics.engine.trainer.BaseTrainer, ultralytics.engine.exporter.Exporter]
    found = [name for owner in owners for name, value in vars(owner).items() if hasattr(value, "yolo_effnet")]
    added = [c for event in callbacks.default_callbacks.values() for c in event]
    return sorted({*found, *(c.__name__ for c in added if c.__module__.startswith("yolo_effnet"))})
"""


def python(code: str, *options) -> subprocess.CompletedProcess:
    """Run code in a new interpreter of this environment."""
    return subprocess.run([sys.executable, *options, "-c", code], text=True, capture_output=True, check=False)


@pytest.mark.parametrize("options", [(), ("-W", "error::RuntimeWarning")])
@pytest.mark.parametrize("event", startup.EVENTS)
def test_a_failing_event_undoes_all_and_is_said_once(event, options):
    """Also where warnings are errors: no import of Ultralytics fails."""
    broken = f"""
import yolo_effnet.startup as startup
def fail(module):
    raise LookupError("broken on purpose")
from yolo_effnet import patches
apply = patches.apply
patches.apply = lambda name: fail(name) if name == {event!r} else apply(name)
"""
    done = python(
        f"{broken}{LEFT}print(left(), tasks.DetectionModel('yolov8n.yaml', verbose=False).yaml['scale'])", *options
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[] n"
    assert done.stderr.count("could not register with Ultralytics (LookupError: broken on purpose)") == 1


def test_a_registration_that_fails_halfway_leaves_nothing():
    """And the table of patches is the list of all that is there otherwise."""
    done = python(f"""{LEFT}
from dataclasses import replace
import ultralytics.engine.trainer, ultralytics.engine.exporter
from yolo_effnet import patches
names = {{patch.name.rpartition(".")[2] for patch in patches.PATCHES if patch.since <= patches.release()}}
assert set(left()) == names - {{"DEFAULT_CFG_DICT"}}, left()
patches.undo()
assert not left(), left()
patches.PATCHES += (replace(patches.PATCHES[2], name="renamed"),)
from yolo_effnet import startup
startup.register()
print(left())
patches.PATCHES = patches.PATCHES[:-1]
patches.apply(patches.MODELS)
print(left())
""")
    assert done.returncode == 0, done.stderr
    *_, halfway, whole = done.stdout.splitlines()
    assert halfway == "[]"
    assert "parse_model" in whole
    assert "load" in whole


def test_the_hook_waits_for_what_is_patched():
    assert {patch.event for patch in patches.PATCHES} == set(startup.EVENTS)


def test_a_program_without_a_standard_error_starts(fresh):
    code = "import sys, yolo_effnet.startup as s; s.hook = None; sys.stderr = None; s.install(); print('alive')"
    assert fresh.start("-c", code).stdout == "alive\n"


def test_specs_and_their_loaders_are_copied():
    code = """
import copy, importlib.util, pickle
for name in ("ultralytics.utils", "ultralytics.nn.tasks"):
    spec = importlib.util.find_spec(name)
    if name.endswith("tasks"):  # the other one was imported on the way
        assert type(spec.loader).__module__ == "yolo_effnet.startup"
    for whole in (spec, spec.loader):
        for again in (copy.copy(whole), copy.deepcopy(whole), pickle.loads(pickle.dumps(whole))):
            assert again == whole
            assert getattr(again, "loader", again).get_filename(name) == spec.origin
    assert hash(spec.loader) == hash(copy.copy(spec.loader))
    assert spec == importlib.util.find_spec(name)
module = importlib.util.module_from_spec(copy.deepcopy(importlib.util.find_spec("ultralytics.nn.tasks")))
assert module.__name__ == "ultralytics.nn.tasks"
"""
    done = python(code)
    assert done.returncode == 0, done.stderr


def test_a_loader_that_executes_otherwise_stays(monkeypatch):
    class Old:
        load_module = None

    class Finder:
        @staticmethod
        def find_spec(name, path=None, target=None):
            return importlib.machinery.ModuleSpec(name, Old())

    monkeypatch.setattr(sys, "meta_path", [Finder])
    assert type(startup._HostFinder().find_spec(startup.MODELS).loader) is Old


def test_a_folder_without_code_is_no_error(tmp_path):
    (tmp_path / "ultralytics" / "cfg").mkdir(parents=True)
    (tmp_path / "ultralytics" / "__init__.py").touch()
    done = python(f"import sys, yolo_effnet; sys.path.insert(0, {str(tmp_path)!r}); import ultralytics.cfg")
    assert done.returncode == 0, done.stderr


def test_reloaded_modules_stay_registered(fresh):
    code = """
import importlib
import yolo_effnet
importlib.reload(yolo_effnet.startup)
import ultralytics.nn.tasks as tasks
importlib.reload(tasks)
report([hasattr(tasks.parse_model, "yolo_effnet"), parameters()])
"""
    assert fresh.report(code) == [True, PARAMETERS]


def test_any_loader_of_ultralytics_will_do(fresh):
    """Frozen applications load all modules with one object, which may take no new attribute."""
    code = """
import importlib.machinery
import sys
own = {}

class Shared:
    __slots__ = ()
    create_module = staticmethod(lambda spec: None)
    exec_module = staticmethod(lambda module: own[module.__name__].exec_module(module))

shared = Shared()

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        spec = importlib.machinery.PathFinder.find_spec(name, path) if name.startswith("ultralytics.") else None
        if spec and spec.has_location:
            own[name], spec.loader = spec.loader, shared
        return spec

sys.meta_path.insert(1, Finder)
report(["ultralytics.nn.tasks" in own, parameters(), "ultralytics.nn.tasks" in own])
"""
    done = fresh.start("-c", PREAMBLE + code)
    assert fresh.result(done) == [False, PARAMETERS, True]
    assert "could not register" not in done.stderr


def test_install_never_raises(fresh):
    code = "import yolo_effnet.startup as s; s.hook = None; s.install(); print('alive')"
    done = fresh.start("-c", code)
    assert done.stdout == "alive\n"
    assert "YOLO_EFFNET_AUTOLOAD=0" in done.stderr


def test_second_copies_do_no_harm(fresh, wheel, tmp_path):
    fresh.pip("install", "--no-index", "--no-deps", "--target", tmp_path, wheel)
    facts = fresh.report(
        f"""
import site, sys
site.addsitedir({str(tmp_path)!r})
import yolo_effnet.startup
yolo_effnet.startup.install()
finders = sum(type(finder).__qualname__ == "_HostFinder" for finder in sys.meta_path)
report([finders, yolo_effnet.__file__, parameters()])
""",
        PYTHONPATH=str(ROOT),
    )
    assert facts == [1, str(ROOT / "yolo_effnet" / "__init__.py"), PARAMETERS]


def test_editable_install(tmp_path):
    environment = Environment.create(tmp_path / "environment", build(tmp_path, "editable"))
    facts = environment.report("import sys\nfile = sys.modules['yolo_effnet'].__file__\nreport([file, parameters()])")
    assert facts == [str(ROOT / "yolo_effnet" / "__init__.py"), PARAMETERS]


def test_uninstall_leaves_nothing_behind(wheel, bare, tmp_path):
    environment = Environment.create(tmp_path, wheel)
    environment.start("-c", "import yolo_effnet.zoo.table")

    def leftovers():
        return sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if "effnet" in path.name.lower())

    assert leftovers()
    environment.pip("uninstall", "--yes", "yolo_effnet")
    assert leftovers() == []
    assert trace(environment) == trace(bare)
