r"""The edge of stability: the curvature up to which an optimizer's steps on a quadratic shrink.

A step of each optimizer below is w <- w - eta S m, with a diagonal S and a first moment m of the
gradients. S changes slowly, so it is taken as it is (Cohen et al., 2022, Adaptive gradient methods
at the edge of stability). On a quadratic with Hessian H such steps diverge once the largest
eigenvalue of S^(1/2) H S^(1/2) is above a limit, where the step turns w into -w:

    optimizer    S                                              limit
    SGD          1                                              2(1 + mu)/((1 - dampening) eta)
    Nesterov     1                                              2(1 + mu)/((1 + 2 mu) eta)
    RMSprop      1/(sqrt(v) + eps)                              2(1 + mu)/eta
    Adam, AdamW  1/((1 - b1^t) (sqrt(v/(1 - b2^t)) + eps))      2(1 + b1)/((1 - b1) eta)

v is the optimizer's own average of squares after t steps (of `amsgrad` its largest, of `centered`
RMSprop minus the square of the mean). b1 = 0.9 gives 38/eta. The factor 1 - b1^t corrects the first
moment. A group whose learning rate eta_i is below the largest one, eta, has S times eta_i/eta.

Decoupled decay (AdamW) is no part of a loss. It turns w into (1 - eta wd) w, which has the effect
of wd (1 + b1)/(1 - b1) on the diagonal of S^(1/2) H S^(1/2), times eta_i/eta; the limit stays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from janus_pl.observables.sharpness import stability_threshold
from janus_pl.observables.update import decay_of

State = Mapping[str, Any]


class NoLimit(ValueError):
    """The limit of an optimizer is not known; the message says why."""


class Edge(NamedTuple):
    """The limit of an optimizer's steps, and the matrix whose largest eigenvalue it is for.

    Attributes:
        limit: The limit; infinite if eta is 0.
        scales: The diagonal S, (P,); None if it is 1 for all parameters.
        shift: What decoupled decay adds to the diagonal of S^(1/2) H S^(1/2), (P,); None without.
        begun: Whether S is known: of Adam, AdamW and RMSprop it is after the first step.
    """

    limit: float
    scales: Tensor | None = None
    shift: Tensor | None = None
    begun: bool = True

    def product(self, product: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """Return u -> S^(1/2) H S^(1/2) u + shift u for u -> H u.

        >>> edge = Edge(2.0, scales=torch.tensor([4.0, 1.0]))
        >>> edge.product(lambda u: 3 * u)(torch.ones(2))
        tensor([12.,  3.])
        """
        root = None if self.scales is None else self.scales.sqrt()

        def scaled(u: Tensor) -> Tensor:
            image = product(u) if root is None else root * product(root * u)
            return image if self.shift is None else image + self.shift * u

        return scaled


def coupled_decay(optimizer: Optimizer, parameters: Sequence[Tensor]) -> Tensor:
    """Return the curvature that coupled weight decay gives the loss: wd by entry, (P,).

    PyTorch's weight decay adds wd p to the gradient, so (wd/2) ||p||^2 to the loss.

    >>> weight = torch.nn.Parameter(torch.ones(2))
    >>> coupled_decay(torch.optim.SGD([weight], weight_decay=0.25), [weight])
    tensor([0.2500, 0.2500])
    """
    kinds = [decay_of(optimizer, p) for p in parameters]
    return _flat(parameters, [wd if kind == "coupled" else 0.0 for kind, wd in kinds])


@torch.no_grad()
def edge_of(optimizer: Optimizer, parameters: Sequence[Tensor]) -> Edge:
    """Return the edge of an optimizer as it is now; the optimizer stays as it is.

    Args:
        optimizer: One of PyTorch's SGD, RMSprop, Adam, AdamW with any of their options but
            `maximize`; dampening below 1.
        parameters: The parameters that it steps, P entries in all.

    Raises:
        NoLimit: It is another optimizer, or its groups differ in more than rates and decay.

    >>> weight = torch.nn.Parameter(torch.ones(1))
    >>> edge_of(torch.optim.SGD([weight], lr=0.5, momentum=0.5), [weight]).limit
    6.0
    >>> round(edge_of(torch.optim.Adam([weight], lr=0.1), [weight]).limit)
    380
    """
    if (law := _LAWS.get(type(optimizer))) is None:
        raise NoLimit(f"the limit of {type(optimizer).__name__} is not known")
    groups = [_group_of(optimizer, p) for p in parameters]
    if any(group["maximize"] for group in groups):
        raise NoLimit("with maximize the loss is climbed")
    rates = [float(group["lr"]) for group in groups]
    rate = max(rates)
    limits = {law.limit(rate or 1.0, group) for group in groups}
    if len(limits) > 1:
        raise NoLimit("its groups have other momenta")
    limit = limits.pop() if rate else math.inf
    states = [optimizer.state.get(p, {}) for p in parameters]
    if law.scale is not None and not all(law.moment in state for state in states):
        return Edge(limit, begun=False)
    shares = [each / rate if rate else 1.0 for each in rates]
    scales = None
    if law.scale is not None or min(shares) < 1:
        scales = _flat(parameters, shares)
    if law.scale is not None and scales is not None:
        given = zip(groups, states, strict=True)
        scales *= torch.cat([law.scale(*each).reshape(-1).to(scales) for each in given])
    return Edge(limit, scales, _shift(optimizer, parameters, shares))


class _Law(NamedTuple):
    """The limit of an optimizer at a rate, S of a parameter at that rate, and the key of v."""

    limit: Callable[[float, State], float]
    scale: Callable[[State, State], Tensor] | None = None
    moment: str = ""


def _sgd_limit(rate: float, group: State) -> float:
    momentum, dampening = float(group["momentum"]), float(group["dampening"])
    if not momentum:  # PyTorch then reads neither of the others
        return stability_threshold(rate)
    if dampening >= 1:
        raise NoLimit(f"a dampening of {dampening:g} lets no gradient in")
    return stability_threshold(rate, momentum, dampening, bool(group["nesterov"]))


def _rmsprop_limit(rate: float, group: State) -> float:
    return stability_threshold(rate, float(group["momentum"]))


def _rmsprop_scale(group: State, state: State) -> Tensor:
    square = state["square_avg"]
    if group["centered"]:
        square = square - state["grad_avg"].square()
    return 1 / (square.sqrt() + group["eps"])


def _adam_limit(rate: float, group: State) -> float:
    first = float(group["betas"][0])
    return stability_threshold(rate, first, first)


def _adam_scale(group: State, state: State) -> Tensor:
    first, second = map(float, group["betas"])
    step = float(state["step"])
    square = state["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"]
    denominator = square.sqrt() / (1 - second**step) ** 0.5 + group["eps"]
    return 1 / ((1 - first**step) * denominator)


# By the class itself: a subclass may step in another way.
_LAWS: dict[type[Optimizer], _Law] = {
    SGD: _Law(_sgd_limit),
    RMSprop: _Law(_rmsprop_limit, _rmsprop_scale, "square_avg"),
    Adam: _Law(_adam_limit, _adam_scale, "exp_avg_sq"),
    AdamW: _Law(_adam_limit, _adam_scale, "exp_avg_sq"),
}


def _shift(
    optimizer: Optimizer, parameters: Sequence[Tensor], shares: Sequence[float]
) -> Tensor | None:
    """Return what decoupled decay adds to the diagonal; only the family of Adam has such decay."""
    added = []
    for p, share in zip(parameters, shares, strict=True):
        kind, decay = decay_of(optimizer, p)
        first = float(_group_of(optimizer, p)["betas"][0]) if kind == "decoupled" else 0.0
        added.append(share * decay * (1 + first) / (1 - first) if kind == "decoupled" else 0.0)
    return _flat(parameters, added) if any(added) else None


def _group_of(optimizer: Optimizer, parameter: Tensor) -> dict[str, Any]:
    for group in optimizer.param_groups:
        if any(held is parameter for held in group["params"]):
            return group
    raise NoLimit("the optimizer does not step every trained parameter")


def _flat(parameters: Sequence[Tensor], values: Sequence[float]) -> Tensor:
    """Return one value for each parameter, by entry, (P,)."""
    pairs = zip(parameters, values, strict=True)
    return torch.cat([torch.full_like(p.detach(), value).reshape(-1) for p, value in pairs])
