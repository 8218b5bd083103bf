"""The limits of PyTorch's own optimizers: quadratics diverge 1% above, and not 1% below."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from janus_pl.observables.edge import Edge, NoLimit, coupled_decay, edge_of

ETA = 0.05
V = (4.0, 1.0, 0.25)  # averages of squares that stay as they are
FROZEN = 1 - 1e-12

Make = Callable[[list[Any]], torch.optim.Optimizer]
optim: Any = torch.optim


def frozen(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Give it averages of squares that no gradient here can move."""
    for p in (p for group in optimizer.param_groups for p in group["params"]):
        at = torch.tensor(V, dtype=torch.float64)[: p.numel()].clone()
        state = {"step": torch.tensor(1e14), "exp_avg": torch.zeros_like(p), "exp_avg_sq": at}
        if isinstance(optimizer, torch.optim.RMSprop):
            state = {"step": torch.tensor(1e14), "square_avg": at}
            if optimizer.defaults["momentum"]:
                state["momentum_buffer"] = torch.zeros_like(p)
        optimizer.state[p] = state
    return optimizer


def groups_of(parameters: list[Any]) -> list[dict[str, Any]]:
    return [{"params": parameters[:1], "lr": ETA}, {"params": parameters[1:], "lr": ETA / 4}]


adam = {"lr": ETA, "betas": (0.9, FROZEN)}
MAKERS: dict[str, Make] = {
    "gradient descent": lambda p: optim.SGD(p, ETA),
    "ignored without momentum": lambda p: optim.SGD(p, ETA, dampening=0.5),
    "heavy ball": lambda p: optim.SGD(p, ETA, momentum=0.9),
    "dampening": lambda p: optim.SGD(p, ETA, momentum=0.6, dampening=0.6),
    "Nesterov": lambda p: optim.SGD(p, ETA, momentum=0.9, nesterov=True),
    "two rates": lambda p: optim.SGD(groups_of(p), ETA, momentum=0.5),
    "RMSprop": lambda p: frozen(optim.RMSprop(p, ETA, FROZEN)),
    "RMSprop, momentum": lambda p: frozen(optim.RMSprop(p, ETA, FROZEN, momentum=0.7)),
    "Adam": lambda p: frozen(optim.Adam(p, **adam)),
    "Adam, beta_1 = 0.5": lambda p: frozen(optim.Adam(p, ETA, (0.5, FROZEN), eps=0.3)),
    "AdamW": lambda p: frozen(optim.AdamW(p, **adam, weight_decay=1.0)),
    "AdamW, two rates": lambda p: frozen(optim.AdamW(groups_of(p), **adam, weight_decay=1.0)),
}
LIMITS = {
    "gradient descent": 2.0,
    "ignored without momentum": 2.0,
    "heavy ball": 3.8,
    "dampening": 8.0,
    "Nesterov": 3.8 / 2.8,
    "two rates": 3.0,
    "RMSprop": 2.0,
    "RMSprop, momentum": 3.4,
    "Adam": 38.0,
    "Adam, beta_1 = 0.5": 6.0,
    "AdamW": 38.0,
    "AdamW, two rates": 38.0,
}


def parameters() -> list[Tensor]:
    return [torch.full((n,), 0.1, dtype=torch.float64, requires_grad=True) for n in (3, 2)]


def curvature() -> Tensor:
    """A positive matrix without symmetries, (5, 5)."""
    root = np.random.default_rng(0).normal(size=(5, 5))
    return torch.from_numpy(root @ root.T + 0.1 * np.eye(5))


def largest(edge: Edge, H: Tensor, shifted: bool = True) -> float:
    edge = edge if shifted else edge._replace(shift=None)
    product = edge.product(lambda u: H @ u)
    matrix = torch.stack([product(e) for e in torch.eye(5, dtype=torch.float64)])
    torch.testing.assert_close(matrix, matrix.T)
    return float(torch.linalg.eigvalsh(matrix)[-1])


