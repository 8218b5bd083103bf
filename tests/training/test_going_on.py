"""Runs broken off within an epoch, once and again in the same epoch, in one process and fast.

A part is a fit of its own with new objects, from the checkpoint that the part before it has left.
All parts together are the run that nobody breaks off: rows, weights, and every callback's state.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping
from lightning.pytorch.loggers import CSVLogger
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, OneCycleLR

from janus_pl import SequentialLR
from janus_pl.callbacks import (
    EquilibriumResidual,
    GradientNoise,
    LayerRank,
    LayerRotation,
    LayerVelocity,
    MarginHistogram,
    NeuralCollapse,
    NoiseTime,
    RankBound,
    Sharpness,
    UpdateSplit,
)
from janus_pl.errors import DivergenceError
from janus_pl.run.journal import Journal
from janus_pl.run.logger import RunLogger
from janus_pl.run.record import RunRecord
from janus_pl.run.rows import Histogram, plain_row
from janus_pl.training import resume as exact_resume
from janus_pl.training.resume import ExactResume, generators, set_generators


class Stop(Exception):
    """The end of a part."""


class SaveAt(Checkpoint):
    """Saves a checkpoint after a step and ends the part; a Checkpoint comes after all others.

    After an epoch's last step it is saved when the epoch has ended, as the project does.
    """

    def __init__(self, step: int | None, path: Path) -> None:
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        if not trainer.is_last_batch:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self._save(trainer)

    def _save(self, trainer: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)
            raise Stop


class Jitter(Callback):
    """Noise on the samples from each of the three global generators, also Gaussian pairs of two."""

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        if not trainer.train_dataloader.whole:  # its batch is the data set itself
            drawn = random.gauss(0, 1) + np.random.standard_normal() + float(torch.randn(()))
            batch.x.mul_(1 + 0.01 * drawn)


def observers() -> list[Callback]:
    """Looks that come in mid-cadence, at the end, and at every epoch."""
    return [
        MarginHistogram(3),
        LayerVelocity(1, full_every_n_epochs=2, layers=["conv*"]),
        LayerVelocity(2, full_every_n_epochs=0, layers=["fc*"]),
        LayerRank(2),
        UpdateSplit(1, layers=["conv*"]),
        UpdateSplit(3, layers=["fc*"]),
        GradientNoise(2, batch_size=4, batches=2),
        EquilibriumResidual(3),
        NeuralCollapse(2),
        Sharpness(2, samples=6, batches=2, products=30),
        NoiseTime(9, window=8),  # over the last eight steps
    ]


def plain_sgd(parameters: Any, lr: float) -> torch.optim.SGD:
    return torch.optim.SGD(parameters, lr)


class Case(NamedTuple):
    """Callbacks, options of the task, of the loader and of the fit; where parts end."""

    callbacks: Callable[[], list[Callback]] = list
    task: dict[str, Any] = {}  # noqa: RUF012
    loader: dict[str, Any] = {}  # noqa: RUF012
    fit: dict[str, Any] = {}  # noqa: RUF012
    ends: Sequence[int] = (4, 5, 8)  # of three steps an epoch: twice in the second, in the third


EPOCHS = 5
CASES = {
    "looks": Case(observers),
    "cosine": Case(task={"schedule": "cosine"}),
    "cosine over steps": Case(task={"schedule": "cosine", "schedule_interval": "step"}),
    "warm-up, then cosine": Case(
        task={
            "schedule": lambda optimizer: SequentialLR(
                optimizer,
                [lambda o: LinearLR(o, 0.1, total_iters=4), lambda o: CosineAnnealingLR(o, 11)],
                [4],
            ),
            "schedule_interval": "step",
        }
    ),
    "a schedule that asks for the run's length": Case(
        task={"schedule": lambda optimizer: OneCycleLR(optimizer, 0.05, total_steps=EPOCHS)}
    ),
    "growing": Case(lambda: [*observers(), LayerRotation(1)], task={"schedule": "growing"}),
    "growing without momentum": Case(
        observers, task={"schedule": "growing", "optimizer": plain_sgd, "weight_decay": 0.3}
    ),
    "held norms": Case(lambda: [*observers(), LayerRotation(1)], task={"hold_norms": 0.7}),
    "with replacement": Case(observers, loader={"order": "with_replacement"}),
    "Adam": Case(task={"optimizer": torch.optim.Adam, "learning_rate": 0.001}),
    "tail bound": Case(
        lambda: [RankBound(window=4, layers=["conv*"]), RankBound(2, layers=["fc*"])],
        task={"optimizer": plain_sgd, "weight_decay": 0.3},
        loader={"n": 5, "batch_size": 2},
    ),
    "early stopping": Case(
        lambda: [
            *observers(),
            EarlyStopping("train/loss_running", patience=3, min_delta=1e9, verbose=False),
        ],
        fit={"epochs": 20},
    ),
    "after an epoch's last step": Case(observers, ends=(3, 6, 7)),
    "float64": Case(loader={"dtype": torch.float64}, fit={"precision": "64-true"}),
    "the first step": Case(observers, ends=(1, 2)),
    "the last step but one": Case(observers, ends=(3 * EPOCHS - 1,)),
}


class Run(NamedTuple):
    """What is left of a run, in one part or several."""

    rows: list[dict[str, Any]]
    weights: list[torch.Tensor]
    states: list[Any]
    eta_t: float


@pytest.fixture
def run(
    fit: Any, small_task: Any, small_loader: Any, rows: list[dict[str, Any]], tmp_path: Path
) -> Callable[..., Run]:
    """A run of a case in parts that end after these steps."""

    def go(case: Case, ends: Sequence[int] = (), exact: Any = ExactResume) -> Run:
        rows.clear()
        torch.manual_seed(11)
        np.random.seed(12)
        random.seed(13)
        path = None
        for number, end in enumerate([*ends, None]):
            task = small_task(init_seed=1, **case.task)
            torch.manual_seed(100 * number + 11)  # a new process has generators of its own
            following = tmp_path / f"{number}.ckpt"
            callbacks = [*case.callbacks(), Jitter(), exact(goes_on=path is not None)]
            save = SaveAt(end, following)
            options = {"epochs": EPOCHS, **case.fit, "ckpt_path": path}
            try:
                fit(
                    task,
                    small_loader(**case.loader),
                    callbacks=[*callbacks, save],
                    enable_checkpointing=True,
                    **options,
                )
            except Stop:
                path = following
                if number == 0:
                    random.seed(5)
                    np.random.seed(6)
        looking = [c for c in callbacks if not isinstance(c, ExactResume)]
        weights = [p.detach().clone() for p in task.parameters()]
        states = [c.state_dict() for c in looking]
        return Run([plain_row(row) for row in rows], weights, states, task._epoch.eta_t)

    return go


def same(a: Any, b: Any) -> bool:
    """Bitwise, all the way down; NaN is NaN."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, torch.Tensor):
        equal = isinstance(b, torch.Tensor) and a.shape == b.shape
        return equal and torch.equal(a.nan_to_num(1e9), b.nan_to_num(1e9))
    return bool(a == b or (a != a and b != b))


