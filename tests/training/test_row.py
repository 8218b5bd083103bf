"""The row of a task on its way: begun, completed, seen by others, written once, kept, forgotten."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.plugins.precision import Precision
from torch.utils.data import DataLoader, TensorDataset

import janus_pl.training.row
from janus_pl.run.rows import Histogram
from janus_pl.training.any_module import AnyModule
from janus_pl.training.clock import epochs_of, is_last_epoch
from janus_pl.training.generators import generators
from janus_pl.training.samples import training_samples
from janus_pl.training.subjects import subject_of
from janus_pl.training.task import JanusTask

AXES = {"epoch": 3, "trainer/global_step": 9, "eta_t": 0.25}
HIST = Histogram(np.array([2, 1]), np.array([0.0, 0.5, 1.0]))


class Task(JanusTask):
    """Rows alone, for a trainer that is none."""

    directions = scale = velocities = velocity_norms = full_velocity_norms = None  # type: ignore
    output_margins = margins = None  # type: ignore[assignment]
    trainer: Any = None

    def __init__(self) -> None:
        super().__init__()
        self.trainer = SimpleNamespace(callback_metrics={})

    def completed(self) -> int:
        return 7


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    monkeypatch.setattr(janus_pl.training.row, "write_row", lambda trainer, row: rows.append(row))
    return rows


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> Task:
    monkeypatch.setattr(Task, "trainer", None)  # LightningModule's own asks for a Trainer
    return Task()


def test_a_row_is_written_once_when_it_is_complete(task: Task, written: list[Any]) -> None:
    task.put({"a": 1.0})
    task.row.write(task.trainer)
    assert written == [] and not task.row.waits, "it has only begun"
    task.row.complete(task.trainer, AXES)
    assert written == [] and task.row.waits
    task.put({"late": 2.0, "hist": HIST})
    task.row.write(task.trainer)
    assert written == [{"a": 1.0, "late": 2.0, "hist": HIST, **AXES}]
    assert not task.row.waits
    task.row.write(task.trainer)
    assert len(written) == 1


def test_the_next_row_has_nothing_of_the_one_before(task: Task, written: list[Any]) -> None:
    task.row.values["a"] = 1.0
    task.row.complete(task.trainer, AXES)
    task.row.write(task.trainer)
    task.row.values["b"] = 2.0
    task.row.complete(task.trainer, {**AXES, "epoch": 4})
    task.row.write(task.trainer)
    assert written[1] == {"b": 2.0, **AXES, "epoch": 4}
    assert written[0] == {"a": 1.0, **AXES}, "what was written is not written over"


def test_what_is_complete_is_seen_and_the_newest_value_stays(task: Task) -> None:
    metrics = task.trainer.callback_metrics
    metrics["of another"] = torch.tensor(5.0)
    task.row.put({"a": 0.1 + 0.2, "hist": HIST})
    task.row.complete(task.trainer, AXES)
    first = dict(metrics)
    assert {k: float(v) for k, v in first.items()} == {"of another": 5.0, "a": 0.1 + 0.2, **AXES}
    assert task.row.numbers == {"a": 0.1 + 0.2, **AXES}
    task.row.values.clear()
    task.row.complete(task.trainer, {**AXES, "epoch": 4})
    assert float(metrics["a"]) == 0.1 + 0.2, "a number of an earlier look"
    assert float(metrics["epoch"]) == 4
    assert float(first["epoch"]) == 3, "what somebody has kept does not change"
    assert task.row.numbers == {**AXES, "epoch": 4}


@pytest.mark.parametrize("complete", [True, False])
def test_a_row_that_waits_or_has_begun_goes_on_in_another_task(
    complete: bool, task: Task, written: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    task.row.put({"a": 1.0, "hist": HIST})
    if complete:
        task.row.complete(task.trainer, AXES)
    state = task.row.state()
    shown = repr(state)
    task.row.values["later"] = 3.0
    if complete:
        task.row._axes["epoch"] = 99  # type: ignore[index]
        assert AXES["epoch"] == 3, "what somebody has given does not change"
    assert repr(state) == shown, "a checkpoint is a copy"
    other = Task()
    other.row.values["old"] = 1.0
    other.row.load(state)
    assert other.row.waits == complete
    other.row.complete(other.trainer, AXES)
    other.row.write(other.trainer)
    (row,) = written
    assert row.keys() == {"a", "hist", *AXES}
    assert row["hist"].counts.tolist() == [2, 1]


@pytest.mark.parametrize("complete", [True, False])
def test_rows_that_an_earlier_fit_left_are_forgotten(
    complete: bool, task: Task, written: list[Any]
) -> None:
    task.row.values["a"] = 1.0
    if complete:
        task.row.complete(task.trainer, AXES)
    task.row.forget()
    task.row.write(task.trainer)
    assert (written, task.row.values, task.row.waits) == ([], {}, False)
    assert task.row.state() == {"row": {}, "axes": None}


# Epochs


def trainer(processed: int, **options: Any) -> Any:
    current = SimpleNamespace(processed=processed, completed=processed - 1, ready=processed + 1)
    loop = SimpleNamespace(epoch_progress=SimpleNamespace(current=current))
    ends = {"max_epochs": 9, "max_steps": -1, "current_epoch": processed - 1, "global_step": 0}
    return SimpleNamespace(fit_loop=loop, **{**ends, "should_stop": False, **options})


def test_an_epoch_counts_from_its_end_on_and_a_task_counts_for_itself(task: Task) -> None:
    """Lightning's own `completed` counts it only when all callbacks have had their turn."""
    assert epochs_of(trainer(4)) == 4
    module = LightningModule()
    here = trainer(4, callbacks=[])
    assert AnyModule(here, module).completed() == subject_of(here, module).completed() == 4
    assert subject_of(here, task) is task
    assert task.completed() == 7