def grows(make: Make, H: Tensor) -> bool:
    """Whether the optimizer's own steps on w^T H w/2 lead away from 0."""
    given = parameters()
    optimizer = make(given)
    sizes = []
    for _ in range(1500):
        w = torch.cat(given)
        sizes.append(float(w.detach().norm()))
        optimizer.zero_grad()
        (w @ H @ w / 2).backward()
        optimizer.step()
        if not sizes[-1] < 20:  # far more, and the frozen averages move
            return True
    assert not 0.2 < sizes[-1] / sizes[0] < 5, "it is decided"
    return sizes[-1] > sizes[0]


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("share", [0.99, 1.01])
def test_steps_on_a_quadratic_diverge_above_the_limit_alone(name: str, share: float) -> None:
    given = parameters()
    edge = edge_of(MAKERS[name](given), given)
    assert edge.limit == pytest.approx(LIMITS[name] / ETA, rel=1e-12)
    assert edge.begun
    H = curvature()
    shift = 0.0 if edge.shift is None else largest(edge, 0 * H)
    # The scale of H at which the edge is at this share of its limit.
    low, high = 0.0, 2 * edge.limit / largest(edge, H, shifted=False)
    assert shift < share * edge.limit
    for _ in range(80):
        middle = (low + high) / 2
        below = largest(edge, middle * H) < share * edge.limit
        low, high = (middle, high) if below else (low, middle)
    assert grows(MAKERS[name], low * H) == (share > 1)


def test_the_shift_of_decoupled_decay_is_needed() -> None:
    """The negative control: with it left out, 1% below is above."""
    given = parameters()
    edge = edge_of(MAKERS["AdamW"](given), given)
    H = curvature()
    H = H * (0.99 * edge.limit / largest(edge, H, shifted=False))
    assert largest(edge, H) > 1.005 * edge.limit
    assert grows(MAKERS["AdamW"], H)


@pytest.mark.parametrize("name", MAKERS)
def test_the_optimizer_stays_as_it_is(name: str) -> None:
    given = parameters()
    optimizer = MAKERS[name](given)
    versions = [p._version for p in given]
    before = copy.deepcopy(optimizer.state_dict())
    edge_of(optimizer, given)
    coupled_decay(optimizer, given)
    assert [p._version for p in given] == versions
    torch.testing.assert_close(optimizer.state_dict(), before, rtol=0, atol=0)


def test_of_sgd_nothing_is_scaled_and_before_the_first_step_adam_is_not_known() -> None:
    given = parameters()
    assert edge_of(optim.SGD(given, ETA), given)[1:] == (None, None, True)
    assert edge_of(optim.Adam(given, ETA), given)[1:] == (None, None, False)


def test_a_rate_of_zero_has_no_limit() -> None:
    given = parameters()
    assert edge_of(optim.SGD(given, 0.0), given).limit == math.inf


class Own(torch.optim.SGD):
    """May step in another way."""


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: optim.Adagrad(p, ETA), "Adagrad is not known"),
        (lambda p: optim.NAdam(p, ETA), "NAdam is not known"),
        (lambda p: Own(p, ETA), "Own is not known"),
        (lambda p: optim.SGD(p, ETA, maximize=True), "climbed"),
        (lambda p: optim.SGD(p, ETA, momentum=0.9, dampening=1.0), "dampening of 1"),
        (
            lambda p: optim.SGD([{"params": p[:1], "momentum": 0.5}, {"params": p[1:]}], ETA),
            "other momenta",
        ),
        (lambda p: optim.SGD(p[:1], ETA), "every trained parameter"),
    ],
)
def test_what_has_no_limit(make: Make, says: str) -> None:
    given = parameters()
    with pytest.raises(NoLimit, match=says):
        edge_of(make(given), given)


def test_coupled_decay_is_that_of_each_group() -> None:
    given = parameters()
    groups = [{"params": given[:1], "weight_decay": 0.5}, {"params": given[1:]}]
    assert coupled_decay(optim.SGD(groups, ETA), given).tolist() == [0.5] * 3 + [0.0] * 2
    assert coupled_decay(optim.AdamW(groups, ETA), given).tolist() == [0.0] * 5
