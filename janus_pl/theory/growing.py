r"""The learning rate that does without weight decay what a constant rate does with it.

Under weight normalization the loss does not depend on ||v||. Let SGD take v_0 to v_t, with
learning rate eta, weight decay wd (PyTorch's) and momentum beta. Then u_t = alpha^(-t) v_t is what
SGD without decay takes v_0 to, with the same momentum and the rate eta alpha^(-2t-1) in step
t = 0, 1, ... (Li & Arora, 2020, arXiv 1910.07454). So all V_t are the same: decay acts on V alone
through eta/||v||^2.
"""

from __future__ import annotations

import math


def shrinkage(learning_rate: float, weight_decay: float, momentum: float = 0.0) -> float:
    r"""Return alpha, the larger root of alpha^2 - (1 + beta - eta wd) alpha + beta = 0.

    Without momentum it is 1 - eta wd.

    Args:
        learning_rate: eta, above 0.
        weight_decay: PyTorch's `weight_decay`, from 0 up.
        momentum: beta, from 0 to below 1.

    Raises:
        ValueError: There is no real root above 0: eta wd is above (1 - sqrt(beta))^2.

    >>> shrinkage(0.1, 0.5), round(shrinkage(0.1, 0.02, 0.9), 6)
    (0.95, 0.973515)
    """
    if momentum == 0:
        if (alpha := 1 - learning_rate * weight_decay) > 0:
            return alpha
    else:
        half = (1 + momentum - learning_rate * weight_decay) / 2
        if half > 0 and half**2 >= momentum:
            return half + math.sqrt(half**2 - momentum)
    most = (1 - math.sqrt(momentum)) ** 2
    raise ValueError(f"eta wd = {learning_rate * weight_decay:g} is above {most:g}")


def growth(alpha: float, step: int) -> float:
    """Return alpha^(-2t - 1), the factor of eta in step t, from 0.

    >>> growth(0.5, 0), growth(0.5, 1)
    (2.0, 8.0)
    """
    return alpha ** (-2 * step - 1)


def first_buffer(alpha: float, learning_rate: float) -> float:
    r"""Return c, so that the momentum buffer before the first step is c v_0.

    c = -(1 - alpha)/(eta alpha).

    >>> first_buffer(1.0, 0.1)
    -0.0
    """
    return -(1 - alpha) / (learning_rate * alpha)
