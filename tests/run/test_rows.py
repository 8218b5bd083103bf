"""One row in every logger: who writes, what is left out, what W&B is told of a key and when."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import wandb
from lightning.pytorch.loggers import CSVLogger, WandbLogger

from janus_pl.run.journal import Journal
from janus_pl.run.record import RunRecord, write_row
from janus_pl.run.rows import Histogram, Table, log_row, plain_row, row_of
from janus_pl.training.row import Row

HIST = Histogram(np.array([1, 2]), np.array([0.0, 1.0, 3.0]))
TABLE = Table(("a", "b"), [(1, 2.5), (3, 4.5)])
AXES = {"epoch": 2, "trainer/global_step": 6, "eta_t": 0.18}


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """In the test's own folder; closed when it has ended."""
    held = Journal(tmp_path)
    yield held
    held.close()


class Run:
    """What of W&B's run is used: definitions and rows."""

    def __init__(self) -> None:
        self.defined: list[tuple[str, dict[str, Any]]] = []
        self.logged: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self.summary: dict[str, Any] = {}
        self.step = 11
        self.refuses = 0

    def define_metric(self, name: str, **options: Any) -> None:
        self.defined.append((name, options))

    def log(self, row: dict[str, Any], **options: Any) -> None:
        if self.refuses:
            self.refuses -= 1
            raise wandb.errors.CommError("no network")
        self.logged.append((row, options))


class Logger(WandbLogger):
    """W&B's logger without W&B."""

    def __init__(self) -> None:
        self.run = Run()

    @property
    def experiment(self) -> Any:
        return self.run


class Numbers(CSVLogger):
    """Any other logger."""

    def __init__(self) -> None:
        self.rows: list[tuple[dict[str, float], int]] = []

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        assert step is not None
        self.rows.append((dict(metrics), step))


def trainer_of(*loggers: Any, first: bool = True, journal: Journal | None = None) -> Any:
    record = RunRecord()
    record.journal = journal
    return SimpleNamespace(loggers=[*loggers], is_global_zero=first, callbacks=[record])


def test_every_logger_gets_the_row_and_objects_go_to_wandb_alone(
    journal: Journal, tmp_path: Path
) -> None:
    one, other, numbers = Logger(), Logger(), Numbers()
    row = {**AXES, "loss": 0.5, "hist": HIST, "table": TABLE}
    write_row(trainer_of(one, numbers, other, journal=journal), row)
    assert numbers.rows == [({**AXES, "loss": 0.5}, 6)]
    for logger in (one, other):
        ((logged, options),) = logger.run.logged
        assert options == {}, "no step of its own, and complete"
        assert {k: logged[k] for k in (*AXES, "loss")} == {**AXES, "loss": 0.5}
        assert isinstance(logged["hist"], wandb.Histogram)
        assert logged["hist"].histogram == [1, 2] and logged["hist"].bins == [0.0, 1.0, 3.0]
        assert isinstance(logged["table"], wandb.Table)
        assert (logged["table"].columns, logged["table"].data) == (["a", "b"], [[1, 2.5], [3, 4.5]])
    (kept,) = Journal(tmp_path).keep(1)
    assert kept.keys() == {*AXES, "loss", "hist", "table"}


