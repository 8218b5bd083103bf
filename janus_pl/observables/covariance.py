r"""The covariance of minibatch gradients, through the Gram matrix of a few of them.

Of m gradients g_j (P,) with mean g the covariance is C = D^T D/(m - 1), (P, P), with rows
d_j = g_j - g of D. Its nonzero eigenvalues are those of the small matrix D D^T/(m - 1), (m, m), and
its eigenvectors are D^T v/||D^T v|| for the eigenvectors v of that.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from janus_pl.observables.rank import effective_rank
from janus_pl.observables.wide import wide

AT_ONCE = 2**20  # columns that are held in float64


class Covariance(NamedTuple):
    """What is known of the covariance C of gradients, () in float64.

    Attributes:
        trace: tr C.
        top: Its largest eigenvalue.
        effective_rank: exp(entropy of the eigenvalues over their sum), at most m - 1.
        vector: The eigenvector of `top`, unit norm, (P,).
    """

    trace: Tensor
    top: Tensor
    effective_rank: Tensor
    vector: Tensor


@torch.no_grad()
def covariance_of(gradients: Tensor) -> Covariance:
    """Return the covariance of gradients (m, P), from which their mean is taken out in place.

    A gradient that is not finite, or no noise at all, leaves NaN.

    Raises:
        ValueError: m is below 2.

    >>> gradients = torch.tensor([[3.0, 1.0, 0.0], [1.0, 1.0, 0.0], [2.0, 1.0, 0.0]])
    >>> found = covariance_of(gradients)
    >>> float(found.trace), float(found.top), found.vector.abs().tolist()
    (1.0, 1.0, [1.0, 0.0, 0.0])
    """
    count = len(gradients)
    if count < 2:
        raise ValueError(f"{count} gradients have no covariance: at least 2")
    gram = wide(gradients.new_zeros((count, count)))
    for columns in gradients.split(AT_ONCE, dim=1):
        deviations = wide(columns)
        deviations -= deviations.mean(0)
        gram += deviations @ deviations.T
        columns.copy_(deviations.to(columns.dtype))
    gram /= count - 1
    sound = gram.isfinite().all()
    # `where` and not `if`: the host must not wait for the device here.
    values, vectors = torch.linalg.eigh(torch.where(sound, gram, 0.0))
    values = values.flip(0).clamp(min=0)
    along = vectors[:, -1].to(gradients) @ gradients
    rank = torch.where(values[0] > 0, effective_rank(values), torch.nan)
    along = along / torch.linalg.vector_norm(along)
    numbers = (gram.trace(), values[0], rank)
    trace, top, rank = (torch.where(sound, number, torch.nan) for number in numbers)
    return Covariance(trace, top, rank, torch.where(sound.to(along.device), along, torch.nan))
