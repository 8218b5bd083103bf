"""The compiled steps of linear regression: one replica after another, one sample after another.

Sums run in the order written here, without fastmath, so they are the same in every run. Arrays hold
a sample a row: x (N, d), y (N, m); W is (m, d). Given the samples, a row of W evolves on its own,
and its dot products overlap in time with those of the next row.
"""

# mypy: disallow-untyped-defs=False
# The types in compiled functions are numba's to infer.

from __future__ import annotations

import numpy as np
from numba import njit

# The columns of a watch's sums.
STEPS, SPEED, VELOCITY, SPREAD, PROBE_SPREAD = range(5)


def _compiled(function):
    """Let numba compile a function, and keep the code for the next process if it can."""
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:  # it may write neither beside this file nor to the user's cache folder
        from lightning.pytorch.utilities import rank_zero_warn

        rank_zero_warn(
            "numba finds no folder to keep compiled code in, so each run compiles it again (some"
            " seconds); the variable NUMBA_CACHE_DIR names one"
        )
        return njit(nogil=True)(function)


# Inlined, since a call counts references to its arrays, which costs more than the sums.
_inlined = njit(nogil=True, inline="always")


@_compiled
def run_replicas(first, last, w, x, y, order, batch, rates, scale, lam, watch, moments, diverged):
    """Run replicas first to last - 1 through all epochs.

    Arrays of `watch` and `moments` have a leading (R,). Without moments, theirs have no column.
    """
    until, stride, probes, sums, start, drift, before, slope = watch
    images, w_sums, outputs, output_sums = moments
    for r in range(first, last):
        looks = probes[r], sums[r], start[r], drift[r], before[r], slope[r]
        of_w = w_sums[r, 0], w_sums[r, 1], w_sums[r, 2]
        values, flat = w[r].reshape(w[r].size), outputs[r].reshape(outputs[r].size)
        every = images[r], outputs[r], values, *of_w, flat, output_sums[r, 0], output_sums[r, 1]
        orders = order[min(r, order.shape[0] - 1)]
        steps = w[r], x[r], y[r], orders
        if batch == 1 and images.shape[2] > 0:
            diverged[r] = _run_summed_singles(
                *steps, rates, scale[r], lam[r], until, stride, looks, every
            )
        else:
            diverged[r] = _run_replica(
                *steps, batch, rates, scale[r], lam[r], until, stride, looks, every
            )


@_compiled
def _run_replica(w, x, y, order, batch, rates, scale, lam, until, stride, looks, every):
    work = np.empty(w.shape[1]), np.empty(batch)
    for e in range(rates.shape[0]):
        index = order[min(e, order.shape[0] - 1)]
        if batch == 1:
            until = _epoch_of_singles(w, x, y, index, rates[e], scale, lam, until, stride, looks)
        else:
            until = _epoch(
                w, x, y, index, batch, rates[e], scale, lam, until, stride, looks, every, work
            )
        if not _all_finite(w):
            return e
    return -1


@_compiled
def _epoch_of_singles(w, x, y, index, rates, scale, lam, until, stride, looks):
    """Do the same as `_epoch` at B = 1, to the last bit and twice as fast."""
    for step in range(index.shape[0]):
        if until == 0:
            _look(w, x, y, index[step : step + 1], lam, looks)
            until = stride
        until -= 1
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
    return until


@_compiled
def _run_summed_singles(w, x, y, order, rates, scale, lam, until, stride, looks, every):
    """Do the same as `_run_replica` at B = 1, with the sums over all steps, which slow it down."""
    images, outputs, values, origin, moved, square, flat, first, squared = every
    for e in range(rates.shape[0]):
        index = order[min(e, order.shape[0] - 1)]
        for step in range(index.shape[0]):
            i = index[step]
            if until == 0:
                _look(w, x, y, index[step : step + 1], lam, looks)
                until = stride
            until -= 1
            _gather(values, origin, moved, square)
            _gather_squares(flat, first, squared)
            eta = scale * rates[e, min(step, rates.shape[1] - 1)]
            keep = 1 - 2 * eta * lam
            for a in range(w.shape[0]):
                residual = -y[i, a]
                for k in range(w.shape[1]):
                    residual += w[a, k] * x[i, k]
                _follow(outputs, a, keep, 2 * eta * residual, images, i)
                for k in range(w.shape[1]):
                    w[a, k] = keep * w[a, k] - 2 * eta * (residual * x[i, k])
        if not _all_finite(w):
            return e
    return -1


