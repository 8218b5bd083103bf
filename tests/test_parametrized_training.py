"""`model.normalization` through the classifier: Eq. 17 by hand, the callbacks, what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import oracles
import pytest
import torch
from conftest import SMALL
from lightning.pytorch import Callback

from janus_pl.callbacks import (
    EquilibriumResidual,
    GradientNoise,
    LayerRank,
    LayerVelocity,
    MarginHistogram,
    NeuralCollapse,
    RankBound,
    UpdateSplit,
)
from janus_pl.deep import PARAMETRIZATIONS
from janus_pl.deep.losses import LOSSES
from janus_pl.errors import UsageError

# Multipliers move V_k by eta V_k dot, where the others divide by ||v_k||^2, about 10 here.
RATES = {"weight_norm": 1e-3, "per_layer": 1e-3, "lagrange": 1e-4, "none": 1e-3}
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
    start, V_start = rho.clone(), V
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

    # Of what training has changed, not of the value: most of V_k is where it was.
    assert (rho - start).abs() > 1e-3
    assert (task.network.rho.detach() - rho).abs() < 1e-10 * (rho - start).abs()
    for found, v, before in zip(task.directions().values(), V, V_start, strict=True):
        assert (v - before).norm() > 1e-4
        assert (found - v.flatten(1)).norm() < 1e-10 * (v - before).norm()


class Steps(Callback):
    """||V_k dot|| of every minibatch, (L,), from one derivative per sample."""

    def __init__(self) -> None:
        self.norms: list[Any] = []

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
        self.norms.append(velocity_norms(module, batch.x, batch.y))


def effective_weights(task: Any) -> list[torch.Tensor]:
    return [m.weight.detach().clone() for m in task.network.weight_layers().values()]


def velocity_norms(task: Any, x: torch.Tensor, y: torch.Tensor) -> Any:
    W, rho = effective_weights(task), float(task.network.rho.detach())
    rho *= float(np.prod([float(w.norm()) for w in W]))
    flows = oracles.velocities(task.loss_name, W, SMALL["strides"], x, y, rho)
    return np.array([float(flow.norm()) for flow in flows])


def keys_of(normalization: str, loss: str) -> set[str]:
    """What all callbacks log of a run."""
    names = ["velocity", "velocity_full", "rank", "stable_rank", "effective_rank"]
    names += [f"gradient_noise/{name}" for name in ("bias", "bias_expected", "variance", "scale")]
    names += [f"update/{part}" for part in ("gradient", "decay", "projection")]
    names += ["tail_bound/vacuous"]
    one_rho = normalization in ("weight_norm", "lagrange")
    keys = {"margin/mean", "margin/std", "margin/min", "margin/hist", "gradient_noise/scale"}
    keys |= {f"collapse/{name}" for name in ("nc1", "nc3", "nc4", "cdnv")}
    keys |= {"tail_bound/ratio/conv4", "tail_bound/ratio/fc1", "equilibrium/nu"}
    if one_rho and loss == "square":
        keys |= {"equilibrium/residual", "equilibrium/common_mode"}
    if one_rho:
        keys |= {"equilibrium/rho_dot"}
    else:
        names += ["equilibrium/rho_dot"]
    return keys | {f"{name}/{layer}" for name in names for layer in LAYERS}


@pytest.mark.parametrize("normalization", list(PARAMETRIZATIONS))
@pytest.mark.parametrize("loss", list(LOSSES))
def test_every_parametrization_serves_every_callback(
    normalization: str, loss: str, fit: Any, rows: Any, small_task: Any, small_loader: Any
) -> None:
    task = small_task(
        normalization=normalization,
        loss=loss,
        weight_decay=0.1,
        learning_rate=RATES[normalization],
        optimizer=plain_sgd,
        init_scale=0.65,  # outputs of size 1, where no two losses pull alike
    ).double()
    # Minibatches of two: the rank of fc1, 7, leaves the tail bound something to say.
    loader, steps = small_loader(n=6, batch_size=2, dtype=torch.float64), Steps()
    observers = [MarginHistogram(1), LayerVelocity(1, 1), LayerRank(1), EquilibriumResidual(1)]
    observers += [GradientNoise(1, batches=3), NeuralCollapse(1), UpdateSplit(1), RankBound(1)]
    fit(task, loader, epochs=2, callbacks=[*observers, steps])
    row, W = rows[-1], effective_weights(task)
    prefixes = {key.split("/")[0] for key in keys_of(normalization, loss)}
    logged = {key for key in row if key.split("/")[0] in prefixes}
    assert logged == keys_of(normalization, loss)
    assert all(np.isfinite(row[key]) for key in logged - {"margin/hist"})

    margins = oracles.margins(W, SMALL["strides"], loader.x, loader.y)
    assert row["margin/mean"] == pytest.approx(float(margins.mean()), rel=1e-10)
    assert row["margin/std"] == pytest.approx(float(margins.std(correction=0)), rel=1e-10)
    of_steps, full = np.array(steps.norms), velocity_norms(task, loader.x, loader.y)
    assert of_steps.shape == (6, len(LAYERS))
    for k, (layer, w) in enumerate(zip(LAYERS, W, strict=True)):
        mean = of_steps[3:, k].mean()
        assert row[f"velocity/{layer}"] == pytest.approx(mean, rel=1e-10)
        assert row[f"velocity_full/{layer}"] == pytest.approx(full[k], rel=1e-10)
        # Controls: the two are not one, and the minibatches of epoch 1 are others than epoch 2's.
        assert abs(full[k] / mean - 1) > 1e-3
        assert abs(of_steps[:3, k].mean() / mean - 1) > 1e-5
        V = oracles.unit(w).flatten(1)
        assert row[f"rank/{layer}"] == oracles.numerical_rank(V, 1e-3, relative=False)
        assert row[f"rank_relative_1e-01/{layer}"] == oracles.numerical_rank(V, 0.1)
        assert row[f"stable_rank/{layer}"] == pytest.approx(oracles.stable_rank(V), rel=1e-10)
        assert row[f"effective_rank/{layer}"] == pytest.approx(oracles.effective_rank(V), rel=1e-10)


@pytest.fixture
def float64() -> Iterator[None]:
    """Weights are drawn and normalized in the default precision."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_the_same_start_whatever_the_parametrization(
    float64: None, small_task: Any, small_loader: Any
) -> None:
    x = small_loader(dtype=torch.float64).x
    outputs = [small_task(normalization=name)(x).detach() for name in PARAMETRIZATIONS]
    for other in outputs[1:]:
        assert (other - outputs[0]).norm() < 1e-10 * outputs[0].norm()
    another = small_task(init_seed=1)(x).detach()
    assert (another - outputs[0]).norm() > 0.1 * outputs[0].norm()


def test_decay_of_a_rho_that_is_not_there_is_refused(small_task: Any) -> None:
    with pytest.raises(UsageError, match=r"model\.decay: got 'rho', allowed: all, for model\.norm"):
        small_task(normalization="none", decay="rho")
    with pytest.raises(
        UsageError, match=r"model\.normalization: got 'batch', allowed: weight_norm"
    ):
        small_task(normalization="batch")
