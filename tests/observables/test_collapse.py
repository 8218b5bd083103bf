"""Neural collapse against numpy: whole covariances, pseudo-inverses, nearest means one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from janus_pl.observables.collapse import (
    class_distance_normalized_variance,
    nearest_mean_disagreement,
    self_duality,
    two_classes,
    within_class_variability,
)


def problem(counts: tuple[int, int] = (9, 9), d: int = 5, offset: float = 0.0) -> Any:
    """Features (N, d), their classes 0 and 1, and the scores of some last layer."""
    rng = np.random.default_rng(3)
    y = rng.permutation(np.repeat([0, 1], counts))
    spread = np.linspace(0.3, 1.5, d)
    h = rng.normal(size=(len(y), d)) * spread + np.outer(y, rng.normal(size=d)) + offset
    return h, y, rng.normal(size=len(y))


def numbers(h: Any, y: Any, scores: Any = None, weight: Any = None) -> list[float]:
    features = torch.as_tensor(h)
    classes = two_classes(features, torch.as_tensor(y > 0))
    scores = torch.as_tensor(np.zeros(len(y)) if scores is None else scores)
    weight = torch.as_tensor(np.eye(2, h.shape[1]) if weight is None else weight)
    values = (
        within_class_variability(classes),
        self_duality(classes, weight),
        nearest_mean_disagreement(classes, features, scores),
        class_distance_normalized_variance(classes),
    )
    return [float(value) for value in values]


def scatters(h: Any, y: Any) -> tuple[Any, Any]:
    """S_W and S_B, every sample counting the same."""
    mu = h.mean(0)
    within: Any = 0
    between: Any = 0
    for c in (0, 1):
        own = h[y == c]
        centred = own - own.mean(0)
        within = within + centred.T @ centred / len(h)
        between = between + len(own) / len(h) * np.outer(own.mean(0) - mu, own.mean(0) - mu)
    return within, between


@pytest.mark.parametrize("counts", [(9, 9), (4, 15), (2, 1)])
def test_nc1_is_the_trace_with_the_pseudo_inverse(counts: tuple[int, int]) -> None:
    h, y, _ = problem(counts)
    within, between = scatters(h, y)
    expected = np.trace(within @ np.linalg.pinv(between, rcond=1e-10)) / 2
    assert numbers(h, y)[0] == pytest.approx(expected, rel=1e-10)
    delta = h[y == 1].mean(0) - h[y == 0].mean(0)
    balanced = 2 * delta @ within @ delta / (delta @ delta) ** 2
    if counts == (9, 9):
        assert numbers(h, y)[0] == pytest.approx(balanced, rel=1e-12)
    else:  # control: the formula of balanced classes is another number
        assert numbers(h, y)[0] > 1.1 * balanced


@pytest.mark.parametrize("counts", [(9, 9), (4, 15)])
def test_nc3_is_the_distance_of_the_centred_matrices(counts: tuple[int, int]) -> None:
    h, y, _ = problem(counts)
    weight = np.random.default_rng(8).normal(size=(2, 5)) + 4
    means = np.array([h[y == c].mean(0) for c in (0, 1)])
    w, m = weight - weight.mean(0), (means - means.mean(0)).T
    expected = np.linalg.norm(w.T / np.linalg.norm(w) - m / np.linalg.norm(m))
    assert numbers(h, y, weight=weight)[1] == pytest.approx(expected, rel=1e-12)
    assert numbers(h, y, weight=(weight[1] - weight[0])[None])[1] == pytest.approx(expected)
    # Control: not centred it is another number.
    raw = weight.T / np.linalg.norm(weight) - m / np.linalg.norm(m)
    assert abs(np.linalg.norm(raw) - expected) > 0.05


def test_nc3_from_aligned_to_opposite() -> None:
    h, y, _ = problem()
    delta = h[y == 1].mean(0) - h[y == 0].mean(0)
    orthogonal = np.roll(delta, 1) - (np.roll(delta, 1) @ delta) / (delta @ delta) * delta
    common = 100 * np.ones(5)
    for direction, expected in ((delta, 0.0), (orthogonal, np.sqrt(2)), (-delta, 2.0)):
        weight = np.stack((common - direction, common + 3 * direction))
        assert numbers(h, y, weight=weight)[1] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("counts", [(9, 9), (4, 15)])
def test_nc4_counts_the_samples_one_by_one(counts: tuple[int, int]) -> None:
    h, y, scores = problem(counts)
    means = [h[y == c].mean(0) for c in (0, 1)]
    nearest = np.array([np.argmin([np.linalg.norm(row - mean) for mean in means]) for row in h])
    expected = np.mean(nearest != (scores > 0))
    assert 0 < expected < 1
    assert numbers(h, y, scores)[2] == pytest.approx(expected, rel=1e-12)
    assert numbers(h, y, nearest - 0.5)[2] == 0
    assert numbers(h, y, 0.5 - nearest)[2] == 1


@pytest.mark.parametrize("counts", [(9, 9), (4, 15)])
def test_cdnv(counts: tuple[int, int]) -> None:
    h, y, _ = problem(counts)
    parts = [h[y == c] for c in (0, 1)]
    distance = np.linalg.norm(parts[0].mean(0) - parts[1].mean(0))
    expected = sum(part.var(0).sum() for part in parts) / (2 * distance**2)
    assert numbers(h, y)[3] == pytest.approx(expected, rel=1e-12)


def test_a_large_offset_costs_nothing() -> None:
    """Multiples of 1/64 keep all their digits at the offset, as float64 and as float32."""
    h, y, scores = problem(counts=(40, 70))
    h = np.round(h * 64) / 64
    expected = numbers(h, y, scores)
    # The means are rounded at 2^16, by 1e-11 of a distance of order one.
    assert numbers(h + 2**16, y, scores) == pytest.approx(expected, rel=1e-9)
    assert numbers((h + 2**16).astype(np.float32), y, scores) == pytest.approx(expected, rel=1e-9)
    # Control: E h^2 - (E h)^2 in float32 does not survive it.
    shifted = (h + 2**16).astype(np.float32)[y == 0]
    naive = ((shifted**2).mean(0) - shifted.mean(0) ** 2).sum()
    exact = h[y == 0].var(0).sum()
    assert abs(naive - exact) > 0.1 * exact


def test_units_do_not_matter() -> None:
    h, y, scores = problem()
    assert numbers(1e-8 * h, y, scores) == pytest.approx(numbers(h, y, scores), rel=1e-10)


def test_collapsed_features_are_zero_and_not_missing() -> None:
    y = np.array([0, 1, 1, 0, 1])
    h = np.outer(2 * y - 1, [3.0, -1.0, 2.0])
    weight = np.outer([-1, 1], [3.0, -1.0, 2.0])
    assert numbers(h, y, 2.0 * y - 1, weight) == pytest.approx([0, 0, 0, 0], abs=1e-15)


DEGENERATE = {
    "a class is missing": lambda h, y: (h, np.ones_like(y)),
    "the other class is missing": lambda h, y: (h, np.zeros_like(y)),
    "one point": lambda h, y: (np.full_like(h, 0.1), y),
    "all zero": lambda h, y: (np.zeros_like(h), y),
    "means coincide": lambda h, y: (np.concatenate((h, h)), np.repeat([0, 1], len(y))),
    "infinite": lambda h, y: (np.where(np.arange(len(y))[:, None] == 2, np.inf, h), y),
    "not a number": lambda h, y: (np.where(np.arange(len(y))[:, None] == 2, np.nan, h), y),
}


@pytest.mark.parametrize("case", DEGENERATE)
def test_what_is_not_defined_is_not_a_number(case: str) -> None:
    h, y, _ = problem()
    h, y = DEGENERATE[case](h, y)
    assert np.isnan(numbers(h, y)).all()


def test_scores_and_weights_without_meaning() -> None:
    h, y, scores = problem()
    scores[3] = np.nan
    values = numbers(h, y, scores, weight=np.ones((2, 5)))
    assert np.isnan(values).tolist() == [False, True, True, False]
