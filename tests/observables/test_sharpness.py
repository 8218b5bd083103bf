"""Sharpness against dense Hessians, closed forms, and quadratics that do or do not diverge."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor

from janus_pl.observables.sharpness import (
    hessian_product,
    largest_eigenvalue,
    stability_threshold,
)


def network(seed: int) -> tuple[list[Tensor], Tensor, Tensor]:
    """Weights with 300 entries in all, and samples."""
    generator = torch.Generator().manual_seed(seed)
    shapes = (20, 10), (10, 10)
    draw = functools.partial(torch.randn, generator=generator, dtype=torch.float64)
    weights = [draw(shape).div_(3).requires_grad_() for shape in shapes]
    return weights, draw(32, 20), draw(32, 10)


def loss_of(weights: list[Tensor] | tuple[Tensor, ...], x: Tensor, y: Tensor) -> Tensor:
    return (torch.tanh(x @ weights[0]) @ weights[1] - y).square().mean()


def dense_hessian(weights: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
    sizes = [w.numel() for w in weights]

    def flat(u: Tensor) -> Tensor:
        parts = [p.view_as(w) for p, w in zip(u.split(sizes), weights, strict=True)]
        return loss_of(parts, x, y)

    return torch.func.hessian(flat)(torch.cat([w.detach().reshape(-1) for w in weights]))


def chunked(weights: list[Tensor], x: Tensor, y: Tensor, chunk: int):
    """Summands of the mean loss, one a chunk of samples."""

    def summand(a: Tensor, b: Tensor) -> Tensor:
        return loss_of(weights, a, b) * (len(a) / len(x))

    pieces = [*zip(x.split(chunk), y.split(chunk), strict=True)]
    return lambda: [functools.partial(summand, a, b) for a, b in pieces]


# PyTorch's own warning, at the first use of torch.func.
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("chunk", [32, 10])
def test_largest_eigenvalue_of_a_network(seed: int, chunk: int) -> None:
    weights, x, y = network(seed)
    H = dense_hessian(weights, x, y)
    product = hessian_product(chunked(weights, x, y, chunk), weights)
    u = torch.randn(300, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    torch.testing.assert_close(product(u), H @ u, rtol=1e-9, atol=1e-12)
    expected = float(torch.linalg.eigvalsh(H)[-1])
    found = largest_eigenvalue(product, u, tolerance=1e-6, most=300)
    assert float(found.value) == pytest.approx(expected, rel=1e-9)
    assert float((H @ found.vector - found.value * found.vector).norm()) <= 2e-6 * expected


def test_a_warm_start_takes_fewer_products() -> None:
    weights, x, y = network(0)
    product = hessian_product(chunked(weights, x, y, 32), weights)
    u = torch.randn(300, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    cold = largest_eigenvalue(product, u)
    with torch.no_grad():
        weights[0].mul_(1.001)
    warm = largest_eigenvalue(product, cold.vector)
    assert warm.products < cold.products


def test_the_most_positive_eigenvalue_counts_and_not_the_largest_in_size() -> None:
    H = torch.diag(torch.tensor([2.0, 1.0, -50.0], dtype=torch.float64))
    found = largest_eigenvalue(lambda u: H @ u, torch.ones(3, dtype=torch.float64), 1e-9)
    assert float(found.value) == pytest.approx(2.0, rel=1e-9)


@pytest.mark.parametrize("most", [1, 2, 5, 11])
def test_it_stops_in_time_and_says_how_well_it_knows(most: int) -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(200, generator=generator, dtype=torch.float64)
    asked = []

    def product(u: Tensor) -> Tensor:
        asked.append(1)
        return values * u

    start = torch.randn(200, generator=generator, dtype=torch.float64)
    found = largest_eigenvalue(product, start, 1e-12, most)
    assert len(asked) == found.products == most
    rest = values * found.vector - found.value * found.vector
    assert float(found.residual) == pytest.approx(float(rest.norm()), rel=1e-6)
    assert (values - found.value).abs().min() <= found.residual


def test_an_eigenvector_as_the_start_takes_one_product() -> None:
    values = torch.tensor([5.0, 1.0, 1.0], dtype=torch.float64)
    found = largest_eigenvalue(lambda u: values * u, torch.tensor([1.0, 0.0, 0.0]).double())
    assert (float(found.value), found.products, float(found.residual)) == (5.0, 1, 0.0)


def test_a_linear_loss_has_no_curvature() -> None:
    w = torch.ones(4, dtype=torch.float64, requires_grad=True)
    product = hessian_product(lambda: [lambda: w.sum()], [w])
    assert torch.equal(product(torch.ones(4, dtype=torch.float64)), torch.zeros(4).double())


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize(("share", "diverges"), [(0.99, False), (1.01, True)])
def test_a_quadratic_diverges_above_the_threshold_alone(
    momentum: float, share: float, diverges: bool
) -> None:
    eta = 0.1
    curvature = share * stability_threshold(eta, momentum)
    w = torch.ones(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([w], eta, momentum=momentum)
    for _ in range(4000):
        optimizer.zero_grad()
        (curvature / 2 * w.square()).sum().backward()
        optimizer.step()
    assert (not bool(w.abs() < 1)) == diverges
