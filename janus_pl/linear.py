r"""Linear regression W x = y by SGD and GD in float64: many epochs, and replicas, in one call.

The loss is L = (1/N) sum_i ||W x_i - y_i||^2 + lambda ||W||^2 (Eq. 2, a mean and not the printed
sum). One step on the minibatch S of size B is (Eq. 5; printed as if the increment were W(t+1))

    W(t+1) = (1 - 2 eta lambda) W(t) - (2 eta/B) sum_{i in S} (W(t) x_i - y_i) x_i^T,

and GD (Eq. 4) is S = all N. A ragged last minibatch is divided by its own size.

Appendix A steps by W - eta (grad + lambda W), so that W decays by 1 - eta lambda: Eq. 5 at half
the lambda. Its printed gradients are those of ||W x_i - y_i||^2, with the 2, for Y = I/2.
"""

# mypy: disallow-untyped-defs=False
# The types in compiled functions are numba's to infer.

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numba import njit
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

BatchSize = int | Literal["full"]
DecayConvention = Literal["paper", "appendix_a"]
Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

# Multiplies lambda: 1 - 2 eta (lambda/2) is 1 - eta lambda to the last bit.
LAMBDA_FACTOR: dict[DecayConvention, float] = {"paper": 1.0, "appendix_a": 0.5}


class Epochs(NamedTuple):
    r"""What a call of `run_epochs` tells beside W, each of shape (R,).

    Attributes:
        velocity: Mean over the steps of the last epoch of ||W(t+1) - W(t)||/eta, which is
            ||(2/B) sum_{i in S} (W x_i - y_i) x_i^T + 2 lambda W|| at the W before the step.
        diverged: The epoch of the call, from 0, after which W was first not finite; -1 if none.
    """

    velocity: Any
    diverged: Any


def reference_epoch(
    w: Floats,
    x: Floats,
    y: Floats,
    batch_size: int,
    eta: float,
    lam: float,
    order: Indices | None = None,
    decay_convention: DecayConvention = "paper",
) -> Floats:
    """One epoch of one replica, step by step: what every fast path has to equal.

    From w (m, d), x (d, N), y (m, N) and the indices of `order` (n,), None for 0 to N - 1, to the
    new W (m, d); the rest as in `run_epochs`.

    >>> reference_epoch(np.eye(1), np.ones((1, 1)), np.zeros((1, 1)), 1, eta=0.25, lam=0.5)
    array([[0.25]])
    """
    lam = lam * LAMBDA_FACTOR[decay_convention]
    if order is not None:
        x, y = x[:, order], y[:, order]
    for start in range(0, x.shape[1], batch_size):
        xs, ys = x[:, start : start + batch_size], y[:, start : start + batch_size]
        w = (1 - 2 * eta * lam) * w - (2 * eta / xs.shape[1]) * (w @ xs - ys) @ xs.T
    return w


