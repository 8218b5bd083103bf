r"""The noise of minibatches: their gradients, or V_k dot, against those of the whole set.

A minibatch is a simple random sample: B of the N training samples, every set of B equally likely,
its velocity g_S = (1/B) sum_{n in S} g_n the mean over it. So E g_S = g, the mean over all N, and
with the covariance of one sample, S = (1/N) sum_n (g_n - g)(g_n - g)^T,

    tr Cov[g_S] = (tr S/B) (N - B)/(N - 1).

For the indicators 1_n of S have E 1_n = B/N and E 1_n 1_m = B (B - 1)/(N (N - 1)), and the
deviations sum to zero. Of draws with replacement the second factor is 1.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from janus_pl.observables.wide import wide


class NoiseEstimate(NamedTuple):
    """What K minibatches say; the shape is that of what it was made of, float64.

    Attributes:
        bias: ||(1/K) sum_j g_j - g||.
        bias_expected: its root mean square where there is no bias: sqrt(tr Cov[g_S]/K).
        variance: the estimate of tr Cov[g_S].
    """

    bias: Tensor
    bias_expected: Tensor
    variance: Tensor


def noise_estimate(resultant: Tensor, squares: Tensor, batches: int) -> NoiseEstimate:
    r"""Return bias and variance of K independent minibatches, from running sums over d_j = g_j - g.

    variance = (sum_j ||d_j||^2 - ||sum_j d_j||^2/K)/(K - 1) is the sample variance about the
    minibatches' own mean: its expectation is tr Cov[g_S] whether there is a bias or not.

    Args:
        resultant: ||sum_j d_j||, any shape.
        squares: sum_j ||d_j||^2, of the same shape.
        batches: K.

    Raises:
        ValueError: K is below 2.

    >>> import torch
    >>> noise = noise_estimate(torch.tensor(3.0), torch.tensor(5.0), 2)  # d_1 = 1, d_2 = 2
    >>> float(noise.bias), float(noise.bias_expected), float(noise.variance)
    (1.5, 0.5, 0.5)
    """
    if batches < 2:
        raise ValueError(f"{batches} minibatches have no variance: at least 2")
    resultant, squares = wide(resultant), wide(squares)
    variance = ((squares - resultant.square() / batches) / (batches - 1)).clamp(min=0)
    return NoiseEstimate(resultant / batches, (variance / batches).sqrt(), variance)


def minibatch_variance(
    trace: Tensor, batch_size: int, num_samples: int, replacement: bool = False
) -> Tensor:
    r"""Return tr Cov[g_S] = (tr S/B) (N - B)/(N - 1), and tr S/B for draws with replacement.

    Zero at B = N without replacement. Args: tr S, of any shape; B; N.

    Raises:
        ValueError: without replacement, B is not from 1 to N.

    >>> import torch
    >>> [float(minibatch_variance(torch.tensor(6.0), B, 4)) for B in (1, 2, 4)]
    [6.0, 2.0, 0.0]
    """
    return trace * _factor(batch_size, num_samples, replacement)


def sample_variance(
    variance: Tensor, batch_size: int, num_samples: int, replacement: bool = False
) -> Tensor:
    r"""Return tr S from tr Cov[g_S], the inverse of `minibatch_variance`.

    Raises:
        ValueError: without replacement, B is not from 1 to N - 1: the whole set has no noise to
            tell tr S from.

    >>> import torch
    >>> float(sample_variance(torch.tensor(2.0), 2, 4))
    6.0
    """
    factor = _factor(batch_size, num_samples, replacement)
    if factor == 0:
        raise ValueError(f"minibatches of all {num_samples} samples have no noise")
    return variance / factor


def noise_scale(trace: Tensor, squared_norm: Tensor) -> Tensor:
    r"""Return the simple noise scale tr S/||g||^2, in samples (McCandlish et al., 2018, Eq. 2.9).

    A minibatch of that many samples, drawn with replacement, has as much noise as signal:
    tr Cov[g_S] = ||g||^2. Not finite where g is zero.

    >>> import torch
    >>> float(noise_scale(torch.tensor(6.0), torch.tensor(2.0)))
    3.0
    """
    return trace / squared_norm


def _factor(batch_size: int, num_samples: int, replacement: bool) -> float:
    if batch_size < 1 or num_samples < 1:
        raise ValueError(f"a minibatch of {batch_size} out of {num_samples} samples")
    if replacement:
        return 1 / batch_size
    if batch_size > num_samples:
        raise ValueError(f"{batch_size} of {num_samples} samples, without replacement")
    if batch_size == num_samples:
        return 0.0
    return (num_samples - batch_size) / (batch_size * (num_samples - 1))
