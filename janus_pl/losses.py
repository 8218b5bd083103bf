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


def square(outputs: Tensor, y: Tensor) -> Tensor:
    r"""Square loss on outputs coded +1/-1 (Eq. 12): mean_c (f_c - t_c)^2 with t = (-y, +y).

    Equal to (1 - rho fbar)^2 + m^2 with the common mode m = (f_0 + f_1)/2, so to the paper's scalar
    loss when f_0 = -f_1. Shapes: outputs (B, 2), y (B,); returns (B,).

    >>> square(torch.tensor([[-1.0, 1.0], [0.0, 0.0]]), torch.tensor([1.0, -1.0]))
    tensor([0., 1.])
    """
    targets = torch.stack((-y, y), dim=1)
    return (outputs - targets).square().mean(dim=1)


def logistic(outputs: Tensor, y: Tensor) -> Tensor:
    r"""Logistic loss log(1 + exp(-y s)), s = (f_1 - f_0)/2 (Eq. 16).

    Its slope in rho fbar is -sigmoid(-rho fbar); Eq. 16 as printed has twice that. Shapes: outputs
    (B, 2), y (B,); returns (B,).
    """
    return -functional.logsigmoid(y * (outputs[:, 1] - outputs[:, 0]) / 2)


def cross_entropy(outputs: Tensor, y: Tensor) -> Tensor:
    r"""Cross entropy of the two outputs, in nats: the logistic loss of f_y - f_other = 2 y s.

    Its slope in rho fbar is -2 sigmoid(-2 rho fbar). Shapes: outputs (B, 2), y (B,); returns (B,).
    """
    # Not functional.cross_entropy: its gradient p - 1 is exactly 0 in float32 from rho fbar = 8 on,
    # where Eq. 16 says that the pull never ends.
    return -functional.logsigmoid(y * (outputs[:, 1] - outputs[:, 0]))


LOSSES: dict[str, Loss] = {"square": square, "logistic": logistic, "cross_entropy": cross_entropy}
