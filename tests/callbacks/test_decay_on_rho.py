"""Decay on rho alone is no decay of the weights, for those callbacks that read the optimizer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from janus_pl.callbacks import RankBound, UpdateSplit

LAYERS = ("conv1", "conv2", "conv3", "conv4", "fc1", "fc2")
KINDS = ("weight_norm", "per_layer", "lagrange")
every = pytest.mark.parametrize("normalization", KINDS)


def plain_sgd(parameters: Any, lr: float) -> torch.optim.SGD:
    return torch.optim.SGD(parameters, lr)


def task_of(small_task: Any, normalization: str, decay: str) -> Any:
    options: dict[str, Any] = {"normalization": normalization, "decay": decay, "schedule": "cosine"}
    options |= {"weight_decay": 4.0, "learning_rate": 0.003, "optimizer": plain_sgd}
    options["loss"] = "logistic"
    return small_task(init_scale=0.8, **options).double()


@every
@pytest.mark.parametrize("decay", ["all", "rho"])
def test_a_share_is_of_the_decay_of_the_weights(
    normalization: str, decay: str, fit: Any, rows: Any, small_task: Any, small_loader: Any
) -> None:
    task = task_of(small_task, normalization, decay)
    fit(task, small_loader(dtype=torch.float64), epochs=2, callbacks=[UpdateSplit()])
    assert [group["weight_decay"] for group in task.optimizers().param_groups] == [
        0.0 if decay == "rho" or normalization == "lagrange" else 4.0,
        4.0 if decay == "all" else 8.0,
    ]
    seen = [row for row in rows if "update/decay/fc1" in row]
    assert len(seen) == 2
    for row in seen:
        for layer in LAYERS:
            shares = [row[f"update/{part}/{layer}"] for part in ("gradient", "decay", "projection")]
            assert sum(shares) == pytest.approx(1, rel=1e-12)
            assert (shares[1] == 0) == (decay == "rho" or normalization == "lagrange")
            assert shares[0] > 0 and shares[2] > 0


class Kept(Callback):
    """What a step keeps of every weight by the rate and the decay that it has by the config."""

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.steps: list[Any] = []
        self.rates: list[float] = []

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
        epoch = trainer.current_epoch
        rate = 0.003 * (1 + torch.cos(torch.tensor(torch.pi * epoch / 3)).item()) / 2
        self.rates.append(rate)
        self.steps.append(module.parametrization.kept(rate, self.decay))


@every
@pytest.mark.parametrize("decay", ["all", "rho"])
def test_a_bound_keeps_what_the_rate_and_the_decay_of_each_step_leave(
    normalization: str, decay: str, fit: Any, rows: Any, small_task: Any, small_loader: Any
) -> None:
    bound, kept = RankBound(), Kept(4.0 if decay == "all" else 0.0)
    task = task_of(small_task, normalization, decay)
    loader = small_loader(n=7, batch_size=3, dtype=torch.float64)
    fit(task, loader, epochs=3, callbacks=[bound, kept])
    assert [len(step.kept) for step in bound._steps] == [6] * 9
    for step, expected in zip(bound._steps, kept.steps, strict=True):
        torch.testing.assert_close(step.kept, expected, rtol=1e-6, atol=0)
    assert len({round(rate, 9) for rate in kept.rates}) == 3
    # With the other decay it would be another number; on the sphere nothing decays.
    first, factor = float(bound._steps[0].kept[0]), 1 - kept.rates[0] * 4.0
    if normalization != "lagrange":
        assert abs(first - factor) < 0.005 if decay == "all" else abs(first - factor) > 0.01
