"""The guard by itself: which weights stay, what is counted, and what the first bad step is called.

The oracle is a loop in plain floats: w <- w - eta g until something is not finite, then w for ever.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from lockstep import Lanes
from torch import Tensor, nn

from janus_pl.training.guard import UpdateGuard

NAMES = ("conv1", "fc1", "rho")
NAN, INF = math.nan, math.inf


class Stepper:
    """What Lightning wraps around an optimizer, as far as the guard knows it."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def step(self) -> None:
        self.optimizer.step()


class Bench:
    """Three weights of one, two and no dimensions, that a guard holds, and SGD at rate 1/4."""

    def __init__(self, steps: int = 0, **options: Any) -> None:
        shapes: list[Sequence[int]] = [(3,), (2, 2), ()]
        self.weights = [nn.Parameter(torch.full(shape, 1.0).double()) for shape in shapes]
        self.guard = UpdateGuard(dict(zip(NAMES, self.weights, strict=True)), steps)
        self.optimizer = torch.optim.SGD(self.weights, 0.25, **options)

    def step(
        self, gradients: Sequence[float] = (1.0, 1.0, 1.0), losses: Sequence[float] = (0.5,)
    ) -> None:
        self.guard.begin()
        for weight, value in zip(self.weights, gradients, strict=True):
            weight.grad = torch.full_like(weight, value)
        parts = [torch.tensor(loss, dtype=torch.float64) for loss in losses]
        self.guard.step(Stepper(self.optimizer), *parts)
        self.guard.settle()

    @property
    def values(self) -> list[float]:
        """The value that all entries of each weight have."""
        values = [weight.detach().unique().tolist() for weight in self.weights]
        assert all(len(value) == 1 for value in values)
        return [value[0] for value in values]

    @property
    def state(self) -> list[float]:
        return self.guard.state().tolist()


def test_sound_steps_are_the_optimizers_own_and_counted() -> None:
    bench = Bench(steps=40)
    for n in range(1, 4):
        bench.step((1.0, 2.0, -1.0))
        assert bench.values == [1 - n / 4, 1 - n / 2, 1 + n / 4]
        assert bench.state == [0.0, 40.0 + n]


BAD: dict[str, tuple[tuple[float, ...], tuple[float, ...], str]] = {
    "loss": ((1.0, 1.0, 1.0), (NAN,), "loss"),
    "one loss of several": ((1.0, 1.0, 1.0), (0.5, 0.25, INF), "loss"),
    "the first gradient": ((NAN, 1.0, 1.0), (0.5,), "gradient of conv1"),
    "the last gradient": ((1.0, 1.0, -INF), (0.5,), "gradient of rho"),
    "all gradients": ((NAN, NAN, INF), (0.5,), "gradient of rho"),  # where the backward pass began
    "two gradients": ((NAN, NAN, 1.0), (0.5,), "gradient of fc1"),
    "loss and gradients": ((NAN, NAN, NAN), (NAN,), "loss and gradient of rho"),
    "a norm that overflows": ((1.0, -1e200, 1.0), (0.5,), "gradient of fc1"),
}


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("what", BAD)
@pytest.mark.parametrize("sound", [0, 3])
def test_from_the_first_bad_step_on_the_weights_are_those_before_it(
    sound: int, what: str, fused: bool
) -> None:
    """Whatever follows, good or bad, and the first bad step keeps its name."""
    gradients, losses, culprit = BAD[what]
    bench = Bench(steps=7, momentum=0.5, fused=fused)
    for _ in range(sound):
        bench.step()
    before = bench.values
    bench.step(gradients, losses)
    for _ in range(2):
        assert bench.values == before
        assert bench.state == [1.0, 7.0 + sound]
        assert bench.guard.culprit() == culprit
        bench.step()  # a good one
        bench.step((1.0, NAN, 1.0), (INF,))  # a bad one of another kind
    if fused and sound:  # its own state stays sound, too; before any step it has none
        buffers = [bench.optimizer.state[weight]["momentum_buffer"] for weight in bench.weights]
        assert all(buffer.isfinite().all() for buffer in buffers)


