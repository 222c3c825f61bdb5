"""All that is changed in Ultralytics, and why. Stdlib only: a hook applies the table as Ultralytics is imported."""

import functools
import re
import sys
from dataclasses import dataclass
from importlib import import_module

from yolo_effnet.startup import MODELS

SUPPORTED = ((8, 3, 70), (9,))  # the oldest release that the tests run; the parser of 9 is not known yet
NEWEST_TESTED = (8, 4, 190)


@dataclass(frozen=True)
class Patch:
    """A function of Ultralytics, or a method, in whose place a function of ours stands.

    Attributes:
        where (str): The module that has it.
        name (str): The function, or `Class.method`.
        wrap (str): Our function, as `module:function`, which takes it and returns what takes its place.
        reason (str): What Ultralytics' own does, and why that is not enough.
        since (tuple[int, ...]): The first release that has it, if the oldest supported one has not.
        with_models (bool): Whether it is applied as the module of models is imported, and not as its own is.
    """

    where: str
    name: str
    wrap: str
    reason: str
    since: tuple[int, ...] = ()
    with_models: bool = False

    @property
    def event(self) -> str:
        """The module of Ultralytics with whose import it is applied."""
        return MODELS if self.with_models else self.where


# Of eleven releases from 8.3.70 to 8.4.190 that were compared, parse_model last changed in 8.4.170 and yaml_model_load
# in 8.4.150.
PATCHES = (
    Patch("ultralytics.utils", "DEFAULT_CFG_DICT", "arguments:accept_as_main",
          "`python -m ultralytics.cfg`, by which the tuner trains, checks arguments in a module that nothing can wrap"),
    Patch("ultralytics.cfg", "check_dict_alignment", "arguments:wrap_check",
          "refuses arguments that it does not know, ours among them"),
    Patch(MODELS, "parse_model", "host.parser:wrap_parse_model",
          "finds classes of rows by name in its module, and has lists of those that take channels and repeats"),
    Patch(MODELS, "yaml_model_load", "host.parser:wrap_yaml_model_load",
          "finds files only, and our names are none; cuts the letter of a scale out of the whole path"),
    Patch(MODELS, "initialize_weights", "host.parser:wrap_initialize_weights",
          "sets eps and momentum of every BatchNorm at each rebuild of a model; our backbones need another momentum"),
    Patch(MODELS, "torch_safe_load", "host.parser:wrap_file_lookup",
          "looks for yolov8-effb0.pt, which does not exist; its error gains the name that was meant"),
    Patch("ultralytics.utils.checks", "check_file", "host.parser:wrap_file_lookup",
          "looks for yolov8-effb0, likewise", with_models=True),
    Patch(MODELS, "BaseModel.load", "host.training:wrap_load",
          "copies what fits and forgets where it came from, which the defaults of a training go by"),
    Patch("ultralytics.utils.torch_utils", "prepare_qat", "host.int8_training:wrap_prepare",
          "puts quantizers on convolutions alone; our blocks add and multiply too", (8, 4, 150), with_models=True),
    Patch("ultralytics.utils.torch_utils", "restore_qat", "host.int8_training:wrap_restore",
          "puts them back, and does not know ours", (8, 4, 150), with_models=True),
    Patch("ultralytics.engine.trainer", "BaseTrainer.__init__", "host.schedule:wrap_init",
          "forgets which arguments were said: nbs=64 may be a wish or the default"),
    Patch("ultralytics.engine.trainer", "BaseTrainer.get_dataset", "grafting.in_training:wrap_get_dataset",
          "reads a data set with labels; a training that follows another model has pictures alone"),
    Patch("ultralytics.engine.trainer", "BaseTrainer.setup_model", "grafting.in_training:wrap_setup_model",
          "builds the model of `model=`, or that of a file; `graft=` makes such a file first, on one rank"),
    Patch("ultralytics.engine.trainer", "BaseTrainer._setup_train", "host.training:wrap_setup",
          "builds the model again, without ImageNet weights; no callback comes before calibration and EMA"),
    Patch("ultralytics.engine.exporter", "Exporter.export_onnx", "host.int8:wrap_onnx",
          "quantizes convolutions alone, which ONNX Runtime then computes in float; older ones do not", (8, 4, 60)),
    Patch("ultralytics.engine.exporter", "Exporter.export_litert", "host.int8:wrap_litert",
          "quantizes the decoding of boxes as well, whose edges then have 256 places", (8, 4, 90)),
)  # fmt: skip
# What is lent for as long as a call or a training lasts, and then as before: by whom, what, and why.
LENT = {
    "host.lending": "our blocks under their names in `ultralytics.nn.tasks`, and a wider `frozenset`, while it parses",
    "host.int8_training": "our blocks in ModelOpt's registry, while it prepares or restores a model",
    "host.int8": "a function of ONNX Runtime or LiteRT, and the one of Ultralytics that calls it, for an export",
    "host.training": "on one trainer, `set_model_attributes` until it has run, `optimizer_step` until its first call",
    "host.memory": "options of glibc's `mallopt`, which are no part of Ultralytics, for a training on a CPU",
    "host.class_rows": "on one trainer, `args` while a data set is built",
    "host.blend": "on one trainer, `final_eval`; on its validator, arguments and callbacks while shares are validated",
    "grafting.following": "on one trainer, `build_dataset`, `plot_training_labels` and `final_eval`",
    "grafting.short_training": "the level of Ultralytics' log, while it trains",
    "grafting.footage": "the class of data sets in `ultralytics.data.build`, while one is built; "
    "`non_max_suppression`, while a teacher predicts",
    "host.schedule": "on one trainer, `build_optimizer`, `preprocess_batch` and `get_dataloader`",
}
_applied: list[tuple] = []  # module or class, name, what was there, and what is there now


