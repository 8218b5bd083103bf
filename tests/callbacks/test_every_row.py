"""Velocities, shares and the tail bound in every row of a run: rates, decays and batches unequal.

The module is somebody else's, so that each weight can have a rate and a decay of its own, and the
rates change from step to step. Every row is compared with steps made by hand, not the last alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from janus_pl.callbacks import LayerVelocity, RankBound, UpdateSplit
from janus_pl.run.rows import AXES

NAMES = ("first", "second", "idle")
RATES, DECAYS = {"first": 0.05, "second": 0.2}, {"first": 0.9, "second": 0.3}
EPOCHS, BATCH, SAMPLES = 4, 3, 7  # minibatches of 3, 3 and 1


def rate(name: str, step: int) -> float:
    return RATES[name] / (1 + step) ** 0.5


class Module(LightningModule):
    """Two dense layers, a third that the loss does not reach, and a rate for each step."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second, self.idle = (
            nn.Linear(a, b, bias=False, dtype=torch.float64) for a, b in ((9, 8), (8, 5), (4, 3))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        return nn.functional.cross_entropy(self(x), y)

    def configure_optimizers(self) -> Any:
        groups = [
            {"params": [self.first.weight], "lr": RATES["first"], "weight_decay": DECAYS["first"]},
            {"params": [self.second.weight], "lr": RATES["second"], "weight_decay": 0.3},
            {"params": [self.idle.weight], "lr": 0.1, "weight_decay": 5.0},
        ]
        optimizer = torch.optim.SGD(groups, 0.1)
        decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: (1 + t) ** -0.5)
        return [optimizer], [{"scheduler": decay, "interval": "step"}]


def shuffled() -> DataLoader:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(SAMPLES, 9, generator=generator, dtype=torch.float64)
    data = TensorDataset(x, torch.arange(SAMPLES) % 5)
    return DataLoader(data, BATCH, shuffle=True, generator=torch.Generator().manual_seed(3))


class Steps(Callback):
    """W and dLoss/dW of both trained layers before every step, and all weights at each row."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.weights: list[dict[str, Any]] = []

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        at = {k: getattr(module, k).weight.detach().clone().numpy() for k in NAMES}
        self.weights.append(at)

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
        W = {k: getattr(module, k).weight.detach().clone().requires_grad_() for k in RATES}
        x, y = batch
        with torch.enable_grad():
            outputs = torch.tanh(x @ W["first"].T) @ W["second"].T
            loss = -torch.log_softmax(outputs, 1)[range(len(y)), y].mean()
            gradients = torch.autograd.grad(loss, [*W.values()])
        step: dict[str, Any] = {"B": len(y)}
        for (name, w), gradient in zip(W.items(), gradients, strict=True):
            step[name] = w.detach().numpy(), gradient.numpy()
        self.seen.append(step)


@pytest.fixture
def recorded(fit: Any, rows: list[dict[str, Any]]) -> Any:
    """What callbacks put on the rows of a run's epochs, the steps, and the module at each row."""

    def run(*observers: Any) -> tuple[list[dict[str, float]], Steps, list[dict[str, Any]]]:
        steps = Steps()
        fit(Module(), shuffled(), EPOCHS, [*observers, steps])
        assert [step["B"] for step in steps.seen] == [3, 3, 1] * EPOCHS
        # One row for each epoch and one before the first step, on the axes of every record.
        for epoch, row in enumerate(rows):
            axes = {axis: row.pop(axis) for axis in AXES}
            eta_t = sum(rate("first", t) for t in range(3 * epoch))
            assert (axes["epoch"], axes["trainer/global_step"]) == (epoch, 3 * epoch)
            assert axes["eta_t"] == pytest.approx(eta_t, rel=1e-12)
        start, *epochs = rows
        assert start == {}, "there is no step to speak of"
        return epochs, steps, steps.weights

    return run


def of_epoch(steps: Steps, epoch: int) -> list[dict[str, Any]]:
    return steps.seen[3 * epoch : 3 * epoch + 3]


