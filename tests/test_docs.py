"""The blocks of code of README and docs, run; their tables, held to the package; their links, resolved."""

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from commands import yolo
from ultralytics.nn.tasks import DetectionModel

import yolo_effnet
from yolo_effnet import cli
from yolo_effnet.nn.registry import BLOCKS
from yolo_effnet.zoo.configs import model_config
from yolo_effnet.zoo.names import model_names
from yolo_effnet.zoo.table import ARCHITECTURES

ROOT = Path(__file__).parent.parent
FILES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
PAGES = {file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8") for file in FILES}
README = PAGES["README.md"]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
TRAINING = re.compile(r"^.*?(yolo train model=.*)$")


def blocks(language: str, page: str | None = None) -> list[str]:
    """Return the blocks of code of a language, of one page or of all."""
    texts = [PAGES[page]] if page else PAGES.values()
    return [code for text in texts for kind, code in FENCED.findall(text) if kind == language]


LINES = "".join(blocks("bash")).splitlines()
OURS = [line for line in LINES if line.startswith("yolo-effnet")]


def test_tables_are_those_of_the_script():
    filled = runpy.run_path(str(ROOT / "docs" / "tables.py"))["filled"]
    for page, text in PAGES.items():
        assert filled(text) == text, f"{page} is old: python docs/tables.py"


def test_model_table_is_that_of_the_package():
    for name, architecture in zip(model_names(), ARCHITECTURES.values(), strict=True):
        neck = "/".join(map(str, architecture.neck_channels))
        weights = f"`{architecture.weights}`" if architecture.weights else "none"
        size = f"{architecture.parameters / 1e6:.1f}M | {architecture.gflops:.1f}"
        assert f"| {name} | {size} | {neck} | {weights} |" in PAGES["docs/models.md"]


def test_sizes_agree_everywhere():
    sizes = {
        name: (f"{a.parameters / 1e6:.1f}M", f"{a.gflops:.1f}")
        for name, a in zip(model_names(), ARCHITECTURES.values(), strict=True)
    }
    for text in PAGES.values():
        for name, *size in re.findall(r"^\| (yolov8-\w+) \| ([\d.]+M) \| ([\d.]+) \|", text, re.MULTILINE):
            assert tuple(size) == sizes[name], name


def test_readme_is_short():
    assert README.count("\n") <= 150


@pytest.mark.parametrize("text", ["pip install", "yolo train", "graft=", "import YOLO", ".png)", "LICENSE"])
def test_first_screen_has(text):
    assert any(text in line for line in README.splitlines()[:40])


def test_readme_has_the_two_lines_of_set_up():
    assert 'pip install ".[lite]" && yolo train model=models/yolov8-efflite0.yaml data=examples/shapes.yaml' in README
    assert 'pip install ".[test]" && pytest -n 2 --dist loadfile' in README


@pytest.mark.parametrize("page", sorted(PAGES.keys() - {"docs/results.md"}))
def test_guides_have_one_short_table(page):
    """Measurements are for docs/results.md; the table of models is written by a script."""
    text = re.sub(r"<!-- table: .*?<!-- end of table -->", "", FENCED.sub("", PAGES[page]), flags=re.DOTALL)
    tables = re.findall(r"(?:^ *\|.*\n)+", text, re.MULTILINE)
    assert [table.count("\n") - 2 <= 6 for table in tables] in ([], [True])


def test_every_block_of_code_names_its_language():
    for page, text in PAGES.items():
        assert {kind for kind, _ in FENCED.findall(text)} <= {"bash", "python", "yaml", "text"}, page
        assert text.count("```") == 2 * len(FENCED.findall(text)), page


def test_yamls_of_ones_own_build():
    texts = [block for block in blocks("yaml") if "backbone:" in block]
    models = [DetectionModel(yaml.safe_load(text), verbose=False) for text in texts]
    assert [model.stride.tolist() for model in models] == [[8], [8, 16, 32]]


def test_keys_of_the_other_yamls_are_those_of_a_model():
    (text,) = [block for block in blocks("yaml") if "backbone:" not in block]
    assert yaml.safe_load(text).items() <= model_config("yolov8-effb0").items()


@pytest.mark.parametrize("line", [match[1] for match in map(TRAINING.match, LINES) if match])
def test_training_lines_run(line, tiny_data, tmp_path):
    """As typed, but on tiny data, for one epoch, in another folder and with the models of the clone at hand."""
    shutil.copytree(ROOT / "models", tmp_path / "models")
    words = [word for word in line.split()[1:] if word.partition("=")[0] not in ("data", "epochs", "imgsz", "batch")]
    words += [f"data={tiny_data}", "epochs=1", "imgsz=64", "batch=4", "workers=0", "plots=False", "device=cpu"]
    yolo(*words, f"project={tmp_path}", folder=tmp_path)
    assert list(tmp_path.rglob("best.pt"))


@pytest.mark.parametrize("line", OURS)
def test_lines_of_our_command_run(line, capsys):
    command, _, file = line.partition(" > ")
    assert cli.main(shlex.split(command)[1:]) == 0
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["backbone"] if file else printed


def test_the_other_lines_are_those_that_land_a_change():
    run = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    for line in LINES:
        if line not in OURS and not TRAINING.match(line):
            for command in line.split(" && "):
                assert command in run or command.startswith("pip install "), line


@pytest.mark.parametrize("code", blocks("python"), ids=lambda code: code.splitlines()[0])
def test_python_blocks_run(code, tiny_data, tmp_path):
    """With one picture of the tiny data, where no network is."""
    exports = "export(" in code
    code = code.replace(
        '"coco8.yaml", epochs=100', f'r"{tiny_data}", epochs=1, imgsz=64, batch=4, workers=0, plots=False'
    )
    code = code.replace(
        '"https://ultralytics.com/images/bus.jpg"', f'r"{tiny_data.parent / "images" / "val" / "0.png"}"'
    )
    assert "http" not in code
    assert "coco8" not in code
    done = subprocess.run(
        [sys.executable, "-c", code.replace("b3", "b0")],
        cwd=tmp_path, env={**os.environ, "HF_HUB_OFFLINE": "1"}, text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    if exports:
        (file,) = set(re.findall(r"saved as '(.*best\.onnx)'", done.stdout))
        assert Path(file).is_file()


def test_readme_has_the_python_example():
    (code,) = blocks("python", "README.md")
    assert "model.export(" in code


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_resolve(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCED.sub("", PAGES[page])):
        path, _, anchor = target.partition("#")
        if re.match(r"https?://", target):
            continue
        file = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(PAGES[file.relative_to(ROOT).as_posix()]), target


def test_every_page_is_linked_from_the_readme():
    assert all(f"]({page})" in README for page in PAGES if page != "README.md")


def test_every_block_has_a_row_in_the_docs():
    (rows,) = re.findall(r"^## Rows\n(.*?)^## ", PAGES["docs/own-models.md"], re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"^- `(\w+)`", rows, re.MULTILINE)) == set(BLOCKS)


def test_the_tree_is_that_of_the_package():
    (tree,) = blocks("text", "docs/how-it-works.md")
    told, folder = set(), ""
    for indent, name in re.findall(r"^( *)(\S+)", tree.partition("models/ ")[0], re.MULTILINE)[1:]:
        folder = folder if len(indent) == 4 else ""
        if name.endswith("/"):
            folder = name
        else:
            told.add(folder + name)
    package = ROOT / "yolo_effnet"
    files = {file.relative_to(package).as_posix() for file in package.rglob("*.py") if file.name != "__init__.py"}
    assert told == files


def test_the_release_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    release = f"## [{citation['version']}] - {citation['date-released']}"
    assert citation["version"] == yolo_effnet.__version__
    assert re.findall(r"^## .*$", PAGES["CHANGELOG.md"], re.MULTILINE)[:2] == ["## [Unreleased]", release]


def test_every_change_is_one_line():
    parts = re.split(r"^### ", PAGES["CHANGELOG.md"], flags=re.MULTILINE)[1:]
    assert {part.partition("\n")[0] for part in parts} <= {"Added", "Changed", "Fixed", "Removed"}
    lines = [line for part in parts for line in part.splitlines()[1:] if not line.startswith("## ")]
    assert all(line.startswith("- ") for line in lines if line)
