"""Intervals, levels and answers, against scipy.stats and by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from janus_pl.verify.decide import (
    Answer,
    Region,
    decide,
    interval,
    levels,
    p_value,
    power,
    seeds_needed,
    sign_flip,
)

ABOVE, BELOW, WITHIN = Region(0.5, math.inf), Region(-math.inf, 0.5), Region(-0.5, 0.5)
EFFECTS = (0.9, 1.4, 0.7, 1.1, 1.6, 0.8)


@pytest.mark.parametrize("count", [2, 3, 6])
@pytest.mark.parametrize("level", [0.05, 0.005])
def test_the_interval_is_student_s(count: int, level: float) -> None:
    some = EFFECTS[:count]
    expected = stats.t.interval(1 - level, count - 1, np.mean(some), stats.sem(some))
    assert interval(some, level) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("shift", [-1.0, -0.5, 0.0, 0.7])
def test_with_one_end_p_is_that_of_the_t_test(shift: float) -> None:
    some = [effect + shift for effect in EFFECTS]
    expected = stats.ttest_1samp(some, 0.5).pvalue
    assert p_value(some, ABOVE) == pytest.approx(expected, rel=1e-9)
    assert p_value(some, BELOW) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("region", [ABOVE, BELOW, WITHIN])
@pytest.mark.parametrize("shift", [-3.0, -1.5, -1.0, -0.6, 0.0, 1.0])
@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
def test_p_is_the_least_level_whose_interval_decides(
    region: Region, shift: float, scale: float
) -> None:
    some = [scale * (effect - 1) + 1 + shift for effect in EFFECTS]
    p = p_value(some, region)

    def decides(level: float) -> bool:
        low, high = interval(some, level)
        inside = region.low <= low and high <= region.high
        return inside or high < region.low or low > region.high

    assert not decides(p * 0.999)
    assert p >= 0.999 or decides(min(1.0, p * 1.001))


def test_answers_are_by_the_side_on_which_the_interval_lies() -> None:
    low = [effect - 2 for effect in EFFECTS]
    assert [decide(EFFECTS, region, 0.05) for region in (ABOVE, BELOW, WITHIN)] == [
        Answer.SUPPORTED,
        Answer.CONTRADICTED,
        Answer.CONTRADICTED,
    ]
    assert [decide(low, region, 0.05) for region in (ABOVE, BELOW)] == [
        Answer.CONTRADICTED,
        Answer.SUPPORTED,
    ]
    near = [0.1 * (effect - 1) for effect in EFFECTS]
    assert decide(near, WITHIN, 0.05) is Answer.SUPPORTED
    wide = [5 * (effect - 1) for effect in EFFECTS]
    assert {decide(wide, region, 0.05) for region in (ABOVE, BELOW, WITHIN)} == {Answer.UNDECIDED}
    assert decide(EFFECTS, ABOVE, p_value(EFFECTS, ABOVE) * 0.99) is Answer.UNDECIDED


@pytest.mark.parametrize(
    ("value", "region", "answer"),
    [
        (1.0, ABOVE, Answer.SUPPORTED),
        (0.0, ABOVE, Answer.CONTRADICTED),
        (0.5, ABOVE, Answer.UNDECIDED),
        (0.0, WITHIN, Answer.SUPPORTED),
        (-0.5, WITHIN, Answer.UNDECIDED),
        (-1.0, WITHIN, Answer.CONTRADICTED),
    ],
)
def test_seeds_without_any_deviation_decide_unless_they_lie_on_the_bound(
    value: float, region: Region, answer: Answer
) -> None:
    assert decide([value] * 5, region, 0.01) is answer


def test_the_sign_flips_are_all_tried() -> None:
    """Against every choice of signs, one by one."""
    centered = [effect - 0.5 for effect in EFFECTS]
    sums = [
        abs(sum(s * c for s, c in zip(signs, centered, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(centered))
    ]
    expected = np.mean([each >= abs(sum(centered)) - 1e-12 for each in sums])
    assert sign_flip(EFFECTS, ABOVE) == expected == 2 / 2**6
    mixed = (0.2, 0.9, 0.4, 0.7, 0.3)
    assert 0.5 < sign_flip(mixed, ABOVE) <= 1
    assert math.isnan(sign_flip([1.0] * 21, ABOVE))


def test_levels_are_holm_s() -> None:
    """Against the adjusted p values of statsmodels' definition, computed here."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        ps = [*map(float, rng.uniform(0, 0.1, rng.integers(1, 8)) ** 1.5)]
        order = np.argsort(ps)
        adjusted, running = np.empty(len(ps)), 0.0
        for place, which in enumerate(order):
            running = max(running, min(1.0, (len(ps) - place) * ps[which]))
            adjusted[which] = running
        decided = [p <= level for p, level in zip(ps, levels(ps), strict=True)]
        assert decided == [bool(a <= 0.05) for a in adjusted]
    assert levels([]) == []


def test_seeds_needed_is_the_first_number_at_which_the_interval_clears_the_bound() -> None:
    some = (0.2, 1.3, 0.1, 1.4, 0.9)
    needed = seeds_needed(some, ABOVE, 0.01)
    assert needed is not None
    assert needed > 5
    gap, spread = np.mean(some) - 0.5, np.std(some, ddof=1)

    def half(count: int) -> float:
        return float(stats.t.isf(0.005, count - 1) * spread / math.sqrt(count))

    assert half(needed) < gap <= half(needed - 1)
    assert seeds_needed((0.4, 0.6, 0.5, 0.49, 0.51), ABOVE, 0.05) is None
    assert seeds_needed([0.5] * 5, ABOVE, 0.05) is None


@pytest.mark.parametrize(
    ("effect", "deviation", "region"),
    [(1.5, 0.6, ABOVE), (0.0, 0.5, BELOW), (0.1, 0.2, WITHIN), (0.5, 1.0, ABOVE)],
)
def test_power_is_the_share_of_samples_that_support(
    effect: float, deviation: float, region: Region
) -> None:
    rng = np.random.default_rng(1)
    trials, seeds, level = 4000, 8, 0.02
    drawn = rng.normal(effect, deviation, (trials, seeds))
    seen = np.mean([decide(row, region, level) is Answer.SUPPORTED for row in drawn])
    stated = power(effect, deviation, region, level, seeds)
    error = 3.5 * math.sqrt(max(stated * (1 - stated), 1e-3) / trials)
    assert stated - error <= seen
    if math.isinf(region.low) or math.isinf(region.high):
        assert seen <= stated + error
