r"""Learning-rate schedules eta(e) = eta_0 m(e), e the epochs completed; one step an epoch."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

ScheduleName = Literal["cosine", "constant", "inverse_sqrt"]


def cosine(epoch: int, epochs: int) -> float:
    r"""Cosine annealing over the run (Section D.5): m(e) = (1 + cos(pi e/E))/2.

    >>> cosine(0, 10), cosine(5, 10), cosine(10, 10)
    (1.0, 0.5, 0.0)
    """
    return round((1 + math.cos(math.pi * epoch / epochs)) / 2, 15)


def constant(epoch: int) -> float:
    """m(e) = 1."""
    return 1.0


def inverse_sqrt(epoch: int) -> float:
    r"""m(e) = 1/sqrt(e + 1), with epoch e + 1 the paper's t (Section 3.3).

    >>> inverse_sqrt(0), inverse_sqrt(3)
    (1.0, 0.5)
    """
    return 1 / math.sqrt(epoch + 1)


def multiplier(name: ScheduleName, epochs: int) -> Callable[[int], float]:
    """The schedule of a name, for a run of so many epochs."""
    if name == "cosine":
        return partial(cosine, epochs=epochs)
    return {"constant": constant, "inverse_sqrt": inverse_sqrt}[name]
