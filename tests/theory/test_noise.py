"""The stationary covariance of W against recursions and simulations."""

from __future__ import annotations

from functools import partial
from typing import Any

import linear_oracles as oracle
import numpy as np
import pytest
import torch
from theory_problems import data, relative, tensors

from janus_pl import theory


@pytest.mark.parametrize("batch_size", [1, 2])
def test_covariance_of_draws_from_a_data_set_is_that_of_the_recursion(batch_size: int) -> None:
    x, y = data(3, 5, 2)
    lam = 0.1
    moments = theory.sample_moments(*tensors(x))
    eta = 0.4 * theory.mean_square_limit(moments, lam, batch_size)
    expected = oracle.stationary_covariance(x, y, eta, lam, batch_size, steps=2000)
    covariance = partial(theory.stationary_covariance, moments)
    noise = theory.sample_noise(*tensors(x, y), lam)
    assert relative(covariance(noise, eta, lam, batch_size), expected) < 1e-9
    assert relative(covariance(noise, eta, lam, batch_size + 1), expected) > 0.1
    assert relative(covariance(noise, eta, lam / 2, batch_size), expected) > 0.1
    # First order in eta, without the fourth moment.
    frozen = theory.Moments(moments.second, torch.kron(moments.second, moments.second))
    rough = theory.stationary_covariance(frozen, noise, eta, lam, batch_size)
    assert relative(rough, expected) > 0.05


def test_covariance_of_draws_from_a_data_set_is_the_simulated_one() -> None:
    x, y = data(3, 5, 2)
    lam, rng = 0.1, np.random.default_rng(0)
    moments = theory.sample_moments(*tensors(x))
    eta = 0.25 * theory.mean_square_limit(moments, lam)

    def draw() -> Any:
        chosen = rng.integers(5, size=(20_000, 1))
        return x.T[chosen].swapaxes(1, 2), y.T[chosen].swapaxes(1, 2)

    start = np.tile(oracle.ridge(x, y, lam), (20_000, 1, 1))
    expected = oracle.simulated_covariance(draw, start, eta, lam, 250)
    noise = theory.sample_noise(*tensors(x, y), lam)
    assert relative(theory.stationary_covariance(moments, noise, eta, lam), expected) < 0.05


def test_online_covariance_is_the_simulated_one() -> None:
    rng = np.random.default_rng(0)
    second = np.diag([1.0, 1.0, 0.0])
    teacher, lam, batch_size = np.array([[1.0, -2.0, 0.0], [0.5, 1.0, 0.0]]), 0.2, 2
    moments = theory.gaussian_moments(*tensors(second))
    eta = 0.25 * theory.mean_square_limit(moments, lam, batch_size)
    noise = theory.gaussian_noise(*tensors(second, teacher), 0.5, lam)

    def draw() -> Any:
        x = second @ rng.standard_normal((20_000, 3, batch_size))
        return x, teacher @ x + 0.5 * rng.standard_normal((20_000, 2, batch_size))

    start = np.zeros((20_000, 2, 3))
    expected = oracle.simulated_covariance(draw, start, eta, lam, 80)
    covariance = partial(theory.stationary_covariance, moments, noise)
    assert relative(covariance(eta, lam, batch_size), expected) < 0.05
    assert relative(covariance(eta, lam, batch_size + 1), expected) > 0.05


def test_no_noise_and_no_decay_leave_no_covariance() -> None:
    x, y = data(5, 3)
    moments = theory.sample_moments(*tensors(x))
    eta = 0.5 * theory.mean_square_limit(moments, 0.0)
    noise = theory.sample_noise(*tensors(x, y), 0.0)
    assert theory.stationary_covariance(moments, noise, eta, 0.0).abs().max() < 1e-20
