"""Slow, obvious float64 references for linear regression, from the paper's equations alone.

Nothing here imports the package under test. W is (m, d), X (d, N), Y (m, N). Loss, steps and
factors are those of Eq. 2-5 with the slips mended: a mean over samples, and decay by
1 - 2 eta lambda, not divided by B; `decay=1` is the update of Appendix A.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def minibatches(indices: Sequence[int], batch_size: int) -> Iterator[Sequence[int]]:
    """Runs of B indices, the last one perhaps shorter."""
    for start in range(0, len(indices), batch_size):
        yield indices[start : start + batch_size]


def data_gradient(w: Floats, x: Floats, y: Floats, batch: Sequence[int]) -> Floats:
    """(2/B) sum_{i in S} (W x_i - y_i) x_i^T, sample by sample."""
    total = np.zeros_like(w)
    for i in batch:
        total = total + 2 * np.outer(w @ x[:, i] - y[:, i], x[:, i])
    return total / len(batch)


def train(
    w: Floats,
    x: Floats,
    y: Floats,
    orders: Any,
    batch_size: int,
    etas: Any,
    lam: float,
    decay: float = 2.0,
) -> tuple[list[Floats], list[float]]:
    """W after every epoch, and the epoch's mean of ||W(t+1) - W(t)||/eta.

    `orders` has one list of indices an epoch, `etas` one number or one list, a step each.
    """
    after, speeds = [], []
    for order, eta in zip(orders, etas, strict=True):
        distances = []
        for step, batch in enumerate(minibatches(order, batch_size)):
            rate = eta if np.isscalar(eta) else eta[step]
            new = w - rate * decay * lam * w - rate * data_gradient(w, x, y, batch)
            distances.append(np.linalg.norm(new - w) / rate)
            w = new
        after.append(w)
        speeds.append(float(np.mean(distances)))
    return after, speeds


def null_basis(x: Floats) -> Floats:
    """Orthonormal columns that span the complement of the samples, by Gram-Schmidt on them."""
    d = x.shape[0]
    kept: list[Floats] = []
    columns = [*x.T, *np.eye(d)]
    for position, column in enumerate(columns):
        rest = column.copy()
        for _ in range(3):
            for q in kept:
                rest = rest - (q @ rest) * q
        if np.linalg.norm(rest) > 1e-9 * np.linalg.norm(column) > 0:
            kept.append(rest / np.linalg.norm(rest))
        if position == x.shape[1] - 1:
            in_span = len(kept)
    return np.stack(kept[in_span:], axis=1) if len(kept) > in_span else np.zeros((d, 0))


def null_norms(start: float, etas: Any, lam: float, steps: int, decay: float = 2.0) -> list[float]:
    """||W_perp|| after every epoch, one multiplication a step."""
    norms = []
    for eta in etas:
        for _ in range(steps):
            start = start * (1 - decay * eta * lam)
        norms.append(abs(start))
    return norms


def ridge(x: Floats, y: Floats, lam: float) -> Floats:
    """W* = Y X^T (X X^T + N lambda I)^-1."""
    d, n = x.shape
    return np.linalg.solve(x @ x.T + n * lam * np.eye(d), x @ y.T).T


def stationary_covariance(
    x: Floats, y: Floats, eta: float, lam: float, batch_size: int, steps: int
) -> Floats:
    """Cov[W_ai, W_bj] as [a, b, i, j] after many steps on B draws with replacement, from W = 0.

    Mean and second moment of the entries of W, each step averaged over all N^B minibatches.
    """
    m, d = len(y), len(x)
    maps = []
    for batch in itertools.product(range(x.shape[1]), repeat=batch_size):
        xs, ys = x[:, list(batch)], y[:, list(batch)]
        keep = (1 - 2 * eta * lam) * np.eye(d) - 2 * eta / batch_size * xs @ xs.T
        maps.append((np.kron(np.eye(m), keep), (2 * eta / batch_size * ys @ xs.T).ravel()))
    mean, second = np.zeros(m * d), np.zeros((m * d, m * d))
    for _ in range(steps):
        means, seconds = [], []
        for a, b in maps:
            cross = np.outer(a @ mean, b)
            seconds.append(a @ second @ a.T + cross + cross.T + np.outer(b, b))
            means.append(a @ mean + b)
        mean, second = np.mean(means, axis=0), np.mean(seconds, axis=0)
    covariance = second - np.outer(mean, mean)
    return covariance.reshape(m, d, m, d).transpose(0, 2, 1, 3)


def simulated_covariance(draw: Any, w: Floats, eta: float, lam: float, steps: int) -> Floats:
    """Cov[W_ai, W_bj] as [a, b, i, j] over replicas w (R, m, d), each with draws of its own.

    `draw()` gives one minibatch for each replica: x (R, d, B) and y (R, m, B).
    """
    for _ in range(steps):
        x, y = draw()
        residual = np.einsum("rai,rib->rab", w, x) - y
        gradient = 2 * np.einsum("rab,rib->rai", residual, x) / x.shape[2]
        w = w - eta * gradient - 2 * eta * lam * w
    deviation = w - w.mean(0)
    return np.einsum("rai,rbj->abij", deviation, deviation) / len(w)
