"""Install the project's wheel into fresh virtual environments and start new interpreters there."""

import json
import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest
from build import ProjectBuilder
from pyproject_hooks import quiet_subprocess_runner

ROOT = Path(__file__).resolve().parents[1]
# Where torch, Ultralytics and the rest are; the checkout of an editable install is on the path too, but is no such one.
OUTER = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]

PREAMBLE = """
def report(value):
    import json
    print("\\n" + json.dumps(value))

def parameters(name="yolov8-effb0.yaml"):
    from ultralytics import YOLO
    return sum(p.numel() for p in YOLO(name).model.parameters())

"""


@dataclass(frozen=True)
class Environment:
    """A virtual environment that borrows the packages of the outer one, whose `.pth` files do not run in it."""

    folder: Path
    python: Path
    site: Path

    @classmethod
    def create(cls, folder: Path, wheel: Path | None = None) -> "Environment":
        """Create one in `folder`, with `wheel` installed."""
        venv.create(folder, symlinks=os.name != "nt")
        python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        where = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
        site = Path(subprocess.run(where, check=True, capture_output=True, text=True).stdout.strip())
        environment = cls(folder, python, site)
        environment.pip(*(["install", "--no-index", "--no-deps", wheel] if wheel else ["--version"]))
        return environment

    def pip(self, *args) -> None:
        """Run the outer pip on this environment, which must not see an outer yolo_effnet meanwhile."""
        borrowed = self.site / "borrowed.pth"
        borrowed.unlink(missing_ok=True)
        run([sys.executable, "-m", "pip", "--python", self.python, "--disable-pip-version-check", *args])
        self.site.mkdir(exist_ok=True)  # an uninstall removes folders that it empties
        borrowed.write_text("\n".join(OUTER), encoding="utf-8")

    def start(self, *args, cwd: Path | None = None, **variables) -> subprocess.CompletedProcess:
        """Start an interpreter of this environment with the environment variables `variables`, and wait for it."""
        kept = {k: v for k, v in os.environ.items() if k != "YOLO_EFFNET_AUTOLOAD" and not k.startswith("PYTHON")}
        kept.update(YOLO_OFFLINE="true", YOLO_AUTOINSTALL="false")
        return run([self.python, *args], cwd=cwd or self.folder, env={**kept, **variables})

    def report(self, code: str, *options, **variables):
        """Run `code` and return what it passes to `report`; `parameters(name)` there builds a model and counts."""
        return self.result(self.start(*options, "-c", PREAMBLE + code, **variables))

    @staticmethod
    def result(done: subprocess.CompletedProcess):
        """Return what a process with the preamble passed to `report`, as the last thing it did."""
        return json.loads(done.stdout.splitlines()[-1])


def run(command: list, **options) -> subprocess.CompletedProcess:
    """Run `command` and return its output; fail with it where the exit status is not 0."""
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=600, **options)
    if done.returncode:
        pytest.fail(f"{command} exited {done.returncode}\n{done.stdout}\n{done.stderr}", pytrace=False)
    return done


def build(folder: Path, kind: str = "wheel") -> Path:
    """Build a `wheel`, or the wheel of an `editable` install, of the checkout into `folder`."""
    return Path(ProjectBuilder(ROOT, runner=quiet_subprocess_runner).build(kind, folder))
