r"""The questions that every parametrization of a homogeneous network answers.

Four parametrizations are in `janus_pl.deep.normalizations`.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from janus_pl.observables.norms import frobenius_norm
from janus_pl.training.flat import Flat

Decay = Literal["all", "rho"]
Groups = list[dict[str, Any]]


class HomogeneousNetwork(Protocol):
    """A network f_W(x) = rho layers(x), positively homogeneous in every weight and without bias."""

    rho: nn.Parameter

    def weight_layers(self) -> dict[str, nn.Module]:
        """Return the layers that hold a weight, in depth order."""


class Parametrization(ABC):
    r"""The learned part of a network, and its norms, directions, velocities in the paper's units.

    Making one changes the network in place: it parametrizes the layers' weights and freezes the
    parameters that are not learned. The function of the network stays the same.

    The sign of a factor s_k belongs to V_k = W_k/||W_k||. The sign of the scalar `network.rho` is
    left out, as (rho, V_L) and (-rho, -V_L) are the same function: `scale` is positive and V_L is
    the direction of the last weight.

    Attributes:
        weights: The p_k by layer, in depth order; shapes of the weights. `velocities` reads their
            gradients, so a gradient of one's own is taken with respect to these.
        rho: The network's scalar, shape ().
    """

    def __init__(self, rho: nn.Parameter, weights: dict[str, nn.Parameter]) -> None:
        self.rho = rho
        self.weights = weights
        self._flat: Flat | None = None
        self._norms: Tensor | None = None

    def leading(self) -> list[nn.Parameter]:
        """Return the parameters that the `Flat` of `use` begins with."""
        return [*self.weights.values()]

    def use(self, flat: Flat | None, norms: Tensor | None = None) -> None:
        """Take the parameters of `leading` as views of one buffer from now on.

        Args:
            flat: The buffer; None: each parameter by itself.
            norms: The norms of the p_k as each step begins, which the caller measures; (L,).
        """
        self._flat, self._norms = flat, None if flat is None else norms

    def once(self) -> AbstractContextManager[None]:
        """Return the block of a step's passes, in which the weights W_k are computed once.

        The p_k have their gradients after the block. Without `use` each pass computes the weights.
        """
        return nullcontext()

    @abstractmethod
    def factors(self) -> Tensor:
        """Return s_k, signed and detached; shape (L,). Its absolute value is ||W_k||."""

    @abstractmethod
    def learned_scale(self) -> Tensor:
        """Return the part of rho that is learned, signed and detached; shape ()."""

    @abstractmethod
    def groups(self, lam: float, decay: Decay) -> Groups:
        r"""Return the learned parameters in groups for a PyTorch optimizer, with weight decay.

        Args:
            lam: The paper's lambda.
            decay: The parameters that lambda acts on. `all` puts the gradient lambda w on every
                learned parameter w. `rho` puts lambda rho^2 into the loss (Eq. 12), so the learned
                scale alone gets the gradient 2 lambda rho.

        Raises:
            UsageError: This parametrization does not have the decay.
        """

    @abstractmethod
    def after_step(self) -> None:
        """Put V_k back on its sphere if the step left it; call this after every optimizer step.

        No block of `parametrize.cached` may last across this call.
        """

    @abstractmethod
    def radial(self) -> Tensor:
        """Return <G_k, W_k> with G_k = dLoss/dW_k of the last backward pass, (L,).

        By homogeneity it is the same for every layer: -2 nu of Eq. 14. Raises as `velocities`.
        """

    @abstractmethod
    def kept(self, eta: float, weight_decay: float) -> Tensor:
        r"""Return a_k, the factor of p_k that a step of SGD without momentum keeps; (L,).

        Call it before the step p_k <- a_k p_k - eta (s_k/||p_k||) G_k with G_k = dLoss/dW_k. G_k
        has the rank of a sum of gradients (`janus_pl.theory.gradient_rank_bound`), while dLoss/dp_k
        has full rank.

        Args:
            eta: The learning rate of the step.
            weight_decay: PyTorch's `weight_decay` of the group that holds the p_k.
        """

    @abstractmethod
    def step_parts(self, weight_decay: float) -> Tensor:
        r"""Return the norms of the parts of -dp_k/eta of one step, (3, L).

        The gradient (s_k/||p_k||) G_k, the decay weight_decay p_k, and the projection
        -(s_k/||p_k||) <G_k, V_k> V_k, the multiplier's part (Eq. 14 and 15); for plain weights it
        is 0. Momentum sums these parts over the steps.
        """

    @abstractmethod
    def gradient_parts(self) -> list[dict[str, Tensor]]:
        r"""Return the parts of dLoss/dp_k, which sum to it, in depth order; shapes of the p_k.

        `gradient` is (s_k/||p_k||) G_k. `projection` is the multiplier's part of `step_parts`, and
        is missing for plain weights.
        """

    def norms(self) -> Tensor:
        """Return ||p_k||, (L,)."""
        if self._flat is not None and self._flat.holds():
            return self._flat.norms(self._flat.values, len(self.weights))
        return torch.stack([frobenius_norm(p.detach()) for p in self.weights.values()])

    def _normalized_parts(self, weight_decay: float) -> Tensor:
        """Return `step_parts` for tangent dLoss/dp_k; Pythagoras gives the norm of the whole G."""
        norms, radial = self.norms(), self.radial() / self.norms()
        tangent = self.velocity_norms() / norms
        return torch.stack((torch.hypot(tangent, radial), weight_decay * norms, radial.abs()))

    @torch.no_grad()
    def _tangent_parts(self) -> list[dict[str, Tensor]]:
        r"""Return `gradient_parts` for tangent dLoss/dp_k.

        (s/||p||) G = dLoss/dp + c p and the projection is -c p, with c = <G, W>/||p||^2.
        """
        found = []
        for p, radial, norm in zip(self.weights.values(), self.radial(), self.norms(), strict=True):
            along = radial / norm.square() * p.detach()
            found.append({"gradient": grad_of(p) + along, "projection": -along})
        return found

    @abstractmethod
    def _tangent(self, weight: Tensor, gradient: Tensor) -> Tensor:
        """Return dLoss/dp_k without its part along p_k; shape of the weight."""

    def directions(self) -> dict[str, Tensor]:
        """Return V_k = W_k/||W_k|| by layer: unit Frobenius norm, shape (out, rest), detached."""
        ps = {name: p.detach() for name, p in self.weights.items()}
        signs = self.factors().sign()
        return {
            name: p.flatten(1) / (frobenius_norm(p) * sign)
            for (name, p), sign in zip(ps.items(), signs, strict=True)
        }

    def scale(self) -> Tensor:
        """Return rho = |network.rho| prod_k ||W_k||, detached; shape (), positive."""
        return self.rho.detach().abs() * self.factors().abs().prod()

    def velocities(self, gradients: Sequence[Tensor] | None = None) -> dict[str, Tensor]:
        r"""Return V_k dot = -||W_k|| (G_k - <G_k, V_k> V_k), G_k = dLoss/dW_k (Eq. 15 and 16).

        For the square loss over one output that is (2 rho/B) sum_n l_n (d fbar_n/dV_k - fbar_n V_k)
        with l_n = 1 - rho fbar_n. In terms of p_k it is -sign(s_k) ||p_k|| times the tangent part
        of dLoss/dp_k. It depends on the function and the data, not on the parametrization. The
        effect of a step with learning rate eta does depend on it: to first order V_k moves by
        eta V_k dot/||p_k||^2; `Lagrange` has ||p_k|| = 1.

        Args:
            gradients: The dLoss/dp_k in depth order, in the shapes of `weights`. None: the
                gradients that the last backward pass left.

        Returns:
            V_k dot by layer, shape (out, rest), tangent to the sphere at V_k.

        Raises:
            RuntimeError: No gradients are given and the last backward pass left none.
        """
        parts = zip(*self._parts(gradients), self.factors().sign(), strict=True)
        return {
            name: -(frobenius_norm(p) * sign) * self._tangent(p, gradient).flatten(1)
            for name, (p, gradient, sign) in zip(self.weights, parts, strict=True)
        }

    def velocity_norms(self, gradients: Sequence[Tensor] | None = None) -> Tensor:
        """Return ||V_k dot|| in depth order, shape (L,); arguments and errors as `velocities`."""
        flat, norms = self._flat, self._norms
        if gradients is None and flat and norms is not None and flat.holds_gradients(len(norms)):
            return norms * self._tangent_norms(flat, norms)
        # One layer at a time; a gradient that is tangent already needs no new tensor. For plain
        # weights Pythagoras would need none either, but cancels digits if G is almost radial.
        found = [
            frobenius_norm(p) * frobenius_norm(self._tangent(p, gradient))
            for p, gradient in zip(*self._parts(gradients), strict=True)
        ]
        return torch.stack(found)

    @torch.no_grad()
    def _tangent_norms(self, flat: Flat, norms: Tensor) -> Tensor:
        """Return the norms of `_tangent` for the gradients in a buffer, (L,).

        Args:
            flat: The buffer.
            norms: ||p_k||, (L,).
        """
        return flat.norms(flat.gradients, len(norms))

    def _parts(
        self, gradients: Sequence[Tensor] | None
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Return all p_k and all dLoss/dp_k."""
        ps = [p.detach() for p in self.weights.values()]
        return ps, [grad_of(p) for p in self.weights.values()] if gradients is None else gradients