@pytest.mark.parametrize(
    ("options", "last"),
    [
        ({}, False),
        ({"max_epochs": 4}, True),
        ({"max_epochs": 5}, False),
        ({"max_epochs": 3}, True),  # a checkpoint may be past it
        ({"max_epochs": -1, "global_step": 10}, False),
        ({"max_epochs": None, "max_steps": 11, "global_step": 10}, False),
        ({"max_epochs": None, "max_steps": 10, "global_step": 10}, True),
        ({"max_epochs": 9, "max_steps": 9, "global_step": 10}, True),
        ({"should_stop": True}, True),
    ],
)
def test_the_last_epoch(options: dict[str, Any], last: bool) -> None:
    assert is_last_epoch(trainer(4, **options)) == last


def test_looking_at_somebodys_loader_moves_no_generator() -> None:
    """Its sampler shuffles and its samples draw; what training draws next is the same."""

    class Drawing(TensorDataset):
        def __getitem__(self, index: Any) -> Any:
            random.random(), np.random.random(), torch.rand(())
            return super().__getitem__(index)

    def shown() -> str:
        states = generators()
        return repr([states["python"], states["numpy"], states["torch"].tolist()])

    data = Drawing(torch.arange(7.0)[:, None], torch.arange(7))
    loader = DataLoader(data, batch_size=2, shuffle=True, drop_last=True)
    strategy = SimpleNamespace(batch_to_device=lambda batch: batch)
    here: Any = SimpleNamespace(
        train_dataloader=loader,
        precision_plugin=Precision(),
        strategy=strategy,
        lightning_module=LightningModule(),
    )
    before = shown()
    seen = [y for _, y in training_samples(here, chunk=3)]
    assert shown() == before
    assert torch.cat(seen).tolist() == [*range(7)], "every sample once, in the data's order"
    next(iter(loader))
    assert shown() != before, "the control: training itself does move them"
