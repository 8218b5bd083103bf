"""Ranks in lockstep: all call the same collectives, and one that does not is found at once."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL
from distributed_cases import observers, plain_sgd, problem
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lockstep import Lanes, LaneStrategy, Unequal

import janus_pl.training.row
from janus_pl import DeepReLUClassifier
from janus_pl.callbacks import MarginCSV, RankBound
from janus_pl.data import InMemoryBatches
from janus_pl.errors import DivergenceError
from janus_pl.training.ranks import Ranks
from janus_pl.training.signals import Interrupted, StopBetweenSteps, StopSignals

Result = dict[str, Any]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> dict[int, list[dict[str, Any]]]:
    """The rows of every rank."""
    rows: dict[int, list[dict[str, Any]]] = {0: [], 1: [], 2: []}
    keep = lambda trainer, row: rows[trainer.global_rank].append(dict(row))  # noqa: E731
    monkeypatch.setattr(janus_pl.training.row, "write_row", keep)
    return rows


@pytest.fixture
def train(tmp_path: Path, written: Any) -> Callable[..., Result]:
    """One rank's fit of a small classifier in float64; alone without lanes."""

    def run(
        rank: int = 0,
        lanes: Lanes | None = None,
        callbacks: Callable[[], list[Callback]] = list,
        n: int = 11,
        batch_size: Any = 4,
        micro: int | None = 3,
        held_out: int = 0,
        spoil: int | None = None,
        epochs: int = 2,
        ckpt_path: Path | None = None,
        signals: StopSignals | None = None,
        **options: Any,
    ) -> Result:
        torch.manual_seed(0)
        defaults = {**SMALL, "schedule": "constant", "init_scale": 0.8, "learning_rate": 0.003}
        task = DeepReLUClassifier(**{**defaults, **options}).double()
        x, y = problem(n)
        if spoil is not None:
            x[spoil, 0, 0, 0] = torch.inf
        loader = InMemoryBatches(x, y, batch_size, micro, seed=3)
        validation = (
            InMemoryBatches(*problem(held_out), 5, order="sequential") if held_out else None
        )
        trainer = Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            strategy="auto" if lanes is None else LaneStrategy(lanes, rank),
            callbacks=callbacks(),
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            default_root_dir=tmp_path,
            limit_val_batches=1.0 if held_out else 0,
        )
        if signals is not None:  # as the command line does
            trainer.callbacks.append(StopBetweenSteps(signals))  # type: ignore[attr-defined]
        error: BaseException | None = None
        try:
            trainer.fit(task, loader, validation, ckpt_path=ckpt_path)
        except (DivergenceError, Interrupted) as stop:
            error = stop
        weights = [p.detach().clone() for p in task.parameters()]
        result = {"weights": weights, "error": str(error or ""), "steps": trainer.global_step}
        return result | {"trainer": trainer, "task": task}

    return run


CASES: dict[str, dict[str, Any]] = {
    "SGD": {},
    "GD": {"batch_size": "full"},
    "batches of one": {"n": 3, "batch_size": 1, "micro": None},
    "looks": {"callbacks": observers, "held_out": 7},
    "looks at GD": {"callbacks": observers, "batch_size": "full"},
    "tail bound": {"callbacks": lambda: [RankBound()], "optimizer": plain_sgd},
    "early stopping": {
        "callbacks": lambda: [EarlyStopping("train/loss_running", patience=1, min_delta=1e9)],
        "epochs": 9,
    },
    "one rank's sample is not finite": {"spoil": 4},
    "growing": {"schedule": "growing", "weight_decay": 0.3},
    "held norms": {"hold_norms": 0.5, "weight_decay": 0.3},
    "multipliers": {"normalization": "lagrange", "loss": "logistic"},
}


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("name", CASES)
def test_all_ranks_call_the_same_collectives_and_are_one_process(
    name: str, world: int, train: Any, written: Any
) -> None:
    alone = train(**CASES[name])
    right = list(written[0])
    for rows in written.values():
        rows.clear()
    lanes = Lanes(world)
    results = lanes.run(lambda rank: train(rank, lanes, **CASES[name]))
    first, *others = [[call.what for call in calls] for calls in lanes.calls]
    assert len(first) > 2 * (alone["steps"] - 1) > 0
    assert all(other == first for other in others)
    for rank, result in enumerate(results):
        assert result["steps"] == alone["steps"]
        assert result["error"] == alone["error"]
        for found, expected in zip(result["weights"], alone["weights"], strict=True):
            assert float((found - expected).norm()) <= 1e-12 * float(expected.norm())
        assert [row.keys() for row in written[rank]] == [row.keys() for row in right]
        losses = [row["train/loss_running"] for row in right if "train/loss_running" in row]
        found_losses = [r["train/loss_running"] for r in written[rank] if "train/loss_running" in r]
        assert found_losses == pytest.approx(losses, rel=1e-12)


class Signalled(StopSignals):
    """A signal that came to this rank, or to another one."""

    def __init__(self, signum: int) -> None:
        super().__init__()
        self.received = signum

    def install(self) -> None:
        """The handlers of the tests' own process stay."""


