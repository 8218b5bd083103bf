"""Neural collapse of K classes: slow numpy, sample by sample, and simplices in closed form."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from janus_pl.observables.classes import ClassCollapse
from janus_pl.observables.collapse import decisions

COUNTS = {2: (4, 9), 3: (5, 5, 5), 10: (3, 1, 4, 1, 5, 9, 2, 6, 5, 3)}
NC2 = ("nc2_equinorm", "nc2_equiangular", "nc2_equiangular_std", "nc2_simplex")


def problem(counts: tuple[int, ...], d: int = 12) -> Any:
    """Features (N, d), classes, outputs (N, K) and the weight (K, d) of some last layer."""
    rng = np.random.default_rng(len(counts))
    k = len(counts)
    y = rng.permutation(np.repeat(np.arange(k), counts))
    spread = np.linspace(0.3, 1.5, d)
    h = rng.normal(size=(len(y), d)) * spread + rng.normal(size=(k, d))[y] + 2
    return h, y, rng.normal(size=(len(y), k)) + 2 * np.eye(k)[y], rng.normal(size=(k, d)) + 1


def found(h: Any, y: Any, outputs: Any, weight: Any = None, chunk: int = 7) -> dict[str, float]:
    """The numbers, from chunks."""
    parts = [torch.as_tensor(np.asarray(a)).split(chunk) for a in (h, y, outputs)]
    collapse = ClassCollapse(outputs.shape[1])
    for features, labels, _ in zip(*parts, strict=True):
        collapse.add(features, labels)
    collapse.centre()
    for features, labels, f in zip(*parts, strict=True):
        collapse.spread(features, labels, decisions(f))
    own = None if weight is None else torch.as_tensor(weight)
    return {name: float(value) for name, value in collapse.numbers(own).items()}


def oracle(h: Any, y: Any, outputs: Any, weight: Any) -> dict[str, float]:
    """The definitions, with loops over samples, classes and pairs, and whole covariances."""
    n, d = h.shape
    k = outputs.shape[1]
    mu = sum(h) / n
    means = [sum(h[i] for i in range(n) if y[i] == c) / sum(y == c) for c in range(k)]
    within, between = np.zeros((d, d)), np.zeros((d, d))
    for i in range(n):
        deviation = h[i] - means[y[i]]
        within += np.outer(deviation, deviation) / n
        between += np.outer(means[y[i]] - mu, means[y[i]] - mu) / n
    m = np.array(means) - sum(means) / k
    norms = [np.sqrt(sum(row**2)) for row in m]
    pairs = list(itertools.combinations(range(k), 2))
    cosines = [m[a] @ m[b] / (norms[a] * norms[b]) for a, b in pairs]
    gram, ideal = m @ m.T, (np.eye(k) - np.ones((k, k)) / k) / np.sqrt(k - 1)
    w = weight - weight.mean(0)
    nearest = [int(np.argmin([np.linalg.norm(row - mean) for mean in means])) for row in h]
    variances = [
        np.mean([np.sum((h[i] - means[c]) ** 2) for i in range(n) if y[i] == c]) for c in range(k)
    ]
    return {
        "nc1": np.trace(within @ np.linalg.pinv(between, rcond=1e-10)) / k,
        "nc2_equinorm": np.std(norms) / np.mean(norms),
        "nc2_equiangular": np.mean([abs(cosine + 1 / (k - 1)) for cosine in cosines]),
        "nc2_equiangular_std": np.std(cosines),
        "nc2_simplex": np.linalg.norm(gram / np.linalg.norm(gram) - ideal),
        "nc3": np.linalg.norm(w / np.linalg.norm(w) - m / np.linalg.norm(m)),
        "nc4": np.mean([nearest[i] != int(np.argmax(outputs[i])) for i in range(n)]),
        "cdnv": np.mean(
            [
                (variances[a] + variances[b]) / (2 * np.sum((means[a] - means[b]) ** 2))
                for a, b in pairs
            ]
        ),
    }


def simplex(k: int, d: int, a: float = 1.0) -> Any:
    """Means (K, d) of norm a in a random orientation: an exact simplex."""
    m = np.sqrt(k / (k - 1)) * (np.eye(k) - 1 / k)
    basis, _ = np.linalg.qr(np.random.default_rng(k).normal(size=(d, k)))
    return a * m @ basis.T


def noisy(means: Any, s: float) -> tuple[Any, Any]:
    """2 d samples a class, mu_c +- sqrt(d) s e_j: their covariance is s^2 I, their mean mu_c."""
    d = means.shape[1]
    steps = np.sqrt(d) * s * np.concatenate((np.eye(d), -np.eye(d)))
    h = (means[:, None] + steps).reshape(-1, d)
    return h, np.repeat(np.arange(len(means)), 2 * d)


@pytest.mark.parametrize("k", COUNTS)
def test_numbers_are_the_definitions(k: int) -> None:
    given = problem(COUNTS[k])
    expected = oracle(*given)
    assert found(*given) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert 0 < expected["nc4"] < 1
    if k > 2:
        assert all(expected[name] > 0.01 for name in NC2)


def test_classes_of_unequal_size_count_by_their_samples_in_nc1_alone() -> None:
    h, y, outputs, weight = problem(COUNTS[10])
    # Twice the samples of class 5: means, angles and Var_c stay, the covariances do not.
    more = np.concatenate((np.arange(len(y)), np.flatnonzero(y == 5)))
    once, twice = found(h, y, outputs, weight), found(h[more], y[more], outputs[more], weight)
    same = {*NC2, "nc3", "cdnv"}
    assert {k: twice[k] for k in same} == pytest.approx({k: once[k] for k in same}, rel=1e-9)
    assert twice["nc1"] != pytest.approx(once["nc1"], rel=0.02)
    assert twice["nc1"] == pytest.approx(
        oracle(h[more], y[more], outputs[more], weight)["nc1"], rel=1e-9
    )


@pytest.mark.parametrize("k", [2, 3, 10])
@pytest.mark.parametrize("a", [1.0, 1e-6])
def test_an_exact_simplex_with_known_noise_has_closed_forms(k: int, a: float) -> None:
    d, s = 14, 0.3 * a
    means = simplex(k, d, a) + 5 * a
    h, y = noisy(means, s)
    numbers = found(h, y, np.eye(k)[y], 3 * (means - means.mean(0)) + a)
    assert all(numbers[name] < 1e-12 for name in (*NC2, "nc3"))
    assert numbers["nc1"] == pytest.approx((k - 1) ** 2 * s**2 / (k * a**2), rel=1e-9)
    # Var_c = d s^2, and two of a simplex are sqrt(2 K/(K - 1)) a apart.
    assert numbers["cdnv"] == pytest.approx(d * s**2 * (k - 1) / (2 * k * a**2), rel=1e-9)


def test_means_that_are_no_simplex_have_no_nc2_of_zero() -> None:
    """The negative control: one class mean moved, or turned, is seen."""
    means = simplex(5, 8)
    longer, turned = means.copy(), means.copy()
    longer[2] *= 1.1
    turned[2] = means[2] + 0.1 * means[3]
    for moved in (longer, turned):
        h, y = noisy(moved, 0.1)
        numbers = found(h, y, np.eye(5)[y], means)
        assert all(numbers[name] > 1e-3 for name in (*NC2, "nc3"))
    # Orthogonal vectors: cosines of 0 with the global mean left in are no simplex before centring.
    h, y = noisy(np.eye(5, 8), 0.1)
    assert all(found(h, y, np.eye(5)[y])[name] < 1e-12 for name in NC2)


def test_collapsed_features_are_zero() -> None:
    means = simplex(4, 6)
    y = np.array([0, 1, 2, 3, 3, 1])
    numbers = found(means[y], y, np.eye(4)[y], means)
    assert max(numbers.values()) < 1e-12


def test_chunks_units_and_a_common_offset_do_not_matter() -> None:
    h, y, outputs, weight = problem(COUNTS[10])
    h = np.round(h * 64) / 64
    expected = found(h, y, outputs, weight)
    for other in (
        found(h, y, outputs, weight, chunk=100),
        found(1e-9 * h, y, outputs, weight),
        found((h + 2**14).astype(np.float32), y, outputs, weight),
    ):
        assert other == pytest.approx(expected, rel=1e-8)


def test_means_in_a_plane_leave_the_other_directions_out() -> None:
    """Four means on a line: S_B has rank 1, and noise across the line counts for nothing."""
    line = np.outer([-3.0, -1.0, 1.0, 3.0], np.eye(6)[0])
    h, y = noisy(line, 0.2)
    # S_B = 5 on the line.
    assert found(h, y, np.eye(4)[y])["nc1"] == pytest.approx(0.04 / 5 / 4, rel=1e-9)


@pytest.mark.parametrize(("spread", "counts"), [(1e-6, True), (1e-8, False)])
def test_a_direction_counts_down_to_a_ten_millionth_of_the_largest(
    spread: float, counts: bool
) -> None:
    means = np.zeros((3, 6))
    means[:, 0] = [-1.0, 0.0, 1.0]  # S_B has 2/3 along the first axis
    means[:, 1] = spread * np.array([1.0, -2.0, 1.0])  # and 2 spread^2 along the second
    h, y = noisy(means, 1e-9)
    expected = 1e-18 / 3 * (3 / 2 + (1 / (2 * spread**2) if counts else 0))
    assert found(h, y, np.eye(3)[y])["nc1"] == pytest.approx(expected, rel=1e-5)


def test_a_class_without_samples_is_named() -> None:
    collapse = ClassCollapse(4)
    collapse.add(torch.randn(3, 2), torch.tensor([0, 3, 0]))
    assert collapse.missing() == [1, 2]
    with pytest.raises(ValueError, match="no sample"):
        collapse.centre()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_defined_is_not_a_number(bad: float) -> None:
    h, y, outputs, weight = problem(COUNTS[3])
    broken = h.copy()
    broken[2, 1] = bad
    assert np.isnan([*found(broken, y, outputs, weight).values()]).all()
    assert np.isnan([*found(np.full_like(h, 0.1), y, outputs, weight).values()]).all()
    outputs[4, 0] = bad
    undefined = {k for k, v in found(h, y, outputs, weight).items() if np.isnan(v)}
    assert undefined == {"nc4"}
