r"""The decisions: where an effect's interval lies, at a level that many claims share.

An effect is one number a seed, such as a log ratio of two runs of that seed. A claim says in which
region their mean lies. Student's t interval of the mean decides: the claim is supported if the
interval lies in the region, contradicted if it lies outside, else undecided.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import nctdtr, stdtr, stdtrit  # scipy.stats takes half a second to import

ALPHA = 0.05  # the chance that any of a file's primary claims is decided wrongly
MOST_SEEDS = 1000  # beyond that it is only said that more are needed
MOST_FLIPS = 20  # 2^n signs are tried one by one

Values = Sequence[float] | NDArray[np.float64]


class Answer(StrEnum):
    """The four answers to a claim."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    UNDECIDED = "undecided"
    UNTESTABLE = "not testable"


class Region(NamedTuple):
    """Where a claim says that the mean effect lies: between two numbers, ends included.

    Attributes:
        low: The lower end; minus infinity if there is none.
        high: The upper end; infinity if there is none.
    """

    low: float
    high: float

    @property
    def null(self) -> float:
        """The value of no effect, which the sign-flip test asks about: the end, or the middle."""
        ends = [end for end in self if math.isfinite(end)]
        return sum(ends) / len(ends)


def interval(effects: Values, level: float) -> tuple[float, float]:
    """Return Student's t interval of the mean that leaves out the true mean at this rate.

    Args:
        effects: One number a seed, two or more.
        level: Such as 0.05 for a 95% interval.
    """
    center, error = _mean(effects)
    half = _quantile(level, len(effects)) * error
    return center - half, center + half


def p_value(effects: Values, region: Region) -> float:
    """Return the least level at which the interval decides: all inside the region, or all outside.

    For a region with one end it is the two-sided p of the t test against that end.
    """
    center, error = _mean(effects)
    if error == 0:
        return 1.0 if center in (region.low, region.high) else 0.0
    freedom = len(effects) - 1
    above_low, below_high = (center - region.low) / error, (region.high - center) / error
    inside = max(stdtr(freedom, -above_low), stdtr(freedom, -below_high))
    outside = min(stdtr(freedom, above_low), stdtr(freedom, below_high))
    return min(1.0, 2 * float(min(inside, outside)))


def sign_flip(effects: Values, region: Region) -> float:
    """Return the exact two-sided p of the sign-flip test that the effects lie around `null`.

    It is the share of the 2^n choices of signs whose sum is at least as far from 0. NaN for more
    than 20 seeds.

    >>> sign_flip([1.0, 2.0, 3.0], Region(0.0, math.inf))
    0.25
    """
    centered = np.asarray(effects, dtype=float) - region.null
    if len(centered) > MOST_FLIPS:
        return math.nan
    sums = np.zeros(1)
    for effect in centered:
        sums = np.concatenate((sums + effect, sums - effect))
    least = abs(centered.sum()) * (1 - 1e-12)
    return float(np.mean(np.abs(sums) >= least))


def levels(ps: Sequence[float], alpha: float = ALPHA) -> list[float]:
    """Return Holm's level for each of m p values: alpha/m for the least, alpha/(m - 1) next, ...

    Once one is above its level, it and all larger ones have that level, and none is decided.

    >>> [round(level, 4) for level in levels([0.001, 0.5, 0.02])]
    [0.0167, 0.05, 0.025]
    >>> [round(level, 4) for level in levels([0.04, 0.03])]
    [0.025, 0.025]
    """
    found = [alpha] * len(ps)
    stopped: float | None = None
    for place, which in enumerate(sorted(range(len(ps)), key=lambda k: ps[k])):
        own = alpha / (len(ps) - place) if stopped is None else stopped
        if ps[which] > own:
            stopped = own
        found[which] = own
    return found


def decide(effects: Values, region: Region, level: float) -> Answer:
    """Return the answer of the interval at a level."""
    if p_value(effects, region) > level:
        return Answer.UNDECIDED
    center, _ = _mean(effects)
    return Answer.SUPPORTED if region.low <= center <= region.high else Answer.CONTRADICTED


def seeds_needed(effects: Values, region: Region, level: float) -> int | None:
    """Return the least number of seeds like these at which the interval would decide.

    The mean and the deviation stay as they are. None: more than `MOST_SEEDS`.
    """
    center, error = _mean(effects)
    spread = error * math.sqrt(len(effects))
    gap = _gap(center, region)
    if spread == 0:
        return len(effects) if gap > 0 else None
    for count in range(2, MOST_SEEDS + 1):
        if _quantile(level, count) * spread / math.sqrt(count) < gap:
            return count
    return None


def power(effect: float, deviation: float, region: Region, level: float, seeds: int) -> float:
    """Return the chance of `supported` with normal effects of this mean and deviation.

    For a region with one end it is exact (noncentral t). For one with two ends it is the lower
    bound that the chances of clearing each end give (Bonferroni).
    """
    root, quantile, misses = math.sqrt(seeds), _quantile(level, seeds), 0.0
    for gap in (effect - region.low, region.high - effect):
        if math.isfinite(gap):
            misses += float(nctdtr(seeds - 1, root * gap / deviation, quantile))
    return max(0.0, 1 - misses)


def _quantile(level: float, seeds: int) -> float:
    """Return what Student's t of so many seeds exceeds in absolute value at this rate."""
    return -float(stdtrit(seeds - 1, level / 2))


def _gap(center: float, region: Region) -> float:
    """Return the distance of a mean from the nearest end of the region."""
    return min(abs(center - end) for end in region if math.isfinite(end))


def _mean(effects: Values) -> tuple[float, float]:
    """Return the mean and its standard error."""
    values = np.asarray(effects, dtype=float)
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))
