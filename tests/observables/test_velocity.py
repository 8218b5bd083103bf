"""`V_k` dot from one backward pass against Eq. 15 and 16 from one derivative per sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import oracles
import pytest
import torch
from torch import Tensor

from janus_pl.deep import losses
from janus_pl.deep.network import DeepReLU
from janus_pl.deep.normalizations import WeightNorm
from janus_pl.observables.velocity import direction_velocity, weight_velocity

CASES = [(seed, sign) for seed in range(4) for sign in (1.0, -1.0)]
every_loss = pytest.mark.parametrize("loss", oracles.LOSSES)
every_case = pytest.mark.parametrize(("seed", "sign"), CASES)


@dataclass
class Problem:
    """A network after one backward pass, and the batch that went through it."""

    net: DeepReLU
    strides: tuple[int, ...]
    x: Tensor
    y: Tensor

    @property
    def weights(self) -> list[Tensor]:
        layers: dict[str, Any] = self.net.weight_layers()
        return [layer.weight.detach() for layer in layers.values()]

    @property
    def directions(self) -> list[Tensor]:
        layers: dict[str, Any] = self.net.weight_layers()
        return [layer.parametrizations.weight.original1 for layer in layers.values()]

    @property
    def gains(self) -> list[Tensor]:
        layers: dict[str, Any] = self.net.weight_layers()
        return [layer.parametrizations.weight.original0.detach() for layer in layers.values()]

    @property
    def gain_product(self) -> float:
        return torch.stack(self.gains).prod().item()

    @property
    def rho(self) -> float:
        """In the paper's units, with its sign."""
        return self.net.rho.item() * self.gain_product

    def expected(self, loss: str) -> list[Tensor]:
        return oracles.velocities(loss, self.weights, self.strides, self.x, self.y, self.rho)


def problem(loss: str, seed: int, sign: float = 1.0) -> Problem:
    """Random images of unit norm, and a rho at which residuals differ from sample to sample.

    v is moved off its initial norm, so that ||v|| and g cannot stand in for one another.
    """
    strides = [(1, 2, 1, 1), (2, 1, 1, 1)][seed % 2]
    torch.manual_seed(seed)
    net = DeepReLU(strides=strides, channels=(3, 4, 5, 4), hidden=7, image_size=16).double()
    WeightNorm(net)
    x = torch.randn(7, 3, 16, 16, dtype=torch.float64)
    x = x / x.flatten(1).norm(dim=1)[:, None, None, None]
    y = torch.randint(0, 2, (7,)).double() * 2 - 1
    with torch.no_grad():
        for v in Problem(net, strides, x, y).directions:
            v.mul_(torch.rand(()) * 3 + 0.2)
        net.rho.copy_(sign / net(x).abs().mean())
    getattr(losses, loss)(net(x), y).mean().backward()
    return Problem(net, strides, x, y)


def relative_error(value: Tensor, expected: Tensor) -> float:
    assert value.shape == expected.shape
    assert expected.norm() > 0
    return ((value - expected).norm() / expected.norm()).item()


def weight_gradients(case: Problem, loss: str) -> list[Tensor]:
    """`dLoss/dW_k` at the effective weights, through the plain forward pass."""
    W = [w.clone().requires_grad_() for w in case.weights]
    outputs = case.net.rho.detach() * oracles.forward(W, case.strides, case.x)
    return list(torch.autograd.grad(getattr(losses, loss)(outputs, case.y).mean(), W))


# End to end


