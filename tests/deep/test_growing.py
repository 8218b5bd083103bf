"""`model.schedule: growing` against the run with weight decay, by real fits in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor

from janus_pl.callbacks import LayerRotation, RankBound, UpdateSplit
from janus_pl.deep import descent, growing
from janus_pl.theory.growing import growth, shrinkage

ETA, LAM, EPOCHS = 0.05, 0.02, 68  # of three steps


class Path(Callback):
    """Notes V_k, rho, ||v_k|| and the rates of both groups, before the first step and after all."""

    def __init__(self) -> None:
        self.directions: list[Tensor] = []
        self.rho: list[float] = []
        self.norms: list[Tensor] = []
        self.rates: list[tuple[float, ...]] = []

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._note(pl_module)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.rates.append(tuple(group["lr"] for group in optimizer.param_groups))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self._note(pl_module)

    def _note(self, task: Any) -> None:
        directions = task.parametrization.directions().values()
        self.directions.append(torch.cat([V.flatten() for V in directions]).clone())
        self.norms.append(task.parametrization.norms())
        self.rho.append(float(task.network.rho.detach()))


def apart(one: Path, other: Path) -> float:
    """The largest difference of an entry of a V_k, over all steps."""
    return float((torch.stack(one.directions) - torch.stack(other.directions)).abs().max())


def sgd(momentum: float, **options: Any) -> Callable[..., torch.optim.SGD]:
    return lambda params, lr: torch.optim.SGD(params, lr, momentum, **options)


@pytest.fixture
def train(fit: Any, small_task: Any, small_loader: Any) -> Callable[..., Path]:
    def run(
        schedule: str,
        momentum: float,
        epochs: int = EPOCHS,
        callbacks: Sequence[Callback] = (),
        **options: Any,
    ) -> Path:
        path = Path()
        options = {"learning_rate": ETA, "weight_decay": LAM, "init_scale": 0.5, **options}
        options = {"optimizer": sgd(momentum), **options}
        task = small_task(schedule=schedule, **options).double()
        fit(
            task, small_loader(dtype=torch.float64), epochs, [path, *callbacks], precision="64-true"
        )
        return path

    return run


@pytest.mark.parametrize(("momentum", "fused"), [(0.0, False), (0.9, False), (0.9, True)])
def test_directions_and_rho_are_those_of_weight_decay(
    momentum: float, fused: bool, train: Any
) -> None:
    """A fused optimizer takes a first buffer, too."""
    optimizer = sgd(momentum, fused=fused)
    decayed = train("constant", momentum)
    grown = train("growing", momentum, optimizer=optimizer)
    assert len(grown.directions) == 3 * EPOCHS + 1
    assert apart(grown, decayed) < 1e-10
    assert grown.rho == pytest.approx(decayed.rho, rel=1e-10)
    # The controls of this test: V_k move, decay matters to them, and ||v_k|| are others.
    moved = grown.directions[0] - grown.directions[-1]
    assert float(moved.abs().max()) > 1e-3
    assert apart(train("constant", momentum, weight_decay=0.0), decayed) > 1e-6
    assert float((grown.norms[-1] / decayed.norms[-1]).min()) > 1.1


@pytest.mark.parametrize("fault", ["no first buffer", "an exponent off by one"])
def test_neither_the_buffer_nor_the_exponent_can_be_another(
    fault: str, train: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control."""
    decayed = train("constant", 0.9)
    if fault == "no first buffer":
        monkeypatch.setattr(descent, "fill_buffers", lambda *_: None)
    else:
        monkeypatch.setattr(growing, "growth", lambda alpha, step: growth(alpha, step + 1))
    assert apart(train("growing", 0.9), decayed) > 1e-6


def test_the_rate_grows_with_every_step_and_that_of_rho_stays(train: Any, rows: Any) -> None:
    grown = train("growing", 0.9, 3)
    alpha = shrinkage(ETA, LAM, 0.9)
    expected = [(ETA * alpha ** (-2 * t - 1), ETA) for t in range(9)]
    assert [v for v, _ in grown.rates] == pytest.approx([v for v, _ in expected], rel=1e-14)
    assert {rho for _, rho in grown.rates} == {ETA}
    assert [row["learning_rate"] for row in rows[1:]] == [ETA] * 3
    assert [row["eta_t"] for row in rows] == pytest.approx([3 * k * ETA for k in range(4)])


def test_an_epochs_interval_makes_no_other_steps(train: Any) -> None:
    one, other = (train("growing", 0.9, 2, schedule_interval=each) for each in ("epoch", "step"))
    assert one.rates == other.rates
    assert apart(one, other) == 0


def test_without_weight_decay_it_is_the_constant_rate(train: Any) -> None:
    grown, constant = (train(name, 0.9, 3, weight_decay=0.0) for name in ("growing", "constant"))
    assert apart(grown, constant) < 1e-14


def test_what_callbacks_record_is_of_the_rate_in_force(train: Any, rows: Any) -> None:
    """The effective rate is that of the twin; before a step decay has not shrunk v_k yet."""
    looks = lambda: [LayerRotation(1), UpdateSplit(1), RankBound(1)]  # noqa: E731
    train("growing", 0.0, 4, looks())
    grown = [*rows]
    rows.clear()
    train("constant", 0.0, 4, looks())
    for row, twin in zip(grown[1:], rows[1:], strict=True):
        assert row["epoch"] == twin["epoch"]
        rates = [key for key in row if key.startswith(("effective_rate/", "rotation"))]
        assert len(rates) == 6 * (2 if row["epoch"] == 0 else 3)
        for key in rates:
            kept = 1 - ETA * LAM if key.startswith("effective_rate") else 1
            assert row[key] * kept == pytest.approx(twin[key], rel=1e-9), key
        for layer in ("conv1", "fc2"):
            assert row[f"update/decay/{layer}"] == 0 < twin[f"update/decay/{layer}"]
            assert row[f"tail_bound/vacuous/{layer}"] in (0, 1)


def test_the_first_buffer_is_no_part_of_a_step(
    train: Any, rows: Any, caplog: pytest.LogCaptureFixture
) -> None:
    train("growing", 0.9, 2, [UpdateSplit(1)])
    assert not any(key.startswith("update/") for row in rows for key in row)
    assert caplog.text.count("first momentum buffer under model.schedule: growing") == 1