def run_epochs(
    w: Floats,
    x: Floats,
    y: Floats,
    order: Indices | None,
    batch_size: BatchSize,
    eta: ArrayLike,
    lam: ArrayLike,
    eta_scale: ArrayLike = 1.0,
    decay_convention: DecayConvention = "paper",
    velocity: bool = True,
    threads: int | None = None,
) -> Epochs:
    """Run E epochs on R replicas, in place on w, in compiled code.

    Sums run in one order whatever R, E and the threads are: a replica is bitwise its own single
    run, and two calls of one epoch are bitwise one call of two. A replica whose W is not finite
    after an epoch stops there. For GD with N > d, hand over `full_batch_equivalent(x, y)`.

    Args:
        w: (R, m, d), float64, C-contiguous.
        x: (R, d, N). A transposed C-contiguous (R, N, d) saves a copy; y likewise.
        y: (R, m, N).
        order: Indices of the samples, broadcast to (R, E, n). None: 0 to N - 1 in every epoch.
        batch_size: B, from 1 to n, or "full" for n.
        eta: The rate of every epoch (E,), or of every step (E, ceil(n/B)).
        lam: Weight decay lambda, a number or (R,).
        eta_scale: Multiplies eta, a number or (R,).
        decay_convention: "paper" decays by 1 - 2 eta lambda, "appendix_a" by 1 - eta lambda.
        velocity: Whether to measure it, which doubles the cost of the last epoch; NaN where not.
        threads: Replicas are shared among so many. None: as many as PyTorch uses.

    Raises:
        ValueError: An array has the wrong shape, or an index is out of range.
    """
    if order is None:
        order = np.arange(x.shape[2])
    order = np.ascontiguousarray(order, dtype=np.int64)
    order = order.reshape((1,) * (3 - order.ndim) + order.shape)
    rates = np.array(eta, dtype=np.float64).reshape(np.shape(eta)[0], -1)
    batch = order.shape[2] if batch_size == "full" else batch_size
    _check(w, x, y, order, batch, rates)
    replicas = len(w)
    scale = np.array(np.broadcast_to(eta_scale, replicas), dtype=np.float64)
    decay = LAMBDA_FACTOR[decay_convention] * np.broadcast_to(lam, replicas)
    result = Epochs(np.zeros(replicas), np.full(replicas, -1))
    rows, targets = (np.ascontiguousarray(np.swapaxes(a, 1, 2), np.float64) for a in (x, y))
    shared = w, rows, targets, order, batch, rates, scale, decay, velocity, *result
    threads = min(replicas, threads or torch.get_num_threads())
    if threads == 1:
        _run(0, replicas, *shared)
        return result
    # Threads of our own and not numba's: those abort when two threads of a process call them.
    borders = [replicas * i // threads for i in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda first, last: _run(first, last, *shared), borders[:-1], borders[1:]))
    return result


def run_epochs_torch(
    w: Tensor,
    x: Tensor,
    y: Tensor,
    order: Tensor | None,
    batch_size: BatchSize,
    eta: ArrayLike,
    lam: float | Tensor,
    eta_scale: float | Tensor = 1.0,
    decay_convention: DecayConvention = "paper",
) -> Epochs:
    """The same as `run_epochs` in batched PyTorch without autograd, on the device of w.

    For many replicas on a GPU: no step waits for the device. Equal to `run_epochs` up to rounding.
    A replica that diverges runs on. `Epochs` holds tensors on that device.
    """
    rates = np.array(eta, dtype=np.float64).reshape(np.shape(eta)[0], -1)
    replicas, n = len(w), x.shape[2] if order is None else order.shape[-1]
    batch = n if batch_size == "full" else batch_size
    steps = math.ceil(n / batch)
    decay, scale = (torch.as_tensor(a, dtype=w.dtype, device=w.device) for a in (lam, eta_scale))
    decay = LAMBDA_FACTOR[decay_convention] * decay.expand(replicas).view(-1, 1, 1)
    scale = scale.expand(replicas).view(-1, 1, 1)
    velocity = w.new_zeros(replicas)
    diverged = torch.full((replicas,), -1, device=w.device)
    xe, ye = x, y
    for e in range(len(rates)):
        if order is not None:
            index = order.expand(replicas, len(rates), n)[:, e, None]
            xe, ye = (a.gather(2, index.expand(-1, a.shape[1], -1)) for a in (x, y))
        for step in range(steps):
            chosen = slice(step * batch, (step + 1) * batch)
            xs, ys = xe[:, :, chosen], ye[:, :, chosen]
            slope = torch.bmm(torch.baddbmm(ys, w, xs, beta=-1), xs.mT).mul_(2 / xs.shape[2])
            if e == len(rates) - 1:
                velocity += (slope + 2 * decay * w).flatten(1).norm(dim=1) / steps
            step_eta = float(rates[e, min(step, rates.shape[1] - 1)]) * scale
            w.mul_(1 - 2 * step_eta * decay).sub_(slope.mul_(step_eta))
        lost = (diverged < 0) & ~torch.isfinite(w).all(2).all(1)
        diverged = torch.where(lost, e, diverged)
    return Epochs(velocity, diverged)


def full_batch_equivalent(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    r"""At most d columns, x (R, d, d) and y (R, m, d), whose full-batch gradient is that of all N.

    With X^T = Q R the gradient is (2/N) (W X - Y) X^T = (2/N) (W R^T - Y Q) R, so that the columns
    sqrt(d/N) R^T and sqrt(d/N) Y Q do for X and Y. The residual is kept, where X X^T and Y X^T
    alone would cancel each other only to rounding. x and y themselves where N <= d.
    """
    d, n = x.shape[1:]
    if n <= d:
        return x, y
    scale = math.sqrt(d / n)
    # One replica at a time: each has to be, bitwise, what it is alone.
    factors = [np.linalg.qr(columns.T) for columns in x]
    targets = [columns @ q for columns, (q, _) in zip(y, factors, strict=True)]
    return scale * np.stack([r.T for _, r in factors]), scale * np.stack(targets)


def _check(w: Floats, x: Floats, y: Floats, order: Indices, batch: int, rates: Floats) -> None:
    """Compiled code has no bounds checks."""
    (replicas, m, d), (epochs, per_epoch), n = w.shape, rates.shape, order.shape[2]
    if w.dtype != np.float64 or not w.flags.c_contiguous:
        raise ValueError("w has to be a C-contiguous float64 array: it is changed in place")
    if x.shape != (replicas, d, x.shape[2]) or y.shape != (replicas, m, x.shape[2]):
        raise ValueError(f"shapes do not fit: w {w.shape}, x {x.shape}, y {y.shape}")
    if order.shape[0] not in (1, replicas) or order.shape[1] not in (1, epochs):
        raise ValueError(f"order {order.shape} does not broadcast to ({replicas}, {epochs}, n)")
    if not 1 <= batch <= n:
        raise ValueError(f"batch_size is {batch}, not from 1 to {n}")
    if order.min() < 0 or order.max() >= x.shape[2]:
        raise ValueError(f"order holds indices outside 0 to {x.shape[2] - 1}")
    if per_epoch not in (1, math.ceil(n / batch)):
        raise ValueError(f"eta {rates.shape} is neither (epochs,) nor (epochs, steps an epoch)")


# Plain sums in the order written here, without fastmath: the same in every run. A row of W evolves
# on its own, given the samples, and its dot products overlap in time with those of the next row.
@njit(cache=True, nogil=True)
def _run(first, last, w, x, y, order, batch, rates, scale, lam, watched, velocity, diverged):
    for r in range(first, last):
        orders = order[min(r, order.shape[0] - 1)]
        velocity[r], diverged[r] = _run_replica(
            w[r], x[r], y[r], orders, batch, rates, scale[r], lam[r], watched
        )


@njit(cache=True, nogil=True)
def _run_replica(w, x, y, order, batch, rates, scale, lam, watched):
    velocity = np.nan
    for e in range(rates.shape[0]):
        index = order[min(e, order.shape[0] - 1)]
        watch = watched and e == rates.shape[0] - 1
        if batch == 1 and not watch:
            _epoch_of_singles(w, x, y, index, rates[e], scale, lam)
        else:
            velocity = _epoch(w, x, y, index, batch, rates[e], scale, lam, watch)
        if not _all_finite(w):
            return np.nan, e
    return velocity, -1


@njit(cache=True, nogil=True)
def _epoch_of_singles(w, x, y, index, rates, scale, lam):
    """`_epoch` at B = 1, the same to the last bit and twice as fast."""
    for step in range(index.shape[0]):
        xi = x[index[step]]
        yi = y[index[step]]
        eta = scale * rates[min(step, rates.shape[0] - 1)]
        keep = 1 - 2 * eta * lam
        for a in range(w.shape[0]):
            row = w[a]
            residual = -yi[a]
            for k in range(row.shape[0]):
                residual += row[k] * xi[k]
            for k in range(row.shape[0]):
                row[k] = keep * row[k] - 2 * eta * (residual * xi[k])


@njit(cache=True, nogil=True)
def _epoch(w, x, y, index, batch, rates, scale, lam, watched):
    n, d = index.shape[0], w.shape[1]
    slope = np.empty(d)
    velocity = 0.0
    for start in range(0, n, batch):
        chosen = index[start : start + batch]
        eta = scale * rates[min(start // batch, rates.shape[0] - 1)]
        keep = 1 - 2 * eta * lam
        rate = 2 * eta / chosen.shape[0]
        square = 0.0
        for a in range(w.shape[0]):
            row = w[a]
            slope[:] = 0.0
            for b in range(chosen.shape[0]):
                xb = x[chosen[b]]
                residual = -y[chosen[b], a]
                for k in range(d):
                    residual += row[k] * xb[k]
                for k in range(d):
                    slope[k] += residual * xb[k]
            for k in range(d if watched else 0):
                square += (2 * slope[k] / chosen.shape[0] + 2 * lam * row[k]) ** 2
            # W is rounded once a step, not once a sample: at rest every step rounds alike, and
            # W_perp, which only forgets at the rate eta lambda, would gather it.
            for k in range(d):
                row[k] = keep * row[k] - rate * slope[k]
        velocity += np.sqrt(square)
    return velocity / ((n + batch - 1) // batch) if watched else np.nan


@njit(cache=True, nogil=True)
def _all_finite(w):
    finite = True
    for value in w.flat:
        finite &= np.isfinite(value)
    return finite