@every_case
@every_loss
def test_backward_pass_gives_the_papers_velocity(loss, seed, sign):
    case = problem(loss, seed, sign)
    for v, expected in zip(case.directions, case.expected(loss), strict=True):
        velocity = direction_velocity(v.detach(), v.grad)
        assert velocity.shape == (v.shape[0], v.numel() // v.shape[0])
        assert relative_error(velocity, expected) < 1e-10


@every_case
@every_loss
def test_effective_weights_give_the_same_velocity(loss, seed, sign):
    case = problem(loss, seed, sign)
    gradients = weight_gradients(case, loss)
    for W, G, expected in zip(case.weights, gradients, case.expected(loss), strict=True):
        assert relative_error(weight_velocity(W, G), expected) < 1e-10


@every_loss
def test_without_the_projection_the_velocity_is_another(loss):
    case = problem(loss, 0)
    gradients = weight_gradients(case, loss)
    for W, G, expected in zip(case.weights, gradients, case.expected(loss), strict=True):
        assert relative_error(-W.norm() * G.flatten(1), expected) > 1e-3


def test_without_the_common_mode_the_square_velocity_is_another():
    case = problem("square", 0)
    # The scalar theory: train (f_1 - f_0)/2 alone, by an output that has no common mode.
    fc2 = case.weights[-1]
    scalar = [*case.weights[:-1], torch.stack([fc2[0] - fc2[1], fc2[1] - fc2[0]]) / 2]
    rho = case.rho * (scalar[-1].norm() / fc2.norm()).item()
    without = oracles.velocities("square", scalar, case.strides, case.x, case.y, rho)
    for incomplete, expected in list(zip(without, case.expected("square"), strict=True))[:-1]:
        assert relative_error(incomplete, expected) > 1e-3


def test_gain_in_place_of_the_norm_of_v_gives_another_velocity():
    case = problem("square", 0)
    for v, g, expected in zip(case.directions, case.gains, case.expected("square"), strict=True):
        assert relative_error(-g * v.grad.flatten(1), expected) > 1e-3


# The flow of rho


@every_case
@every_loss
def test_gradient_of_rho_is_the_papers_flow_in_both_units(loss, seed, sign):
    case = problem(loss, seed, sign)
    margins = oracles.margins(case.weights, case.strides, case.x, case.y)
    common = oracles.common_modes(case.weights, case.strides, case.x)
    P = case.gain_product
    learned = oracles.rho_flow(loss, P * margins, P * common, case.net.rho.item())
    assert -case.net.rho.grad.item() == pytest.approx(learned, rel=1e-10, abs=0)
    paper = oracles.rho_flow(loss, margins, common, case.rho)
    assert learned == pytest.approx(P * paper, rel=1e-10, abs=0)


@every_loss
def test_radial_gradient_is_the_multiplier_in_every_layer(loss):
    case = problem(loss, 1)
    margins = oracles.margins(case.weights, case.strides, case.x, case.y)
    common = oracles.common_modes(case.weights, case.strides, case.x)
    nu = oracles.multiplier(loss, margins, common, case.rho)
    for W, G in zip(case.weights, weight_gradients(case, loss), strict=True):
        assert (W * G).sum().item() == pytest.approx(-2 * nu, rel=1e-10, abs=0)


# The reference itself


@every_loss
def test_reference_is_the_slope_of_the_loss_along_any_tangent(loss):
    """Central differences of the loss itself, with no derivative of the network anywhere."""
    case = problem(loss, 2)
    V = [oracles.unit(w) for w in case.weights]
    generator = torch.Generator().manual_seed(0)

    def value(k: int, step: Tensor) -> float:
        moved = [oracles.unit(v + step) if j == k else v for j, v in enumerate(V)]
        outputs = case.rho * oracles.forward(moved, case.strides, case.x)
        return float(oracles.loss_value(loss, outputs, case.y).mean())

    for k, velocity in enumerate(case.expected(loss)):
        # Along the velocity, with a little of a random direction: neither sign nor size is free.
        random = torch.randn(V[k].shape, dtype=torch.float64, generator=generator)
        step = oracles.unit(velocity.view_as(V[k]) / velocity.norm() + oracles.unit(random))
        slope = (value(k, 1e-6 * step) - value(k, -1e-6 * step)) / 2e-6
        expected = -(velocity * step.flatten(1)).sum().item()
        assert slope == pytest.approx(expected, rel=1e-4, abs=0)


# Closed forms


def random_pair(shape: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    W = torch.randn(shape, dtype=torch.float64, generator=generator)
    return W, torch.randn(shape, dtype=torch.float64, generator=generator)


shapes = pytest.mark.parametrize("shape", [(5, 7), (4, 3, 3, 3), (1, 6), (2, 1)])


@shapes
def test_weight_velocity_is_the_closed_form(shape):
    W, G = random_pair(shape)
    V = W / W.norm()
    expected = -W.norm() * (G - (G * V).sum() * V)
    assert relative_error(weight_velocity(W, G), expected.flatten(1)) < 1e-13


@shapes
def test_velocity_is_tangent_to_the_sphere(shape):
    W, G = random_pair(shape)
    velocity = weight_velocity(W, G)
    assert velocity.norm() > 1e-3
    assert (velocity * W.flatten(1)).sum().abs() < 1e-13 * velocity.norm() * W.norm()


@shapes
@pytest.mark.parametrize("g", [0.3, 4.0])
def test_both_forms_agree_through_the_weight_norm_gradient(shape, g):
    v, G = random_pair(shape)
    gradient_v = oracles.weight_norm_gradient(g, v, G)
    velocity = direction_velocity(v, gradient_v)
    assert relative_error(velocity, weight_velocity(g * v / v.norm(), G)) < 1e-12


@shapes
@pytest.mark.parametrize("factor", [1e-3, 0.5, 200.0])
def test_velocity_does_not_see_the_parametrization(shape, factor):
    v, gradient_v = random_pair(shape)
    # A loss of v/||v|| alone has a gradient that shrinks as v grows.
    scaled = direction_velocity(factor * v, gradient_v / factor)
    assert relative_error(scaled, direction_velocity(v, gradient_v)) < 1e-13
    scaled = weight_velocity(factor * v, gradient_v / factor)
    assert relative_error(scaled, weight_velocity(v, gradient_v)) < 1e-12


def test_radial_gradient_moves_nothing():
    W, _ = random_pair((4, 3, 3, 3))
    assert weight_velocity(W, 2.5 * W).norm() < 1e-13 * W.norm() ** 2


def test_velocities_leave_their_arguments_alone():
    W, G = random_pair((4, 3, 3, 3))
    before = W.clone(), G.clone()
    weight_velocity(W, G).zero_()
    direction_velocity(W, G).zero_()
    assert torch.equal(W, before[0])
    assert torch.equal(G, before[1])
