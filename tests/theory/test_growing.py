"""A growing rate against weight decay: the same V_t, step by step, by PyTorch's own SGD."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from janus_pl.theory.growing import first_buffer, growth, shrinkage

ETA, DECAY, STEPS = 0.1, 0.02, 400


def loss(v: Tensor, x: Tensor) -> Tensor:
    """A loss of v/||v|| alone."""
    return torch.tanh(x @ (v / v.norm()).view(5, 4)).square().sum()


def directions(momentum: float, grows: bool, *, starts: bool = True) -> Tensor:
    x = torch.randn(4, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    v = torch.randn(20, generator=generator, dtype=torch.float64).requires_grad_()
    decay = 0.0 if grows else DECAY
    optimizer = torch.optim.SGD([v], ETA, momentum=momentum, weight_decay=decay)
    alpha = shrinkage(ETA, DECAY, momentum)
    if grows and momentum and starts:
        buffer = first_buffer(alpha, ETA) * v.detach()
        optimizer.state[v]["momentum_buffer"] = buffer
    seen = []
    for step in range(STEPS):
        if grows:
            optimizer.param_groups[0]["lr"] = ETA * growth(alpha, step)
        optimizer.zero_grad()
        loss(v, x[step % 4]).backward()
        optimizer.step()
        seen.append((v / v.norm()).detach().clone())
    return torch.stack(seen)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_every_direction_is_the_same(momentum: float) -> None:
    assert float((directions(momentum, True) - directions(momentum, False)).abs().max()) < 1e-10


def test_the_first_buffer_is_needed() -> None:
    """The negative control."""
    without = directions(0.9, True, starts=False)
    assert float((without - directions(0.9, False)).abs().max()) > 1e-4


@pytest.mark.parametrize("momentum", [0.1, 0.5, 0.9])
def test_the_root(momentum: float) -> None:
    alpha = shrinkage(ETA, DECAY, momentum)
    assert alpha**2 - (1 + momentum - ETA * DECAY) * alpha + momentum == pytest.approx(0, abs=1e-15)
    assert alpha > math.sqrt(momentum), "the larger one"


@pytest.mark.parametrize(("decay", "momentum"), [(10.0, 0.0), (0.03, 0.9), (20.0, 0.5)])
def test_too_much_decay_has_no_twin(decay: float, momentum: float) -> None:
    with pytest.raises(ValueError, match="eta wd"):
        shrinkage(0.1, decay, momentum)
