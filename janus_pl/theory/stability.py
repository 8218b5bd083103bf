"""Which constant learning rates converge: on the full batch, in a fixed order, on random draws."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from janus_pl.theory.linear import Number, data_svd
from janus_pl.theory.noise import Moments, sample_moments, second_moment_limit, second_moment_map
from janus_pl.theory.threads import threads_for

SCAN_FACTOR = 1.05  # of the learning rate, from one look at the stability of a cycle to the next
ROUNDING = 1e-10  # of an eigenvalue that is 1: W_perp at lambda = 0
CYCLE_WORK = 2.5e9  # operations, a second or so, that `stability_limit` may spend on a cycle
MEAN_SQUARE_DIM = 20  # the largest d whose d^2 x d^2 matrices take it but some tenths of a second
MEAN_SQUARE_SAMPLES = 10_000  # of X in its fourth moments: 32 MB at that d

Order = Literal["sequential", "shuffle", "with_replacement", "online"]


def paper_learning_rate(x: Tensor) -> Tensor:
    """Return eta = 0.5/sigma_max(X), (...); Section 3.3 prints 0.5 sigma_max, which diverges."""
    return 0.5 / torch.linalg.matrix_norm(x, 2)


def condition_number(x: Tensor, lam: Number) -> Tensor:
    r"""Return kappa of X X^T/N + lambda I on the span of the samples, (...).

    GD at its best constant rate shrinks the error in that span by (kappa - 1)/(kappa + 1) a step.
    """
    s = data_svd(x)[1]
    least = torch.where(s > 0, s, torch.inf).amin(-1)
    n = x.shape[-1]
    return (s.amax(-1).square() / n + lam) / (least.square() / n + lam)


def gradient_descent_limit(x: Tensor, lam: Number) -> Tensor:
    r"""Return 1/(sigma_max(X)^2/N + lambda), (...); GD converges for eta below it alone.

    On a singular direction of X the step multiplies by 1 - 2 eta (sigma^2/N + lambda).
    """
    d, n = x.shape[-2:]
    # Of the smaller Gram matrix: as exact for the largest one, and no SVD of a long X.
    gram = (x @ x.mT if d <= n else x.mT @ x) / n
    return 1 / (torch.linalg.eigvalsh(gram)[..., -1] + lam)


def cyclic_limit(x: Tensor, batch_size: int, lam: float, order: Tensor | None = None) -> float:
    r"""Return the eta at which SGD in a fixed order first stops converging; X (d, N).

    There the spectral radius of `epoch_map`'s A reaches 1. While eta is below
    1/(max_S sigma_max(X_S)^2/|S| + lambda) every single step contracts; from there eta grows by 5%
    at a time until the radius is above 1, and a bisection ends it: a narrower unstable window
    would be stepped over. The cost is some 50 to 100 epoch maps, the memory N/B matrices d x d.
    """
    curvatures = _minibatch_curvatures(x if order is None else x[:, order], batch_size)
    steepest = float(torch.linalg.eigvalsh(curvatures)[:, -1].max())
    if steepest + lam <= 0:
        return math.inf
    eye = torch.eye(len(x), dtype=x.dtype)

    def unstable(eta: float) -> bool:
        a = _product((1 - 2 * eta * lam) * eye - 2 * eta * curvatures)
        if not a.isfinite().all():  # a long epoch may outgrow a float, and so would W
            return True
        return bool(torch.linalg.eigvals(a).abs().max() > 1 + ROUNDING)

    low = 1 / (steepest + lam)
    while not unstable(SCAN_FACTOR * low):
        low *= SCAN_FACTOR
    high = SCAN_FACTOR * low
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if unstable(middle) else (middle, high)
    return low


def mean_square_limit(moments: Moments, lam: float, batch_size: int = 1) -> float:
    r"""Return the eta below which SGD with replacement, or online, has finite stationary variance.

    With the deviation D of W from its mean, E[D D^T] goes by I - 2 eta P + 4 eta^2 Q (see
    `second_moment_map`), whose largest eigenvalue stays under 1 for eta < 1/(2 max eig(P^-1 Q)).
    As B grows it becomes `gradient_descent_limit`. For "shuffle" it is a guide only. Cost O(d^6),
    as an eigenproblem.
    """
    return second_moment_limit(*second_moment_map(moments, lam, batch_size))


def stability_limit(
    x: Tensor, batch_size: int | Literal["full"], lam: float, order: Order
) -> float:
    r"""Return the constant learning rate from which training on X (d, N) stops converging.

    All samples in every step ("full", or B = N unless drawn with replacement):
    `gradient_descent_limit`. "sequential": `cyclic_limit`. Else the `mean_square_limit` of the
    first 10,000 samples: exact for draws from them with replacement; for "shuffle" too low, never
    too high, wherever tried. Above 2e9 operations for a cycle, or d = 20 for a mean square, it is
    `gradient_descent_limit`, an upper bound for independent draws.

    >>> x = torch.tensor([[1.0, 0.5**0.5]], dtype=torch.float64)
    >>> round(stability_limit(x, "full", 0.0, "sequential"), 6)
    1.333333
    >>> [round(stability_limit(x, 1, 0.0, order), 6) for order in ("sequential", "shuffle")]
    [1.5, 1.2]
    """
    # Above the mean square limit the variance of W grows without bound. No batch size raises the
    # limit of gradient descent for independent draws, since beyond it even the mean of W diverges,
    # but the variance may do so long before: for x ~ N(0, I) and B = 1 at 1/(d + 2) of it. A fixed
    # order may fail as early, or bear a bit more.
    with threads_for(min(x.shape)):
        return _stability_limit(x, batch_size, lam, order)


def _stability_limit(
    x: Tensor, batch_size: int | Literal["full"], lam: float, order: Order
) -> float:
    d, n = x.shape
    descent = float(gradient_descent_limit(x, lam))
    if isinstance(batch_size, str) or (batch_size >= n and order != "with_replacement"):
        return descent
    if math.isinf(descent):
        return descent
    if order == "sequential":
        cheap = _cycle_work(d, n, batch_size) <= CYCLE_WORK
        return cyclic_limit(x, batch_size, lam) if cheap else descent
    if d > MEAN_SQUARE_DIM:
        return descent
    return mean_square_limit(sample_moments(x[:, :MEAN_SQUARE_SAMPLES]), lam, batch_size)


def _minibatch_curvatures(x: Tensor, batch_size: int) -> Tensor:
    """Return X_S X_S^T/|S| of the minibatches in turn, (ceil(N/B), d, d)."""
    d, n = x.shape
    steps = math.ceil(n / batch_size)
    # A last minibatch that is short is filled with zeros, which add nothing to X_S X_S^T.
    filled = torch.nn.functional.pad(x, (0, steps * batch_size - n))
    batches = filled.view(d, steps, batch_size).transpose(0, 1)
    sizes = torch.full((steps, 1, 1), batch_size, dtype=x.dtype)
    sizes[-1] = n - (steps - 1) * batch_size
    return batches @ batches.mT / sizes


def _product(matrices: Tensor) -> Tensor:
    """Return M_1 M_2 ... M_T of (T, d, d) by pairs; one by one takes 30 times as long."""
    while len(matrices) > 1:
        even = len(matrices) // 2 * 2
        matrices = torch.cat([matrices[:even:2] @ matrices[1:even:2], matrices[even:]])
    return matrices[0]


def _cycle_work(d: int, n: int, batch_size: int) -> int:
    """Count the operations of `cyclic_limit`: a hundred times N/B products and one eigenproblem.

    Matrices of d < 4 take as long as those of 4.
    """
    products = 2 * math.ceil(n / batch_size) * max(d, 4) ** 3
    return 100 * (products + 10 * d**3) + 2 * n * d**2
