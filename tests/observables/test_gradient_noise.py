"""The noise of minibatches against every minibatch there is."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch

from janus_pl.observables.noise import (
    minibatch_variance,
    noise_estimate,
    noise_scale,
    sample_variance,
)

N = 6
GRADIENTS = np.random.default_rng(0).normal((0.5, 0.0, -2.0), size=(N, 3))
MEAN = GRADIENTS.mean(0)
TRACE = float(np.trace(np.cov(GRADIENTS.T, bias=True)))  # the population's: divided by N


def trace(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def means(size: int, replacement: bool = False) -> Any:
    """The means of all minibatches, each as likely as any other."""
    if replacement:
        chosen: Iterable[tuple[int, ...]] = itertools.product(range(N), repeat=size)
    else:
        chosen = itertools.combinations(range(N), size)
    return np.array([GRADIENTS[list(index)].mean(0) for index in chosen])


def exact_variance(size: int, replacement: bool = False) -> float:
    deviations = means(size, replacement) - MEAN
    return float((deviations**2).sum(1).mean())


@pytest.mark.parametrize("size", range(1, N + 1))
def test_variance_is_that_of_all_minibatches(size: int) -> None:
    expected = exact_variance(size)
    assert float(minibatch_variance(trace(TRACE), size, N)) == pytest.approx(expected, abs=1e-14)
    if size > 1:
        # Controls: no correction for the finite set, or the covariance divided by N - 1.
        assert expected < 0.9 * TRACE / size
        other = minibatch_variance(trace(TRACE * N / (N - 1)), size, N)
        assert size == N or float(other) > 1.1 * expected


def test_the_whole_set_has_no_noise_at_all() -> None:
    assert float(minibatch_variance(trace(TRACE), N, N)) == 0.0


@pytest.mark.parametrize("size", [1, 2, 4])
def test_variance_of_draws_with_replacement(size: int) -> None:
    expected = exact_variance(size, replacement=True)
    found = float(minibatch_variance(trace(TRACE), size, N, replacement=True))
    assert found == pytest.approx(expected, rel=1e-12)
    without = float(minibatch_variance(trace(TRACE), size, N))
    assert size == 1 or without < 0.9 * expected


def test_draws_with_replacement_may_outnumber_the_samples() -> None:
    assert float(minibatch_variance(trace(8.0), 4, 2, replacement=True)) == 2.0


@pytest.mark.parametrize("replacement", [False, True])
@pytest.mark.parametrize("size", range(1, N))
def test_the_sample_variance_comes_back(size: int, replacement: bool) -> None:
    variance = trace(exact_variance(size, replacement))
    assert float(sample_variance(variance, size, N, replacement)) == pytest.approx(TRACE, rel=1e-12)


def estimate(velocities: Any, offset: float = 0.0) -> Any:
    deviations = velocities + offset - MEAN
    resultant = trace(float(np.linalg.norm(deviations.sum(0))))
    return noise_estimate(resultant, trace(float((deviations**2).sum())), len(velocities))


def test_estimate_is_the_sample_variance() -> None:
    velocities = means(2)[[0, 3, 7, 11, 2]]
    noise = estimate(velocities)
    assert float(noise.variance) == pytest.approx(velocities.var(0, ddof=1).sum(), rel=1e-12)
    bias = np.linalg.norm(velocities.mean(0) - MEAN)
    assert float(noise.bias) == pytest.approx(bias, rel=1e-12)
    assert float(noise.bias_expected) == pytest.approx(np.sqrt(float(noise.variance) / 5))


@pytest.mark.parametrize("batches", [2, 3])
def test_estimate_is_unbiased_over_all_draws(batches: int) -> None:
    every = means(3)
    noises = [estimate(np.array(draw)) for draw in itertools.product(every, repeat=batches)]
    exact = exact_variance(3)
    variances = [float(noise.variance) for noise in noises]
    assert np.mean(variances) == pytest.approx(exact, rel=1e-12)
    # The ratio that tells a bias has the expectation 1 in squares.
    assert np.mean([float(n.bias) ** 2 for n in noises]) == pytest.approx(exact / batches)
    # Control: divided by K it is not the variance.
    assert np.mean(variances) * (batches - 1) / batches < 0.7 * exact


def test_a_bias_shows_and_leaves_the_variance_alone() -> None:
    velocities = means(3)
    honest, biased = estimate(velocities), estimate(velocities, offset=3.0)
    assert float(honest.bias) < 1e-12 * float(honest.bias_expected)
    assert float(biased.bias) > 20 * float(biased.bias_expected)
    assert float(biased.bias) == pytest.approx(3 * np.sqrt(3), rel=1e-12)
    assert float(biased.variance) == pytest.approx(float(honest.variance), rel=1e-10)


def test_rounding_leaves_no_negative_variance() -> None:
    same = trace(0.1) * 3
    noise = noise_estimate(same, 3 * trace(0.1).square() * (1 - 1e-15), 3)
    assert float(noise.variance) == 0.0


def test_at_the_noise_scale_there_is_as_much_noise_as_signal() -> None:
    signal = float(MEAN @ MEAN)
    scale = float(noise_scale(trace(TRACE), trace(signal)))
    assert scale == pytest.approx(((GRADIENTS - MEAN) ** 2).sum(1).mean() / signal, rel=1e-12)
    assert float(minibatch_variance(trace(7 * signal), 7, N, replacement=True)) == pytest.approx(
        signal
    )


def test_layers_go_together() -> None:
    noise = noise_estimate(torch.tensor([3.0, 0.0]), torch.tensor([5.0, 2.0]), 2)
    assert noise.variance.tolist() == [0.5, 2.0]
    assert noise.variance.dtype == torch.float64


@pytest.mark.parametrize(
    "call",
    [
        lambda: minibatch_variance(trace(1.0), 0, 4),
        lambda: minibatch_variance(trace(1.0), 5, 4),
        lambda: sample_variance(trace(1.0), 4, 4),
        lambda: noise_estimate(trace(1.0), trace(1.0), 1),
    ],
)
def test_what_has_no_answer_is_refused(call: Any) -> None:
    with pytest.raises(ValueError):
        call()
