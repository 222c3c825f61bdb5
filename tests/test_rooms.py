"""Imports between the rooms of the package go one way."""

import ast
import re
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "yolo_effnet"
# What a room may import of the package, besides itself; "" is what lies beside the rooms.
ALLOWED = {
    "zoo": {"checks"},
    "nn": {"zoo", "arguments", "checks"},
    "weights": {"zoo", "nn", "checks"},
    "host": {"zoo", "nn", "weights", "arguments", "checks", "patches", "recipe"},
    "grafting": {"zoo", "nn", "weights", "host", "arguments", "checkpoints", "checks", "recipe"},
    "tools": {"zoo", "nn", "weights", "host", "checkpoints", "checks"},
}
STDLIB_ONLY = ("startup.py", "patches.py", "arguments.py", "recipe.py")
LONGEST = 400


def imports(file: Path) -> list[str]:
    """Return the modules that a file imports at any depth."""
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


@pytest.mark.parametrize("room", ALLOWED)
def test_no_room_imports_one_above_it(room):
    for file in (PACKAGE / room).glob("*.py"):
        ours = {name.split(".")[1] for name in imports(file) if name.startswith("yolo_effnet.")}
        assert ours - {room} <= ALLOWED[room], file.name


@pytest.mark.parametrize("room", ["zoo", "nn", "weights", "grafting"])
def test_the_internals_of_ultralytics_are_touched_by_host_alone(room):
    """Its parser, trainer and exporter, and the branches of its heads; what it is to build with is free."""
    for file in (PACKAGE / room).glob("*.py"):
        inside = ("ultralytics.nn.tasks.", "ultralytics.nn.modules.head", "ultralytics.engine.", "ultralytics.models.")
        assert not [name for name in imports(file) if name.startswith(inside)], file.name
        assert not re.search(r"\bcv3\b|one2one|parse_model", file.read_text(encoding="utf-8")), file.name


def test_no_model_of_the_zoo_needs_torch():
    for file in (PACKAGE / "zoo").glob("*.py"):
        assert not {name.split(".")[0] for name in imports(file)} & {"torch", "ultralytics", "timm"}, file.name


@pytest.mark.parametrize("name", STDLIB_ONLY)
def test_what_runs_at_start_up_is_stdlib(name):
    tops = {module.split(".")[0] for module in imports(PACKAGE / name)}
    assert tops <= {*sys.stdlib_module_names, "yolo_effnet"}


def test_no_file_is_too_long_to_be_read():
    for file in PACKAGE.rglob("*.py"):
        assert file.read_text(encoding="utf-8").count("\n") <= LONGEST, file.name


def test_no_two_rooms_have_a_file_of_one_name():
    names = [file.name for file in PACKAGE.rglob("*.py") if file.name != "__init__.py"]
    assert len(names) == len(set(names))