def test_a_signal_that_one_rank_got_stops_all_at_one_step(train: Any) -> None:
    lanes = Lanes(2)

    def stop(rank: int) -> Result:
        signals = Signalled(signal.SIGTERM if rank == 1 else 0)
        return train(rank, lanes, epochs=50, signals=signals)

    results = lanes.run(stop)
    assert [r["error"] for r in results] == ["stopped by SIGTERM after step 3"] * 2


def test_every_rank_has_all_margins_and_the_first_one_writes(train: Any, tmp_path: Path) -> None:
    loader = lambda: InMemoryBatches(*problem(7), 5, order="sequential")  # noqa: E731

    def predict(rank: int, lanes: Lanes) -> torch.Tensor:
        fitted = train(rank, lanes, epochs=1)
        file = MarginCSV(str(tmp_path / f"{rank}.csv"))
        trainer = Trainer(
            accelerator="cpu",
            strategy=LaneStrategy(lanes, rank),
            callbacks=[file],
            logger=False,
            enable_progress_bar=False,
            default_root_dir=tmp_path,
        )
        return torch.cat(trainer.predict(fitted["task"], loader()))

    lanes = Lanes(2)
    first, second = lanes.run(lambda rank: predict(rank, lanes))
    assert first.shape == (7,)
    assert torch.equal(first, second)
    assert (tmp_path / "0.csv").exists() and not (tmp_path / "1.csv").exists()


class Extra(Callback):
    """What nobody else calls: a sum on some ranks only."""

    def __init__(self, rank: int, entries: int = 1) -> None:
        self.rank, self.entries = rank, entries

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.global_rank == self.rank:
            torch.distributed.all_reduce(torch.ones(self.entries))


class Impatient(Callback):
    """A look that the first rank alone takes."""

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.is_global_zero:
            pl_module.full_velocity_norms()


FAULTS: dict[str, tuple[Callable[[], list[Callback]], str]] = {
    "an extra one on rank 1": (
        lambda: [Extra(1)],
        r"rank 0: .*; rank 1: all_reduce \(1,\) float32 \(test_lockstep.py:\d+ on_train_epoch",
    ),
    "an extra one on rank 0": (
        lambda: [Extra(0)],
        r"rank 0: all_reduce \(1,\) float32 \(test_lockstep.py:\d+ on_train_epoch_end\); rank 1: ",
    ),
    "a look of one rank": (lambda: [Impatient()], r"collective \d+: rank 0: .*; rank 1: "),
    "two of different sizes": (
        lambda: [Extra(0, 2), Extra(1, 3)],
        r"rank 0: all_reduce \(2,\) .*; rank 1: all_reduce \(3,\)",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_collective_of_one_rank_alone_is_found(fault: str, train: Any) -> None:
    """The negative controls: without lanes each of them hangs until a timeout."""
    callbacks, says = FAULTS[fault]
    lanes = Lanes(2)
    with pytest.raises(Unequal, match=says):
        lanes.run(lambda rank: train(rank, lanes, callbacks))


def test_one_too_many_at_the_end_is_found(train: Any) -> None:
    """The others have ended, and nobody will ever come."""
    lanes = Lanes(3)

    def program(rank: int) -> None:
        torch.distributed.all_reduce(torch.ones(2))
        if rank == 1:
            torch.distributed.barrier()

    with pytest.raises(
        Unequal, match=r"collective 2: rank 0: the end; rank 1: barrier .*: the end"
    ):
        lanes.run(program)


def test_a_lost_one_is_found(train: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank that takes its own part for the sum."""
    add_up = Ranks.add_up
    monkeypatch.setattr(
        Ranks, "add_up", lambda self, tensors: self.rank == 1 or add_up(self, tensors)
    )
    lanes = Lanes(2)
    with pytest.raises(
        Unequal, match=r"rank 0: all_reduce .*ranks.py:\d+ add_up\); rank 1: all_reduce .*guard"
    ):
        lanes.run(lambda rank: train(rank, lanes))


def test_an_error_of_one_rank_is_said_to_the_others() -> None:
    lanes = Lanes(2)

    def program(rank: int) -> None:
        if rank == 1:
            raise ValueError("why")
        torch.distributed.barrier()

    with pytest.raises(Unequal, match=r"rank 1: the end, ValueError\('why'\)"):
        lanes.run(program)


def test_a_collective_without_a_double_is_refused() -> None:
    lanes = Lanes(2)
    with pytest.raises(NotImplementedError, match="all_to_all has no double"):
        lanes.run(lambda rank: torch.distributed.all_to_all([], []))


def test_each_rank_draws_its_own_numbers() -> None:
    """As processes do: what one draws does not move the generator of another."""
    lanes = Lanes(2)

    def program(rank: int) -> list[float]:
        torch.manual_seed(rank)
        drawn = []
        for _ in range(3):
            drawn.append(float(torch.rand(())))
            torch.distributed.barrier()
        return drawn

    before = torch.get_rng_state()
    found = lanes.run(program)
    assert torch.equal(torch.get_rng_state(), before)
    for rank, drawn in enumerate(found):
        torch.manual_seed(rank)
        assert drawn == [float(torch.rand(())) for _ in range(3)]
