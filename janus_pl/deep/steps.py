r"""The parts of an optimizer's step on the parameters p_k of a network (W_k = s_k p_k/||p_k||)."""

from __future__ import annotations

from torch import Tensor
from torch.optim import Optimizer

from janus_pl.deep.parametrization import HomogeneousNetwork, Parametrization
from janus_pl.observables.update import NoSplit, split_step
from janus_pl.training.subject import Bounded, Buffers, NotOffered


def step_of(
    learned: Parametrization, optimizer: Optimizer, buffers: Buffers
) -> dict[str, dict[str, Tensor]]:
    """Return the parts of the step by layer; arguments and result as `Subject.step`.

    Raises:
        NotOffered: The optimizer's step cannot be split.
    """
    parts = {}
    for (name, p), own in zip(learned.weights.items(), learned.gradient_parts(), strict=True):
        try:
            parts[name] = split_step(optimizer, p, own, buffers.setdefault(name, {}))
        except NoSplit as reason:
            raise NotOffered(str(reason)) from reason
    return parts


def shares_of(learned: Parametrization, weight_decay: float) -> Tensor:
    """Return the shares of a step of SGD without momentum, (3, L), from the norms alone."""
    parts = learned.step_parts(weight_decay)
    return parts / parts.sum(0)


def bounded_of(network: HomogeneousNetwork, learned: Parametrization) -> dict[str, Bounded]:
    """Return the p_k with the layers that fill their gradients."""
    layers = network.weight_layers()
    return {
        name: Bounded(p, layers[name], slice(None), len(p)) for name, p in learned.weights.items()
    }
