"""What a growing rate and held norms do not go with: one line, before a run."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from janus_pl import LinearRegressor
from janus_pl.data import DigitsPair
from janus_pl.deep.growing import MOST, check_growth, steps_ahead
from janus_pl.errors import UsageError
from janus_pl.theory.growing import growth, shrinkage
from janus_pl.training.schedules import planned

FOR = "for model.schedule: growing"


def sgd(**options: Any) -> Callable[..., torch.optim.SGD]:
    return partial(torch.optim.SGD, **{"momentum": 0.9, **options})


GROWING: list[tuple[dict[str, Any], str]] = [
    *(
        ({"normalization": name}, f"model.normalization: got '{name}', allowed: weight_norm, {FOR}")
        for name in ("per_layer", "lagrange", "none")
    ),
    ({"decay": "rho"}, f"model.decay: got 'rho', allowed: all, {FOR}"),
    (
        {"optimizer": torch.optim.Adam},
        f"model.optimizer: got 'Adam', allowed: torch.optim.SGD, {FOR}",
    ),
    (
        {"optimizer": sgd(nesterov=True)},
        f"model.optimizer.nesterov: got True, allowed: false, {FOR}",
    ),
    (
        {"optimizer": sgd(dampening=0.5)},
        f"model.optimizer.dampening: got 0.5, allowed: 0, {FOR}",
    ),
    (
        {"optimizer": sgd(maximize=True)},
        f"model.optimizer.maximize: got True, allowed: false, {FOR}",
    ),
    (
        {"learning_rate": 0.1, "weight_decay": 0.03},
        f"model.weight_decay: got 0.03, allowed: at most 0.02633 at this rate and momentum, {FOR}",
    ),
    (
        {"learning_rate": 0.1, "weight_decay": 12.0, "optimizer": sgd(momentum=0.0)},
        f"model.weight_decay: got 12.0, allowed: at most 10 at this rate and momentum, {FOR}",
    ),
    (
        {"hold_norms": 1.0},
        "model.schedule: got 'growing', allowed: another one, for model.hold_norms: it holds the"
        " rate that is to grow",
    ),
]


@pytest.mark.parametrize(("options", "line"), GROWING)
def test_growing_is_of_weight_norm_and_sgd(
    options: dict[str, Any], line: str, small_task: Any
) -> None:
    with pytest.raises(UsageError) as refused:
        small_task(schedule="growing", **options)
    assert str(refused.value) == line
    if options.keys() <= {"normalization", "decay", "optimizer"} and options != {
        "normalization": "none"
    }:
        small_task(schedule="constant", **options)  # the control: the schedule alone is wrong


@pytest.mark.parametrize("c", [0, 0.0, -1.0, math.inf, math.nan, True, "1"])
def test_the_factor_is_above_0(c: Any, small_task: Any) -> None:
    line = r"^model\.hold_norms: got .*, allowed: a finite number above 0$"
    with pytest.raises(UsageError, match=line):
        small_task(hold_norms=c)


@pytest.mark.parametrize("name", ["per_layer", "lagrange", "none"])
def test_norms_are_held_of_weight_norm_alone(name: str, small_task: Any) -> None:
    with pytest.raises(UsageError) as refused:
        small_task(hold_norms=0.5, normalization=name)
    line = f"model.normalization: got '{name}', allowed: weight_norm, for model.hold_norms"
    assert str(refused.value) == line


@pytest.mark.parametrize("field", ["schedule", "gd_schedule"])
def test_a_linear_run_does_not_grow(field: str) -> None:
    line = rf"^model\.{field}: got 'growing', allowed: cosine, constant, inverse_sqrt$"
    with pytest.raises(UsageError, match=line):
        LinearRegressor(**{field: "growing"})


def optimizer(momentum: float) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], 0.03, momentum)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_longest_run_and_the_largest_lambda_that_are_named_are_so(momentum: float) -> None:
    lam, steps = 2e-3, 400_000
    with pytest.raises(UsageError, match=r"^model\.schedule: got 'growing'") as refused:
        check_growth(optimizer(momentum), lam, steps)
    words = refused.value.allowed.split()
    longest = int(words[words.index("most") + 1])
    largest = float(words[words.index("model.weight_decay") + 4].rstrip(":"))
    assert f"(it has {steps})" in refused.value.allowed
    alpha = shrinkage(0.03, lam, momentum)
    assert growth(alpha, longest) * alpha <= MOST < growth(alpha, longest + 1) * alpha
    check_growth(optimizer(momentum), lam, longest)
    check_growth(optimizer(momentum), largest, steps)
    with pytest.raises(UsageError):
        check_growth(optimizer(momentum), lam, longest + 1)
    with pytest.raises(UsageError):
        check_growth(optimizer(momentum), 1.002 * largest, steps)


def test_without_decay_there_is_no_longest_run() -> None:
    check_growth(optimizer(0.9), 0.0, 10**9)


LENGTHS: list[dict[str, Any]] = [
    {"max_epochs": 3},
    {"max_epochs": 3, "max_steps": 7},
    {"max_epochs": -1, "max_steps": 7},
    {"max_epochs": 3, "limit_train_batches": 2},
    {"max_epochs": 3, "limit_train_batches": 0.5},
    {"max_epochs": 3, "limit_train_batches": 100},
    {"fast_dev_run": True},
    {"fast_dev_run": 3},
]


@pytest.mark.parametrize("options", LENGTHS, ids=str)
def test_the_steps_ahead_are_those_that_the_trainer_plans(
    options: dict[str, Any], small_task: Any
) -> None:
    """Before it has a loader, and when it has one."""
    shown = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(**{**shown, "accelerator": "cpu", "enable_model_summary": False, **options})
    seen: list[int] = []

    class Task(type(small_task())):  # type: ignore[misc]
        def configure_optimizers(self) -> Any:
            seen.append(planned(self.trainer, "step"))
            return super().configure_optimizers()

    data = DigitsPair(num_train=50, batch_size=8)
    data.setup()
    expected = steps_ahead(trainer, data.num_train_samples, 8)
    task = Task(schedule="growing", strides=(2, 2, 2, 2), channels=(2, 3, 4, 4), hidden=8)
    trainer.fit(task, data)
    assert seen == [expected] == [trainer.global_step]


def test_a_loader_of_somebody_else_is_counted_when_training_starts(
    small_task: Any, small_loader: Any, fit: Any
) -> None:
    task = small_task(schedule="growing", learning_rate=0.1, weight_decay=0.02)
    with pytest.raises(UsageError, match=r"a run of at most \d+ steps .*\(it has 30000\)"):
        fit(task, small_loader(), 10_000)


def test_an_unknown_length_is_refused(small_task: Any, small_loader: Any, fit: Any) -> None:
    line = r"^trainer\.max_epochs: got -1, allowed: a number of .*, for schedule: growing$"
    with pytest.raises(UsageError, match=line):
        fit(small_task(schedule="growing"), small_loader(), -1)
