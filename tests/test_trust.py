"""Installing the package changes nothing else: names of others, threads, and what watches or replaces modules."""

import copy
import os
import re
import subprocess
import sys
import textwrap
import threading
import types
from pathlib import Path

import pytest
import torch
from backbones import assert_equal, backbone, features, fused, randomize, settle
from torch import nn
from torch.autograd import forward_ad
from ultralytics import YOLO
from ultralytics.nn import tasks
from ultralytics.nn.tasks import DetectionModel, parse_model

import yolo_effnet
from yolo_effnet.host import parser
from yolo_effnet.nn import gate, registry
from yolo_effnet.nn.blocks import FusedMBConv, MBConv, SqueezeExcite
from yolo_effnet.nn.layers import ConvNormAct
from yolo_effnet.nn.stages import EfficientNetStage, EfficientNetStem, FusedStage

# Every class of ours that a checkpoint can hold. These paths are a promise: a checkpoint finds them in all releases.
PATHS = [
    "yolo_effnet.nn.blocks.FusedMBConv",
    "yolo_effnet.nn.blocks.MBConv",
    "yolo_effnet.nn.blocks.SqueezeExcite",
    "yolo_effnet.nn.layers.ConvNormAct",
    "yolo_effnet.nn.layers.DropPath",
    "yolo_effnet.nn.layers.StridedConv",
    "yolo_effnet.nn.neck.C2fSeparable",
    "yolo_effnet.nn.neck.FittedSPPF",
    "yolo_effnet.nn.neck.SeparableConv",
    "yolo_effnet.nn.stages.Classifier",
    "yolo_effnet.nn.stages.EfficientNetStage",
    "yolo_effnet.nn.stages.EfficientNetStem",
    "yolo_effnet.nn.stages.FusedStage",
    "yolo_effnet.nn.timm_backbone.InputHook",
    "yolo_effnet.nn.timm_backbone.TimmBackbone",
    "yolo_effnet.nn.timm_models.FeatureMap",
]


def test_paths_of_classes_in_checkpoints():
    assert sorted(f"{cls.__module__}.{cls.__qualname__}" for cls in registry.PICKLED) == PATHS


