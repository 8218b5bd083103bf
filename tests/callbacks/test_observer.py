"""When callbacks look, the mean that they keep, and which group of an optimizer has a weight."""

from __future__ import annotations

import logging
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn

from janus_pl.callbacks._observer import Mean, Observer
from janus_pl.observables.update import decay_of
from janus_pl.training.any_module import AnyModule
from janus_pl.training.epoch_rows import EpochRows
from janus_pl.training.optimizers import learning_rate_of
from janus_pl.training.subject import NotOffered, Subject
from janus_pl.training.subjects import subject_of

Written = list[dict[str, Any]]


class Looks(Observer):
    """Remembers when it has looked."""

    def observe(self, trainer: Any, subject: Subject) -> dict[str, float]:
        return {"looked": float(subject.completed())}


def new_trainer(total: int = 10**6) -> Any:
    """A trainer before its first epoch."""
    progress = SimpleNamespace(current=SimpleNamespace(processed=0))
    batches = SimpleNamespace(current=SimpleNamespace(completed=0))
    return SimpleNamespace(
        current_epoch=0,
        max_epochs=total,
        max_steps=-1,
        global_step=0,
        should_stop=False,
        num_training_batches=1,
        fit_loop=SimpleNamespace(
            epoch_progress=progress, epoch_loop=SimpleNamespace(batch_progress=batches)
        ),
        callbacks=[],
        loggers=[],
        optimizers=[],
        train_dataloader=None,
        world_size=1,
        callback_metrics={},
    )


class Fit:
    """The hooks of a fit of somebody else's module, in Lightning's order and without its steps."""

    def __init__(self, callback: Observer, total: int = 10**6) -> None:
        self.callback, self.module = callback, LightningModule()
        self.trainer = new_trainer(total)
        callback.setup(self.trainer, self.module, "fit")
        (self.rows,) = (each for each in self.trainer.callbacks if isinstance(each, EpochRows))

    def start(self) -> None:
        self.callback.on_train_start(self.trainer, self.module)
        self.rows.on_train_start(self.trainer, self.module)

    def epochs(self, first: int, last: int) -> None:
        """Epochs of 7 steps, counted from 1; Lightning counts its own from 0."""
        for epoch in range(first, last + 1):
            self.rows.on_train_epoch_start(self.trainer, self.module)
            self.trainer.current_epoch, self.trainer.global_step = epoch - 1, 7 * epoch
            self.trainer.fit_loop.epoch_progress.current.processed = epoch
            self.callback.on_train_epoch_end(self.trainer, self.module)
            self.rows.on_train_epoch_end(self.trainer, self.module)

    def end(self) -> None:
        self.callback.on_train_end(self.trainer, self.module)
        self.rows.on_train_end(self.trainer, self.module)
        self.rows.teardown(self.trainer, self.module, "fit")


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 10, 64])
def test_powers_of_two_are_due_up_to_n_and_then_its_multiples(n: int) -> None:
    due = [epoch for epoch in range(200) if Looks(n).is_due(epoch)]
    powers = [2**k for k in range(12) if 2**k < n]
    assert due == [0, *powers, *range(n, 200, n)]


def looked(rows: Written) -> list[float]:
    """The epochs that were looked at; each is on the row of its own epoch."""
    found = [row for row in rows if "looked" in row]
    assert [row["looked"] for row in found] == [row["epoch"] for row in found]
    return [row["looked"] for row in found]


@pytest.mark.parametrize("n", [0, 3])
def test_a_run_is_looked_at_where_due_and_at_its_last_epoch(n: int, rows: Written) -> None:
    fit = Fit(Looks(n), total=8)
    fit.start()
    fit.epochs(1, 8)
    fit.end()
    assert looked(rows) == ([0, 1, 2, 3, 6, 8] if n else [])
    assert [row["epoch"] for row in rows] == [*range(9)], "one row an epoch, looked at or not"
    assert [row["trainer/global_step"] for row in rows] == [*range(0, 57, 7)]


def test_an_end_that_nobody_knew_of_is_on_the_row_of_its_epoch(rows: Written) -> None:
    fit = Fit(Looks(5))
    fit.start()
    fit.epochs(1, 7)
    assert [row["epoch"] for row in rows] == [*range(7)], "the last row waits for late looks"
    fit.end()
    assert looked(rows[:-1]) == [0, 1, 2, 4, 5]
    assert rows[-1] == {"looked": 7.0, "epoch": 7, "trainer/global_step": 49, "eta_t": 0.0}
    assert [row["epoch"] for row in rows] == [*range(8)]


def test_an_end_that_was_looked_at_is_not_looked_at_again(rows: Written) -> None:
    callback = Looks(5)
    fit = Fit(callback)
    fit.epochs(5, 5)
    fit.end()
    assert looked(rows) == [5.0]
    # One more fit of the same object starts afresh, and one that goes on does not.
    rows.clear()
    again = Looks(5)
    resumed = Fit(again)
    again.load_state_dict(callback.state_dict())
    again._look = lambda *_: pytest.fail("looked again")
    resumed.trainer.fit_loop.epoch_progress.current.processed = 5
    resumed.end()
    assert rows == []
    afresh = Fit(callback)
    afresh.epochs(3, 3)
    afresh.end()
    assert looked(rows) == [3.0]


