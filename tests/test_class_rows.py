"""Rows of classes that a trained detector does not know, in real trainings."""

import gloo
import pictures
import pytest
import torch
import torch.nn.functional as F
from donors import checkpoint
from ultralytics import YOLO

from yolo_effnet.host.class_rows import solution
from yolo_effnet.nn.origin import TRAINED, note

QUICK = {"imgsz": 64, "batch": 4, "workers": 0, "plots": False, "verbose": False, "device": "cpu", "epochs": 1}
MODEL = "yolov8-mobilenetv2_050"
TASKS = {"detect": MODEL, "segment": f"{MODEL}-seg", "pose": f"{MODEL}-pose", "obb": f"{MODEL}-obb"}
END_TO_END = {"detect": "yolo26-effb0", "segment": "yolo26-effb0-seg"}
LINE = "rows of cold, warm solved from the labels of 8 pictures"


def renamed(data, names: tuple[str, ...]):
    """Return a data set with other names of its classes."""
    file = data.with_stem("_".join(names))
    file.write_text(data.read_text().replace(str(dict(enumerate(pictures.NAMES))), str(dict(enumerate(names)))))
    return file


def detector(name: str, folder, task: str = "detect") -> str:
    """Return a checkpoint with random weights that passes for a trained one."""
    file = checkpoint(name, folder)
    held = torch.load(file, weights_only=False)
    note(held["model"], TRAINED, TRAINED)
    torch.save({**held, "train_args": {"task": task}}, file)
    return file


def at_start(model: YOLO, **options):
    """Return what a training starts from, as a model that predicts, and the trainer."""
    trainers = []

    def stop(trainer):
        trainers.append(trainer)
        raise KeyboardInterrupt

    model.add_callback("on_train_start", stop)
    with pytest.raises(KeyboardInterrupt):
        model.train(**{**QUICK, **options})
    trainer = trainers[0]
    file = trainer.save_dir / "start.pt"
    torch.save({"model": trainer.model.eval(), "train_args": {"task": trainer.args.task}}, file)
    return YOLO(file), trainer


def rows(model) -> list[torch.Tensor]:
    """Return weights `(classes, inputs)` of each convolution that scores classes, of inference."""
    head = model.model[-1]
    branches = head.one2one_cv3 if hasattr(head, "one2one_cv3") else head.cv3
    return [branch[-1].weight.detach().flatten(1) for branch in branches]


def test_classes_of_other_names_are_found_before_any_training(learned, tmp_path, caplog):
    """By what was learnt under other names; a class without labels stays as Ultralytics drew it."""
    weights, data = learned
    data = renamed(data, ("cold", "warm", "wet"))
    start, trainer = at_start(YOLO(weights), data=data, project=tmp_path, blend=0.5)
    assert "rows of cold, warm solved from the labels of 64 pictures, ridge " in caplog.text
    assert start.val(data=data, imgsz=64, plots=False, device="cpu", project=tmp_path).box.map50 > 0.6
    began = torch.load(trainer.wdir / "start.pt")[f"model.{len(trainer.model.model) - 1}.cv3.0.2.weight"]
    assert began.isnan().all(dim=(1, 2, 3)).tolist() == [False, False, True]
    assert rows(trainer.model)[0][2].abs().max() > 0

    caplog.clear()
    # Another seed than that of what was learnt, whose rows are still much like they were drawn.
    drawn, _ = at_start(YOLO(weights), data=data, project=tmp_path, cls_remap=False, seed=5)
    assert "solved from the labels" not in caplog.text
    assert drawn.val(data=data, imgsz=64, plots=False, device="cpu", project=tmp_path).box.map50 < 0.2


