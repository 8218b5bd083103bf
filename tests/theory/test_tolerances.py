"""Ranks of the data in closed forms: relative to the largest singular value, at several sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracles
import pytest
import torch

from janus_pl import theory

SPECTRUM = [8.0, 2.0, 0.05, 4e-5]


def data(scale: float, d: int = 6, n: int = 9, seed: int = 1) -> Any:
    return scale * oracles.with_spectrum(d, n, SPECTRUM, seed)


@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e12])
@pytest.mark.parametrize(("d", "n"), [(6, 9), (9, 6), (5, 5)])
def test_the_span_is_counted_relative_to_the_largest_singular_value(
    d: int, n: int, scale: float
) -> None:
    x = data(scale, d, n)
    for tolerance, rank in ((None, 4), (1e-6, 4), (1e-5, 3), (0.006, 3), (0.01, 2), (0.3, 1)):
        span, rest = theory.data_projector(x, tolerance), theory.null_projector(x, tolerance)
        assert float(span.trace()) == pytest.approx(rank, abs=1e-9)
        assert float(rest.trace()) == pytest.approx(d - rank, abs=1e-9)
        torch.testing.assert_close(span + rest, torch.eye(d, dtype=torch.float64))
        # Of the r largest left singular vectors, which numpy knows as well.
        u = np.linalg.svd(x.numpy())[0][:, :rank]
        np.testing.assert_allclose(span.numpy(), u @ u.T, atol=1e-8)


@pytest.mark.parametrize(("d", "n"), [(2, 1000), (1000, 2)])
def test_rounding_grows_with_the_longer_side(d: int, n: int) -> None:
    """1000 eps is 2.2e-13, and 2 eps 4.4e-16."""
    for least, rank in ((1e-12, 2), (3e-13, 2), (1e-13, 1), (1e-15, 1)):
        x = torch.zeros(d, n, dtype=torch.float64)
        x[0, 0], x[1, 1] = 5.0, 5.0 * least
        assert float(theory.data_projector(x).trace()) == pytest.approx(rank)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e6])
def test_a_condition_number_is_of_the_span_alone(scale: float) -> None:
    x, n = data(scale), 9
    for lam in (0.0, 0.3 * scale**2):
        # What is left of a singular value of 0 is not a smallest one.
        expected = (SPECTRUM[0] ** 2 / n * scale**2 + lam) / (SPECTRUM[3] ** 2 / n * scale**2 + lam)
        assert float(theory.condition_number(x, lam)) == pytest.approx(expected, rel=1e-6)


def test_a_variance_is_finite_below_the_limit_and_not_at_it() -> None:
    x = data(0.3)[:3, :6]
    moments = theory.sample_moments(x)
    noise = theory.sample_noise(x, torch.ones(1, 6, dtype=torch.float64), 0.1)
    limit = theory.mean_square_limit(moments, 0.1)
    theory.stationary_covariance(moments, noise, 0.999 * limit, 0.1)
    for eta in (limit, 1.001 * limit, 0.0, -0.1):
        with pytest.raises(ValueError, match="where the variance is finite"):
            theory.stationary_covariance(moments, noise, eta, 0.1)


def test_two_samples_combine_to_twice_the_rank_of_one() -> None:
    shape = (128, 64, 3, 3)
    for positions in (1, 9, 25, 63, 64, 65):
        assert theory.gradient_rank_bound(shape, positions) == min(positions, 128)
        assert theory.lemma_1_bound(shape, positions) == min(2 * positions, 128)
    # A narrow weight bounds it by its columns, in * kh * kw, and not by its channels alone.
    assert theory.gradient_rank_bound((128, 2, 3, 3), positions=100) == 18
    assert theory.gradient_rank_bound((128, 2), positions=100) == 2
    assert theory.gradient_rank_bound((5, 64), positions=1, samples=7) == 5