@pytest.mark.parametrize("name", CASES)
def test_in_parts_it_is_the_same_run(name: str, run: Any) -> None:
    case = CASES[name]
    whole, parts = run(case), run(case, case.ends)
    assert [row["epoch"] for row in parts.rows] == [row["epoch"] for row in whole.rows]
    assert len(whole.rows) >= 4
    for one, other in zip(parts.rows, whole.rows, strict=True):
        assert one.keys() == other.keys(), one["epoch"]
        different = [key for key in one if not same(one[key], other[key])]
        assert different == [], one["epoch"]
    assert same(parts.weights, whole.weights)
    assert same(parts.states, whole.states)
    assert parts.eta_t == pytest.approx(whole.eta_t, rel=1e-15)


@pytest.mark.parametrize("which", ["python", "numpy", "torch"])
def test_without_the_state_of_one_generator_it_is_another_run(which: str, run: Any) -> None:
    """The negative control, and each generator counts."""

    class Forgetful(ExactResume):
        def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: Any) -> None:
            checkpoint["exact_resume"]["generators"][which] = generators()[which]
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

    whole, parts = run(Case()), run(Case(), (4,), Forgetful)
    assert [row["epoch"] for row in parts.rows] == [row["epoch"] for row in whole.rows]
    assert not same(parts.weights, whole.weights)


