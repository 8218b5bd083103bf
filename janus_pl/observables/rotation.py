r"""How far the unit-norm weights V_k turn, and the rate at which steps turn them.

A step of SGD with learning rate eta moves V_k = v_k/||v_k|| by (eta/||v_k||^2) V_k dot to first
order (Eq. 15), so eta/||v_k||^2 is the learning rate of V_k. Decay on v_k shrinks ||v_k||, and acts
on V_k through this rate alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from janus_pl.observables.norms import frobenius_norm


def angle(before: Tensor, after: Tensor) -> Tensor:
    r"""Return the angle between two matrices of unit Frobenius norm, in radians; shape ().

    2 atan2(||A - B||, ||A + B||), which is accurate for all angles (Kahan, 2006): the arc cosine of
    <A, B> knows no angle below 3e-4 in float32.

    Args:
        before: A, (out, rest).
        after: B, (out, rest).

    >>> float(angle(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])))
    1.5707963705062866
    """
    return 2 * torch.atan2(frobenius_norm(before - after), frobenius_norm(before + after))


def effective_rate(learning_rate: float | Tensor, norms: Tensor) -> Tensor:
    r"""Return eta/||p_k||^2, the learning rate of V_k, for each layer.

    Args:
        learning_rate: eta.
        norms: ||p_k|| of the parameters, of which V_k = p_k/||p_k||; (L,).

    >>> effective_rate(0.5, torch.tensor([1.0, 2.0]))
    tensor([0.5000, 0.1250])
    """
    return learning_rate / norms.square()
