"""When callbacks look, the mean that they keep, and which group of an optimizer has a weight."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn

import callbacks._observer
from callbacks._observer import (
    Mean,
    Observer,
    directions,
    learning_rate_of,
    plain_layers,
    weight_decay_of,
    weight_layers,
)


class Looks(Observer):
    """Remembers when it has looked."""

    def observe(self, trainer: Any, module: Any) -> dict[str, float]:
        return {"looked": float(trainer.epochs)}


def trainer_at(epochs: int, total: int = 10**6, **options: Any) -> Any:
    """A trainer at the end of so many epochs, as Lightning counts in `on_train_epoch_end`."""
    progress = SimpleNamespace(current=SimpleNamespace(processed=epochs))
    return SimpleNamespace(
        epochs=epochs,
        current_epoch=epochs - 1,
        max_epochs=total,
        max_steps=-1,
        global_step=7 * epochs,
        should_stop=False,
        fit_loop=SimpleNamespace(epoch_progress=progress),
        **options,
    )


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 10, 64])
def test_powers_of_two_are_due_up_to_n_and_then_its_multiples(n: int) -> None:
    due = [epoch for epoch in range(200) if Looks(n).is_due(epoch)]
    powers = [2**k for k in range(12) if 2**k < n]
    assert due == [0, *powers, *range(n, 200, n)]


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is recorded, and what is written as a row of its own."""
    seen: list[Any] = []
    keep = lambda trainer, module, values: seen.append(dict(values))  # noqa: E731
    monkeypatch.setattr(callbacks._observer, "put", keep)
    write = lambda trainer, row: seen.append(("row", dict(row)))  # noqa: E731
    monkeypatch.setattr(callbacks._observer, "write_whole", write)
    return seen


@pytest.mark.parametrize("n", [0, 3])
def test_a_run_is_looked_at_where_due_and_at_its_last_epoch(n: int, looked: list[Any]) -> None:
    callback, module = Looks(n), LightningModule()
    for epoch in range(1, 9):
        callback.on_train_epoch_end(trainer_at(epoch, total=8), module)
    callback.on_train_end(trainer_at(8, total=8), module)
    assert [row["looked"] for row in looked] == ([1, 2, 3, 6, 8] if n else [])


def test_an_end_that_nobody_knew_of_is_a_row_of_its_own(looked: list[Any]) -> None:
    callback, module = Looks(5), LightningModule()
    for epoch in range(1, 8):
        callback.on_train_epoch_end(trainer_at(epoch), module)
    callback.on_train_end(trainer_at(7), module)
    assert [row["looked"] for row in looked[:-1]] == [1, 2, 4, 5]
    # Lightning counts its rows from 0.
    assert looked[-1] == ("row", {"looked": 7.0, "epoch": 6, "trainer/global_step": 49})


def test_an_end_that_was_looked_at_is_not_looked_at_again(looked: list[Any]) -> None:
    callback, module = Looks(5), LightningModule()
    callback.on_train_epoch_end(trainer_at(5), module)
    callback.on_train_end(trainer_at(5), module)
    assert looked == [{"looked": 5.0}]
    # One more fit of the same object starts afresh, and one that goes on does not.
    resumed = Looks(5)
    resumed.load_state_dict(callback.state_dict())
    resumed.on_train_end(trainer_at(5), module)
    assert len(looked) == 1
    callback.setup(trainer_at(0, world_size=1), module, "fit")
    callback.on_train_end(trainer_at(3), module)
    assert looked[1][1]["looked"] == 3.0


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
    assert list(weight_layers(module)) == names
    assert list(plain_layers(module)) == names[:3]
    found = directions(module)
    assert list(found) == names
    for name, layer in zip(names, weight_layers(module).values(), strict=True):
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
    assert [weight_decay_of(optimizer, p) for p in (a, b, c, loose)] == [0.5, 0.7, 0.7, 0.0]
