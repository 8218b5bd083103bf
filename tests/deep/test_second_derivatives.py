"""Second derivatives through weight normalization, by every route, against autograd's own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from janus_pl.deep.weight_norm import FrobeniusWeightNorm

# PyTorch's own warning, at the first use of torch.func.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")

Weight = Callable[[Tensor, Tensor], Tensor]
ours: Weight = FrobeniusWeightNorm()


def plain(g: Tensor, v: Tensor) -> Tensor:
    return g * v / v.square().sum().sqrt()


def point() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.tensor(1.7, dtype=torch.float64),
        torch.randn(3, 2, 2, generator=generator, dtype=torch.float64),
    )


def loss(weight: Weight, g: Tensor, v: Tensor) -> Tensor:
    x = torch.linspace(-1, 2, 4, dtype=torch.float64)
    return torch.tanh(weight(g, v).flatten(1) @ x).pow(3).sum()


def by_grad(f: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The Hessian by v, a row at a time, from two backward passes."""
    g, v = point()
    v.requires_grad_()
    (first,) = torch.autograd.grad(f(g, v), v, create_graph=True)
    rows = [torch.autograd.grad(e, v, retain_graph=True)[0].flatten() for e in first.flatten()]
    return torch.stack(rows)


def by_functional(f: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    g, v = point()
    hessian = torch.autograd.functional.hessian(lambda u: f(g, u), v)
    assert isinstance(hessian, Tensor)
    return hessian.reshape(12, 12)


def by_func(f: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    return torch.func.hessian(f, argnums=1)(*point()).reshape(12, 12)


@pytest.mark.parametrize("route", [by_grad, by_functional, by_func])
def test_the_hessian_is_that_of_the_plain_formula(route: Callable[..., Tensor]) -> None:
    found = route(lambda g, v: loss(ours, g, v))
    expected = route(lambda g, v: loss(plain, g, v))
    assert float(expected.abs().max()) > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_a_norm_held_fixed_gives_another_hessian() -> None:
    """The negative control: the closed form without the norm's own derivative."""
    norm = point()[1].square().sum().sqrt()
    held = by_grad(lambda g, v: loss(lambda a, b: a * b / norm, g, v))
    expected = by_grad(lambda g, v: loss(plain, g, v))
    assert float((held - expected).abs().max()) > 0.05


def test_first_and_second_derivatives_agree_with_differences() -> None:
    inputs = tuple(part.requires_grad_() for part in point())
    assert torch.autograd.gradcheck(ours, inputs, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(ours, inputs)


def test_weights_of_several_networks_at_once() -> None:
    g, v = torch.rand(5) + 1, torch.randn(5, 3, 4)
    together = torch.vmap(ours)(g, v)
    apart = [ours(a, b) for a, b in zip(g, v, strict=True)]
    torch.testing.assert_close(together, torch.stack(apart))