@pytest.mark.parametrize(
    ("bad", "culprit"), [([0], "conv1"), ([2], "rho"), ([1, 2], "fc1"), ([0, 1, 2], "conv1")]
)
def test_a_weight_that_was_bad_before_its_step_is_the_culprit_and_the_first_of_them(
    bad: list[int], culprit: str
) -> None:
    bench = Bench()
    bench.step()
    held = bench.values
    for k in bad:
        bench.weights[k].data.fill_(NAN)
    bench.step((NAN, NAN, NAN), (NAN,))
    assert bench.guard.culprit() == f"parameter {culprit}"
    assert bench.values == held == [0.75] * 3
    assert bench.state == [1.0, 1.0]


def test_a_weight_that_an_update_makes_bad_is_the_culprit() -> None:
    """Gradients that are finite, and a step that is not."""
    bench = Bench()
    bench.optimizer.param_groups[0]["lr"] = 1e10
    bench.step((1.0, 1e150, 1.0))
    assert bench.guard.culprit() == "parameter fc1"
    assert bench.values == [1.0] * 3


def test_a_missing_gradient_is_sound() -> None:
    bench = Bench()
    bench.guard.begin()
    bench.guard.step(Stepper(bench.optimizer), torch.tensor(1.0))
    bench.guard.settle()
    assert bench.state == [0.0, 1.0]


def test_all_gradients_are_cleared() -> None:
    bench = Bench()
    bench.step()
    bench.guard.begin()
    assert [weight.grad for weight in bench.weights] == [None] * 3


def test_a_sound_fused_step_is_scaled_by_nothing() -> None:
    """What an earlier user of the optimizer has left does not scale the gradients."""
    bench = Bench(fused=True)
    bench.optimizer.grad_scale = torch.tensor(8.0)  # type: ignore[attr-defined]
    bench.optimizer.found_inf = torch.tensor(1.0)  # type: ignore[attr-defined]
    bench.step()
    assert bench.values == [0.75] * 3


def test_the_weights_held_are_copies() -> None:
    """The optimizer writes in place; what is held must not move with it."""
    bench = Bench()
    bench.step()
    for weight in bench.weights:
        weight.data.mul_(2)  # behind the guard's back, and finite
    bench.step(losses=(NAN,))
    assert bench.values == [0.75] * 3


def test_a_new_guard_knows_nothing_of_an_earlier_one() -> None:
    bench = Bench()
    bench.step(losses=(NAN,))
    again = UpdateGuard(dict(zip(NAMES, bench.weights, strict=True)), 5)
    assert again.state().tolist() == [0.0, 5.0]


@pytest.mark.parametrize("bad", ["fc1", "rho"])
def test_parameters_of_two_dtypes_are_guarded_together(bad: str) -> None:
    weights = {"fc1": nn.Parameter(torch.ones(2)), "rho": nn.Parameter(torch.ones(()).double())}
    guard = UpdateGuard(weights)
    optimizer = Stepper(torch.optim.SGD([*weights.values()], 0.25))
    for step in range(3):
        guard.begin()
        for name, weight in weights.items():
            weight.grad = torch.full_like(weight, NAN if (name, step) == (bad, 1) else 1.0)
        guard.step(optimizer, torch.tensor(1.0))
        guard.settle()
    assert [weight.unique().tolist() for weight in weights.values()] == [[0.75]] * 2
    assert guard.state().tolist() == [1.0, 1.0]
    assert guard.culprit() == f"gradient of {bad}"


@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize("what", ["loss", "update"])
def test_all_ranks_keep_the_weights_before_a_step_that_is_bad_on_one(what: str, rank: int) -> None:
    """One collective a step, and the same name for it on every rank."""
    lanes = Lanes(3)

    def train(here: int) -> tuple[list[float], list[float], str]:
        bench = Bench()
        for step in range(4):
            mine = step == 2 and here == rank
            if mine and what == "update":
                bench.optimizer.param_groups[0]["lr"] = INF
            bench.step(losses=(NAN if mine and what == "loss" else 0.5,))
        return bench.values, bench.state, bench.guard.culprit()

    culprit = "loss" if what == "loss" else "parameter conv1"
    assert lanes.run(train) == [([0.5] * 3, [1.0, 2.0], culprit)] * 3
    assert [len(calls) for calls in lanes.calls] == [4] * 3


def test_alone_it_calls_no_collective(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Tensor) -> None:
        raise AssertionError("a process alone has nobody to ask")

    monkeypatch.setattr(torch.distributed, "all_reduce", refuse)
    bench = Bench()
    bench.step()
    assert bench.state == [0.0, 1.0]
