"""Slow, obvious float64 references for linear regression, from the paper's equations alone.

Nothing here imports the package under test. W is (m, d), X (d, N), Y (m, N). Loss, steps and
factors are those of Eq. 2-5 with the slips mended: a mean over samples, and decay by
1 - 2 eta lambda, not divided by B; `decay=1` is the update of Appendix A.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float64]

N, D, M = 10, 7, 3


def problem(replicas: int = 1, n: int = N, d: int = D, m: int = M, seed: int = 0) -> Any:
    """Random W, X and Y with a leading axis of replicas."""
    rng = np.random.default_rng(seed)
    w = 0.1 * rng.standard_normal((replicas, m, d))
    return w, rng.standard_normal((replicas, d, n)), rng.standard_normal((replicas, m, n))


def random_orders(epochs: int, seed: int = 1) -> Any:
    """N indices an epoch, drawn with replacement."""
    return np.random.default_rng(seed).integers(N, size=(epochs, N))


def relative(a: Any, b: Any) -> float:
    """||a - b|| / ||b||."""
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


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
            rate: Any = eta if np.isscalar(eta) else eta[step]
            new = w - rate * decay * lam * w - rate * data_gradient(w, x, y, batch)
            distances.append(np.linalg.norm(new - w) / rate)
            w = new
        after.append(w)
        speeds.append(float(np.mean(distances)))
    return after, speeds


class Step(NamedTuple):
    """One step, and the gradient of its minibatch's mean square error, by autograd."""

    before: Floats
    gradient: Floats
    after: Floats
    rate: float


def autograd_gradient(w: Floats, x: Floats, y: Floats, batch: Sequence[int]) -> Floats:
    """The gradient of the mean over the minibatch of ||W x_i - y_i||^2."""
    tensor = torch.tensor(w, requires_grad=True)
    xs, ys = (torch.tensor(a[:, list(batch)]) for a in (x, y))
    loss = (tensor @ xs - ys).square().sum(0).mean()
    return torch.autograd.grad(loss, tensor)[0].numpy()


def steps_of(
    w: Floats,
    x: Floats,
    y: Floats,
    orders: Any,
    batch_size: int,
    etas: Any,
    lam: float,
    decay: float = 2.0,
) -> list[Step]:
    """Every step of `train`, one rate an epoch."""
    steps = []
    for order, rate in zip(orders, etas, strict=True):
        for batch in minibatches(order, batch_size):
            new = w - rate * decay * lam * w - rate * data_gradient(w, x, y, batch)
            steps.append(Step(w, autograd_gradient(w, x, y, batch), new, float(rate)))
            w = new
    return steps


def looked_at(steps: int, steps_per_epoch: int, most: int) -> list[int]:
    """The steps that a watch of `steps` steps looks at, first to last."""
    for stride in range(1, 2 * steps + steps_per_epoch):
        common = [f for f in range(2, stride + 1) if stride % f == 0 == steps_per_epoch % f]
        if stride * most >= steps and not common:
            return list(range(steps - 1, -1, -stride))[::-1]
    raise AssertionError("no stride")


def tangent_velocity(w: Floats, gradient: Floats) -> Floats:
    """V dot = -||W|| (G - <G, V> V), V = W/||W||; NaN at W = 0."""
    norm = np.linalg.norm(w)
    if norm == 0:
        return np.full_like(w, np.nan)
    v = w / norm
    return -norm * (gradient - np.sum(gradient * v) * v)


def statistics(steps: Sequence[Step], probes: Floats) -> dict[str, Any]:
    """What a watch says of the steps that it looked at, for probes (K, d)."""
    mean = np.mean([s.before for s in steps], axis=0)
    deviations = [s.before - mean for s in steps]
    spreads = [[np.sum((deviation @ z) ** 2) for deviation in deviations] for z in probes]
    return {
        "speed": np.mean([np.linalg.norm((s.after - s.before) / s.rate) for s in steps]),
        "velocity": np.mean(
            [np.linalg.norm(tangent_velocity(s.before, s.gradient)) for s in steps]
        ),
        "mean": mean,
        "variance": np.mean([np.sum(deviation**2) for deviation in deviations]),
        "probe_variance": np.mean([np.mean(spread) for spread in spreads]),
        "before": steps[-1].before,
        "slope": steps[-1].gradient,
    }


def cycle_variance(x: Floats, y: Floats, batch_size: int, eta: float, lam: float) -> float:
    """Mean of ||W - mean W||^2 over the cycle that SGD in data order comes to, after its start.

    An epoch is affine, W -> W A + C: the cycle starts where W (1 - A) = C.
    """
    d, n = x.shape
    batches = list(minibatches(range(n), batch_size))
    a, c = np.eye(d), np.zeros((len(y), d))
    for batch in batches:
        xs, ys = x[:, list(batch)], y[:, list(batch)]
        keep = (1 - 2 * eta * lam) * np.eye(d) - 2 * eta / len(batch) * xs @ xs.T
        a, c = a @ keep, c @ keep + 2 * eta / len(batch) * ys @ xs.T
    w = np.linalg.solve((np.eye(d) - a).T, c.T).T
    cycle = [s.before for s in steps_of(w, x, y, [range(n)], batch_size, [eta], lam)]
    return float(np.mean([np.sum((each - np.mean(cycle, axis=0)) ** 2) for each in cycle]))


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
