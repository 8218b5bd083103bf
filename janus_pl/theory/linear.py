r"""Linear regression in closed form (Section 3, Appendix A): solutions, null space, decay, epochs.

X is (..., d, N), Y (..., m, N), W (..., m, d); leading axes are replicas. The loss is a mean over
samples plus lambda ||W||^2 (Eq. 2 prints a sum), one step on a minibatch S of size B is

    W <- (1 - 2 eta lambda) W - (2 eta/B) sum_{i in S} (W x_i - y_i) x_i^T            (Eq. 5).

Eq. 4 and 5 print W(t+1) = -(2 eta/B) ... - 2 eta lambda W, where that is the increment
W(t+1) - W(t).

Appendix A steps by W - eta (grad + lambda W): Eq. 5 at half the lambda. Functions that take a
`convention` know both; for the others hand over lambda/2.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Convention = Literal["paper", "appendix_a"]
Number = float | Tensor


class TrainMSE(NamedTuple):
    """(1/N) sum_i ||W x_i - y_i||^2, as in the loss, and its mth part, the mean of all entries."""

    per_sample: Tensor
    per_entry: Tensor


def train_mse(w: Tensor, x: Tensor, y: Tensor) -> TrainMSE:
    """Return both mean square errors of W on all samples; lambda ||W||^2 is no part of them."""
    squares = (w @ x - y).square()
    return TrainMSE(squares.sum(-2).mean(-1), squares.mean((-2, -1)))


def eigenvalue_moduli(w: Tensor) -> Tensor:
    """Return the moduli of the eigenvalues of a square W, largest first, (..., d).

    >>> eigenvalue_moduli(torch.tensor([[0.0, -2.0], [2.0, 0.0]]))
    tensor([2.0000, 2.0000])
    """
    return torch.linalg.eigvals(w).abs().sort(dim=-1, descending=True).values


def singular_values(w: Tensor) -> Tensor:
    """Return the singular values of W, largest first, by an SVD: right below 1e-8 sigma_1 too."""
    return torch.linalg.svdvals(w)


def regularized_solution(x: Tensor, y: Tensor, lam: Number) -> Tensor:
    r"""Return W* = Y X^T (X X^T + N lambda I)^-1, (..., m, d), where GD ends.

    At lambda = 0 it is the limit, of least norm. (Eq. 6 is the case N = 1; printed with a minus.)

    >>> x, y = torch.eye(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    >>> regularized_solution(x, y, lam=0.5).diagonal()
    tensor([0.5000, 0.5000], dtype=torch.float64)
    """
    u, s, vt = data_svd(x)
    ridge = x.shape[-1] * torch.as_tensor(lam, dtype=x.dtype).unsqueeze(-1)
    inverse = torch.where(s > 0, s / (s.square() + ridge).clamp(min=1e-300), 0.0)
    return (y @ vt.mT * inverse.unsqueeze(-2)) @ u.mT


def data_projector(x: Tensor, tolerance: float | None = None) -> Tensor:
    r"""Return pi = U_r U_r^T, the projection on the span of the samples (Theorem 1), (..., d, d).

    U_r are the left singular vectors of X with sigma > tolerance sigma_max. Not set: max(d, N)
    times the machine epsilon, as in NumPy's `matrix_rank`.
    """
    u, s, _ = data_svd(x, tolerance)
    u = u * (s > 0).unsqueeze(-2)
    return u @ u.mT


def null_projector(x: Tensor, tolerance: float | None = None) -> Tensor:
    r"""Return I - pi = U_0 U_0^T, the projection on what no sample has a part in, (..., d, d).

    U_0 are the left singular vectors of X that `data_projector` leaves out at the same tolerance.
    Computed from them, not as a difference, it is exactly 0 where the samples span everything.

    >>> null_projector(torch.tensor([[1.0], [1.0], [0.0]], dtype=torch.float64)).diagonal()
    tensor([0.5000, 0.5000, 1.0000], dtype=torch.float64)
    """
    d, n = x.shape[-2:]
    # Where N >= d the thin U is square already; the whole V would be N x N.
    u, s, _ = data_svd(x, tolerance, full_matrices=n < d)
    null = torch.nn.functional.pad(s == 0, (0, d - s.shape[-1]), value=True)
    u = u * null.unsqueeze(-2)  # ranks, and so numbers of columns, differ between replicas
    return u @ u.mT


def null_component(w: Tensor, projector: Tensor) -> Tensor:
    """Return W_perp = W (I - pi) (Theorem 1), (..., m, d)."""
    return w - w @ projector


def decay_factor(eta: Number, lam: Number, convention: Convention = "paper") -> Number:
    r"""Return W_perp(t+1)/W_perp(t) of one step: 1 - 2 eta lambda (Eq. 9), whatever the minibatch.

    The proof of Theorem 1 prints 1 - eta lambda, which holds for the steps of Appendix A only.

    >>> decay_factor(0.25, 0.5), decay_factor(0.25, 0.5, "appendix_a")
    (0.75, 0.875)
    """
    return 1 - {"paper": 2.0, "appendix_a": 1.0}[convention] * eta * lam


def decay_per_epoch(
    etas: Tensor, lam: Number, steps_per_epoch: int, convention: Convention = "paper"
) -> Tensor:
    r"""Return ||W_perp|| after each epoch over ||W_perp|| at the start, (E, ...) for rates (E,).

    It is prod_{e' <= e} |1 - 2 eta_e' lambda|^ceil(N/B): geometric for SGD and GD alike, where SGD
    takes N/B steps in an epoch and GD one (`log_slope_ratio`). `lam` is (...). Rates that change
    from step to step are epochs of one step.

    >>> decay_per_epoch(torch.tensor([0.25, 0.25]), 0.5, steps_per_epoch=2)
    tensor([0.5625, 0.3164])
    """
    # The abstract has "exponential for SGD, and linear for GD". The remark on B > 1 prints (1 - eta
    # lambda/B)^(N/B), but Eq. 5 does not divide the decay by B.
    lam = torch.as_tensor(lam, dtype=etas.dtype, device=etas.device)
    factor = torch.as_tensor(decay_factor(etas.view(-1, *[1] * lam.dim()), lam, convention))
    return torch.cumprod(factor.abs() ** steps_per_epoch, dim=0)


def log_slope_ratio(num_train: int, batch_size: int, per: Literal["epoch", "step"]) -> int:
    """Return the ratio of the slopes of log ||W_perp|| of SGD and of GD (Theorem 1).

    Steps in an epoch, ceil(N/B), per epoch; 1 per step.

    >>> log_slope_ratio(10, 1, "epoch"), log_slope_ratio(10, 3, "epoch")
    (10, 4)
    """
    return math.ceil(num_train / batch_size) if per == "epoch" else 1


def epoch_map(
    x: Tensor, y: Tensor, batch_size: int, eta: Number, lam: Number, order: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    r"""Return the affine map W -> W A + b of one epoch at a constant rate and a fixed order.

    A is the product of (1 - 2 eta lambda) I - (2 eta/B) X_S X_S^T over the minibatches in turn,
    (..., d, d), and b (..., m, d). (Eq. 8 prints eta lambda/B X X^T and the other sign before
    Y X^T.) `order` (N,) holds the indices of the samples; None: data order. eta, lam: (...).
    """
    if order is not None:
        x, y = x[..., order], y[..., order]
    eta, lam = (torch.as_tensor(v, dtype=x.dtype)[..., None, None] for v in (eta, lam))
    eye = torch.eye(x.shape[-2], dtype=x.dtype)
    a, b = eye, y.new_zeros(*y.shape[:-1], len(eye))
    for xs, ys in zip(x.split(batch_size, -1), y.split(batch_size, -1), strict=True):
        rate = 2 * eta / xs.shape[-1]
        step = (1 - 2 * eta * lam) * eye - rate * (xs @ xs.mT)
        a, b = a @ step, b @ step + rate * (ys @ xs.mT)
    return a, b


def fixed_point(a: Tensor, b: Tensor) -> Tensor:
    """Return W = W A + b, where a cycle of constant rate stands at the ends of epochs, (..., m, d).

    Least norm where lambda = 0 leaves W_perp undetermined. It differs from W* at order eta.
    """
    return b @ torch.linalg.pinv(torch.eye(a.shape[-1], dtype=a.dtype) - a)


def data_svd(
    x: Tensor, tolerance: float | None = None, full_matrices: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Return U, s, V^T of X, with s = 0 where it is rounding."""
    u, s, vt = torch.linalg.svd(x, full_matrices)
    if tolerance is None:
        tolerance = max(x.shape[-2:]) * torch.finfo(x.dtype).eps
    return u, torch.where(s > tolerance * s[..., :1], s, 0.0), vt
