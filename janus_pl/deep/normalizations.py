r"""Four parametrizations of one homogeneous network (Fig. A.8), chosen by `model.normalization`.

Each writes the weight of layer k as W_k = s_k p_k/||p_k|| with a parameter p_k of the weight's
shape. They differ in the factor s_k and in the learned parameters:

    class        s_k          learned      paper
    WeightNorm   g_k, frozen  p_k and rho  Fig. A.8b, by weight normalization
    PerLayer     rho_k        p_k, rho_k   Fig. A.8a
    Lagrange     g_k, frozen  p_k and rho  Fig. A.8b, Eq. 1/17: p_k back to unit norm after a step
    Plain        ||p_k||      p_k          a standard network

Each starts as the function that the network has, and answers in the paper's units: V_k of unit
Frobenius norm, f_W = rho f_V with rho the product of all norms.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from janus_pl.deep.once import Once
from janus_pl.deep.parametrization import (
    Decay,
    Groups,
    HomogeneousNetwork,
    Parametrization,
    grad_of,
)
from janus_pl.deep.weight_norm import FrobeniusWeightNorm, weight_norm
from janus_pl.errors import UsageError, check_number
from janus_pl.observables.norms import frobenius_norm
from janus_pl.theory.deep import plain_decay, weight_norm_decay
from janus_pl.training.flat import Flat


class Normalized(Parametrization):
    r"""Normalized layers: W_k = g_k v_k/||v_k||, where g_k is s_k and v_k is p_k.

    At the start v_k is the weight that the network has, and g_k its norm. dLoss/dv_k is tangent.

    Attributes:
        gains: The g_k in depth order; shapes ().
    """

    def __init__(self, network: HomogeneousNetwork) -> None:
        self.gains, vs, self._layers = _normalize(network)
        super().__init__(network.rho, vs)
        self._once: Once | None = None

    def leading(self) -> list[nn.Parameter]:
        learned = [g for g in self.gains if g.requires_grad]
        return [*self.weights.values(), *learned]

    def use(self, flat: Flat | None, norms: Tensor | None = None) -> None:
        super().use(flat, norms)
        if flat is None or norms is None:
            self._once = None
        else:
            self._once = Once(flat, self._layers, self.gains, norms)

    def once(self) -> AbstractContextManager[None]:
        return nullcontext() if self._once is None else self._once.step()

    def factors(self) -> Tensor:
        return torch.stack([g.detach() for g in self.gains])

    def step_parts(self, weight_decay: float) -> Tensor:
        return self._normalized_parts(weight_decay)

    def gradient_parts(self) -> list[dict[str, Tensor]]:
        return self._tangent_parts()

    @torch.no_grad()
    def _rescale(self, norms: Tensor) -> None:
        """Put ||v_k|| to other values, (L,)."""
        if self._flat is not None and self._flat.holds():
            factors = self._flat.by_row(norms / self.norms())
            self._flat.values[: len(factors)].mul_(factors)
            return
        for v, norm in zip(self.weights.values(), norms, strict=True):
            v.mul_(norm / frobenius_norm(v))

    def _tangent(self, weight: Tensor, gradient: Tensor) -> Tensor:
        return gradient


class GlobalScale(Normalized):
    r"""Frozen gains g_k and one learned rho: W_k = g_k v_k/||v_k||, f_W = rho (prod_k g_k) f_V.

    A subclass decides which parameters decay and what follows a step: `groups`, `after_step` and
    `kept`.
    """

    def learned_scale(self) -> Tensor:
        return self.rho.detach()

    def radial(self) -> Tensor:
        return (self.rho.detach() * grad_of(self.rho)).expand(len(self.weights))


@final
class WeightNorm(GlobalScale):
    r"""Weight normalization: W_k = g_k v_k/||v_k||, gains frozen and rho learned (Fig. A.8b).

    f_W = rho (prod_k g_k) f_V, where g_k is the norm of the weight at the start. Decay on v_k
    shrinks ||v_k|| and so raises the rate eta/||v_k||^2 of V_k; it moves no V_k itself.

    With `hold` ||v_k|| is put back to c times its start after every step, and starts there: the
    rate of V_k is held. What decay takes from ||v_k|| is put back, too. Buffers of momentum stay as
    they are. Decay on v_k then does next to nothing: it makes a steady motion of V_k faster by the
    share eta lambda/(1 - beta)^2, to first order.

    Args:
        network: The network.
        hold: c, above 0; None leaves ||v_k|| where the steps take it.
    """

    def __init__(self, network: HomogeneousNetwork, hold: float | None = None) -> None:
        super().__init__(network)
        self.hold = hold
        self.after_step()

    def groups(self, lam: float, decay: Decay) -> Groups:
        on_vs, on_rho = _decays(lam, decay)
        return [
            {"params": list(self.weights.values()), "weight_decay": on_vs},
            {"params": [self.rho], "weight_decay": on_rho},
        ]

    def after_step(self) -> None:
        """Put ||v_k|| back to c g_k, if it is held; g_k is ||v_k|| at the start."""
        if self.hold is not None:
            self._rescale(self.hold * self.factors())

    def kept(self, eta: float, weight_decay: float) -> Tensor:
        norms = self.norms()
        etas = torch.full_like(norms, eta)
        a = weight_norm_decay(etas, weight_decay, self.radial(), norms, momentum=0.0)
        if self.hold is None:
            return a
        # The gradient is tangent, so the norm before it is put back is of a right triangle.
        moved = torch.hypot((1 - eta * weight_decay) * norms, eta * self.velocity_norms() / norms)
        return a * self.hold * self.factors().abs() / moved


@final
class PerLayer(Normalized):
    r"""A learned norm for each layer: W_k = rho_k V_k with V_k = v_k/||v_k|| (Fig. A.8a).

    The network's own rho is frozen. The flow of one norm is
    d rho_k/dt = (rho/rho_k) (2/N) sum_n l_n fbar_n - 2 lambda rho_k, so rho_k^2 - rho_j^2 is
    conserved at lambda = 0. At equilibrium rho (mu - M rho) = lambda rho_k^2 for every k.
    """

    def __init__(self, network: HomogeneousNetwork) -> None:
        super().__init__(network)
        self.rho.requires_grad_(False)
        for rho_k in self.gains:
            rho_k.requires_grad_(True)

    @property
    def rhos(self) -> list[nn.Parameter]:
        """The rho_k in depth order; shapes ()."""
        return self.gains

    def learned_scale(self) -> Tensor:
        return self.factors().prod()

    def groups(self, lam: float, decay: Decay) -> Groups:
        on_vs, on_rhos = _decays(lam, decay)
        return [
            {"params": list(self.weights.values()), "weight_decay": on_vs},
            {"params": self.rhos, "weight_decay": on_rhos},
        ]

    def after_step(self) -> None:
        """Do nothing: V_k = v_k/||v_k|| has unit norm for every v_k."""

    def radial(self) -> Tensor:
        return torch.stack([rho_k.detach() * grad_of(rho_k) for rho_k in self.rhos])

    def kept(self, eta: float, weight_decay: float) -> Tensor:
        etas = torch.full_like(self.norms(), eta)
        return weight_norm_decay(etas, weight_decay, self.radial(), self.norms(), momentum=0.0)


@final
class Lagrange(GlobalScale):
    r"""V_k on the unit sphere by Lagrange multipliers, with a global rho (Eq. 1/17, Fig. A.8b).

    A step of SGD without momentum is, with l_n = 1 - rho fbar_n for the square loss,

        rho <- rho + eta ((2/B) sum_n l_n fbar_n - 2 lambda rho)
        V_k <- V_k + eta (2 rho/B) sum_n l_n (d fbar_n/dV_k - fbar_n V_k),   V_k <- V_k/||V_k||.

    Learning rates have to be lower than with `WeightNorm`, where a step moves V_k by eta V_k
    dot/||v_k||^2, and ||v_k||^2 is 9 to 33,000 in the paper's network at the start. With
    `unit_gains` f_W = rho f_V, and rho starts as the product of all norms, 7e6 for the paper's
    network. Without it f_W = rho (prod_k g_k) f_V, and rho above is the learned one. V_k dot is the
    same. `decay: all` acts on rho alone.
    """

    # As printed, Eq. 1 and 17 have a minus before the sums, and lack eta or rho in the second line.
    # A projection does the work of the multiplier: the weight is g_k p_k/||p_k|| at ||p_k|| = 1,
    # and its gradient in p_k has no part along V_k, in a backward pass and in `autograd.grad`. So
    # this is `WeightNorm` with v_k put back on its sphere after every step. One step without decay
    # on v_k is the same in both; after it, ||v_k||^2 = 1 + eta^2 ||V_k dot||^2 sets them apart.
    # Momentum keeps tangents of earlier V_k; the retraction allows for them, and Eq. 17 does not
    # have them. With `unit_gains` a step hardly changes rho, and lambda acts on its square. The
    # gradient lambda V_k of `decay: all` is along V_k, and the projection removes all of it.

    def __init__(self, network: HomogeneousNetwork, unit_gains: bool = False) -> None:
        super().__init__(network)
        with torch.no_grad():
            if unit_gains:
                self.rho.mul_(self.factors().prod())
                for g in self.gains:
                    g.fill_(1.0)
        self.after_step()

    def groups(self, lam: float, decay: Decay) -> Groups:
        _, on_rho = _decays(lam, decay)
        return [
            {"params": list(self.weights.values()), "weight_decay": 0.0},
            {"params": [self.rho], "weight_decay": on_rho},
        ]

    def after_step(self) -> None:
        """Set V_k <- V_k/||V_k||, the retraction of Eq. 17."""
        self._rescale(torch.ones_like(self.factors()))

    def kept(self, eta: float, weight_decay: float) -> Tensor:
        # V_k <- V_k + eta V_k dot has the norm sqrt(1 + eta^2 ||V_k dot||^2) before its retraction.
        grown = torch.hypot(torch.ones(()), eta * self.velocity_norms())
        etas = torch.full_like(grown, eta)
        a = weight_norm_decay(etas, 0.0, self.radial(), self.norms(), momentum=0.0)
        return a / grown


@final
class Plain(Parametrization):
    r"""Plain weights W_k, the standard network; its norms are learned with the weights.

    The network's own rho is frozen, because a standard network has none. Only `decay: all` exists:
    it adds lambda W_k to the gradient of every weight, so (lambda/2) sum_k ||W_k||^2 to the loss.
    """

    def __init__(self, network: HomogeneousNetwork) -> None:
        layers = network.weight_layers()
        super().__init__(network.rho, {k: m.get_parameter("weight") for k, m in layers.items()})
        self.rho.requires_grad_(False)

    def factors(self) -> Tensor:
        return torch.stack([frobenius_norm(W.detach()) for W in self.weights.values()])

    def learned_scale(self) -> Tensor:
        return self.factors().prod()

    def groups(self, lam: float, decay: Decay) -> Groups:
        if decay == "rho":
            raise UsageError("model.decay", decay, "all, for model.normalization: none")
        on_weights, _ = _decays(lam, decay)
        return [{"params": list(self.weights.values()), "weight_decay": on_weights}]

    def after_step(self) -> None:
        """Do nothing: plain weights may have any norm."""

    def radial(self) -> Tensor:
        parts = [torch.dot(grad_of(W).reshape(-1), W.detach().reshape(-1)) for W in self._values()]
        return torch.stack(parts)

    def kept(self, eta: float, weight_decay: float) -> Tensor:
        return plain_decay(torch.full_like(self.norms(), eta), weight_decay, momentum=0.0)

    def step_parts(self, weight_decay: float) -> Tensor:
        gradients = torch.stack([frobenius_norm(grad_of(W)) for W in self._values()])
        return torch.stack((gradients, weight_decay * self.norms(), torch.zeros_like(gradients)))

    def gradient_parts(self) -> list[dict[str, Tensor]]:
        return [{"gradient": grad_of(W)} for W in self._values()]

    def _values(self) -> list[nn.Parameter]:
        return [*self.weights.values()]

    def _tangent(self, weight: Tensor, gradient: Tensor) -> Tensor:
        V = weight / frobenius_norm(weight)
        inner = torch.dot(gradient.reshape(-1), V.reshape(-1))
        return gradient - inner * V

    def _tangent_norms(self, flat: Flat, norms: Tensor) -> Tensor:
        count, along = len(norms), torch.zeros_like(norms)
        lines = flat.lines(flat.gradients, count), flat.lines(flat.values, count)
        for k, (gradient, weight) in enumerate(zip(*lines, strict=True)):
            torch.dot(gradient, weight, out=along[k])
        along.div_(norms).div_(norms)
        factors = flat.by_row(along)
        gradients, values = flat.gradients[: len(factors)], flat.values[: len(factors)]
        return flat.norms(torch.addcmul(gradients, values, factors, value=-1), count)


PARAMETRIZATIONS: dict[str, Callable[[HomogeneousNetwork], Parametrization]] = {
    "weight_norm": WeightNorm,
    "per_layer": PerLayer,
    "lagrange": Lagrange,
    "none": Plain,
}


def parametrized(
    network: HomogeneousNetwork, name: str, hold_norms: float | None = None
) -> Parametrization:
    """Return the parametrization of a name, of a network; its norms may be held.

    Raises:
        UsageError: The norms of another one than weight normalization are to be held, or the factor
            is not above 0.
    """
    if hold_norms is None:
        return PARAMETRIZATIONS[name](network)
    check_number("model.hold_norms", hold_norms, above=0)
    if name != "weight_norm":
        raise UsageError("model.normalization", name, "weight_norm, for model.hold_norms")
    return WeightNorm(network, hold_norms)


def _normalize(
    network: HomogeneousNetwork,
) -> tuple[list[nn.Parameter], dict[str, nn.Parameter], list[FrobeniusWeightNorm]]:
    """Normalize all weights; return the gains g_k, frozen, the v_k by layer, and what computes."""
    gains, vs, computing = [], {}, []
    for name, layer in network.weight_layers().items():
        assert not parametrize.is_parametrized(layer), f"{name} is parametrized already"
        weight_norm(layer)
        computed = layer.get_submodule("parametrizations.weight.0")
        assert isinstance(computed, FrobeniusWeightNorm)
        computing.append(computed)
        gains.append(layer.get_parameter("parametrizations.weight.original0"))
        vs[name] = layer.get_parameter("parametrizations.weight.original1")
    return gains, vs, computing


def _decays(lam: float, decay: str) -> tuple[float, float]:
    """Return PyTorch's `weight_decay` for the weights and for the learned scale."""
    if decay == "all":
        return lam, lam
    if decay == "rho":
        return 0.0, 2 * lam
    raise UsageError("model.decay", decay, "all, rho")
