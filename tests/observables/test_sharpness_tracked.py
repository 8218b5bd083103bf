"""An eigenvalue that is followed from look to look, and losses without a second derivative."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from janus_pl.observables.sharpness import (
    directional_curvature,
    gradient,
    hessian_product,
    is_curved,
    largest_eigenvalue,
    tracked_eigenvalue,
)

SIZE = 100_000


def draw(seed: int, size: int = SIZE) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spectrum(first: float, second: float) -> Tensor:
    """Two eigenvalues far above the many others."""
    values = torch.linspace(-0.2, 0.5, SIZE, dtype=torch.float64)
    values[17], values[4711] = first, second
    return values


@pytest.mark.parametrize("overtakes", [1.05, 1.3, 3.0])
def test_an_eigenvalue_that_overtakes_the_last_one_is_found(overtakes: float) -> None:
    before, after = spectrum(1.0, 0.9), spectrum(1.0, overtakes)
    last = largest_eigenvalue(lambda u: before * u, draw(0))
    assert float(last.value) == pytest.approx(1.0, rel=1e-4)
    found = tracked_eigenvalue(lambda u: after * u, last.vector, draw(1))
    assert float(found.value) == pytest.approx(overtakes, rel=1e-4)
    if overtakes < 2:  # the negative control: the last vector alone does not notice
        alone = largest_eigenvalue(lambda u: after * u, last.vector)
        assert float(alone.value) == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize("most", [1, 4, 10, 11, 30])
def test_the_products_of_both_searches_count(most: int) -> None:
    values, asked = spectrum(1.0, 0.99), []

    def product(u: Tensor) -> Tensor:
        asked.append(1)
        return values * u

    found = tracked_eigenvalue(product, draw(2) / draw(2).norm(), draw(1), 1e-12, most)
    assert len(asked) == found.products == most


def test_a_first_look_has_no_last_vector() -> None:
    values = spectrum(1.0, 0.9)
    first = tracked_eigenvalue(lambda u: values * u, None, draw(1))
    assert float(first.value) == pytest.approx(1.0, rel=1e-4)


def test_processes_stop_together() -> None:
    """None of them stops before all of them would."""
    values, votes = spectrum(1.0, 0.9), []

    def agree(mine: bool) -> bool:
        votes.append(mine)
        return mine and len(votes) > 60

    found = largest_eigenvalue(lambda u: values * u, draw(1), most=10_000, agree=agree)
    assert len(votes) > 60 and float(found.residual) < 1e-3


@pytest.mark.parametrize("at", [1, 2, 5])
def test_a_product_that_is_not_finite_ends_the_search(at: int) -> None:
    values, asked = spectrum(1.0, 0.9), []

    def product(u: Tensor) -> Tensor:
        asked.append(1)
        return values * u * (torch.nan if len(asked) == at else 1.0)

    found = largest_eigenvalue(product, draw(1), 1e-9)
    assert found.products == at
    assert bool(found.value.isfinite()) == (at > 1)


def test_gradients_of_a_sum_of_losses() -> None:
    w = torch.tensor([1.0, 2.0], requires_grad=True)
    found = gradient(lambda: [lambda: w[0] ** 3, lambda: (w[0] * w[1]).sum()], [w])
    assert found.tolist() == [5.0, 1.0]
    assert w.grad is None


def test_the_curvature_along_the_gradient() -> None:
    w = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
    losses = lambda: [lambda: (w**4).sum()]  # noqa: E731
    found = directional_curvature(gradient(losses, [w]), hessian_product(losses, [w]))
    g, h = torch.tensor([4.0, -32.0]), torch.tensor([12.0, 48.0])
    assert float(found) == pytest.approx(float((g * h * g).sum() / (g * g).sum()), rel=1e-6)


def hinge(outputs: Tensor) -> Tensor:
    return torch.relu(1 - (outputs[:, 1] - outputs[:, 0]) / 2)


def absolute(outputs: Tensor) -> Tensor:
    return (outputs[:, 1] - outputs[:, 0]).abs()


class Once(torch.autograd.Function):
    """A square whose backward pass has no derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return 2 * grad * ctx.saved_tensors[0]


@pytest.mark.parametrize(
    ("loss", "curved"),
    [
        (lambda f: (f - 1).square().mean(1), True),
        (lambda f: hinge(f).square(), True),
        (lambda f: torch.nn.functional.softplus(f[:, 0] - f[:, 1]), True),
        (lambda f: (f[:, 0] - f[:, 1]).square(), True),
        (lambda f: f[:, 0] * f[:, 1], True),
        (hinge, False),
        (absolute, False),
        (lambda f: f[:, 0], False),
        (lambda f: Once.apply(f).sum(1), False),
    ],
)
def test_which_losses_have_a_second_derivative(
    loss: Callable[[Tensor], Tensor], curved: bool
) -> None:
    points = draw(3, 40).view(20, 2)
    assert is_curved(loss, points) is curved
    assert not points.requires_grad
