"""Frobenius weight normalization against closed forms and PyTorch's own with `dim=None`."""

from __future__ import annotations

import copy
from typing import Any

import oracles
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from janus_pl.deep.weight_norm import FrobeniusWeightNorm, weight_norm

EXACT = {"rtol": 1e-12, "atol": 0.0}


def convolution() -> nn.Module:
    return nn.Conv2d(3, 4, 3, stride=2, bias=False)


def dense() -> nn.Module:
    return nn.Linear(6, 5, bias=False)


CASES = [(convolution, (2, 3, 7, 7)), (dense, (4, 6))]
layers = pytest.mark.parametrize("build", [convolution, dense])
layers_and_inputs = pytest.mark.parametrize(("build", "shape"), CASES, ids=["convolution", "dense"])


def pair(build, seed: int = 0) -> tuple[nn.Module, nn.Module]:
    """The same layer with our normalization and with PyTorch's, off their initial values.

    At the start `||v|| = g` and `W = v`, where a wrong power of `||v||` would not show.
    """
    torch.manual_seed(seed)
    plain = build().double()
    ours = weight_norm(copy.deepcopy(plain))
    theirs = parametrizations.weight_norm(copy.deepcopy(plain), dim=None)
    v, g = torch.randn_like(plain.weight), torch.tensor(1.7, dtype=torch.float64)
    for layer in (ours, theirs):
        parts = layer.parametrizations.weight
        with torch.no_grad():
            parts.original0.copy_(g)
            parts.original1.copy_(v)
    return ours, theirs


def v_of(layer: Any) -> Tensor:
    return layer.parametrizations.weight.original1


def backward(layer: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """Run a fixed nonlinear loss back through the layer and return its output."""
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    output = layer(x)
    output.sin().sum().backward()
    return output.detach()


def weight_gradient(build, weight: Tensor, shape: tuple[int, ...]) -> Tensor:
    """`G = dLoss/dW` of the same loss in a plain layer with the same effective weight."""
    plain = build().double()
    with torch.no_grad():
        plain.weight.copy_(weight)
    backward(plain, shape)
    return plain.weight.grad


@layers_and_inputs
def test_agrees_with_pytorch_over_the_whole_tensor(build, shape):
    ours, theirs = pair(build)
    torch.testing.assert_close(backward(ours, shape), backward(theirs, shape), **EXACT)
    # Entries of a gradient may cancel, so they are judged against the largest.
    scale = v_of(theirs).grad.abs().max().item()
    torch.testing.assert_close(v_of(ours).grad, v_of(theirs).grad, rtol=0, atol=1e-12 * scale)


@layers
def test_differs_from_one_norm_per_row(build):
    ours, _ = pair(build)
    rows = parametrizations.weight_norm(build().double(), dim=0)
    with torch.no_grad():
        v_of(rows).copy_(v_of(ours))
        rows.parametrizations.weight.original0.fill_(1.7)
    assert not torch.allclose(ours.weight, rows.weight, rtol=0.1)
    assert rows.weight.norm().item() == pytest.approx(1.7 * len(rows.weight) ** 0.5)


@layers
def test_forward_is_the_closed_form(build):
    ours: Any = pair(build)[0]
    torch.testing.assert_close(ours.weight.detach(), 1.7 * oracles.unit(v_of(ours)), **EXACT)


@layers_and_inputs
def test_gradient_is_the_closed_form(build, shape):
    ours, _ = pair(build)
    G = weight_gradient(build, ours.weight, shape)
    backward(ours, shape)
    expected = oracles.weight_norm_gradient(1.7, v_of(ours), G)
    torch.testing.assert_close(
        v_of(ours).grad, expected, rtol=0, atol=1e-12 * expected.abs().max().item()
    )
    # Without the projection the closed form would be another one: the test can tell.
    unprojected = 1.7 / v_of(ours).norm() * G
    assert (v_of(ours).grad - unprojected).norm() > 1e-3 * unprojected.norm()


@layers
def test_gradient_passes_the_numerical_check(build):
    g = torch.tensor(0.6, dtype=torch.float64)
    v = torch.randn_like(build().double().weight, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: FrobeniusWeightNorm()(g, v), (v,))


@layers_and_inputs
def test_gradient_is_orthogonal_to_v(build, shape):
    ours, _ = pair(build)
    backward(ours, shape)
    v, gradient = v_of(ours).detach(), v_of(ours).grad
    assert gradient is not None and gradient.norm() > 1e-3
    assert (v * gradient).sum().abs() < 1e-13 * v.norm() * gradient.norm()


@layers
def test_direction_has_unit_norm(build):
    ours: Any = pair(build)[0]
    gain = ours.parametrizations.weight.original0
    assert (ours.weight / gain).norm().item() == pytest.approx(1.0, rel=1e-14)


@layers_and_inputs
@pytest.mark.parametrize("factor", [1e-3, 0.3, 50.0])
def test_rescaling_v_keeps_the_output_and_divides_the_gradient(build, shape, factor):
    ours, _ = pair(build)
    scaled = copy.deepcopy(ours)
    with torch.no_grad():
        v_of(scaled).mul_(factor)
    torch.testing.assert_close(backward(scaled, shape), backward(ours, shape), **EXACT)
    expected = v_of(ours).grad / factor
    torch.testing.assert_close(
        v_of(scaled).grad, expected, rtol=0, atol=1e-12 * expected.abs().max().item()
    )


@layers_and_inputs
def test_gain_is_frozen_and_v_is_learned(build, shape):
    torch.manual_seed(0)
    plain = build()
    initial = plain.weight.detach().clone()
    layer = weight_norm(plain)
    g, v = layer.parametrizations.weight.original0, v_of(layer)
    assert layer is plain
    assert isinstance(g, nn.Parameter)
    assert g.shape == ()
    assert not g.requires_grad
    assert v.requires_grad
    torch.testing.assert_close(g.detach(), initial.norm())
    torch.testing.assert_close(v.detach(), initial, rtol=0, atol=0)
    torch.testing.assert_close(layer.weight.detach(), initial)
    layer(torch.randn(shape)).sum().backward()
    assert g.grad is None
    assert v.grad is not None


def test_right_inverse_undoes_forward():
    norm = FrobeniusWeightNorm()
    W = torch.randn(4, 3, 2, 2, dtype=torch.float64)
    g, v = norm.right_inverse(W)
    torch.testing.assert_close(g, W.square().sum().sqrt(), **EXACT)
    torch.testing.assert_close(v, W, rtol=0, atol=0)
    torch.testing.assert_close(norm(g, v), W, **EXACT)


def test_assigned_weight_is_the_new_weight():
    layer = weight_norm(dense().double())
    W = torch.randn(5, 6, dtype=torch.float64)
    layer.weight = W
    torch.testing.assert_close(layer.weight.detach(), W, **EXACT)
    assert not layer.parametrizations.weight.original0.requires_grad