def grad_of(parameter: nn.Parameter) -> Tensor:
    """Return the gradient that the last backward pass left.

    Raises:
        RuntimeError: The parameter has no gradient.
    """
    if parameter.grad is None:
        raise RuntimeError("velocities need the gradients of a backward pass")
    return parameter.grad


@torch.enable_grad()
def gradients_of(loss: Callable[[], Tensor], weights: Mapping[str, nn.Parameter]) -> list[Tensor]:
    """Return the gradients of a loss by the weights; the weights' own `grad` stays as it is.

    Args:
        loss: Computes the loss, shape ().
        weights: The p_k by layer.
    """
    return [*torch.autograd.grad(loss(), [*weights.values()])]


def trained_parameters(
    module: nn.Module, weights: Mapping[str, nn.Parameter]
) -> dict[str, nn.Parameter]:
    """Return the trained parameters: weights by their layer, the others by short names.

    Args:
        module: The module that holds them, as its `network`.
        weights: The p_k by layer.
    """
    layers = {id(p): name for name, p in weights.items()}
    named = {name: p for name, p in module.named_parameters() if p.requires_grad}
    return {layers.get(id(p), short_name(name)): p for name, p in named.items()}


def short_name(name: str) -> str:
    """Name a parameter other than a layer's weight, by its layer if it has one.

    >>> short_name("network.rho")
    'rho'
    >>> short_name("network.layers.fc1.parametrizations.weight.original0")
    'rho of fc1'
    """
    layer = re.search(r"(\w+)\.parametrizations\.", name)
    return f"rho of {layer[1]}" if layer else name.removeprefix("network.")
