"""Angles against rotations of known size, and the rate of V_k against a step of SGD."""

from __future__ import annotations

import math

import pytest
import torch

from janus_pl.deep.weight_norm import FrobeniusWeightNorm
from janus_pl.observables.rotation import angle, effective_rate


def turned(by: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Two matrices (3, 4) of unit norm, an angle apart, in a random plane."""
    generator = torch.Generator().manual_seed(0)
    plane, _ = torch.linalg.qr(torch.randn(12, 2, generator=generator, dtype=torch.float64))
    a, b = plane.T
    return a.view(3, 4), (math.cos(by) * a + math.sin(by) * b).view(3, 4)


@pytest.mark.parametrize("by", [1e-6, 1e-3, 0.5, math.pi / 2, 3.0, math.pi - 1e-6])
def test_the_angle_of_a_known_rotation(by: float) -> None:
    assert float(angle(*turned(by))) == pytest.approx(by, rel=1e-9)


def test_a_small_angle_is_seen_in_single_precision() -> None:
    before, after = (matrix.float() for matrix in turned(1e-4))
    assert float(angle(before, after)) == pytest.approx(1e-4, rel=1e-2)
    cosine = (before * after).sum().clamp(max=1)
    assert float(torch.arccos(cosine)) != pytest.approx(1e-4, rel=0.5), "the control"


def test_nothing_turns_by_nothing() -> None:
    before, _ = turned(0.0)
    assert float(angle(before, before)) == 0.0


def test_a_step_moves_the_direction_at_the_effective_rate() -> None:
    torch.manual_seed(0)
    v = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    target = torch.randn(3, 4, dtype=torch.float64)
    weight = FrobeniusWeightNorm()(torch.tensor(1.7, dtype=torch.float64), v)
    (weight - target).square().sum().backward()
    assert v.grad is not None
    norm, eta = v.detach().norm(), 1e-6
    velocity = -norm * v.grad  # Eq. 15
    moved = (v.detach() - eta * v.grad) / (v.detach() - eta * v.grad).norm()
    rate = effective_rate(eta, norm[None])[0]
    step = float(angle(v.detach() / norm, moved))
    assert step == pytest.approx(float(rate * velocity.norm()), rel=1e-5)
