"""Spikes and lost ranks on the row, against the losses and ranks of the other rows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from record_reader import read_rows
from torch import Tensor

from janus_pl import DeepReLUClassifier
from janus_pl.callbacks import LayerRank, LossEvents
from janus_pl.errors import UsageError
from janus_pl.observables.events import Event
from janus_pl.run.logger import RunLogger

LAYERS = ("conv1", "conv2", "conv3", "conv4", "fc1", "fc2")
#          1    2     3    4    5     6     7    8    9
LOSSES = [0.9, 0.04, 0.2, 0.6, 0.03, 0.01, 0.3, 0.2, 0.04]
SPIKES = [(3, 5, 0.6), (7, 9, 0.3)]


@pytest.fixture
def losses(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The running losses of the epochs are these, whatever the network does."""
    given = LOSSES.copy()

    def running_loss(task: DeepReLUClassifier) -> Tensor:
        return torch.tensor(given[task.trainer.current_epoch])

    monkeypatch.setattr(DeepReLUClassifier, "running_loss", running_loss)
    yield given


def rows_of(tmp_path: Path, fit: Any, task: Any, loader: Any, epochs: int, *look: Any) -> Any:
    logger = RunLogger(run_dir=tmp_path)
    fit(task, loader, callbacks=[*look, LayerRank(1)], epochs=epochs, logger=logger)
    import wandb

    wandb.finish()
    return read_rows(tmp_path)


def test_spikes_and_ranks_lost(
    losses: list[float], tmp_path: Path, fit: Any, small_task: Any, small_loader: Any
) -> None:
    task = small_task(learning_rate=0.3)
    rows = rows_of(tmp_path, fit, task, small_loader(), len(LOSSES), LossEvents(4))
    by_epoch = {row["epoch"]: row for row in rows}
    ends = {end: (begin, end, peak) for begin, end, peak in SPIKES}
    looked = [epoch for epoch, row in by_epoch.items() if "event/count" in row]
    assert looked == [0, 1, 2, 4, 5, 8, 9], "when due, and where a spike ends"
    for epoch, row in by_epoch.items():
        seen = tuple(row.get(f"event/{k}") for k in ("begin", "end", "peak"))
        assert seen == pytest.approx(ends[epoch]) if epoch in ends else seen == (None,) * 3
    assert [by_epoch[epoch]["event/count"] for epoch in looked] == [0, 0, 0, 1, 1, 2, 2]

    spiked = {4, 5, 8, 9} - {9}  # looks after an epoch of a spike; 9 is the one after it
    last = by_epoch[9]
    for layer in LAYERS:
        rank = {epoch: by_epoch[epoch][f"effective_rank/{layer}"] for epoch in looked}
        falls = {b: rank[a] - rank[b] for a, b in itertools.pairwise(looked)}
        within = sum(fall for epoch, fall in falls.items() if epoch in spiked - {5})
        between = sum(fall for epoch, fall in falls.items() if epoch not in spiked - {5})
        assert last[f"event/rank_within/{layer}"] == pytest.approx(within, rel=1e-6, abs=1e-9)
        assert last[f"event/rank_between/{layer}"] == pytest.approx(between, rel=1e-6, abs=1e-9)


def test_the_loss_is_that_of_the_row(
    tmp_path: Path, fit: Any, small_task: Any, small_loader: Any
) -> None:
    look = LossEvents(1, threshold=1e9)
    seen: list[float] = []
    add = look._events.__class__.add

    def hear(events: Any, epoch: int, loss: float) -> None:
        seen.append(loss)
        add(events, epoch, loss)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("janus_pl.callbacks.loss_events.Events.add", hear)
        rows = rows_of(tmp_path, fit, small_task(), small_loader(), 3, look)
    assert seen == [row["train/loss_running"] for row in rows[1:]]


def test_a_resumed_run_knows_its_spikes(losses: list[float]) -> None:
    look, other = LossEvents(4), LossEvents(4)
    for epoch, loss in enumerate(LOSSES[:4], 1):
        look._events.add(epoch, loss)
    look._lost.add({"fc1": 9.0}, False)
    look._lost.add({"fc1": 4.0}, True)
    look._spiked = True
    other.load_state_dict(look.state_dict())
    other._events.add(5, LOSSES[4])
    other._lost.add({"fc1": 3.0}, False)
    assert other._events.found == [Event(3, 5, 0.6)]
    assert (other._lost.within, other._lost.between) == ({"fc1": 5.0}, {"fc1": 1.0})
    assert other._spiked


@pytest.mark.parametrize("threshold", [0, -1.0, float("nan"), "much", True])
def test_a_threshold_out_of_range(threshold: Any) -> None:
    with pytest.raises(UsageError, match=r"callbacks\.LossEvents\.threshold"):
        LossEvents(threshold=threshold)
