"""The closed-form gradient of g v/||v||, in g as in v, against autograd of the plain formula."""

from __future__ import annotations

import pytest
import torch

from janus_pl.deep.weight_norm import FrobeniusWeightNorm

SHAPES = [(3, 5), (1, 7), (4, 2, 3, 3)]


@pytest.mark.parametrize("learned", ["g", "v", "both"])
@pytest.mark.parametrize("gain", [0.3, -2.0, 50.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_are_those_of_the_plain_formula(
    shape: tuple[int, ...], gain: float, learned: str
) -> None:
    generator = torch.Generator().manual_seed(0)
    v = 0.2 * torch.randn(shape, generator=generator, dtype=torch.float64)
    pull = torch.randn(shape, generator=generator, dtype=torch.float64)
    found = []
    for formula in (FrobeniusWeightNorm(), lambda g, v: g * v / v.square().sum().sqrt()):
        g = torch.tensor(gain, dtype=torch.float64, requires_grad=learned != "v")
        own = v.clone().requires_grad_(learned != "g")
        ((formula(g, own) ** 3) * pull).sum().backward()
        found.append((g.grad, own.grad))
    for mine, plain in zip(*found, strict=True):
        assert (mine is None) == (plain is None)
        if plain is not None:
            torch.testing.assert_close(mine, plain, rtol=1e-11, atol=1e-13)
            assert float(plain.abs().max()) > 1e-6


def test_numerical_derivatives_agree_in_both() -> None:
    torch.manual_seed(0)
    g = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    v = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(FrobeniusWeightNorm(), (g, v))