class OwnBlock(nn.Module):
    """A block that a user put into Ultralytics under a name of ours."""

    def __init__(self, c, k=3):
        super().__init__()
        self.conv = nn.Conv2d(c, c, k, 1, k // 2)

    def forward(self, x):
        """Map `(B, c, H, W)` to the same shape."""
        return x + self.conv(x)


def test_a_block_of_ones_own_with_a_name_of_ours_stays(monkeypatch):
    monkeypatch.setattr(tasks, "MBConv", OwnBlock, raising=False)
    config = {"nc": 1, "backbone": [[-1, 1, "Conv", [16, 3, 2]], [-1, 1, "MBConv", [16, 3]]], "head": []}
    assert type(parse_model(config, 3, verbose=False)[0][1]) is OwnBlock
    model = DetectionModel("yolov8-effb0.yaml", verbose=False)
    assert any(type(m) is MBConv for m in model.modules())
    assert tasks.MBConv is OwnBlock


def test_threads_build_models_at_the_same_time(monkeypatch):
    monkeypatch.setattr(tasks, "MBConv", OwnBlock, raising=False)
    own = {"nc": 1, "backbone": [[-1, 1, "Conv", [16, 3, 2]], [-1, 1, "MBConv", [16, 3]]], "head": []}
    ours = {"nc": 1, "backbone": [[-1, 1, "EfficientNetStem", [16]], [-1, 1, "MBConv", [24]]], "head": []}
    wrong = []

    def build(config, kind):
        for _ in range(20):
            built = type(parse_model(copy.deepcopy(config), 3, verbose=False)[0][1])
            if built is not kind:
                wrong.append(built)

    threads = [threading.Thread(target=build, args=a) for a in ((own, OwnBlock), (ours, MBConv)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


PURGE = """
import sys
from ultralytics import YOLO
YOLO("yolov8-effb0.yaml")
for name in [name for name in sys.modules if name.partition(".")[0] == "ultralytics"]:
    del sys.modules[name]
from ultralytics import YOLO
import torch
model = YOLO("yolov8-effb0.yaml").model.fuse(verbose=False)
assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules())
"""


def test_ultralytics_that_is_imported_again_knows_us():
    done = subprocess.run([sys.executable, "-c", PURGE], text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_parser_that_has_moved_is_said(monkeypatch):
    """One whose lists of blocks are made once, before our names are lent."""
    source = Path(tasks.__file__).read_text(encoding="utf-8")
    for name in ("base_modules", "repeat_modules"):
        match = re.search(rf"^    {name} = frozenset\(.*?^    \)\n", source, re.DOTALL | re.MULTILINE)
        source = source.replace(match.group(), "")
        moved = textwrap.dedent(match.group())
        source = source.replace("def parse_model(", f"{moved}\n\ndef parse_model(", 1)
    namespace = {"__name__": tasks.__name__, "__file__": tasks.__file__}
    exec(compile(source, tasks.__file__, "exec"), namespace)
    module = types.ModuleType(tasks.__name__)
    vars(module).update(namespace)
    moved_parser = types.FunctionType(namespace["parse_model"].__code__, vars(module), "parse_model")
    moved_parser.__defaults__ = namespace["parse_model"].__defaults__
    monkeypatch.setattr(parser, "tasks", module)
    monkeypatch.setattr(parser.ultralytics, "__version__", "8.9.0")
    wrapped = parser.wrap_parse_model(moved_parser)
    with pytest.raises(RuntimeError, match=r"8.9.0 is newer than .* pip install ultralytics==8.4.190"):
        wrapped(yolo_effnet.model_config("yolov8-effb0"), 3, False)


def everything(training: bool) -> nn.Module:
    """A network of all kinds of our blocks."""
    model = nn.Sequential(
        EfficientNetStem(3, 8),
        EfficientNetStage(8, 16, 2, 3, 2),
        MBConv(16, 16, expand_ratio=1),
        EfficientNetStage(16, 16, 2, 5, 1, se_ratio=0),
        FusedStage(16, 24, 2, 3, 2, se_ratio=0.25),
        FusedMBConv(24, 24, expand_ratio=1),
        SqueezeExcite(24, 24),
        ConvNormAct(24, 8, 1),
    )
    return randomize(model).train(training)


MODES = ["training", "evaluation with gradients", "inference", "fused inference"]


def prepared(mode: str) -> nn.Module:
    model = everything(mode == "training")
    return fused(model) if mode.startswith("fused") else model


def watched(model: nn.Module, only: str | None, mode: str, globally: bool, x: torch.Tensor) -> list:
    """Return what hooks of each module, or of that of one name, saw: kind, name, and copies and what they kept."""
    seen, handles = [], []
    names = {m: name for name, m in model.named_modules()}

    def note(kind):
        def hook(module, *values):
            if module not in names or (globally and not names[module]):
                return
            tensors = [t for value in values for t in (value if isinstance(value, tuple) else [value])]
            tensors = [t.detach() for t in tensors if isinstance(t, torch.Tensor)]
            seen.append((kind, names[module], tensors, [t.clone() for t in tensors]))

        return hook

    grad = mode in MODES[:2]
    kinds = ["forward_pre", "forward"] + (["full_backward_pre", "full_backward"] if grad else [])
    for kind in kinds:
        if globally:
            handles.append(getattr(nn.modules.module, f"register_module_{kind}_hook")(note(kind)))
        else:
            picked = [m for m, name in names.items() if only is None or name == only]
            handles += [getattr(m, f"register_{kind}_hook")(note(kind)) for m in picked]
    with torch.set_grad_enabled(grad):
        y = model(x.requires_grad_(grad))
        if grad:
            outputs = y.values() if isinstance(y, dict) else [y]
            sum(output.square().mean() for output in outputs).backward()
    for handle in handles:
        handle.remove()
    return seen


def assert_same(got: list, wanted: list, tolerance: float = 1e-4) -> None:
    order = lambda seen: sorted(seen, key=lambda entry: entry[:2])  # noqa: E731
    assert [entry[:2] for entry in order(got)] == [entry[:2] for entry in order(wanted)]
    for (_, name, *ours), (_, _, *theirs) in zip(order(got), order(wanted), strict=True):
        for tensor, then, plain_tensor, plain in zip(*ours, *theirs, strict=True):
            kept = torch.equal(tensor, then) or not torch.equal(plain_tensor, plain)  # as timm overwrites some itself
            assert kept, f"what a hook of {name} kept was overwritten"
            largest = max(0.1, plain.abs().max().item()) if plain.numel() else 0.1
            torch.testing.assert_close(then, plain, rtol=tolerance, atol=tolerance * largest)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")
def test_hooks_fire_as_in_the_plain_computation(mode, threads):
    model, x, before = prepared(mode), torch.rand(2, 3, 64, 64), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        single = [(name, False) for name, _ in model.named_modules()] if threads == 1 else []
        for only, globally in ((None, False), (None, True), *single):
            got = watched(copy.deepcopy(model), only, mode, globally, x.clone())
            with yolo_effnet.fast_paths(False):
                wanted = watched(copy.deepcopy(model), only, mode, globally, x.clone())
            assert wanted or only is not None
            assert_same(got, wanted)
    finally:
        torch.set_num_threads(before)


FAMILIES = (
    "effb0", "efflite0", "effv2b0", "ghostnet_100", "mobilenetv1_100", "mobilenetv2_100", "mobilenetv3_large_100",
)  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")
@pytest.mark.filterwarnings("ignore:For backward hooks to be called:UserWarning")  # of timm's list of feature maps
def test_hooks_of_a_whole_backbone_fire_as_in_the_plain_computation(name, mode):
    """On all modules together, globally, and on every fifteenth alone."""
    if name.startswith("ghostnet") and mode in MODES[:2]:
        pytest.skip("timm's GhostNet adds in place, which autograd refuses where a module has a full backward hook")
    whole = settle(randomize(YOLO(f"yolov8-{name}.yaml").model))
    layers = list(backbone(whole.fuse(verbose=False) if mode.startswith("fused") else whole))
    model = (nn.Sequential(*layers) if len(layers) > 1 else layers[0]).train(mode == "training")
    for m in model.modules():
        if getattr(m, "inplace", False):
            m.inplace = False  # timm's own activations overwrite what a hook kept
    single = [(only, False) for only, _ in list(model.named_modules())[::15]]
    x = torch.rand(2, 3, 64, 64)
    if mode in MODES[:2]:  # gradients of many layers with kinks differ by rounding alone
        model, x = model.double(), x.double()
    for only, globally in ((None, False), (None, True), *single):
        got = watched(copy.deepcopy(model), only, mode, globally, x.clone())
        with yolo_effnet.fast_paths(False):
            wanted = watched(copy.deepcopy(model), only, mode, globally, x.clone())
        assert wanted or only is not None
        assert_same(got, wanted, 1e-3)


class Wrapper(nn.Module):
    """Stands for a layer, as LoRA and quantizers do."""

    def __init__(self, base):
        super().__init__()
        self.base, self.calls = base, 0

    def forward(self, x):
        """Map `(B, c, H, W)` to the same shape."""
        self.calls += 1
        return 2 * self.base(x)


@pytest.mark.parametrize("mode", MODES)
def test_what_replaces_a_module_is_called(mode):
    model, x = prepared(mode), torch.rand(1, 3, 64, 64)
    kinds = (nn.Conv2d, nn.BatchNorm2d, nn.SiLU, SqueezeExcite)
    for name in [name for name, m in model.named_modules() if isinstance(m, kinds)]:
        replaced = copy.deepcopy(model)
        wrapper = Wrapper(replaced.get_submodule(name))
        parent, _, attribute = name.rpartition(".")
        setattr(replaced.get_submodule(parent), attribute, wrapper)
        with torch.set_grad_enabled(mode in MODES[:2]):
            y = replaced(x)
            assert wrapper.calls == 1, name
            if mode != "training":
                with yolo_effnet.fast_paths(False):
                    torch.testing.assert_close(y, replaced(x), rtol=1e-4, atol=1e-4)


def test_second_derivatives_are_those_of_the_plain_layers():
    def penalty(model):
        x = torch.linspace(0, 1, 2 * 3 * 32 * 32, dtype=torch.float64).view(2, 3, 32, 32).requires_grad_()
        (gradient,) = torch.autograd.grad(model(x).square().mean(), x, create_graph=True)
        gradient.square().sum().backward()
        return [p.grad for p in model.parameters() if p.grad is not None]

    torch.manual_seed(0)
    model = randomize(nn.Sequential(EfficientNetStem(3, 8), MBConv(8, 8), MBConv(8, 16, 5, 2))).train()
    model.double()
    got = penalty(copy.deepcopy(model))
    with yolo_effnet.fast_paths(False):
        wanted = penalty(copy.deepcopy(model))
    scale = max(b.abs().max().item() for b in wanted)  # some are zero but for rounding
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5 * scale)


@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")  # torch scripts at the first derivative
@pytest.mark.parametrize("training", [False, True])
def test_forward_mode_derivatives_are_those_of_the_plain_layers(training):
    def derivative(model):
        with forward_ad.dual_level():
            return forward_ad.unpack_dual(model(forward_ad.make_dual(x, x))).tangent

    model, x = everything(training), torch.rand(2, 3, 32, 32)
    with yolo_effnet.fast_paths(False):
        wanted = derivative(copy.deepcopy(model))
    torch.testing.assert_close(derivative(copy.deepcopy(model)), wanted, rtol=1e-3, atol=1e-3)
    if not training:  # in training BatchNorm changes what a transform may not
        torch.testing.assert_close(torch.func.jvp(model, (x,), (x,))[1], wanted, rtol=1e-3, atol=1e-3)


def test_a_step_that_fails_leaves_no_nan():
    model = DetectionModel("yolov8-effb0.yaml", verbose=False).train()
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        model(torch.rand(1, 3, 32, 32))
    assert all(v.isfinite().all() for v in model.state_dict().values())


def test_an_empty_batch_is_that_of_the_plain_layers():
    model = fused(everything(False))
    with torch.no_grad():
        assert model(torch.rand(0, 3, 64, 64)).shape == (0, 8, 8, 8)


@pytest.mark.parametrize(("value", "fast"), [("0", False), ("", True), ("1", True)])
def test_a_variable_turns_all_off(value, fast):
    code = "from yolo_effnet.nn import gate; import torch; print(gate.is_allowed(torch.rand(1)))"
    env = {**os.environ, "YOLO_EFFNET_FAST": value}
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True, env=env)
    assert done.stdout.split()[-1] == str(fast)


@pytest.fixture
def _fast():
    """Leave the setting of the process as it was."""
    before = list(gate._process)
    yield
    gate._process[:] = before


def fast() -> bool:
    return gate.is_allowed(torch.rand(1))


@pytest.mark.usefixtures("_fast")
def test_fast_paths_of_the_process_and_of_blocks():
    seen = [fast()]
    yolo_effnet.fast_paths(False)
    seen.append(fast())
    with yolo_effnet.fast_paths(True) as on:
        seen.append(fast())
        with yolo_effnet.fast_paths(False), on:
            seen.append(fast())
        seen.append(fast())
    seen.append(fast())
    for _ in range(200):
        yolo_effnet.fast_paths(True)
    seen.append(fast())
    with pytest.raises(ValueError, match="inside"), yolo_effnet.fast_paths(False):
        raise ValueError("inside")
    seen.append(fast())
    assert seen == [True, False, True, True, True, False, True, True]
    assert len(gate._process) < 100


@pytest.mark.usefixtures("_fast")
def test_fast_paths_of_threads_leave_the_process_as_it_was():
    """Of blocks that overlap, and one of which sets something else."""
    entered, left, seen = [threading.Barrier(3, timeout=30) for _ in range(2)], [], {}

    def run(name, enabled):
        with yolo_effnet.fast_paths(enabled):
            entered[0].wait()
            seen[name] = fast()
            entered[1].wait()
        left.append(fast())

    settings = {"a": False, "b": False, "c": True}
    threads = [threading.Thread(target=run, args=item) for item in settings.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == settings
    assert left == [True] * 3
    assert fast()


@pytest.mark.usefixtures("_fast")
def test_fast_paths_of_many_threads_leave_the_process_as_it_was():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        wrong = []

        def run():
            for _ in range(500):
                with yolo_effnet.fast_paths(False):
                    if fast():
                        wrong.append(1)

        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert not wrong
    assert fast()


WITHOUT = """
import torch
import torch.autograd.forward_ad
from torch import nn
value = {owner}.{name}
del {owner}.{name}
import yolo_effnet
from yolo_effnet.nn import gate
from yolo_effnet.nn.blocks import MBConv
if {needed}:
    {owner}.{name} = value
assert not gate.is_allowed(torch.rand(1))
block = MBConv(8, 8)
block(torch.rand(2, 8, 16, 16)).sum().backward()
block.eval()
with torch.no_grad():
    block(torch.rand(2, 8, 16, 16))
from ultralytics import YOLO
YOLO("yolov8-efflite0.yaml").predict(torch.rand(1, 3, 64, 64), verbose=False)
"""


@pytest.mark.parametrize(
    ("owner", "name", "needed"),
    [
        ("torch._C", "_len_torch_function_stack", True),
        ("torch._C", "_len_torch_dispatch_stack", False),
        ("torch._C._functorch", "peek_interpreter_stack", False),
        ("torch.autograd.forward_ad", "_current_level", False),
        ("nn.modules.module", "_has_any_global_hook", True),
    ],
)
def test_without_a_private_name_of_torch_the_plain_layers_compute(owner, name, needed):
    """Torch gets it back where it cannot compute without."""
    code = WITHOUT.format(owner=owner, name=name, needed=needed)
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", FAMILIES)
def test_fast_paths_give_the_numbers_of_the_plain_layers(name):
    model = YOLO(f"yolov8-{name}.yaml").model
    settle(randomize(model))
    x = torch.rand(2, 3, 64, 96)
    for network in (model, copy.deepcopy(model).fuse(verbose=False)):
        with torch.no_grad():
            got = features(network, x)
            with yolo_effnet.fast_paths(False):
                assert_equal(got, features(network, x))