def test_the_steps_by_hand_are_those_taken(recorded: Any) -> None:
    """A control of the others: rates, decays and gradients are as they are said to be."""
    _, steps, weights = recorded(LayerVelocity())
    for name in RATES:
        for t, (step, following) in enumerate(zip(steps.seen, steps.seen[1:], strict=False)):
            W, G = step[name]
            moved = W - rate(name, t) * (G + DECAYS[name] * W)
            np.testing.assert_allclose(following[name][0], moved, rtol=1e-12, atol=1e-14)
        assert np.abs(weights[-1][name] - steps.seen[-1][name][0]).max() > 1e-4


def test_velocities_are_the_means_of_each_epochs_own_steps(recorded: Any) -> None:
    rows, steps, _ = recorded(LayerVelocity())
    assert len(rows) == EPOCHS
    for epoch, row in enumerate(rows):
        assert set(row) == {f"velocity/{name}" for name in NAMES}
        assert np.isnan(row["velocity/idle"])  # not a velocity of zero
        for name in RATES:
            norms = []
            for step in of_epoch(steps, epoch):
                W, G = step[name]
                V = W / np.linalg.norm(W)
                norms.append(np.linalg.norm(W) * np.linalg.norm(G - np.vdot(G, V) * V))
            assert row[f"velocity/{name}"] == pytest.approx(np.mean(norms), rel=1e-12)
    assert rows[0]["velocity/first"] != pytest.approx(rows[1]["velocity/first"], rel=1e-3)


def test_shares_are_the_means_of_each_epochs_own_steps(recorded: Any) -> None:
    rows, steps, _ = recorded(UpdateSplit())
    parts = ("gradient", "decay", "projection")
    assert len(rows) == EPOCHS
    for epoch, row in enumerate(rows):
        assert set(row) == {f"update/{part}/{name}" for part in parts for name in NAMES}
        for name in RATES:
            shares = []
            for step in of_epoch(steps, epoch):
                W, G = step[name]
                sizes = np.linalg.norm(G), DECAYS[name] * np.linalg.norm(W), 0.0
                shares.append(np.array(sizes) / sum(sizes))
            expected = np.mean(shares, axis=0)
            measured = [row[f"update/{part}/{name}"] for part in parts]
            assert measured == pytest.approx(expected.tolist(), rel=1e-12)
            assert 0.01 < expected[1] < 0.99
        assert all(np.isnan(row[f"update/{part}/idle"]) for part in parts)


@pytest.mark.parametrize("window", [1, 2, 100])
def test_the_tail_bound_of_every_row_is_that_of_its_windows(recorded: Any, window: int) -> None:
    rows, steps, weights = recorded(RankBound(window=window))
    assert len(rows) == EPOCHS
    for epoch, (row, at) in enumerate(zip(rows, weights, strict=True)):
        done = 3 * epoch + 3
        for name in RATES:
            sigma = np.linalg.svd(at[name], compute_uv=False)
            ratios, ranks, kept = [], 0, 1.0
            for n in range(1, min(done, window) + 1):
                step = steps.seen[done - n]
                ranks += step["B"]
                kept *= 1 - rate(name, done - n) * DECAYS[name]
                if ranks < len(sigma):
                    tail = np.sqrt((sigma[ranks:] ** 2).sum())
                    ratios.append(tail / (kept * np.linalg.norm(step[name][0])))
            assert row[f"tail_bound/vacuous/{name}"] == 0
            assert row[f"tail_bound/ratio/{name}"] == pytest.approx(max(ratios), rel=1e-9)
            assert 0.05 < max(ratios) <= 1
            # Windows of 1, 4 and 7 samples: of 8 singular values the last row has all three.
            assert len(ratios) == min({"first": 3, "second": 2}[name], window)
        # A weight that nothing reaches is as it was, though its group decays.
        assert row["tail_bound/ratio/idle"] == pytest.approx(1, rel=1e-9)
        assert np.array_equal(at["idle"], weights[0]["idle"])
