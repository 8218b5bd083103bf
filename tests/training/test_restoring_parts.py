"""The parts of restoring: optimizers and schedules of PyTorch, the history, the steps left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, RMSprop
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    CosineAnnealingLR,
    ExponentialLR,
    LinearLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
)

from janus_pl.errors import UsageError
from janus_pl.run import history
from janus_pl.training.restoring import (
    check_optimizers,
    check_options,
    check_steps_left,
    same,
    take_schedulers,
)


def parameters(count: int = 2) -> list[nn.Parameter]:
    made = [nn.Parameter(torch.ones(3, 2)) for _ in range(count)]
    for parameter in made:
        parameter.grad = torch.ones(3, 2)
    return made


def checkpoint(optimizer: Any, scheduler: Any = None, steps: int = 3) -> dict[str, Any]:
    """What a checkpoint has of them after some steps."""
    for _ in range(steps):
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
    schedulers = [] if scheduler is None else [scheduler.state_dict()]
    return {"optimizer_states": [optimizer.state_dict()], "lr_schedulers": schedulers}


# Optimizers


@pytest.mark.parametrize(
    "now",
    [
        lambda p: SGD(p, 0.1, momentum=0.5, nesterov=True),
        lambda p: SGD(p, 0.1),
        lambda p: SGD(p, 0.1, momentum=0.9, weight_decay=1.0, maximize=True),
    ],
)
def test_options_that_the_buffers_serve_are_taken(now: Any) -> None:
    check_optimizers([now(parameters())], checkpoint(SGD(parameters(), 0.1, momentum=0.9)))


def test_a_momentum_that_begins_at_the_checkpoint_makes_its_own_buffer() -> None:
    held = checkpoint(SGD(parameters(), 0.1))
    check_optimizers([SGD(parameters(), 0.1, momentum=0.9)], held)


@pytest.mark.parametrize(
    ("then", "now", "says"),
    [
        (
            lambda p, lr: SGD(p, lr, 0.9),
            lambda p: Adam(p, 0.1),
            "Adam.* lack 'exp_avg'",
        ),
        (Adam, lambda p: Adam(p, 0.1, amsgrad=True), r"{'amsgrad': True}, allowed: {'amsgrad': F"),
        (RMSprop, lambda p: RMSprop(p, 0.1, centered=True), "lack 'grad_avg'"),
    ],
)
def test_buffers_that_were_never_made_are_named(then: Any, now: Any, says: str) -> None:
    held = checkpoint(then(parameters(), 0.1))
    with pytest.raises(UsageError, match=says):
        check_optimizers([now(parameters())], held)


def test_the_trial_leaves_the_optimizer_as_it_is() -> None:
    optimizer = Adam(parameters(), 0.1)
    before = [p.detach().clone() for p in optimizer.param_groups[0]["params"]]
    called: list[int] = []
    optimizer.register_step_pre_hook(lambda *_: called.append(1))
    check_optimizers([optimizer], checkpoint(Adam(parameters(), 0.1)))
    assert optimizer.state == {} and called == []
    assert same(before, [p.detach() for p in optimizer.param_groups[0]["params"]])


@pytest.mark.parametrize("groups", [1, 3])
def test_other_groups_are_refused(groups: int) -> None:
    held = checkpoint(SGD([{"params": parameters(1)}, {"params": parameters(2)}], 0.1))
    now = SGD([{"params": parameters(1)} for _ in range(groups)], 0.1)
    with pytest.raises(UsageError, match=r"groups of \[\[1, 2\]\] parameters, as in the check"):
        check_optimizers([now], held)


def test_the_class_is_named_with_both_names() -> None:
    held = {**checkpoint(SGD(parameters(), 0.1)), "configured": {"classes": ["SGD"]}}
    with pytest.raises(UsageError, match="got 'Adam', allowed: SGD, as in the checkpoint"):
        check_optimizers([Adam(parameters(), 0.1)], held)


# Schedules

SCHEDULES: dict[str, Any] = {
    "exponential": lambda o: ExponentialLR(o, 0.9),
    "cosine": lambda o: CosineAnnealingLR(o, 7),
    "one cycle": lambda o: OneCycleLR(o, 0.5, total_steps=9),
    "in turn": lambda o: SequentialLR(o, [LinearLR(o, 0.1), ExponentialLR(o, 0.9)], [2]),
    "a chain": lambda o: ChainedScheduler([LinearLR(o, 0.1), ExponentialLR(o, 0.9)]),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_fresh_schedule_comes_to_the_very_state_of_the_checkpoint(name: str) -> None:
    """So an unchanged config goes on bit for bit."""
    optimizer = SGD(parameters(), 0.1, momentum=0.9)
    held = checkpoint(optimizer, SCHEDULES[name](optimizer), steps=5)
    fresh = SGD(parameters(), 0.1, momentum=0.9)
    scheduler = SCHEDULES[name](fresh)
    take_schedulers([scheduler], held)
    groups = held["optimizer_states"][0]["param_groups"]
    live = fresh.state_dict()["param_groups"]
    assert same(groups, live)
    assert same(scheduler.state_dict(), held["lr_schedulers"][0])
    other = SGD(parameters(), 0.2, momentum=0.9)  # negative control
    take_schedulers([SCHEDULES["exponential"](other)], held)
    assert not same(groups, other.state_dict()["param_groups"])


def test_schedules_that_cannot_come_there_are_refused() -> None:
    optimizer = SGD(parameters(), 0.1, momentum=0.9)
    held = checkpoint(optimizer, OneCycleLR(optimizer, 0.5, total_steps=9), steps=5)
    with pytest.raises(UsageError, match="OneCycleLR', allowed: one of at least 5 steps"):
        take_schedulers([OneCycleLR(optimizer, 0.5, total_steps=4)], held)
    with pytest.raises(UsageError, match="ReduceLROnPlateau', allowed: unchanged options"):
        take_schedulers([ReduceLROnPlateau(optimizer)], held)
    with pytest.raises(UsageError, match="got '0 of them', allowed: 1, as in the checkpoint"):
        take_schedulers([], held)


# What is equal


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        ({"a": [1, (2, 3)]}, {"a": (1, [2, 3])}, True),
        ({"a": 1}, {"b": 1}, False),
        ([1, 2], [1], False),
        (torch.tensor(0.5), 0.5, True),
        (torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0]), False),
        (torch.tensor([1.0]), torch.tensor([1.0, 1.0]), False),
        (torch.tensor(1.0), "1", False),
        (None, False, False),
    ],
)
def test_same(a: Any, b: Any, equal: bool) -> None:
    assert same(a, b) == same(b, a) == equal


def test_options_are_compared_where_both_are_known() -> None:
    check_options({"model.hidden": 8, "model.new": 1}, {"model.hidden": 8, "model.old": 2})
    check_options({"model.strides": (1, 2)}, {"model.strides": [1, 2]})
    with pytest.raises(UsageError, match=r"model.strides: got \[1, 2\], allowed: \[2, 2\], as"):
        check_options({"model.strides": (1, 2)}, {"model.strides": [2, 2]})


# The steps left


@pytest.mark.parametrize(
    ("epochs", "steps", "resumes", "field"),
    [
        (5, -1, False, None),
        (4, -1, False, "trainer.max_epochs"),
        (4, -1, True, None),
        (3, -1, True, "trainer.max_epochs"),
        (-1, 13, False, None),
        (None, 12, False, "trainer.max_steps"),
        (None, 12, True, None),
        (None, 11, True, "trainer.max_steps"),
        (-1, -1, False, None),
    ],
)
def test_a_new_run_has_steps_left_and_a_resumed_one_may_have_none(
    epochs: int | None, steps: int, resumes: bool, field: str | None
) -> None:
    loops = {"fit_loop": {"epoch_progress": {"current": {"processed": 4}}}}
    held = {"global_step": 12, "loops": loops}
    if field is None:
        check_steps_left(held, epochs, steps, resumes)
    else:
        with pytest.raises(UsageError, match=f"{field}: got .*, allowed: above"):
            check_steps_left(held, epochs, steps, resumes)


# The history


def entry(step: int, **more: Any) -> dict[str, Any]:
    return {"step": step, "changed": {"model.lr": [1, step]}, **more}


def test_changes_after_the_checkpoint_go(tmp_path: Path) -> None:
    assert history.read(tmp_path) == []
    assert history.add(tmp_path, {"step": 3, "changed": {}}) == []
    assert not (tmp_path / history.FILE).exists()
    history.add(tmp_path, entry(3, parent="a"))
    history.add(tmp_path, entry(5))
    assert history.add(tmp_path, entry(8)) == [entry(3, parent="a"), entry(5), entry(8)]
    assert history.add(tmp_path, entry(5)) == [entry(3, parent="a"), entry(5)]
    assert history.add(tmp_path, {"step": 5, "changed": {}}) == [entry(3, parent="a")]
    assert history.read(tmp_path) == [entry(3, parent="a")]
    assert history.add(tmp_path, entry(4, parent="b")) == [entry(4, parent="b")]


def test_an_entry_names_the_run_of_the_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "abc" / "checkpoints" / "last.ckpt"
    held = {"global_step": 7, "config": {"model": {"lr": 1}, "name": "x"}}
    now = {"model": {"lr": 2}, "name": "y"}
    found = history.entry_of(file, held, now, resumes=False)
    assert found == {
        **{"step": 7, "parent": None, "checkpoint": str(file)},
        "changed": {"model.lr": [1, 2]},
    }
    file.parent.mkdir(parents=True)
    (tmp_path / "abc" / "config.yaml").touch()
    assert history.entry_of(file, held, now, resumes=False)["parent"] == "abc"
    assert "parent" not in history.entry_of(file, held, now, resumes=True)
    assert history.entry_of(file, {"global_step": 7}, now, resumes=True)["changed"] == {}
    # A checkpoint without a config has that of its folder.
    (tmp_path / "abc" / "config.yaml").write_text("model: {lr: 5}\n")
    old = history.entry_of(file, {"global_step": 7}, now, resumes=True)
    assert old["changed"] == {"model.lr": [5, 2]}
