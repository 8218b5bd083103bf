"""`model.normalization` through the classifier: Eq. 17 by hand, and what is refused."""

from __future__ import annotations

from typing import Any

import oracles
import pytest
import torch
from conftest import SMALL

from callbacks import LayerRank, LayerVelocity, MarginHistogram
from janus_pl.errors import UsageError
from janus_pl.losses import LOSSES
from janus_pl.nn import PARAMETRIZATIONS

LAYERS = ["conv1", "conv2", "conv3", "conv4", "fc1", "fc2"]


def plain_sgd(parameters: Any, lr: float) -> torch.optim.SGD:
    return torch.optim.SGD(parameters, lr)


@pytest.mark.parametrize("loss", list(LOSSES))
def test_training_with_multipliers_is_equation_17(
    loss: str, fit: Any, small_task: Any, small_loader: Any
) -> None:
    lam, eta, epochs = 0.2, 0.01, 4
    task = small_task(
        normalization="lagrange",
        loss=loss,
        decay="rho",
        weight_decay=lam,
        learning_rate=eta,
        optimizer=plain_sgd,
        init_scale=0.8,
    ).double()
    loader = small_loader(batch_size="full", dtype=torch.float64)
    task.parametrization.after_step()  # of unit norm in float64, too
    V = [v.detach().clone() for v in task.parametrization.weights.values()]
    rho = task.network.rho.detach().clone()
    gains = task.parametrization.factors().prod()
    start = rho.clone()
    fit(task, loader, epochs=epochs)

    strides, x, y = SMALL["strides"], loader.x, loader.y
    for _ in range(epochs):
        paper_rho = float(rho * gains)
        flows = oracles.velocities(loss, V, strides, x, y, paper_rho)
        outputs = gains * oracles.forward(V, strides, x)
        learned = rho.clone().requires_grad_()
        value = LOSSES[loss](learned * outputs, y).mean() + lam * learned.square()
        (slope,) = torch.autograd.grad(value, learned)
        moved = [v + eta * flow.reshape(v.shape) for v, flow in zip(V, flows, strict=True)]
        V = [v / v.norm() for v in moved]
        rho = rho - eta * slope

    assert (rho - start).abs() > 1e-3
    assert float(task.network.rho.detach()) == pytest.approx(float(rho), rel=1e-10)
    for found, v in zip(task.directions().values(), V, strict=True):
        assert (found - v.flatten(1)).norm() < 1e-10


@pytest.mark.parametrize("normalization", list(PARAMETRIZATIONS))
def test_every_parametrization_serves_every_callback(
    normalization: str, fit: Any, rows: Any, small_task: Any, small_loader: Any
) -> None:
    task = small_task(normalization=normalization, learning_rate=1e-3)
    observers = [MarginHistogram(1), LayerVelocity(1, 1), LayerRank(1)]
    fit(task, small_loader(), epochs=2, callbacks=observers)
    names = ("velocity", "velocity_full", "rank", "effective_rank")
    assert {f"{name}/{layer}" for name in names for layer in LAYERS} <= rows[-1].keys()
    assert rows[-1]["margin/mean"] == pytest.approx(float(task.training_margins().mean()), rel=1e-5)


def test_the_same_start_whatever_the_parametrization(small_task: Any, small_loader: Any) -> None:
    x = small_loader(dtype=torch.float64).x
    outputs = [small_task(normalization=name).double()(x) for name in PARAMETRIZATIONS]
    for other in outputs[1:]:
        torch.testing.assert_close(other, outputs[0], rtol=1e-6, atol=0)


def test_decay_of_a_rho_that_is_not_there_is_refused(small_task: Any) -> None:
    with pytest.raises(UsageError, match=r"model\.decay: got 'rho', allowed: all, for model\.norm"):
        small_task(normalization="none", decay="rho")
    with pytest.raises(
        UsageError, match=r"model\.normalization: got 'batch', allowed: weight_norm"
    ):
        small_task(normalization="batch")
