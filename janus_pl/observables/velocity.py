r"""The velocities V_k dot of the normalized weights (Eq. 15), from gradients at hand.

V_k dot is minus the gradient in V_k, projected orthogonally to V_k: Lagrange multipliers and weight
normalization both leave exactly this part. It comes from the loss alone; weight decay acts on the
norm, which V_k does not have.
"""

from __future__ import annotations

from torch import Tensor

from janus_pl.observables.norms import frobenius_norm


def weight_velocity(weight: Tensor, gradient: Tensor) -> Tensor:
    r"""Return V dot = -||W|| (G - <G, V> V) of a plain weight W = ||W|| V with G = dLoss/dW.

    Shapes: weight and gradient (out, ...); returns (out, rest), the tangent vector at V.

    >>> import torch
    >>> weight_velocity(torch.tensor([[2.0, 0.0]]), torch.tensor([[5.0, 1.0]]))
    tensor([[-0., -2.]])
    """
    norm = frobenius_norm(weight)
    direction = weight.flatten(1) / norm
    gradient = gradient.flatten(1)
    return -norm * (gradient - (gradient * direction).sum() * direction)


def direction_velocity(v: Tensor, gradient: Tensor) -> Tensor:
    r"""Return V dot = -||v|| dLoss/dv of a weight-normalized layer W = g v/||v||.

    dLoss/dv = (g/||v||)(G - <G, V> V) is tangent already. Shapes: v and gradient (out, ...);
    returns (out, rest).
    """
    return -frobenius_norm(v) * gradient.flatten(1)