def test_rows_of_a_known_name_stay(learned, tmp_path, caplog):
    """To the bit, beside one that is solved for."""
    weights, data = learned
    trained = YOLO(weights).model.float()
    if not hasattr(trained, "_remap_cls_by_names"):
        pytest.skip("this release of Ultralytics keeps no row by its name")
    data = renamed(data, ("bluish", "warm", "wet"))
    _, trainer = at_start(YOLO(weights), data=data, project=tmp_path)
    assert "rows of warm solved from the labels of 64 pictures" in caplog.text
    for before, after in zip(rows(trained), rows(trainer.model), strict=True):
        assert torch.equal(before[0], after[0])
        assert not torch.equal(before[1], after[1])


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("names", [TASKS, END_TO_END], ids=["yolov8", "yolo26"])
def test_every_task(names, task, tmp_path, caplog):
    """Both branches of YOLO26 get rows, and the training goes on from them."""
    if task not in names:
        pytest.skip("one task with masks and one without are enough")
    source = detector(names[task], tmp_path, task)
    data = renamed(pictures.draw(task, tmp_path), ("cold", "warm"))
    model = YOLO(source)
    model.train(data=data, project=tmp_path, **QUICK)
    assert caplog.text.count(LINE) == 1
    trained = YOLO(model.trainer.last).model
    assert all(tensor.isfinite().all() for tensor in rows(trained))
    _, trainer = at_start(YOLO(model.trainer.last), data=data, project=tmp_path)
    assert caplog.text.count(LINE) == 1
    assert "new_rows" not in vars(trainer.model)


def test_the_same_pictures_give_the_same_rows(tmp_path):
    """Whatever the seed of the training."""
    source = detector(MODEL, tmp_path)
    data = renamed(pictures.draw("detect", tmp_path), ("cold", "warm"))
    found = [rows(at_start(YOLO(source), data=data, project=tmp_path, seed=seed)[1].model) for seed in (0, 1)]
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("labels", ["none", "one picture"])
def test_without_labels_to_solve_by_rows_are_drawn(labels, tmp_path, caplog):
    """As Ultralytics does it, with nothing said."""
    data = renamed(pictures.draw("detect", tmp_path), ("cold", "warm"))
    for file in sorted((tmp_path / "labels" / "train").glob("*.txt"))[labels == "one picture" :]:
        file.write_text("")
    _, trainer = at_start(YOLO(detector(MODEL, tmp_path)), data=data, project=tmp_path)
    assert ("solved from the labels" in caplog.text) == (labels == "one picture")
    assert all(tensor.isfinite().all() for tensor in rows(trainer.model))


def test_ranks_begin_with_equal_rows(tmp_path):
    """The first rank solves."""
    source = detector(MODEL, tmp_path)
    data = renamed(pictures.draw("detect", tmp_path), ("cold", "warm"))
    alone = rows(at_start(YOLO(source), data=data, project=tmp_path)[1].model)
    model = YOLO(source)
    model.add_callback("on_train_start", gloo.record("start", tmp_path))
    model.train(trainer=gloo.GlooTrainer, data=data, project=tmp_path, **QUICK)
    name = f"model.{len(YOLO(source).model.model) - 1}.cv3.0.2.weight"
    ranks = [torch.load(tmp_path / f"start{rank}.pt")["model"][name].flatten(1) for rank in range(gloo.RANKS)]
    assert torch.equal(*ranks)
    torch.testing.assert_close(ranks[0], alone[0])


def test_the_solution_is_a_minimum():
    """Of the weighted loss with its penalty."""
    x, y, weight, ridge = torch.randn(200, 5), torch.rand(200, 2), torch.rand(200) + 0.5, 1e-2
    found = solution(x, y, weight, ridge).requires_grad_()
    scores = x @ found[:-1] + found[-1]
    loss = F.binary_cross_entropy_with_logits(scores, y, reduction="none").sum(1) @ weight / weight.sum()
    (loss + ridge * (found[:-1] ** 2).sum()).backward()
    assert found.grad.abs().max() < 1e-4
    assert found.detach().abs().max() > 0.01


def test_hidden_layers_of_the_branches_are_kept(tmp_path):
    """Which Ultralytics builds narrower for fewer classes than the source has."""
    source = YOLO(checkpoint(MODEL, tmp_path)).model
    model = type(source)(source.yaml, nc=1, verbose=False)
    model.load(source)
    for ours, theirs in zip(model.model[-1].cv3, source.model[-1].cv3, strict=True):
        assert torch.equal(ours[0].conv.weight, theirs[0].conv.weight)
        assert ours[-1].weight.shape == (1, theirs[-1].in_channels, 1, 1)
