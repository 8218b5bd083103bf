r"""Linear regression in closed form (Section 3, Appendix A), in float64.

X is (..., d, N), Y (..., m, N), W (..., m, d); leading axes are replicas. The loss is a mean over
samples plus lambda ||W||^2 (Eq. 2 prints a sum), one step on a minibatch S of size B is

    W <- (1 - 2 eta lambda) W - (2 eta/B) sum_{i in S} (W x_i - y_i) x_i^T            (Eq. 5).

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

SCAN_FACTOR = 1.05  # of the learning rate, from one look at the stability of a cycle to the next
ROUNDING = 1e-10  # of an eigenvalue that is 1: W_perp at lambda = 0


class TrainMSE(NamedTuple):
    """(1/N) sum_i ||W x_i - y_i||^2, as in the loss, and its mth part, the mean of all entries."""

    per_sample: Tensor
    per_entry: Tensor


def train_mse(w: Tensor, x: Tensor, y: Tensor) -> TrainMSE:
    """Both mean square errors of W on all samples; lambda ||W||^2 is no part of them."""
    squares = (w @ x - y).square()
    return TrainMSE(squares.sum(-2).mean(-1), squares.mean((-2, -1)))


def eigenvalue_moduli(w: Tensor) -> Tensor:
    """The moduli of the eigenvalues of a square W, largest first, (..., d).

    >>> eigenvalue_moduli(torch.tensor([[0.0, -2.0], [2.0, 0.0]]))
    tensor([2.0000, 2.0000])
    """
    return torch.linalg.eigvals(w).abs().sort(dim=-1, descending=True).values


def singular_values(w: Tensor) -> Tensor:
    """The singular values of W, largest first, by an SVD: right below 1e-8 of the largest too."""
    return torch.linalg.svdvals(w)


def regularized_solution(x: Tensor, y: Tensor, lam: Number) -> Tensor:
    r"""W* = Y X^T (X X^T + N lambda I)^-1, (..., m, d), where GD ends.

    At lambda = 0 it is the limit, of least norm. (Eq. 6 is the case N = 1; printed with a minus.)

    >>> x, y = torch.eye(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    >>> regularized_solution(x, y, lam=0.5).diagonal()
    tensor([0.5000, 0.5000], dtype=torch.float64)
    """
    u, s, vt = _data_svd(x)
    ridge = x.shape[-1] * torch.as_tensor(lam, dtype=x.dtype).unsqueeze(-1)
    inverse = torch.where(s > 0, s / (s.square() + ridge).clamp(min=1e-300), 0.0)
    return (y @ vt.mT * inverse.unsqueeze(-2)) @ u.mT


def data_projector(x: Tensor, tolerance: float | None = None) -> Tensor:
    r"""pi = U_r U_r^T, the projection on the span of the samples (Theorem 1), (..., d, d).

    U_r are the left singular vectors of X with sigma > tolerance sigma_max. Not set: max(d, N)
    times the machine epsilon, as in NumPy's `matrix_rank`.
    """
    u, s, _ = _data_svd(x, tolerance)
    u = u * (s > 0).unsqueeze(-2)
    return u @ u.mT


def null_component(w: Tensor, projector: Tensor) -> Tensor:
    """W_perp = W (I - pi) (Theorem 1), (..., m, d)."""
    return w - w @ projector


def decay_factor(eta: Number, lam: Number, convention: Convention = "paper") -> Number:
    r"""W_perp(t+1)/W_perp(t) of one step: 1 - 2 eta lambda (Eq. 9), whatever the minibatch.

    The proof of Theorem 1 prints 1 - eta lambda, which holds for the steps of Appendix A only.

    >>> decay_factor(0.25, 0.5), decay_factor(0.25, 0.5, "appendix_a")
    (0.75, 0.875)
    """
    return 1 - {"paper": 2.0, "appendix_a": 1.0}[convention] * eta * lam


def decay_per_epoch(
    etas: Tensor, lam: Number, steps_per_epoch: int, convention: Convention = "paper"
) -> Tensor:
    r"""||W_perp|| after each epoch over ||W_perp|| at the start, (E, ...) for rates (E,).

    prod_{e' <= e} |1 - 2 eta_e' lambda|^ceil(N/B). The remark on B > 1 prints
    (1 - eta lambda/B)^(N/B), but Eq. 5 does not divide the decay by B. `lam` is (...); rates that
    change from step to step are epochs of one step.

    >>> decay_per_epoch(torch.tensor([0.25, 0.25]), 0.5, steps_per_epoch=2)
    tensor([0.5625, 0.3164])
    """
    lam = torch.as_tensor(lam, dtype=etas.dtype, device=etas.device)
    factor = torch.as_tensor(decay_factor(etas.view(-1, *[1] * lam.dim()), lam, convention))
    return torch.cumprod(factor.abs() ** steps_per_epoch, dim=0)


def log_slope_ratio(num_train: int, batch_size: int, per: Literal["epoch", "step"]) -> int:
    """How much steeper log ||W_perp|| falls for SGD than for GD (Theorem 1).

    Steps in an epoch, ceil(N/B), per epoch; 1 per step.

    >>> log_slope_ratio(10, 1, "epoch"), log_slope_ratio(10, 3, "epoch")
    (10, 4)
    """
    return math.ceil(num_train / batch_size) if per == "epoch" else 1


def epoch_map(
    x: Tensor, y: Tensor, batch_size: int, eta: Number, lam: Number, order: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    r"""The affine map W -> W A + b of one epoch at a constant rate and a fixed order.

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
    """W = W A + b: where a cycle of constant rate stands at the end of its epochs, (..., m, d).

    Least norm where lambda = 0 leaves W_perp undetermined. It differs from W* at order eta.
    """
    return b @ torch.linalg.pinv(torch.eye(a.shape[-1], dtype=a.dtype) - a)


def paper_learning_rate(x: Tensor) -> Tensor:
    """eta = 0.5/sigma_max(X) (Section 3.3, which prints 0.5 sigma_max: that diverges), (...)."""
    return 0.5 / torch.linalg.matrix_norm(x, 2)


def condition_number(x: Tensor, lam: Number) -> Tensor:
    r"""kappa of X X^T/N + lambda I on the span of the samples, (...).

    GD at its best constant rate shrinks the error in that span by (kappa - 1)/(kappa + 1) a step.
    """
    s = _data_svd(x)[1]
    least = torch.where(s > 0, s, torch.inf).amin(-1)
    n = x.shape[-1]
    return (s.amax(-1).square() / n + lam) / (least.square() / n + lam)


def gradient_descent_limit(x: Tensor, lam: Number) -> Tensor:
    r"""GD converges for eta < 1/(sigma_max(X)^2/N + lambda), and for no larger one, (...).

    On a singular direction of X the step multiplies by 1 - 2 eta (sigma^2/N + lambda).
    """
    return 1 / (torch.linalg.matrix_norm(x, 2).square() / x.shape[-1] + lam)


def cyclic_limit(x: Tensor, batch_size: int, lam: float, order: Tensor | None = None) -> float:
    r"""The eta at which SGD in a fixed order first stops converging; X (d, N).

    There the spectral radius of `epoch_map`'s A reaches 1. While eta is below
    1/(max_S sigma_max(X_S)^2/|S| + lambda) every single step contracts; from there eta grows by 5%
    at a time until the radius is above 1, and a bisection ends it: a narrower unstable window
    would be stepped over. The cost is some 50 to 100 epoch maps.
    """
    kept = x if order is None else x[:, order]
    batches = kept.split(batch_size, dim=1)
    steepest = max(float(torch.linalg.matrix_norm(xs, 2)) ** 2 / xs.shape[1] for xs in batches)
    if steepest + lam == 0:
        return math.inf

    def unstable(eta: float) -> bool:
        a, _ = epoch_map(kept, kept[:1], batch_size, eta, lam)
        return bool(torch.linalg.eigvals(a).abs().max() > 1 + ROUNDING)

    low = 1 / (steepest + lam)
    while not unstable(SCAN_FACTOR * low):
        low *= SCAN_FACTOR
    high = SCAN_FACTOR * low
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if unstable(middle) else (middle, high)
    return low


class Moments(NamedTuple):
    """H = E[x x^T], (d, d), and E[(x kron x)(x kron x)^T], (d^2, d^2), of what a step draws."""

    second: Tensor
    fourth: Tensor


def sample_moments(x: Tensor) -> Moments:
    """Of a draw, with replacement, from the columns of X (d, N)."""
    pairs = (x[:, None] * x).flatten(0, 1)
    return Moments(x @ x.T / x.shape[1], pairs @ pairs.T / x.shape[1])


def gaussian_moments(second: Tensor) -> Moments:
    """Of fresh x ~ N(0, H), the online problem: E[x_i x_j x_k x_l] by Isserlis' theorem."""
    pairings = ("ij,kl->ijkl", "ik,jl->ijkl", "il,jk->ijkl")
    fourth = sum(torch.einsum(pairing, second, second) for pairing in pairings)
    return Moments(second, torch.as_tensor(fourth).reshape(len(second) ** 2, -1))


def sample_noise(x: Tensor, y: Tensor, lam: float) -> Tensor:
    r"""Covariance of the gradient of one drawn sample at W*, (m, m, d, d).

    Entry [a, b] is 4 Cov[r_a x, r_b x] with r = W* x - y: rows a and b of the gradient.
    """
    gradients = 2 * (regularized_solution(x, y, lam) @ x - y)[:, None] * x
    gradients = gradients - gradients.mean(-1, keepdim=True)
    return torch.einsum("ain,bjn->abij", gradients, gradients) / x.shape[1]


def gaussian_noise(second: Tensor, teacher: Tensor, noise: float, lam: float) -> Tensor:
    r"""`sample_noise` for fresh x ~ N(0, H), y = T x + noise N(0, I), T (m, d).

    The mean of W is T H (H + lambda I)^-1.
    """
    eye = torch.eye(len(second), dtype=second.dtype)
    p = teacher @ (second @ torch.linalg.pinv(second + lam * eye) - eye)
    ph = p @ second
    strength = ph @ p.T + noise**2 * torch.eye(len(p), dtype=p.dtype)
    return 4 * (strength[..., None, None] * second + torch.einsum("bi,aj->abij", ph, ph))


def mean_square_limit(moments: Moments, lam: float, batch_size: int = 1) -> float:
    r"""SGD with replacement, or online, has a finite stationary variance for eta below this alone.

    With the deviation D of W from its mean, E[D D^T] goes by I - 2 eta P + 4 eta^2 Q (below), whose
    largest eigenvalue stays under 1 for eta < 1/(2 max eig(P^-1 Q)). As B grows it becomes
    `gradient_descent_limit`. For "shuffle" it is a guide only. Cost O(d^6), as an eigenproblem.
    """
    p, q = _second_moment_map(moments, lam, batch_size)
    values, vectors = torch.linalg.eigh(p)
    kept = values > values[-1] * len(p) * torch.finfo(p.dtype).eps
    half = vectors[:, kept] * values[kept].rsqrt()
    return float(0.5 / torch.linalg.eigvalsh(half.T @ q @ half)[-1])


def stationary_covariance(
    moments: Moments, noise: Tensor, eta: float, lam: float, batch_size: int = 1
) -> Tensor:
    r"""Covariance of W under SGD of constant rate, B independent draws a step, (m, m, d, d).

    Exact, to any order in eta. Entry [a, b, i, j] is Cov[W_ai, W_bj]: the fixed point of

        C <- E[A_S C A_S] + eta^2 noise/B,   A_S = (1 - 2 eta lambda) I - (2 eta/B) X_S X_S^T,

    a linear equation of size d^2 for every pair of rows, one matrix for all: O(d^6) time, 1.6 MB at
    d = 10, some 130 MB at d = 64. W_perp, without noise, is left at 0.

    Raises:
        ValueError: eta is not below `mean_square_limit`.
    """
    limit = mean_square_limit(moments, lam, batch_size)
    if not 0 < eta < limit:
        raise ValueError(f"eta is {eta}, not between 0 and {limit}, where the variance is finite")
    p, q = _second_moment_map(moments, lam, batch_size)
    inverse = torch.linalg.pinv(2 * p - 4 * eta * q, hermitian=True)
    return (noise.flatten(2) @ inverse * (eta / batch_size)).view_as(noise)


def _second_moment_map(moments: Moments, lam: float, batch_size: int) -> tuple[Tensor, Tensor]:
    """P and Q, (d^2, d^2), of E[A_S kron A_S] = I - 2 eta P + 4 eta^2 Q."""
    h, fourth = moments
    eye = torch.eye(len(h), dtype=h.dtype)
    k = h + lam * eye
    p = torch.kron(k, eye) + torch.kron(eye, k)
    return p, torch.kron(k, k) + (fourth - torch.kron(h, h)) / batch_size


def _data_svd(x: Tensor, tolerance: float | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """U, s, V^T of X, with s = 0 where it is rounding."""
    u, s, vt = torch.linalg.svd(x, full_matrices=False)
    if tolerance is None:
        tolerance = max(x.shape[-2:]) * torch.finfo(x.dtype).eps
    return u, torch.where(s > tolerance * s[..., :1], s, 0.0), vt
