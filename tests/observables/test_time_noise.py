"""Noise in time against least squares by NumPy, and against a process of known variance."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from janus_pl.observables.time_noise import PIECE, Fluctuation, Window


def measured(x: torch.Tensor) -> Fluctuation:
    window = Window()
    for values in x:
        window.add(values)
    return window.result()


def series(steps: int, drift: float, noise: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(steps)
    t = torch.arange(steps, dtype=torch.float64)[:, None, None]
    slopes = torch.randn(4, 5, generator=generator, dtype=torch.float64)
    rest = torch.randn(steps, 4, 5, generator=generator, dtype=torch.float64)
    return 3.0 + drift * t * slopes + noise * rest


@pytest.mark.parametrize("steps", [3, 8, 64])
@pytest.mark.parametrize("drift", [0.0, 1e-3, 1.0])
def test_variance_and_drift_are_those_of_least_squares(steps: int, drift: float) -> None:
    x = series(steps, drift, noise=1e-2)
    found = measured(x)
    line = np.stack([np.ones(steps), np.arange(steps)], axis=1)
    fitted, squares, *_ = np.linalg.lstsq(line, x.reshape(steps, -1).numpy(), rcond=None)
    variance = squares.sum() / (steps - 2)
    assert found.variance.shape == ()
    assert float(found.variance) == pytest.approx(variance, rel=1e-6 if drift < 1 else 1e-4)
    np.testing.assert_allclose(found.drift.numpy(), (fitted[1] * steps).reshape(4, 5), rtol=1e-9)


def test_a_line_has_no_noise_and_a_step_has() -> None:
    t = torch.arange(16.0)[:, None]
    assert float(measured(2 - 0.5 * t).variance) < 1e-20
    assert float(measured(2 - 0.5 * t).drift) == pytest.approx(-8.0)
    assert float(measured((t > 7).double()).variance) > 0.05


def test_single_precision_keeps_noise_under_a_drift() -> None:
    x = series(64, drift=1e-3, noise=1e-4)
    exact, single = measured(x), measured(x.float())
    assert float(single.variance) == pytest.approx(float(exact.variance), rel=1e-2)


def test_many_values_are_taken_in_pieces() -> None:
    """The sum of the variances of all values, those of the last piece among them."""
    x = torch.randn(8, 2, PIECE + 7, generator=torch.Generator().manual_seed(0)).double()
    found = measured(x)
    parts = [measured(part) for part in x.split(1000, dim=2)]
    variance = sum(float(part.variance) for part in parts)
    assert float(found.variance) == pytest.approx(variance, rel=1e-12)
    drift = torch.cat([part.drift for part in parts], dim=1)
    assert torch.allclose(found.drift, drift, rtol=0, atol=1e-14)


@pytest.mark.parametrize("cut", [1, 5, 12])
def test_a_window_goes_on_from_its_state(cut: int) -> None:
    x = series(12, drift=1e-2, noise=1e-2).float()
    first, whole = Window(), measured(x)
    for values in x[:cut]:
        first.add(values)
    other = Window()
    other.load(first.state())
    for values in x[cut:]:
        other.add(values)
    found = other.result()
    assert torch.equal(found.variance, whole.variance) and torch.equal(found.drift, whole.drift)


def test_two_steps_are_no_window() -> None:
    with pytest.raises(ValueError, match="2 steps are no window"):
        measured(torch.zeros(2, 3))


def test_the_window_keeps_no_graph() -> None:
    window, x = Window(), torch.ones(3, requires_grad=True)
    for k in range(4):
        window.add(k * x)
    assert not window.result().variance.requires_grad
