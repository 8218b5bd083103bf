r"""Ranks of the weight matrices V_k, from their singular values.

The paper gives no threshold, so a rank comes with its tolerance, and the stable and the effective
rank, which need none, beside it. A matrix with an entry that is not finite has no rank: NaN.
"""

from __future__ import annotations

import torch
from torch import Tensor

from janus_pl.observables.wide import at_home, wide


def singular_values(matrix: Tensor) -> Tensor:
    r"""Return the singular values (min(m, n),) of a matrix (m, n), in float64, largest first.

    sigma_i = sqrt(eigenvalue_i) of the Gram matrix of the smaller side, formed in float64: a
    quarter of the time of float32 SVD. Values down to 1e-7 of the largest keep their rank; below
    4e-8 they are rounding. (A Gram matrix formed in float32 would be wrong from 1e-4 on.)

    >>> singular_values(torch.diag(torch.tensor([3.0, 4.0])))
    tensor([4., 3.], dtype=torch.float64)
    """
    matrix = wide(matrix)
    if matrix.shape[0] > matrix.shape[1]:
        matrix = matrix.T
    finite = torch.isfinite(matrix).all()
    # `where` and not `if`: the host must not wait for the device here.
    eigenvalues = torch.linalg.eigvalsh(torch.where(finite, matrix @ matrix.T, 0.0))
    values = eigenvalues.flip(0).clamp(min=0).sqrt()
    return torch.where(finite, values, torch.nan)


def numerical_rank(values: Tensor, tolerance: float, relative: bool = True) -> Tensor:
    r"""Return #{sigma_i > tolerance sigma_1}, or #{sigma_i > tolerance} if not relative; shape ().

    A float64 tensor, NaN where the singular values are.

    >>> float(numerical_rank(torch.tensor([1.0, 0.5, 1e-4]), 1e-3))
    2.0
    """
    values = at_home(values)
    threshold = tolerance * values[0] if relative else tolerance
    return _defined(wide((values > threshold).sum()), values)


def stable_rank(values: Tensor) -> Tensor:
    r"""Return sum_i sigma_i^2/sigma_1^2 = 1/sigma_1^2 at unit norm; from 1 to the rank, shape ().

    >>> float(stable_rank(torch.tensor([2.0, 2.0, 0.0])))
    2.0
    """
    return _defined(_or_zero((values / values[0]).square().sum(), values), values)


def effective_rank(values: Tensor) -> Tensor:
    r"""Return exp(-sum_i p_i log p_i), p_i = sigma_i/sum_j sigma_j (Roy & Vetterli, 2007), ().

    >>> round(float(effective_rank(torch.tensor([2.0, 2.0, 0.0]))), 12)
    2.0
    """
    p = values / values.sum()
    return _defined(_or_zero(torch.special.entr(p).sum().exp(), values), values)


def _or_zero(rank: Tensor, values: Tensor) -> Tensor:
    """Return the rank, or 0 for the zero matrix, where the formulas say 0/0."""
    return torch.where(values[0] > 0, rank, torch.zeros_like(rank))


def _defined(rank: Tensor, values: Tensor) -> Tensor:
    return torch.where(torch.isfinite(values).all(), rank, torch.nan)