@_compiled
def _epoch(w, x, y, index, batch, rates, scale, lam, until, stride, looks, every, work):
    images, outputs, values, origin, moved, square, flat, first, squared = every
    watched = images.shape[1] > 0
    slope_of_row, residuals = work
    for begin in range(0, index.shape[0], batch):
        chosen = index[begin : begin + batch]
        if until == 0:
            _look(w, x, y, chosen, lam, looks)
            until = stride
        until -= 1
        if watched:
            _gather(values, origin, moved, square)
            _gather_squares(flat, first, squared)
        eta = scale * rates[min(begin // batch, rates.shape[0] - 1)]
        keep = 1 - 2 * eta * lam
        rate = 2 * eta / chosen.shape[0]
        for a in range(w.shape[0]):
            row = w[a]
            _slope_of_row(row, x, y, chosen, a, slope_of_row, residuals)
            if watched:
                _follow(outputs, a, keep, rate * residuals[0], images, chosen[0])
                for b in range(1, chosen.shape[0]):
                    _follow(outputs, a, 1.0, rate * residuals[b], images, chosen[b])
            # W is rounded once a step, not once a sample: at rest every step rounds alike, and
            # W_perp, which forgets only at the rate eta lambda, would gather the errors.
            for k in range(row.shape[0]):
                row[k] = keep * row[k] - rate * slope_of_row[k]
    return until


@_inlined
def _gather(values, origin, moved, square):
    """Add values less their origin, and the squares of that, to the sums."""
    for k in range(values.shape[0]):
        deviation = values[k] - origin[k]
        moved[k] += deviation
        square[k] += deviation * deviation


@_inlined
def _gather_squares(values, origin, square):
    """Add the squares of values less their origin; the sum of W L is that of W, times L."""
    for k in range(values.shape[0]):
        deviation = values[k] - origin[k]
        square[k] += deviation * deviation


@_inlined
def _follow(outputs, a, keep, step, images, i):
    """Take the step of sample i on row a of W L, as W itself does."""
    for k in range(outputs.shape[1]):
        outputs[a, k] = keep * outputs[a, k] - step * images[i, k]


@_compiled
def _slope_of_row(row, x, y, chosen, a, out, residuals):
    """Write sum_{i in S} (W x_i - y_i)_a x_i to `out`, and (W x_i - y_i)_a to `residuals`."""
    out[:] = 0.0
    for b in range(chosen.shape[0]):
        xb = x[chosen[b]]
        residual = -y[chosen[b], a]
        for k in range(row.shape[0]):
            residual += row[k] * xb[k]
        residuals[b] = residual
        for k in range(row.shape[0]):
            out[k] += residual * xb[k]


@_compiled
def _look(w, x, y, chosen, lam, looks):
    """Add the step about to be taken on the minibatch `chosen` to the sums of a watch."""
    probes, sums, start, drift, before, slope = looks
    if sums[STEPS] == 0:
        start[:] = w
    before[:] = w
    speed = norm = along = size = spread = 0.0
    residuals = np.empty(chosen.shape[0])
    for a in range(w.shape[0]):
        _slope_of_row(w[a], x, y, chosen, a, slope[a], residuals)
        for k in range(w.shape[1]):
            slope[a, k] *= 2 / chosen.shape[0]
            speed += (slope[a, k] + 2 * lam * w[a, k]) ** 2
            norm += w[a, k] ** 2
            along += slope[a, k] * w[a, k]
            deviation = w[a, k] - start[a, k]
            drift[a, k] += deviation
            spread += deviation**2
    along = along / norm if norm > 0 else np.nan
    for a in range(w.shape[0]):
        for k in range(w.shape[1]):
            size += (slope[a, k] - along * w[a, k]) ** 2
    for p in range(probes.shape[0]):
        for a in range(w.shape[0]):
            moved = 0.0
            for k in range(w.shape[1]):
                moved += (w[a, k] - start[a, k]) * probes[p, k]
            sums[PROBE_SPREAD] += moved**2
    sums[STEPS] += 1
    sums[SPEED] += np.sqrt(speed)
    sums[VELOCITY] += np.sqrt(norm * size)
    sums[SPREAD] += spread


@_compiled
def _all_finite(w):
    finite = True
    for value in w.flat:
        finite &= np.isfinite(value)
    return finite