def _is_wrapper(function) -> bool:
    """Return whether a function is one that stands in the place of Ultralytics'."""
    return getattr(function, "yolo_effnet", None) is function


def release() -> tuple[int, ...]:
    """Return the version of Ultralytics."""
    return tuple(map(int, re.findall(r"\d+", sys.modules["ultralytics"].__version__)[:3]))


def dotted(version: tuple[int, ...]) -> str:
    """Return a version as text."""
    return ".".join(map(str, version))


def supported() -> str:
    """Return the supported range of Ultralytics as a requirement."""
    return f"ultralytics>={dotted(SUPPORTED[0])},<{dotted(SUPPORTED[1])}"


def apply(event: str) -> None:
    """Apply the patches of a module of Ultralytics that has been imported, each once.

    Raises:
        Exception: Of any kind, if ours cannot be imported or Ultralytics' is not there.
    """
    for patch in PATCHES:
        if patch.event == event and release() >= patch.since:
            _put(patch)


def _put(patch: Patch) -> None:
    """Put our function in the place of Ultralytics', and wherever else Ultralytics has imported that by its name."""
    kind, _, name = patch.name.rpartition(".")
    module = sys.modules[patch.where]
    home = vars(module)[kind] if kind else module
    original = vars(home)[name]
    if _is_wrapper(original):
        return
    ours, _, function = patch.wrap.partition(":")
    wrapper = getattr(import_module(f"yolo_effnet.{ours}"), function)(original)
    if wrapper is original:
        return
    wrapper.yolo_effnet = wrapper
    _applied.append((home, name, original, wrapper))
    _swap(home, name, original, wrapper)


def _swap(home, name: str, old, new) -> None:
    """Put `new` in the place of `old` in a module or class, and wherever Ultralytics has imported it by its name."""
    modules = [m for n, m in list(sys.modules.items()) if n.partition(".")[0] == "ultralytics"]
    for owner in (home, *modules):
        if getattr(owner, "__dict__", {}).get(name) is old:
            setattr(owner, name, new)


def undo() -> None:
    """Leave Ultralytics as it is without this package."""
    while _applied:
        home, name, original, wrapper = _applied.pop()
        _swap(home, name, wrapper, original)


@functools.cache
def warn_of_release() -> None:
    """Warn once of a release outside the supported range."""
    if not SUPPORTED[0] <= release() < SUPPORTED[1]:
        logger = sys.modules["ultralytics.utils"].LOGGER
        logger.warning(f"yolo_effnet is tested with {supported()}, not with {dotted(release())}.")
