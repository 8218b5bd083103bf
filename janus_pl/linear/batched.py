"""Linear SGD and GD for many replicas at once in batched PyTorch, on any device."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from janus_pl.linear.epochs import LAMBDA_FACTOR, BatchSize, DecayConvention
from janus_pl.linear.kernels import PROBE_SPREAD, SPEED, SPREAD, STEPS, VELOCITY
from janus_pl.linear.watch import Moments, Watch


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
    watch: Watch | None = None,
    moments: Moments | None = None,
) -> Tensor:
    """Do the same as `run_epochs` in batched PyTorch without autograd, on the device of w.

    It is for many replicas on a GPU: no step waits for the device. The result equals that of
    `run_epochs` up to rounding. A replica that diverges runs on.
    """
    rates = np.array(eta, dtype=np.float64).reshape(np.shape(eta)[0], -1)
    replicas, n = len(w), x.shape[2] if order is None else order.shape[-1]
    batch = n if batch_size == "full" else batch_size
    steps = math.ceil(n / batch)
    decay, scale = (torch.as_tensor(a, dtype=w.dtype, device=w.device) for a in (lam, eta_scale))
    decay = LAMBDA_FACTOR[decay_convention] * decay.expand(replicas).view(-1, 1, 1)
    scale = scale.expand(replicas).view(-1, 1, 1)
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
            if watch is not None:
                if watch.until == 0:
                    _look(watch, w, slope, decay)
                watch.taken += 1
            if moments is not None:
                moments.add(w)
            step_eta = float(rates[e, min(step, rates.shape[1] - 1)]) * scale
            w.mul_(1 - 2 * step_eta * decay).sub_(slope.mul_(step_eta))
        lost = (diverged < 0) & ~torch.isfinite(w).all(2).all(1)
        diverged = torch.where(lost, e, diverged)
    return diverged


def _look(watch: Watch, w: Tensor, slope: Tensor, decay: Tensor) -> None:
    """Do the same as `kernels._look`, for all replicas at once."""
    probes, sums, start, drift, before, last_slope = watch.arrays
    if watch.taken < watch.stride:
        start.copy_(w)
    before.copy_(w)
    last_slope.copy_(slope)
    deviation = w - start
    drift += deviation
    norm = w.square().sum((1, 2))
    along = ((slope * w).sum((1, 2)) / norm).view(-1, 1, 1)
    tangent = (slope - along * w).square().sum((1, 2))
    sums[:, STEPS] += 1
    sums[:, SPEED] += (slope + 2 * decay * w).flatten(1).norm(dim=1)
    sums[:, VELOCITY] += (norm * tangent).sqrt()
    sums[:, SPREAD] += deviation.square().sum((1, 2))
    sums[:, PROBE_SPREAD] += (deviation @ probes.mT).square().sum((1, 2))
