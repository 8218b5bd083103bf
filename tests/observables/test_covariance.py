"""The covariance of gradients through their Gram matrix, against the explicit P x P matrix."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import janus_pl.observables.covariance as own
from janus_pl.observables.covariance import covariance_of


def gradients(m: int, p: int = 40) -> np.ndarray:
    """Gradients with a mean far above their noise."""
    rng = np.random.default_rng(m)
    return rng.normal(size=(m, p)) * np.linspace(0.1, 2, p) + 50


@pytest.mark.parametrize("m", [2, 5, 64])
@pytest.mark.parametrize("columns", [2**20, 7])
def test_it_is_that_of_the_explicit_matrix(
    m: int, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own, "AT_ONCE", columns)
    given = gradients(m)
    values, vectors = np.linalg.eigh(np.cov(given, rowvar=False))
    shares = values[values > 1e-12] / values.sum()
    found = covariance_of(torch.from_numpy(given.copy()))
    assert float(found.trace) == pytest.approx(values.sum(), rel=1e-10)
    assert float(found.top) == pytest.approx(values[-1], rel=1e-10)
    entropy = -(shares * np.log(shares)).sum()
    assert float(found.effective_rank) == pytest.approx(np.exp(entropy), rel=1e-6)
    assert 1 - 1e-9 <= float(found.effective_rank) <= m - 1 + 1e-9
    assert abs(found.vector.numpy() @ vectors[:, -1]) == pytest.approx(1, rel=1e-9)
    # Control: without the mean taken out the first eigenvector is the mean's.
    raw = np.linalg.eigh(given.T @ given / m)[1][:, -1]
    assert abs(found.vector.numpy() @ raw) < 0.9


def test_orthogonal_noise_has_full_effective_rank() -> None:
    found = covariance_of(torch.cat([torch.eye(4), -torch.eye(4)]).double())
    assert float(found.effective_rank) == pytest.approx(4, rel=1e-12)
    assert float(found.top) == pytest.approx(2 / 7, rel=1e-12)


def test_no_noise_and_numbers_that_are_not_finite() -> None:
    silent = covariance_of(torch.ones(3, 5))
    assert float(silent.trace) == float(silent.top) == 0
    assert bool(silent.effective_rank.isnan()) and bool(silent.vector.isnan().all())
    bad = covariance_of(torch.tensor([[1.0, torch.nan], [0.0, 2.0]]))
    assert all(bool(value.isnan().all()) for value in bad)
    with pytest.raises(ValueError, match="at least 2"):
        covariance_of(torch.ones(1, 5))
