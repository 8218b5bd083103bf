"""The closed forms on leading axes: each replica is what it is alone, at m other than d."""

from __future__ import annotations

from typing import Any

import linear_oracles as oracle
import numpy as np
import pytest
import torch
from torch import Tensor

import janus_pl.theory.stability
from janus_pl import theory
from janus_pl.deep.losses import PULLS

R, M, D, N = 3, 2, 5, 7
LAM, ETA = [0.0, 0.04, 0.7], [0.02, 0.05, 0.01]


def replicas() -> tuple[Tensor, Tensor, Tensor]:
    """W, X and Y of sizes and ranks far apart."""
    rng = np.random.default_rng(0)
    sizes = np.array([0.3, 1.0, 20.0])[:, None, None]
    x = sizes * rng.standard_normal((R, D, N))
    x[1, 3:] = 0  # rank 3
    x[2] = x[2, :, :1]  # rank 1
    w, y = rng.standard_normal((R, M, D)), rng.standard_normal((R, M, N))
    return torch.from_numpy(w), torch.from_numpy(x), torch.from_numpy(y)


def tensor(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


CASES: dict[str, Any] = {
    "train_mse": lambda w, x, y, lam, eta: torch.stack([*theory.train_mse(w, x, y)], -1),
    "singular_values": lambda w, x, y, lam, eta: theory.singular_values(w),
    "eigenvalue_moduli": lambda w, x, y, lam, eta: theory.eigenvalue_moduli(x @ x.mT),
    "regularized_solution": lambda w, x, y, lam, eta: theory.regularized_solution(x, y, lam),
    "data_projector": lambda w, x, y, lam, eta: theory.data_projector(x),
    "null_projector": lambda w, x, y, lam, eta: theory.null_projector(x),
    "null_projector of few": lambda w, x, y, lam, eta: theory.null_projector(x[..., :2]),
    "null_component": lambda w, x, y, lam, eta: theory.null_component(w, theory.data_projector(x)),
    "decay_factor": lambda w, x, y, lam, eta: theory.decay_factor(eta, lam),
    "epoch_map": lambda w, x, y, lam, eta: torch.cat(theory.epoch_map(x, y, 3, eta, lam), -2),
    "paper_learning_rate": lambda w, x, y, lam, eta: theory.paper_learning_rate(x),
    "condition_number": lambda w, x, y, lam, eta: theory.condition_number(x, lam),
    "gradient_descent_limit": lambda w, x, y, lam, eta: theory.gradient_descent_limit(x, lam),
    "gradient_descent_limit of few": (
        lambda w, x, y, lam, eta: theory.gradient_descent_limit(x[..., :2], lam)
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_stack_of_problems_is_each_of_them_alone(name: str) -> None:
    function = CASES[name]
    problem, lam, eta = replicas(), tensor(LAM), tensor(ETA)
    together = function(*problem, lam, eta)
    assert len(together) == R
    for r in range(R):
        alone = function(*(a[r] for a in problem), lam[r], eta[r])
        torch.testing.assert_close(together[r], alone, rtol=1e-10, atol=1e-10)
    assert not torch.equal(together[0], together[1])


def test_an_epoch_of_several_replicas_is_the_plain_loop_of_each() -> None:
    w, x, y = replicas()
    order = torch.tensor([6, 0, 2, 5, 1, 4, 3])
    a, b = theory.epoch_map(x / 5, y, 3, tensor(ETA), tensor(LAM), order)
    assert a.shape == (R, D, D) and b.shape == (R, M, D)
    for r in range(R):
        numbers = (array[r].numpy() for array in (w, x / 5, y))
        after = oracle.train(*numbers, [order.tolist()], 3, [ETA[r]], LAM[r])[0][-1]
        np.testing.assert_allclose((w[r] @ a[r] + b[r]).numpy(), after, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize(("convention", "decay"), [("paper", 2.0), ("appendix_a", 1.0)])
def test_decay_of_several_lambdas_is_that_of_each(
    steps: int, convention: Any, decay: float
) -> None:
    etas = tensor([0.05, 0.9, 0.02, 0.01])  # 1 - 2 eta lambda = -0.26 in the second epoch
    lam = tensor([[0.0, 0.04], [0.7, 0.3]])
    together = theory.decay_per_epoch(etas, lam, steps, convention)
    assert together.shape == (4, 2, 2)
    for i in range(2):
        for j in range(2):
            expected = oracle.null_norms(1.0, etas.tolist(), float(lam[i, j]), steps, decay)
            assert together[:, i, j].tolist() == pytest.approx(expected, rel=1e-12)


# The losses as functions of rho fbar.
LOSSES = {
    "square": lambda s: (1 - s) ** 2,
    "logistic": lambda s: torch.log1p(torch.exp(-s)),
    "exponential": lambda s: torch.exp(-s),
    "cross_entropy": lambda s: torch.log1p(torch.exp(-2 * s)),
}


@pytest.mark.parametrize("loss", PULLS)
def test_flows_of_several_scales_are_minus_the_derivatives_of_each(loss: str) -> None:
    rng, pull = np.random.default_rng(2), PULLS[loss]
    margins = torch.from_numpy(rng.standard_normal((2, R, N)))
    rho, lam = tensor([[0.3, 1.0, 2.5], [0.1, 4.0, 0.7]]), tensor(LAM)
    flow = theory.rho_dot(margins, rho, lam, pull)
    nu = theory.lagrange_multiplier(margins, rho, pull)
    assert flow.shape == nu.shape == (2, R)
    for i in range(2):
        for r in range(R):
            scale = rho[i, r].clone().requires_grad_()
            mean = LOSSES[loss](scale * margins[i, r]).mean()
            (slope,) = torch.autograd.grad(mean, scale)
            expected = -float(slope) - 2 * LAM[r] * float(rho[i, r])
            assert float(flow[i, r]) == pytest.approx(expected, rel=1e-11)
            assert float(nu[i, r]) == pytest.approx(-float(slope * rho[i, r]) / 2, rel=1e-11)


def test_tails_of_several_weights_are_those_of_each() -> None:
    rng = np.random.default_rng(3)
    matrices = rng.standard_normal((R, 4, 6)) * np.array([0.1, 1.0, 9.0])[:, None, None]
    values = np.linalg.svd(matrices, compute_uv=False)
    starts, decays, nu = tensor([2.0, 3.0, 5.0]), rng.uniform(-1, 1, (R, 5)), tensor([-1.0, 2, 3])
    for rank in range(6):
        found = theory.tail_bound(*tensors(values), starts, *tensors(decays), rank)
        floor = theory.velocity_floor(*tensors(values), nu, rank)
        tails = [np.sqrt((each[rank:] ** 2).sum()) for each in values]
        bounds = [abs(np.prod(kept)) * float(s) for kept, s in zip(decays, starts, strict=True)]
        assert found.tail.tolist() == pytest.approx(tails, rel=1e-12)
        assert found.bound.tolist() == pytest.approx(bounds, rel=1e-12)
        assert found.vacuous == (rank >= 4)
        floors = [2 * abs(float(n)) * tail for n, tail in zip(nu, tails, strict=True)]
        assert floor.tolist() == pytest.approx(floors, rel=1e-12)


def tensors(*arrays: Any) -> list[Tensor]:
    return [torch.from_numpy(array) for array in arrays]


@pytest.mark.parametrize(
    ("d", "n", "batch_size", "work"),
    [
        # A hundred times N/B products and the eigenvalues of one, and X X^T.
        (5, 12, 5, 100 * (2 * 3 * 5**3 + 10 * 5**3) + 2 * 12 * 5**2),
        (2, 9, 1, 100 * (2 * 9 * 4**3 + 10 * 2**3) + 2 * 9 * 2**2),
        (4, 8, 4, 100 * (2 * 2 * 4**3 + 10 * 4**3) + 2 * 8 * 4**2),
    ],
)
def test_a_cycle_that_is_too_dear_has_the_limit_of_gradient_descent(
    d: int, n: int, batch_size: int, work: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.from_numpy(np.random.default_rng(d).standard_normal((d, n)))
    exact = theory.cyclic_limit(x, batch_size, 0.1)
    descent = float(theory.gradient_descent_limit(x, 0.1))
    assert exact != pytest.approx(descent, rel=1e-3)
    for allowed, expected in ((work, exact), (work - 1, descent)):
        monkeypatch.setattr(janus_pl.theory.stability, "CYCLE_WORK", allowed)
        assert theory.stability_limit(x, batch_size, 0.1, "sequential") == expected


def test_a_mean_square_has_its_limit_up_to_twenty_dimensions() -> None:
    for d in (19, 20, 21):
        x = torch.from_numpy(np.random.default_rng(d).standard_normal((d, 30)))
        found = theory.stability_limit(x, 1, 0.1, "shuffle")
        descent = float(theory.gradient_descent_limit(x, 0.1))
        assert (found == descent) == (d > 20)
        assert found <= descent
