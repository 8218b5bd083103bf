r"""Losses of two-class networks, sample by sample.

Outputs are f = (f_0, f_1), labels y in {-1, +1}; class -1 is output 0 and class +1 is output 1.
The scalar output is s = (f_1 - f_0)/2, the margin in the outputs' own units y s = rho fbar.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Loss = Callable[[Tensor, Tensor], Tensor]
Pull = Callable[[Tensor], Tensor]


def square(outputs: Tensor, y: Tensor) -> Tensor:
    r"""Return the square loss on outputs coded +1/-1 (Eq. 12): mean_c (f_c - t_c)^2, t = (-y, +y).

    It equals (1 - rho fbar)^2 + m^2 with the common mode m = (f_0 + f_1)/2; if f_0 = -f_1, that is
    the paper's scalar loss. Shapes: outputs (B, 2), y (B,); returns (B,).

    >>> square(torch.tensor([[-1.0, 1.0], [0.0, 0.0]]), torch.tensor([1.0, -1.0]))
    tensor([0., 1.])
    """
    targets = torch.stack((-y, y), dim=1)
    return functional.mse_loss(outputs, targets, reduction="none").mean(dim=1)


def logistic(outputs: Tensor, y: Tensor) -> Tensor:
    r"""Return the logistic loss log(1 + exp(-y s)), s = (f_1 - f_0)/2 (Eq. 16).

    Its slope in rho fbar is -sigmoid(-rho fbar); Eq. 16 as printed has twice that. Shapes: outputs
    (B, 2), y (B,); returns (B,).
    """
    return -functional.logsigmoid(y * (outputs[:, 1] - outputs[:, 0]) / 2)


def exponential(outputs: Tensor, y: Tensor) -> Tensor:
    r"""Return the exponential loss exp(-y s), s = (f_1 - f_0)/2 (Section D.5).

    Its pull is the loss itself. At rho fbar = -89 and below, loss and step are infinite in float32.
    Shapes: outputs (B, 2), y (B,); returns (B,).

    >>> exponential(torch.tensor([[0.0, 0.0], [-1.0, 1.0]]), torch.tensor([1.0, -1.0]))
    tensor([1.0000, 2.7183])
    """
    return torch.exp(-y * (outputs[:, 1] - outputs[:, 0]) / 2)


def cross_entropy(outputs: Tensor, y: Tensor) -> Tensor:
    r"""Return the cross entropy of the outputs in nats: the logistic loss of f_y - f_other = 2 y s.

    Its slope in rho fbar is -2 sigmoid(-2 rho fbar). Shapes: outputs (B, 2), y (B,); returns (B,).
    """
    # Not functional.cross_entropy: its gradient p - 1 is exactly 0 in float32 from rho fbar = 8 on,
    # but the pull of Eq. 16 never ends.
    return -functional.logsigmoid(y * (outputs[:, 1] - outputs[:, 0]))


def square_pull(signal: Tensor) -> Tensor:
    """Return 2 l_n = 2 (1 - rho fbar_n) (Eq. 13 and 15).

    The common mode has a pull of its own, -2 rho mbar_n.
    """
    return 2 * (1 - signal)


def logistic_pull(signal: Tensor) -> Tensor:
    """Return sigmoid(-rho fbar_n).

    Eq. 16 prints twice that, the pull of 2 log(1 + exp(-rho fbar)).
    """
    return torch.sigmoid(-signal)


def exponential_pull(signal: Tensor) -> Tensor:
    """Return exp(-rho fbar_n), the limit of Eq. 16 for large margins."""
    return torch.exp(-signal)


def cross_entropy_pull(signal: Tensor) -> Tensor:
    """Return 2 sigmoid(-2 rho fbar_n), Eq. 16's logistic pull of f_y - f_other = 2 rho fbar_n."""
    return 2 * torch.sigmoid(-2 * signal)


LOSSES: dict[str, Loss] = {
    "square": square,
    "logistic": logistic,
    "exponential": exponential,
    "cross_entropy": cross_entropy,
}

PULLS: dict[str, Pull] = {
    "square": square_pull,
    "logistic": logistic_pull,
    "exponential": exponential_pull,
    "cross_entropy": cross_entropy_pull,
}
r"""How hard each loss pulls at a sample: -d loss_n/d(rho fbar_n) as a function of rho fbar_n.

With it Eq. 13 to 16 are one for all losses: drho/dt = (1/N) sum pull_n fbar_n - 2 lambda rho. For
the square loss pull_n = 2 l_n with the paper's l_n = 1 - rho fbar_n. Any shape in, the same out.
"""