def test_what_a_run_went_on_with_is_nothing_to_the_next_fit_of_its_callback(
    fit: Any, small_task: Any, small_loader: Any, rows: Any, tmp_path: Path
) -> None:
    """Neither its generators nor that it had ended."""
    path, exact = tmp_path / "a.ckpt", ExactResume(goes_on=True)

    class Save(Checkpoint):
        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            trainer.save_checkpoint(path)

    def stop() -> EarlyStopping:
        return EarlyStopping("train/loss_running", patience=1, min_delta=1e9, verbose=False)

    fit(small_task(), small_loader(), 9, [stop(), ExactResume(), Save()], enable_checkpointing=True)
    fit(small_task(), small_loader(), 9, [stop(), exact], ckpt_path=path)
    rows.clear()
    random.seed(77)
    expected = random.random()
    random.seed(77)
    trainer = fit(small_task(), small_loader(), 2, [exact])
    assert trainer.global_step == 6
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    assert random.random() == expected, "nothing here draws from it"


def test_generators_go_on_where_they_were() -> None:
    """Both halves of a Gaussian pair, too, which two of them keep for the next call."""

    def draw() -> list[float]:
        drawn = [random.gauss(0, 1), random.random(), np.random.standard_normal()]
        return [*drawn, np.random.random(), *torch.randn(3).tolist()]

    draw()
    states = generators()
    first, second = draw(), draw()
    set_generators(states)
    assert draw() == first
    assert draw() == second
    set_generators(states)
    assert draw() == first != second


def test_the_checkpoint_at_an_epochs_end_holds_nothing_of_the_epoch(
    fit: Any, small_task: Any, small_loader: Any, tmp_path: Path
) -> None:
    """In mid-epoch it holds the forwards of its steps, and those of no other."""
    held: dict[str, list[int]] = {"end": [], "middle": []}

    class Look(Checkpoint):
        def save(self, trainer: Any, kind: str) -> None:
            trainer.save_checkpoint(tmp_path / "a.ckpt")
            saved = torch.load(tmp_path / "a.ckpt", weights_only=True)
            held[kind].append(len(saved["forwards"]))

        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            self.save(trainer, "middle")

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            self.save(trainer, "end")

    options = {"enable_checkpointing": True}
    fit(small_task(), small_loader(), 3, [ExactResume(), Look()], **options)
    assert held == {"end": [0, 0, 0], "middle": [1, 2, 3] * 3}


