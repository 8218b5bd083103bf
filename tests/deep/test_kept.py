"""What a step keeps of a parameter and what moves it, read off the step itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracles
import pytest
import torch
from conftest import SMALL

from janus_pl.deep.losses import LOSSES
from janus_pl.deep.network import DeepReLU
from janus_pl.deep.normalizations import PARAMETRIZATIONS
from janus_pl.deep.parametrization import Parametrization

NAMES = ["conv1", "conv2", "conv3", "conv4", "fc1", "fc2"]
FACTORS = (0.6, 2.0, 1.7, 0.8, 1.3, 0.5)


def made(kind: str, loss: str, rho: float = 1.4) -> tuple[Parametrization, list[Any]]:
    """A parametrization after a backward pass, and dLoss/dW_k by autograd of the plain network."""
    torch.manual_seed(0)
    network = DeepReLU(**SMALL, init_scale=0.8).double()
    parametrization = PARAMETRIZATIONS[kind](network)
    with torch.no_grad():
        network.rho.fill_(rho)
        if kind in ("weight_norm", "per_layer"):
            for v, factor in zip(parametrization.weights.values(), FACTORS, strict=True):
                v.mul_(factor)
    x = torch.randn(9, 3, 16, 16, dtype=torch.float64)
    x = x / x.flatten(1).norm(dim=1)[:, None, None, None]
    y = torch.tensor([1.0, -1, -1, 1, -1, -1, 1, -1, -1], dtype=torch.float64)
    LOSSES[loss](network(x), y).mean().backward()
    layers: dict[str, Any] = network.weight_layers()
    W = [m.weight.detach().clone().requires_grad_() for m in layers.values()]
    plain = LOSSES[loss](rho * oracles.forward(W, SMALL["strides"], x), y).mean()
    return parametrization, [g.flatten(1).numpy() for g in torch.autograd.grad(plain, W)]


def values_of(parametrization: Parametrization) -> list[Any]:
    return [p.detach().flatten(1).clone().numpy() for p in parametrization.weights.values()]


@pytest.mark.parametrize("eta", [0.001, 0.3])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kind", PARAMETRIZATIONS)
def test_a_step_is_what_is_kept_and_a_multiple_of_the_gradient(
    kind: str, loss: str, eta: float
) -> None:
    parametrization, gradients = made(kind, loss)
    lam = 0.7
    before = values_of(parametrization)
    kept = parametrization.kept(eta, lam).tolist()
    optimizer = torch.optim.SGD(parametrization.groups(lam, "all"), eta)
    optimizer.step()
    parametrization.after_step()
    assert [*parametrization.weights] == NAMES
    for k, (p, G, new) in enumerate(
        zip(before, gradients, values_of(parametrization), strict=True)
    ):
        columns = np.stack([p.ravel(), G.ravel()], axis=1)
        (a, c), *_ = np.linalg.lstsq(columns, new.ravel())
        atol = 1e-11 * float(np.linalg.norm(new))
        np.testing.assert_allclose(columns @ [a, c], new.ravel(), atol=atol)
        assert kept[k] == pytest.approx(a, rel=1e-9), NAMES[k]
        assert c < 0  # down the gradient
    if kind != "none":  # each layer has its own, and none is the decay's alone
        assert max(abs(a - (1 - eta * lam)) for a in kept) > 1e-4 * eta


def test_the_sphere_takes_back_what_a_long_step_has_grown() -> None:
    """The control of the test above: the retraction is not too small to be seen."""
    parametrization, _ = made("lagrange", "square")
    grown = np.hypot(1, 0.3 * parametrization.velocity_norms().numpy())
    assert grown.max() > 1.001


@pytest.mark.parametrize("decay", ["all", "rho"])
@pytest.mark.parametrize("rho", [1.4, -0.6])
@pytest.mark.parametrize("kind", ["weight_norm", "per_layer", "lagrange"])
def test_parts_of_a_step_add_up_to_it(kind: str, rho: float, decay: Any) -> None:
    parametrization, gradients = made(kind, "logistic", rho)
    groups = parametrization.groups(0.7, decay)
    wd = groups[0]["weight_decay"]
    parts = parametrization.step_parts(wd).numpy()
    for k, (p, W, G) in enumerate(
        zip(values_of(parametrization), weights_of(parametrization), gradients, strict=True)
    ):
        pull, V = np.linalg.norm(W) / np.linalg.norm(p), W / np.linalg.norm(W)
        expected = [
            np.linalg.norm(pull * G),
            wd * np.linalg.norm(p),
            np.linalg.norm(pull * np.vdot(G, V) * V),
        ]
        assert parts[:, k].tolist() == pytest.approx(expected, rel=1e-9)
        assert (parts >= 0).all()


def test_plain_weights_have_no_projection() -> None:
    parametrization, gradients = made("none", "logistic")
    expected = [
        [np.linalg.norm(G), 0.7 * np.linalg.norm(W), 0.0]
        for G, W in zip(gradients, values_of(parametrization), strict=True)
    ]
    found = parametrization.step_parts(0.7).T.tolist()
    for row, parts in zip(found, expected, strict=True):
        assert row == pytest.approx(parts, rel=1e-12)


def weights_of(parametrization: Parametrization) -> list[Any]:
    """W_k = s_k V_k, from the parametrization's own units."""
    directions = parametrization.directions().values()
    norms = parametrization.factors().abs().tolist()
    return [norm * v.numpy() for norm, v in zip(norms, directions, strict=True)]
