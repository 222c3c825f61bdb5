"""Register with Ultralytics as it is imported. Runs at every interpreter start, so it imports only the stdlib."""

import os
import sys

MODELS = "ultralytics.nn.tasks"
# The modules of Ultralytics that `patches.PATCHES` names, which only a process that imports one of them imports.
EVENTS = (
    "ultralytics.utils", "ultralytics.cfg", MODELS, "ultralytics.engine.trainer", "ultralytics.engine.exporter",
)  # fmt: skip
OPT_OUT = "YOLO_EFFNET_AUTOLOAD"
_BUILT_ON_MODELS = tuple(
    f"yolo_effnet.{part}" for part in ("nn", "weights", "checkpoints", "grafting", "host", "tools")
)
_failed = False  # whether a registration did
autoloaded = False  # whether this interpreter's start-up installed the hook, for `yolo-effnet info`


def register(event: str = MODELS) -> None:
    """Apply the patches of one module of Ultralytics; where that fails, warn once and leave Ultralytics as it is."""
    global _failed
    if _failed:
        return
    try:
        from yolo_effnet import patches

        if event == MODELS:
            _forget_older_models()
        patches.apply(event)
        if event == MODELS:
            patches.warn_of_release()
    except Exception as error:
        _failed = True
        text = (
            f"yolo_effnet could not register with Ultralytics ({type(error).__name__}: {error}); its models are not "
            f"available. Set {OPT_OUT}=0 to silence this."
        )
        try:
            import warnings

            patches.undo()
            warnings.warn(text, RuntimeWarning, stacklevel=2)
        except Exception:  # warnings are errors here, and an import of Ultralytics must not be one
            _say(text)


def _forget_older_models() -> None:
    """Forget our classes if Ultralytics was dropped and imported again: they build on its classes of before."""
    lending = sys.modules.get("yolo_effnet.host.lending")
    if getattr(lending, "tasks", sys.modules[MODELS]) is not sys.modules[MODELS]:
        for name in [name for name in sys.modules if name.startswith(_BUILT_ON_MODELS)]:
            del sys.modules[name]


def _say(text: str) -> None:
    """Write a line to the standard error, if there is one."""
    try:
        sys.stderr.write(f"{text}\n")
    except Exception:  # a program without a console has none
        return


class _Loader:
    """Loader of a module of Ultralytics: the one that Python would use, and our registration after it."""

    def __init__(self, loader):
        self.loader = loader

    def __getattr__(self, name):
        if name == "loader" or name.startswith("__"):  # a copy that is being made has no loader yet
            raise AttributeError(name)
        return getattr(self.loader, name)

    def __eq__(self, other):
        return self.loader == getattr(other, "loader", other)

    def __hash__(self):
        return hash(self.loader)

    def exec_module(self, module):
        """Execute the module, as if its own loader had been called, and register."""
        module.__loader__ = module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        register(module.__name__)


class _HostFinder:
    """Meta-path finder that waits for the modules of `EVENTS`."""

    def find_spec(self, fullname, path=None, target=None):
        """Return the spec that the other finders give for such a module, with its loader extended."""
        if fullname not in EVENTS:
            return None
        for finder in sys.meta_path:
            find_spec = None if _is_our_finder(finder) else getattr(finder, "find_spec", None)
            spec = find_spec(fullname, path, target) if find_spec else None
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):  # a folder without code has no loader, an old one has others
                    spec.loader = _Loader(spec.loader)
                return spec
        return None


def _is_our_finder(finder) -> bool:
    """Return whether `finder` is our hook, also one of an earlier copy of this module."""
    kind = type(finder)
    return (kind.__module__, kind.__qualname__) == (__name__, "_HostFinder")


def hook() -> None:
    """Register as soon as modules of Ultralytics are imported, now with those that are."""
    for name in EVENTS:
        if name in sys.modules:
            register(name)
    if not any(map(_is_our_finder, sys.meta_path)):
        sys.meta_path.insert(0, _HostFinder())


def install() -> None:
    """Entry point of the `.pth` and `.start` files, called at interpreter start-up; never raises.

    `import yolo_effnet` alone installs the hook. Under `YOLO_EFFNET_AUTOLOAD=0` this undoes that import, so that
    start-up leaves no trace and a later import by hand works.
    """
    global autoloaded
    try:
        if os.environ.get(OPT_OUT, "1").strip().lower() in ("0", "false", "no", "off"):
            sys.meta_path[:] = [finder for finder in sys.meta_path if not _is_our_finder(finder)]
            for name in ("yolo_effnet.startup", "yolo_effnet"):
                sys.modules.pop(name, None)
        else:
            hook()
            autoloaded = True
    except Exception as error:
        _say(f"yolo_effnet: start-up hook failed, {type(error).__name__}: {error}; set {OPT_OUT}=0")