class Refuses(Looks):
    """Asks for what the module does not have."""

    asked = 0

    def observe(self, trainer: Any, subject: Subject) -> dict[str, float]:
        self.asked += 1
        raise NotOffered("it has no such thing")


def test_a_question_without_an_answer_is_said_once_in_a_fit(
    rows: Written, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    callback = Refuses(1)
    for fits in (1, 2):
        rows.clear()
        fit = Fit(callback)
        assert not callback.refused
        fit.start()
        fit.epochs(1, 4)
        fit.end()
        assert callback.refused and callback.asked == fits
        assert [row["epoch"] for row in rows] == [*range(5)] and looked(rows) == []
        said = [r.getMessage() for r in caplog.records if "Refuses" in r.getMessage()]
        assert said == ["Refuses records nothing of LightningModule: it has no such thing"] * fits


def test_a_fit_has_one_subject_for_all_callbacks_and_none_after_it() -> None:
    """It counts the rates of all steps, so that a second one would count anew."""
    callback = Looks(1)
    fit = Fit(callback)
    one = subject_of(fit.trainer, fit.module)
    assert isinstance(one, AnyModule)
    Looks(3).setup(fit.trainer, fit.module, "fit")
    assert subject_of(fit.trainer, fit.module) is one is fit.rows.subject
    assert len([c for c in fit.trainer.callbacks if isinstance(c, EpochRows)]) == 1
    assert subject_of(fit.trainer, LightningModule()) is not one
    fit.end()
    assert fit.rows.subject is None
    assert subject_of(fit.trainer, fit.module) is not one


def test_two_of_a_kind_with_other_options_keep_states_of_their_own() -> None:
    assert Looks(5).state_key == Looks(5).state_key != Looks(6).state_key


def test_a_mean_is_over_its_steps_and_starts_afresh() -> None:
    values = torch.from_numpy(np.random.default_rng(0).standard_normal((5, 2, 3)))
    mean = Mean()
    assert mean.result() is None
    for i, value in enumerate(values):
        mean.add(value)
        torch.testing.assert_close(mean.result(), values[: i + 1].mean(0))
    again = Mean()
    again.load(mean.state())
    again.add(values[0])
    torch.testing.assert_close(again.result(), (values.sum(0) + values[0]) / 6)
    mean.clear()
    assert mean.result() is None
    mean.add(values[4])
    assert torch.equal(mean.result(), values[4])


def test_a_mean_leaves_what_it_is_given_alone() -> None:
    mean, first = Mean(), torch.ones(3)
    for _ in range(3):
        mean.add(first)
    assert torch.equal(first, torch.ones(3))
    assert mean.result().tolist() == [1.0] * 3


class Several(LightningModule):
    """Layers of all kinds, some within others, one parametrized, one that is no matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Conv1d(2, 3, 4)
        self.block = nn.Sequential(nn.Conv2d(2, 5, (2, 3)), nn.BatchNorm2d(5))
        self.space = nn.Conv3d(1, 2, 2)
        self.head = nn.utils.parametrizations.weight_norm(nn.Linear(7, 3))


def test_layers_are_named_by_their_place_and_read_as_matrices() -> None:
    torch.manual_seed(0)
    module = Several().double()
    names = ["line", "block_0", "space", "head"]
    subject = AnyModule(new_trainer(), module)
    assert list(subject.layers()) == names
    assert list(subject.split_layers()) == list(subject.bounded()) == names[:3]
    others = {*(f"{name}_bias" for name in names), "block_1", "block_1_bias"}
    assert dict(subject.skipped()) == dict.fromkeys(others, "a vector")
    found = subject.directions()
    assert list(found) == names
    for name, layer in zip(
        names, (module.line, module.block[0], module.space, module.head), strict=True
    ):
        weight = layer.weight.detach().numpy()
        expected = weight.reshape(len(weight), -1) / math.sqrt((weight**2).sum())
        np.testing.assert_allclose(found[name].numpy(), expected, rtol=1e-14)
        assert not found[name].requires_grad
    assert found["block_0"].shape == (5, 12)


def test_a_weight_has_the_rate_and_decay_of_its_own_group() -> None:
    a, b, c, loose = (nn.Parameter(torch.zeros(2)) for _ in range(4))
    groups = [
        {"params": [a], "lr": 0.1, "weight_decay": 0.5},
        {"params": [b, c], "lr": 0.2, "weight_decay": 0.7},
    ]
    optimizer = torch.optim.SGD(groups, 0.3)
    assert [learning_rate_of(optimizer, p) for p in (a, b, c, loose)] == [0.1, 0.2, 0.2, 0.0]
    decays = [decay_of(optimizer, p) for p in (a, b, c, loose)]
    assert decays == [("coupled", 0.5), ("coupled", 0.7), ("coupled", 0.7), ("none", 0.0)]
