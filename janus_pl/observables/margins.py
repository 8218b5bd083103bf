r"""Margins fbar_n = y_n f_V(x_n) and their statistics (Section C)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from janus_pl.observables.wide import wide


class MarginStatistics(NamedTuple):
    """Mean mu, standard deviation sigma, minimum and second moment M of margins; shapes ()."""

    mean: Tensor
    std: Tensor
    min: Tensor
    second_moment: Tensor


def output_margins(outputs: Tensor, y: Tensor) -> Tensor:
    r"""Return y_n f_W(x_n), f = (f_1 - f_0)/2; the caller divides it by the scale rho.

    Shapes: outputs (B, 2), y (B,) of +1/-1; returns (B,).

    >>> import torch
    >>> output_margins(torch.tensor([[-1.0, 3.0]]), torch.tensor([-1.0]))
    tensor([-2.])
    """
    return y * (outputs[:, 1] - outputs[:, 0]) / 2


def regression_margins(outputs: Tensor, y: Tensor) -> Tensor:
    r"""Return <y_n, W x_n>/||y_n||^2, 1 at interpolation; the caller divides it by rho = ||W||.

    Shapes: outputs W x_n (B, m), y (B, m); returns (B,), NaN where y_n = 0.

    >>> import torch
    >>> regression_margins(torch.tensor([[1.0, 0.5]]), torch.tensor([[2.0, 0.0]]))
    tensor([0.5000])
    """
    return (y * outputs).sum(1) / y.square().sum(1)


def margin_statistics(margins: Tensor) -> MarginStatistics:
    r"""Return mean, spread, smallest and second moment of margins fbar_n of shape (N,).

    mu = (1/N) sum fbar_n, M = (1/N) sum fbar_n^2, sigma^2 = M - mu^2 (Section C).

    In float64, for margins of unit-norm V_k are small (1e-8 and below). sigma is computed from the
    centred margins, which is the same number without the cancellation.

    >>> import torch
    >>> s = margin_statistics(torch.tensor([1.0, 3.0]))
    >>> float(s.mean), float(s.std), float(s.min), float(s.second_moment)
    (2.0, 1.0, 1.0, 5.0)
    """
    margins = wide(margins)
    mean = margins.mean()
    std = (margins - mean).square().mean().sqrt()
    return MarginStatistics(mean, std, margins.min(), margins.square().mean())


def margin_histogram(
    margins: Tensor, bins: int = 64
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return counts (bins,), which sum to N, and edges (bins + 1,) over the range of margins (N,).

    The margins must be finite.
    """
    values = wide(margins).cpu().numpy()
    low, high = float(values.min()), float(values.max())
    if not high - low > 1e-9 * max(abs(low), abs(high)):
        # numpy needs a range that float64 can divide into bins; one value gets a bin of its own.
        pad = max(abs(low), abs(high)) * 1e-6 or 1.0
        low, high = low - pad, high + pad
    counts, edges = np.histogram(values, bins=bins, range=(low, high))
    return counts.astype(np.int64), edges


def equilibrium_residual(mu: Tensor, second_moment: Tensor, rho: Tensor, lam: float) -> Tensor:
    r"""Return mu - (M + lambda) rho, zero where drho/dt = 0 under the square loss (Section 2.1).

    All in the units of the learned rho: margins y_n f_W(x_n)/rho_learned, and lambda the
    coefficient of rho^2 in the loss, which is half of PyTorch's `weight_decay` on rho.

    >>> import torch
    >>> float(equilibrium_residual(torch.tensor(2.0), torch.tensor(4.0), torch.tensor(0.4), 1.0))
    0.0
    """
    return mu - (second_moment + lam) * rho


def class_margins(outputs: Tensor, y: Tensor) -> Tensor:
    r"""Return the margins of raw outputs: (f_y - max of the others)/2 for K classes.

    For a single output f and labels +1/-1 or 1/0 it is y f; for two outputs and labels +1/-1 it is
    `output_margins`.

    Args:
        outputs: The outputs, (B, K), (B, 1) or (B,).
        y: Class indices (B,), or the signs of two classes.

    Returns:
        Margins in the units of the outputs, (B,).

    Raises:
        ValueError: The labels are neither class indices nor the signs of two classes.

    >>> import torch
    >>> class_margins(torch.tensor([[1.0, 5.0, 2.0]]), torch.tensor([2]))
    tensor([-1.5000])
    """
    outputs = outputs.flatten(1) if outputs.dim() > 1 else outputs[:, None]
    labels = set(y.unique().tolist()) if y.numel() == len(outputs) else {None}
    if outputs.shape[1] == 1:
        sign = y.to(outputs).flatten()
        if labels <= {0, 1}:
            sign = 2 * sign - 1
        elif not labels <= {-1, 1}:
            raise ValueError("its labels are neither 0 and 1 nor -1 and +1")
        return sign * outputs[:, 0]
    signs = labels <= {-1, 1} and (-1 in labels or y.is_floating_point())
    if outputs.shape[1] == 2 and y.dim() == 1 and signs:
        return output_margins(outputs, y.to(outputs))
    if y.dim() != 1 or y.is_floating_point() or y.min() < 0 or y.max() >= outputs.shape[1]:
        raise ValueError("its labels are not class indices")
    own = outputs.gather(1, y[:, None])[:, 0]
    others = outputs.scatter(1, y[:, None], -torch.inf).amax(dim=1)
    return (own - others) / 2
