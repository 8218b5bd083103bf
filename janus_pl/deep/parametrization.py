r"""What a parametrization of a homogeneous network has to answer.

The four that ship are in `janus_pl.deep.normalizations`.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from janus_pl.observables.norms import frobenius_norm

Decay = Literal["all", "rho"]
Groups = list[dict[str, Any]]


class HomogeneousNetwork(Protocol):
    """f_W(x) = rho layers(x), positively homogeneous in every weight and without bias."""

    rho: nn.Parameter

    def weight_layers(self) -> dict[str, nn.Module]:
        """The layers that hold a weight, in depth order."""


class Parametrization(ABC):
    r"""What is learned of a network, and its norms, directions and velocities in the paper's units.

    To make one changes the network in place: the layers' weights are parametrized and what is not
    learned is frozen. The function stays what it was.

    The sign of a factor s_k belongs to V_k = W_k/||W_k||. That of the scalar `network.rho` is left
    out, as (rho, V_L) and (-rho, -V_L) are the same function: `scale` is positive and V_L is the
    direction of the last weight.

    Attributes:
        weights: p_k by layer, in depth order; shapes of the weights. Their gradients are what
            `velocities` reads, so these are what to differentiate by for a gradient of one's own.
        rho: the network's scalar, shape ().
    """

    def __init__(self, rho: nn.Parameter, weights: dict[str, nn.Parameter]) -> None:
        self.rho = rho
        self.weights = weights

    @abstractmethod
    def factors(self) -> Tensor:
        """s_k, signed and detached; shape (L,). Its absolute value is ||W_k||."""

    @abstractmethod
    def learned_scale(self) -> Tensor:
        """The part of rho that is learned, signed and detached; shape ()."""

    @abstractmethod
    def groups(self, lam: float, decay: Decay) -> Groups:
        r"""The learned parameters as groups for a PyTorch optimizer, with their weight decay.

        Args:
            lam: the paper's lambda.
            decay: `all` puts the gradient lambda w on every learned parameter w; `rho` puts
                lambda rho^2 into the loss (Eq. 12), so the gradient 2 lambda rho, on the learned
                scale alone.

        Raises:
            UsageError: a decay that this parametrization does not have.
        """

    @abstractmethod
    def after_step(self) -> None:
        """Call after every optimizer step: puts V_k back on its sphere where that is not a given.

        Parametrizations that are cached (`parametrize.cached`) must not be across this call.
        """

    @abstractmethod
    def radial(self) -> Tensor:
        """<G_k, W_k> with G_k = dLoss/dW_k of the last backward pass, (L,).

        By homogeneity the same for every layer; -2 nu of Eq. 14. Raises as `velocities`.
        """

    @abstractmethod
    def kept(self, eta: float, weight_decay: float) -> Tensor:
        r"""a_k: what one step of SGD without momentum keeps of p_k, (L,), before the step.

        p_k <- a_k p_k - eta (s_k/||p_k||) G_k with G_k = dLoss/dW_k, whose rank is that of a sum of
        gradients (`janus_pl.theory.gradient_rank_bound`), where dLoss/dp_k has full rank.

        Args:
            eta: the learning rate of the step.
            weight_decay: PyTorch's, of the group that holds the p_k.
        """

    @abstractmethod
    def step_parts(self, weight_decay: float) -> Tensor:
        r"""Norms of the parts of -dp_k/eta of one step, (3, L): gradient, decay, projection.

        (s_k/||p_k||) G_k, weight_decay p_k and -(s_k/||p_k||) <G_k, V_k> V_k, the multiplier's part
        (Eq. 14 and 15), which plain weights have not. Momentum sums these over the steps.
        """

    def norms(self) -> Tensor:
        """||p_k||, (L,)."""
        return torch.stack([frobenius_norm(p.detach()) for p in self.weights.values()])

    def _normalized_parts(self, weight_decay: float) -> Tensor:
        """`step_parts` where dLoss/dp_k is tangent: Pythagoras gives the norm of the whole G."""
        norms, radial = self.norms(), self.radial() / self.norms()
        tangent = self.velocity_norms() / norms
        return torch.stack((torch.hypot(tangent, radial), weight_decay * norms, radial.abs()))

    @abstractmethod
    def _tangent(self, weight: Tensor, gradient: Tensor) -> Tensor:
        """dLoss/dp_k without its part along p_k; shape of the weight."""

    def directions(self) -> dict[str, Tensor]:
        """V_k = W_k/||W_k|| by layer: unit Frobenius norm, shape (out, rest), detached."""
        ps = {name: p.detach() for name, p in self.weights.items()}
        signs = self.factors().sign()
        return {
            name: p.flatten(1) / (frobenius_norm(p) * sign)
            for (name, p), sign in zip(ps.items(), signs, strict=True)
        }

    def scale(self) -> Tensor:
        """rho = |network.rho| prod_k ||W_k||, detached; shape (), positive."""
        return self.rho.detach().abs() * self.factors().abs().prod()

    def velocities(self, gradients: Sequence[Tensor] | None = None) -> dict[str, Tensor]:
        r"""V_k dot = -||W_k|| (G_k - <G_k, V_k> V_k), G_k = dLoss/dW_k (Eq. 15 and 16).

        For the square loss over one output that is (2 rho/B) sum_n l_n (d fbar_n/dV_k - fbar_n V_k)
        with l_n = 1 - rho fbar_n. In terms of p_k it is -sign(s_k) ||p_k|| times the tangent part
        of dLoss/dp_k. It does not depend on the parametrization, only on the function and the data;
        what a step of learning rate eta makes of it does: to first order
        V_k moves by eta V_k dot/||p_k||^2, where `Lagrange` has ||p_k|| = 1.

        Args:
            gradients: dLoss/dp_k in depth order, the shapes of `weights`; those that the last
                backward pass left, where none are given.

        Returns:
            V_k dot by layer, shape (out, rest), tangent to the sphere at V_k.

        Raises:
            RuntimeError: no gradients are given and none were left.
        """
        parts = zip(*self._parts(gradients), self.factors().sign(), strict=True)
        return {
            name: -(frobenius_norm(p) * sign) * self._tangent(p, gradient).flatten(1)
            for name, (p, gradient, sign) in zip(self.weights, parts, strict=True)
        }

    def velocity_norms(self, gradients: Sequence[Tensor] | None = None) -> Tensor:
        """||V_k dot|| in depth order, shape (L,); arguments and errors as `velocities`."""
        # One layer at a time, and where the gradient is tangent already without a new tensor. For
        # plain weights Pythagoras would need none either, but cancels where G is almost radial.
        norms = [
            frobenius_norm(p) * frobenius_norm(self._tangent(p, gradient))
            for p, gradient in zip(*self._parts(gradients), strict=True)
        ]
        return torch.stack(norms)

    def _parts(
        self, gradients: Sequence[Tensor] | None
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """All p_k and all dLoss/dp_k."""
        ps = [p.detach() for p in self.weights.values()]
        return ps, [grad_of(p) for p in self.weights.values()] if gradients is None else gradients


def grad_of(parameter: nn.Parameter) -> Tensor:
    """Return the gradient that the last backward pass left.

    Raises:
        RuntimeError: There is none.
    """
    if parameter.grad is None:
        raise RuntimeError("velocities need the gradients of a backward pass")
    return parameter.grad


@torch.enable_grad()
def gradients_of(loss: Callable[[], Tensor], weights: Mapping[str, nn.Parameter]) -> list[Tensor]:
    """Return the gradients of a loss by the weights; those of the backward pass stay as they are.

    Args:
        loss: Computes the loss, shape ().
        weights: p_k by layer.
    """
    return [*torch.autograd.grad(loss(), [*weights.values()])]


def trained_parameters(
    module: nn.Module, weights: Mapping[str, nn.Parameter]
) -> dict[str, nn.Parameter]:
    """Return the trained parameters: weights by their layer, the others by short names.

    Args:
        module: The module that holds them, as its `network`.
        weights: p_k by layer.
    """
    layers = {id(p): name for name, p in weights.items()}
    named = {name: p for name, p in module.named_parameters() if p.requires_grad}
    return {layers.get(id(p), short_name(name)): p for name, p in named.items()}


def short_name(name: str) -> str:
    """Name a parameter that is no layer's weight, by its layer if it has one.

    >>> short_name("network.rho")
    'rho'
    >>> short_name("network.layers.fc1.parametrizations.weight.original0")
    'rho of fc1'
    """
    layer = re.search(r"(\w+)\.parametrizations\.", name)
    return f"rho of {layer[1]}" if layer else name.removeprefix("network.")
