"""Margins of targets of any size, histograms of nearly one number, noise at the smallest sets."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from janus_pl.observables.margins import (
    margin_histogram,
    margin_statistics,
    output_margins,
    regression_margins,
)
from janus_pl.observables.noise import minibatch_variance, sample_variance


@pytest.mark.parametrize("value", [3.0, -3.0, 1e-8, -2e-300, 7e200])
def test_equal_margins_get_a_millionth_of_their_size_to_both_sides(value: float) -> None:
    counts, edges = margin_histogram(torch.full((5,), value, dtype=torch.float64), bins=4)
    pad = abs(value) * 1e-6
    expected = np.linspace(value - pad, value + pad, 5)
    np.testing.assert_allclose(edges - value, expected - value, rtol=1e-6, atol=1e-15 * abs(value))
    assert counts.tolist() == [0, 0, 5, 0]


def test_margins_of_zero_get_one_to_both_sides() -> None:
    counts, edges = margin_histogram(torch.zeros(3), bins=4)
    assert edges.tolist() == [-1.0, -0.5, 0.0, 0.5, 1.0]
    assert counts.tolist() == [0, 0, 3, 0]


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(("gap", "padded"), [(0.9e-9, True), (1.2e-9, False), (1e-6, False)])
def test_margins_are_told_apart_from_a_billionth_of_the_larger_on(
    gap: float, padded: bool, sign: float
) -> None:
    low, high = sorted((sign * 8.0, sign * 8.0 * (1 - gap)))
    margins = torch.tensor([low, high, low], dtype=torch.float64)
    counts, edges = margin_histogram(margins, bins=2)
    assert (edges[0] < low and edges[-1] > high) == padded
    if not padded:
        assert (edges[0], edges[-1]) == (low, high)
        assert counts.tolist() == [2, 1]
    assert counts.sum() == 3


def test_statistics_are_about_the_mean_and_over_all_samples() -> None:
    values = np.random.default_rng(0).standard_normal(11) * 1e-8 + 3e-7
    found = margin_statistics(torch.from_numpy(values))
    assert float(found.mean) == pytest.approx(values.sum() / 11, rel=1e-14)
    variance = ((values - values.mean()) ** 2).sum() / 11
    assert float(found.std) == pytest.approx(np.sqrt(variance), rel=1e-12)
    assert float(found.second_moment) == pytest.approx((values**2).sum() / 11, rel=1e-14)
    assert float(found.min) == values.min()


@pytest.mark.parametrize("outputs", [1, 4])
def test_margins_of_a_regression_are_one_at_interpolation_whatever_the_targets(
    outputs: int,
) -> None:
    rng = np.random.default_rng(1)
    y = rng.standard_normal((6, outputs)) * np.array([0.01, 3, 1, 50, 7, 0.3])[:, None]
    f = rng.standard_normal((6, outputs))
    found = regression_margins(*(torch.from_numpy(a) for a in (f, y)))
    expected = [
        sum(a * b for a, b in zip(o, t, strict=True)) / sum(t**2) for o, t in zip(f, y, strict=True)
    ]
    assert found.tolist() == pytest.approx(expected, rel=1e-13)
    at_rest = regression_margins(*(torch.from_numpy(a) for a in (y, y)))
    assert at_rest.tolist() == pytest.approx([1.0] * 6, rel=1e-14)


def test_margins_of_two_outputs_are_half_their_difference_signed_by_the_label() -> None:
    outputs = torch.tensor([[0.5, 2.0], [3.0, -1.0], [-2.0, -2.5]], dtype=torch.float64)
    y = torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)
    assert output_margins(outputs, y).tolist() == [0.75, -2.0, 0.25]


def test_the_only_sample_has_no_noise_and_one_of_two_has_all_of_it() -> None:
    trace = torch.tensor(6.0, dtype=torch.float64)
    assert float(minibatch_variance(trace, 1, 1)) == 0
    assert float(minibatch_variance(trace, 1, 1, replacement=True)) == 6
    assert float(minibatch_variance(trace, 1, 2)) == 6
    assert float(sample_variance(trace, 1, 2)) == 6
    with pytest.raises(ValueError, match="all 1 samples have no noise"):
        sample_variance(trace, 1, 1)
    for size, count in ((0, 5), (1, 0), (6, 5)):
        with pytest.raises(ValueError, match=f"{size} "):
            minibatch_variance(trace, size, count)
    assert float(minibatch_variance(trace, 6, 5, replacement=True)) == 1
