r"""Linear regression W x = y by SGD and GD in float64: many epochs and replicas in one call.

The loss is L = (1/N) sum_i ||W x_i - y_i||^2 + lambda ||W||^2 (Eq. 2, a mean and not the printed
sum). One step on the minibatch S of size B is (Eq. 5, which is printed as if the increment were
W(t+1))

    W(t+1) = (1 - 2 eta lambda) W(t) - (2 eta/B) sum_{i in S} (W(t) x_i - y_i) x_i^T,

and GD (Eq. 4) is S = all N. A smaller last minibatch is divided by its own size.

Appendix A steps by W - eta (grad + lambda W), so W decays by 1 - eta lambda: Eq. 5 at half the
lambda. Its printed gradients are those of ||W x_i - y_i||^2, with the 2, for Y = I/2.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from janus_pl.linear.kernels import run_replicas
from janus_pl.linear.watch import Moments, Watch

BatchSize = int | Literal["full"]
DecayConvention = Literal["paper", "appendix_a"]
Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

# Multiplies lambda: 1 - 2 eta (lambda/2) is 1 - eta lambda to the last bit.
LAMBDA_FACTOR: dict[DecayConvention, float] = {"paper": 1.0, "appendix_a": 0.5}

NOTHING = (0, 0), (3, 0), (0, 0), (2, 0)  # the arrays of `Moments` for no sums


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
    """Run one epoch of one replica, step by step; every fast path has to equal it.

    Shapes: w (m, d), x (d, N), y (m, N); `order` (n,) holds indices, and None stands for 0 to
    N - 1. Returns the new W (m, d). The other arguments are as in `run_epochs`.

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
    watch: Watch | None = None,
    threads: int | None = None,
    moments: Moments | None = None,
    images: torch.Tensor | None = None,
) -> Indices:
    """Run E epochs on R replicas, in place on w, in compiled code.

    Sums run in one order for any R, E and number of threads. So a replica is bitwise its own single
    run, and two calls of one epoch are bitwise one call of two. A replica whose W is not finite
    after an epoch stops there. For GD with N > d, pass `full_batch_equivalent(x, y)`.

    Args:
        w: (R, m, d), float64, C-contiguous.
        x: (R, d, N). A transposed C-contiguous (R, N, d) saves a copy; y likewise.
        y: (R, m, N).
        order: The indices of the samples, broadcast to (R, E, n). None: 0 to N - 1 in every epoch.
        batch_size: B, from 1 to n, or "full" for n.
        eta: The learning rate of every epoch (E,), or of every step (E, ceil(n/B)).
        lam: The weight decay lambda, a number or (R,).
        eta_scale: A factor of eta, a number or (R,).
        decay_convention: "paper" decays by 1 - 2 eta lambda, "appendix_a" by 1 - eta lambda.
        watch: A watch that gathers the speed, velocity and noise of the steps.
        threads: The number of threads that share the replicas. None: as many as PyTorch uses.
        moments: The sums over all steps, of W and of its predictions.
        images: The samples as `moments` sees them (`Moments.images`), if they are known.

    Returns:
        The epoch of the call, from 0, after which W was first not finite, or -1; shape (R,).

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
    if watch is not None:
        _check_watch(watch, w)
    replicas = len(w)
    scale = np.array(np.broadcast_to(eta_scale, replicas), dtype=np.float64)
    decay = LAMBDA_FACTOR[decay_convention] * np.broadcast_to(lam, replicas)
    diverged = np.full(replicas, -1)
    rows, targets = (np.ascontiguousarray(np.swapaxes(a, 1, 2), np.float64) for a in (x, y))
    steps = len(rates) * math.ceil(order.shape[2] / batch)
    looks = _looks(watch, replicas, steps)
    every = _every(moments, rows, images, steps)
    shared = w, rows, targets, order, batch, rates, scale, decay, looks, every, diverged
    threads = min(replicas, threads or torch.get_num_threads())
    if threads == 1:
        run_replicas(0, replicas, *shared)
    else:
        # Threads of our own: numba's abort if two threads of a process call them.
        borders = [replicas * i // threads for i in range(threads + 1)]
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda a, b: run_replicas(a, b, *shared), borders[:-1], borders[1:]))
    lost = torch.from_numpy(diverged >= 0)  # some of their steps were watched before
    for sums in (*((watch.sums,) if watch else ()), *(moments.sums if moments else ())):
        sums[lost] = torch.nan
    return diverged


def load_kernels() -> None:
    """Load the compiled steps, or compile them; else the first epoch does so."""
    w, one = np.zeros((1, 1, 1)), np.ones((1, 1, 1))
    run_epochs(w, one, one, None, 1, [0.0], 0.0, threads=1)


def full_batch_equivalent(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    r"""Return up to d columns, x (R, d, d) and y (R, m, d), with the full-batch gradient of all N.

    With X^T = Q R the gradient is (2/N) (W X - Y) X^T = (2/N) (W R^T - Y Q) R, so the columns
    sqrt(d/N) R^T and sqrt(d/N) Y Q stand for X and Y. They keep the residual; X X^T and Y X^T alone
    would cancel each other only to rounding. If N <= d, return x and y themselves.
    """
    d, n = x.shape[1:]
    if n <= d:
        return x, y
    scale = math.sqrt(d / n)
    # One replica at a time: each has to be bitwise equal to its own single run.
    factors = [np.linalg.qr(columns.T) for columns in x]
    targets = [columns @ q for columns, (q, _) in zip(y, factors, strict=True)]
    return scale * np.stack([r.T for _, r in factors]), scale * np.stack(targets)


def _check(w: Floats, x: Floats, y: Floats, order: Indices, batch: int, rates: Floats) -> None:
    """Refuse arrays that do not fit, since compiled code has no bounds checks."""
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


def _looks(watch: Watch | None, replicas: int, steps: int) -> tuple[Any, ...]:
    """Return a watch as compiled code reads it, before so many steps."""
    if watch is None:
        nothing = np.zeros((replicas, 0, 0))
        return (np.iinfo(np.int64).max, 1, nothing, np.zeros((replicas, 5)), *[nothing] * 4)
    looks = (watch.until, watch.stride, *(a.detach().numpy() for a in watch.arrays))
    watch.taken += steps
    return looks


def _every(
    moments: Moments | None, rows: Floats, images: torch.Tensor | None, steps: int
) -> tuple[Floats, ...]:
    """Return the arrays of the sums over all steps; without moments, arrays of no column."""
    if moments is None:
        return tuple(np.zeros((len(rows), *shape)) for shape in NOTHING)
    moments.steps += steps
    return tuple(a.detach().numpy() for a in moments.arrays(torch.from_numpy(rows), images))


def _check_watch(watch: Watch, w: Floats) -> None:
    replicas, _, d = w.shape
    if watch.before.shape != w.shape or watch.before.dtype != torch.float64:
        raise ValueError(f"the watch is for W of {tuple(watch.before.shape)}, not {w.shape}")
    if watch.probes.shape[::2] != (replicas, d) or watch.probes.dtype != torch.float64:
        raise ValueError(f"probes are {tuple(watch.probes.shape)}, not ({replicas}, K, {d})")