def test_the_other_processes_write_nothing(journal: Journal, tmp_path: Path) -> None:
    logger, numbers = Logger(), Numbers()
    write_row(
        trainer_of(logger, numbers, first=False, journal=journal),
        {**AXES, "loss": 0.5, "hist": HIST},
    )
    assert (logger.run.logged, logger.run.defined, numbers.rows) == ([], [], [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_is_missing(
    value: float, journal: Journal, tmp_path: Path
) -> None:
    logger, numbers = Logger(), Numbers()
    row = {**AXES, "bad": value, "good": 1, "diverged": True}
    write_row(trainer_of(logger, numbers, journal=journal), row)
    right = {**AXES, "good": 1, "diverged": True}
    assert logger.run.logged[0][0] == right
    assert numbers.rows[0][0] == right
    assert Journal(tmp_path).keep(1) == [right]
    assert "bad" not in dict(logger.run.defined)


def test_a_key_is_defined_once_by_its_own_name_with_the_epoch_as_its_axis() -> None:
    logger = Logger()
    for row in ({**AXES, "loss": 0.5, "hist": HIST}, {**AXES, "loss": 0.4, "late": 1.0}):
        write_row(trainer_of(logger), row)
    assert sorted(logger.run.defined, key=str) == sorted(
        [
            ("loss", {"step_metric": "epoch"}),
            ("hist", {"step_metric": "epoch"}),
            ("late", {"step_metric": "epoch"}),
        ],
        key=str,
    )
    again = Logger()  # another run knows nothing of it
    write_row(trainer_of(again), {**AXES, "loss": 0.5})
    assert [name for name, _ in again.run.defined] == ["loss"]


def test_a_detail_is_in_the_rows_alone_and_the_layers_have_a_mean_in_the_summary() -> None:
    logger = Logger()
    row: dict[str, Any] = {
        **AXES,
        "velocity/conv1": 1.0,
        "velocity/fc1": 4.0,
        "spectrum/fc1": HIST,
        "rho": 2.0,
    }
    write_row(trainer_of(logger), {**row, "spectrum_table": TABLE})
    shown = {name for name, options in logger.run.defined if "summary" not in options}
    assert shown == {"rho", "spectrum_table"}
    parts = {f"spectrum/fc1{part}" for part in ("", "._type", ".bins", ".values")}
    hidden = {name for name, options in logger.run.defined if options.get("summary") == "none"}
    assert hidden == {"velocity/conv1", "velocity/fc1", *parts}
    assert logger.run.summary == {"velocity": 2.5}
    ((logged, _),) = logger.run.logged
    assert row.keys() <= logged.keys()


@pytest.mark.parametrize(("recorded", "steps"), [(-1, [0, 6, 7]), (0, [6, 7]), (6, [7]), (7, [])])
def test_steps_that_an_online_run_has_recorded_are_not_sent_again(
    recorded: int, steps: list[int], journal: Journal, tmp_path: Path
) -> None:
    """The journal of the resumed run has them all the same: its file was cut at the checkpoint."""
    logger = Logger()
    logger.sent_steps = recorded  # type: ignore[attr-defined]
    for step in (0, 6, 7):
        write_row(
            trainer_of(logger, journal=journal), {**AXES, "trainer/global_step": step, "loss": 0.1}
        )
    assert [row["trainer/global_step"] for row, _ in logger.run.logged] == steps
    assert [name for name, _ in logger.run.defined] == ["loss"]
    assert [row["trainer/global_step"] for row in Journal(tmp_path).keep(3)] == [0, 6, 7]


def test_a_row_of_the_journal_is_a_row_again() -> None:
    logger = Logger()
    log_row(logger, {**AXES, "loss": 0.5})
    assert logger.run.logged == [({**AXES, "loss": 0.5}, {})]


@pytest.mark.parametrize("numbers", [{}, {"loss": 0.5}])
def test_without_the_server_a_table_is_a_file_of_the_run_and_the_row_is_not_lost(
    numbers: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    bound: list[tuple[Any, ...]] = []
    monkeypatch.setattr(wandb.Table, "bind_to_run", lambda self, *args: bound.append(args))
    logger = Logger()
    logger.run.refuses = 1
    values: dict[str, Any] = {"hist": HIST, "table": TABLE}
    write_row(trainer_of(logger), {**AXES, **numbers, **values})
    ((row, options),) = logger.run.logged
    assert bound == [(logger.run, "table", 11)]
    assert isinstance(row["table"], wandb.Table) and isinstance(row["hist"], wandb.Histogram)
    assert row.keys() == {*AXES, *numbers, "hist", "table"}
    assert options == {}, "complete: nothing of it waits for another call"


def test_objects_and_numbers_of_other_modules_are_one_call_each_row() -> None:
    """What Lightning logs at an epoch's end and what callbacks see are not two rows of W&B."""
    logger, numbers = Logger(), Numbers()
    trainer = trainer_of(numbers, logger)
    trainer.callback_metrics = {}
    row = Row()
    for epoch in (2, 3):
        row.put({"hist": HIST})
        row.complete(trainer, {**AXES, "epoch": epoch})
        row.put({"loss": 0.5 * epoch})  # Lightning's own, after the callbacks
        assert len(logger.run.logged) == len(numbers.rows) == epoch - 2
        row.write(trainer)
    assert [(row["epoch"], row["loss"], options) for row, options in logger.run.logged] == [
        (2, 1.0, {}),
        (3, 1.5, {}),
    ]
    assert all(row.keys() == {*AXES, "loss", "hist"} for row, _ in logger.run.logged)
    assert numbers.rows == [({**AXES, "loss": 1.0}, 6), ({**AXES, "epoch": 3, "loss": 1.5}, 6)]


def test_a_plain_row_is_the_row_again() -> None:
    row = {**AXES, "loss": 0.1 + 0.2, "hist": HIST, "table": TABLE, "diverged": True}
    plain = plain_row(row)
    assert all(type(value) in (int, float, bool, list) for value in plain.values())
    again = row_of(plain)
    assert again.keys() == row.keys()
    hist, table = again["hist"], again["table"]
    assert isinstance(hist, Histogram) and isinstance(table, Table)
    assert hist.counts.tolist() == [1, 2] and hist.edges.tolist() == [0.0, 1.0, 3.0]
    assert table == Table(["a", "b"], [[1, 2.5], [3, 4.5]])
    assert {k: again[k] for k in (*AXES, "loss", "diverged")} == {
        k: row[k] for k in (*AXES, "loss", "diverged")
    }
