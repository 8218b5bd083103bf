"""Schedules against their formulas at every epoch, and what an optimizer may be given."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from janus_pl.deep.optimizers import build_optimizer
from janus_pl.errors import UsageError
from janus_pl.training.schedules import (
    build_scheduler,
    check_end,
    multiplier,
    multipliers,
    planned,
)

FORMULAS = {
    "constant": lambda e, total: 1.0,
    "inverse_sqrt": lambda e, total: (e + 1) ** -0.5,
    "cosine": lambda e, total: math.cos(math.pi * e / (2 * total)) ** 2,
}
every = pytest.mark.parametrize("name", list(FORMULAS))


@every
@pytest.mark.parametrize("total", [1, 2, 7, 100])
def test_multipliers_are_the_formula_at_every_epoch(name: Any, total: int) -> None:
    expected = [FORMULAS[name](e, total) for e in range(total)]
    one_by_one = multiplier(name, total)
    assert [one_by_one(e) for e in range(total)] == pytest.approx(expected, abs=1e-14)
    assert multipliers(name, 0, total, total).tolist() == pytest.approx(expected, abs=1e-14)
    assert expected[0] == 1.0


@every
@pytest.mark.parametrize(("first", "last"), [(0, 3), (4, 9), (8, 9), (11, 12)])
def test_a_part_of_a_run_has_the_multipliers_of_the_whole(name: Any, first: int, last: int) -> None:
    whole = multipliers(name, 0, 12, 12)
    assert multipliers(name, first, last, 12).tolist() == whole[first:last].tolist()
    assert len(whole) == 12


def trainer_of(steps: float, batches: float, **options: Any) -> Any:
    """A trainer that has so many optimizer steps to take, in epochs of so many batches."""
    return SimpleNamespace(
        fit_loop=SimpleNamespace(setup_data=lambda: None),
        estimated_stepping_batches=steps,
        num_training_batches=batches,
        **options,
    )


@pytest.mark.parametrize(
    ("steps", "batches", "epochs"),
    [(30, 10, 3), (31, 10, 4), (39, 10, 4), (1, 10, 1), (0, 10, 1), (5, 0, 5), (7, 1, 7)],
)
def test_epochs_to_run_are_rounded_up(steps: int, batches: int, epochs: int) -> None:
    assert planned(trainer_of(steps, batches)) == epochs


@every
def test_a_scheduler_steps_the_rate_of_every_group_over_the_epochs_of_the_run(name: Any) -> None:
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in (0.5, 2.0)]
    optimizer = torch.optim.SGD(groups, 1.0)
    scheduler = build_scheduler(name, optimizer, trainer_of(50, 10))
    seen = []
    for _ in range(5):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    expected = [[rate * FORMULAS[name](e, 5) for rate in (0.5, 2.0)] for e in range(5)]
    np.testing.assert_allclose(seen, expected, atol=1e-14)


def test_a_scheduler_of_pytorch_is_taken_as_it_is() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 1.0)
    halve = lambda o: torch.optim.lr_scheduler.StepLR(o, 2, 0.5)  # noqa: E731
    scheduler = build_scheduler(halve, optimizer, trainer_of(50, 10))
    assert isinstance(scheduler, torch.optim.lr_scheduler.StepLR)


@pytest.mark.parametrize(
    ("schedule", "epochs", "steps", "refused"),
    [
        ("cosine", -1, -1, True),
        ("cosine", 5, -1, False),
        ("cosine", -1, 5, False),
        ("constant", -1, -1, False),
        ("inverse_sqrt", -1, -1, False),
    ],
)
def test_a_cosine_needs_an_end(schedule: Any, epochs: int, steps: int, refused: bool) -> None:
    trainer: Any = SimpleNamespace(max_epochs=epochs, max_steps=steps)
    if not refused:
        check_end(schedule, trainer)
        return
    with pytest.raises(UsageError, match=r"trainer\.max_epochs: got -1"):
        check_end(schedule, trainer)


def groups_of() -> list[dict[str, Any]]:
    decays = (0.3, 0.0)
    return [{"params": [nn.Parameter(torch.ones(1))], "weight_decay": wd} for wd in decays]


def test_groups_keep_the_decay_that_they_bring_and_share_the_rate() -> None:
    optimizer = build_optimizer(lambda groups, lr: torch.optim.SGD(groups, lr), groups_of(), 0.7)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0]
    assert [group["lr"] for group in optimizer.param_groups] == [0.7, 0.7]


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (
            lambda g, lr: torch.optim.SGD(g, lr, weight_decay=0.1),
            r"optimizer.weight_decay: got 0\.1",
        ),
        (lambda g, lr: torch.optim.SGD(g, lr, momentum=-1), "an optimizer with options that it"),
        (lambda g, lr: torch.optim.SGD(g, lr, speed=1), "an optimizer with options that it"),
        (
            lambda g, lr: torch.optim.SparseAdam([p for group in g for p in group["params"]], lr),
            "SparseAdam",
        ),
        (torch.optim.LBFGS, "^model.optimizer: got 'LBFGS', allowed: .*no closure"),
        (lambda g, lr: torch.optim.LBFGS(g, lr), "^model.optimizer: got 'LBFGS'.*no closure"),
        (
            lambda g, lr: torch.optim.LBFGS([p for group in g for p in group["params"]], lr),
            "^model.optimizer: got 'LBFGS'.*no closure",
        ),
    ],
)
def test_an_optimizer_that_would_not_do_is_named(factory: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build_optimizer(factory, groups_of(), 0.1)