class Poison(Callback):
    """The first sample of a step is not finite."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.step:
            batch.x[0, 0, 0, 0] = torch.nan


def test_a_step_that_was_bad_is_in_no_checkpoint(
    fit: Any, small_task: Any, small_loader: Any, tmp_path: Path
) -> None:
    """In mid-epoch, before anybody has looked: the one before it stays."""
    before, after = tmp_path / "before.ckpt", tmp_path / "after.ckpt"

    class Save(Checkpoint):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
            if trainer.global_step in (4, 5):
                trainer.save_checkpoint(before if trainer.global_step == 4 else after)

    options = {"enable_checkpointing": True}
    with pytest.raises(DivergenceError, match="epoch 2, step 5, learning"):
        fit(small_task(), small_loader(), 5, [Poison(4), Save()], **options)
    assert before.exists() and not after.exists()
    fit(small_task(), small_loader(), 2, [Save()], **options)
    assert after.exists(), "the control: a sound one is saved"


def test_a_resumed_run_counts_its_steps_from_the_first(
    fit: Any, small_task: Any, small_loader: Any, rows: Any, tmp_path: Path
) -> None:
    path = tmp_path / "a.ckpt"
    with pytest.raises(Stop):
        fit(small_task(), small_loader(), 5, [SaveAt(4, path)], enable_checkpointing=True)
    with pytest.raises(DivergenceError, match=r"epoch 3, step 8, .* those of step 7"):
        fit(small_task(), small_loader(), 5, [Poison(7)], ckpt_path=path)
    assert rows[-1]["diverged/step"] == 8


def record_with(folder: Path, epochs: Sequence[int]) -> RunRecord:
    """A record with these rows."""
    record = RunRecord(folder)
    record.journal = Journal(folder)
    for epoch in epochs:
        record.append({"epoch": epoch, "trainer/global_step": epoch})
    record.journal.close()
    return record


@pytest.mark.parametrize(
    ("goes_on", "counted", "kept"),
    [
        (True, 2, [0, 1]),
        (True, 4, [0, 1, 2, 3]),
        (True, None, []),  # killed before its first checkpoint
        (False, None, [0, 1, 2, 3]),  # a new run, whose folder is nobody else's
        (False, 9, [0, 1, 2, 3]),  # it starts from the checkpoint of another run
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_the_rows_that_the_checkpoint_counts_are_kept_and_handed_to_wandb_again(
    first: bool,
    goes_on: bool,
    counted: int | None,
    kept: list[int],
    tmp_path: Path,
    monkeypatch: Any,
) -> None:
    """By the first process, and of a run that goes on alone."""
    record = record_with(tmp_path, range(4))
    if not first:
        record.journal = None
    logger = RunLogger("p", run_dir=tmp_path)
    handed: list[Any] = []
    monkeypatch.setattr(exact_resume, "log_row", lambda _, row: handed.append(row["epoch"]))
    exact = ExactResume(goes_on)
    trainer: Any = SimpleNamespace(
        loggers=[CSVLogger(tmp_path), logger],
        is_global_zero=first,
        callbacks=[exact, record],
        fast_dev_run=True,  # the record is open
    )
    if counted is not None:
        state = {"generators": generators(), "ends": False, "rows": counted}
        exact.on_load_checkpoint(trainer, None, {"exact_resume": state})
    exact.on_fit_start(trainer, None)
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    found = [json.loads(line)["epoch"] for line in lines]
    assert found == (kept if first else [0, 1, 2, 3])
    assert handed == (kept if goes_on and first else [])


@pytest.mark.parametrize(("ours", "expected"), [(True, 4), (False, 0)])
def test_a_checkpoint_counts_the_rows_of_its_own_record(
    ours: bool, expected: int, tmp_path: Path
) -> None:
    callbacks = [record_with(tmp_path, range(4))] if ours else []
    trainer: Any = SimpleNamespace(callbacks=callbacks, is_global_zero=True, should_stop=False)
    checkpoint: dict[str, Any] = {}
    ExactResume().on_save_checkpoint(trainer, None, checkpoint)
    assert checkpoint["exact_resume"]["rows"] == expected


def test_a_checkpoint_of_lightnings_own_has_no_such_state(tmp_path: Path) -> None:
    exact = ExactResume(goes_on=True)
    exact.on_load_checkpoint(None, None, {})
    assert not exact.had_ended


@pytest.mark.parametrize("epochs", [2, 20], ids=["by its length", "early"])
def test_a_run_that_had_ended_is_ended_and_takes_no_step(
    epochs: int, fit: Any, small_task: Any, small_loader: Any, rows: Any, tmp_path: Path
) -> None:
    """It was killed before its last row was written."""
    path = tmp_path / "a.ckpt"

    class Ending(Checkpoint):
        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            trainer.save_checkpoint(path)
            raise Stop

    def stop() -> list[Callback]:
        early = EarlyStopping("train/loss_running", patience=1, min_delta=1e9, verbose=False)
        return [MarginHistogram(100), early, ExactResume()]

    whole = small_task()
    fit(whole, small_loader(), epochs, stop())
    right = list(rows)
    rows.clear()
    options = {"enable_checkpointing": True}

    class FirstOf(Ending):
        """Before the task's own end, which writes the row."""

    task = small_task()
    task.on_train_end = lambda: None
    with pytest.raises(Stop):
        fit(task, small_loader(), epochs, [*stop(), FirstOf()], **options)
    assert [row["epoch"] for row in rows] == [0, 1]
    resumed = small_task()
    callbacks = stop()
    callbacks[-1] = ExactResume(goes_on=True)
    trainer = fit(resumed, small_loader(), epochs, callbacks, ckpt_path=path)
    assert trainer.global_step == 6
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    assert rows[-1].keys() == right[-1].keys()
    hist = rows[-1]["margin/hist"]
    assert isinstance(hist, Histogram) and hist.counts.sum() == 20
    assert same(
        [p.detach() for p in resumed.parameters()], [p.detach() for p in whole.parameters()]
    )

    # A new run that starts from that checkpoint does not end where that one had: it takes an
    # epoch, and the patience of the other run, which the checkpoint has brought, is at its end.
    rows.clear()
    trainer = fit(small_task(), small_loader(), 20, stop(), ckpt_path=path)
    assert trainer.global_step == 9
    assert [row["epoch"] for row in rows] == [2, 3]
