"""Effects over seeds, with their intervals."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit  # scipy.stats takes half a second to import

CONFIDENCE = 0.95


class Estimate(NamedTuple):
    """An effect over seeds.

    Attributes:
        name: The name of the effect.
        value: The mean over seeds; for ratios, the geometric mean.
        low: The lower end of its 95% interval (Student's t over seeds); None for a single seed.
        high: The upper end of the interval; None for a single seed.
        seeds: The number of seeds.
    """

    name: str
    value: float
    low: float | None
    high: float | None
    seeds: int

    def __str__(self) -> str:
        interval = "" if self.low is None else f" [{self.low:.3g}, {self.high:.3g}]"
        return f"{self.value:.3g}{interval}"


def mean(name: str, values: Sequence[float]) -> Estimate:
    """Return the mean of one value a seed, with its interval.

    >>> mean("fall", [0.25, 0.75]).value, mean("fall", [0.5]).low
    (0.5, None)
    """
    center, n = float(np.mean(values)), len(values)
    if n < 2:
        return Estimate(name, center, None, None, n)
    quantile = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2))
    half = quantile * float(np.std(values, ddof=1)) / math.sqrt(n)
    return Estimate(name, center, center - half, center + half, n)


def ratio(name: str, values: Sequence[float]) -> Estimate:
    """Return the geometric mean of one positive value a seed; the interval is of the logarithms.

    >>> round(ratio("spread", [2.0, 8.0]).value, 12)
    4.0

    Raises:
        ValueError: A value has no logarithm. Rules ask `is_positive` first.
    """
    if not all(map(is_positive, values)):
        raise ValueError(f"{name}: got {[*values]}, allowed: finite ratios above 0")
    logarithms = mean(name, [math.log(value) for value in values])
    ends = [None if end is None else _exp(end) for end in logarithms[2:4]]
    return Estimate(name, math.exp(logarithms.value), ends[0], ends[1], len(values))


def is_positive(value: float) -> bool:
    """Tell whether a value is finite and above 0, so that it may be a part of a ratio."""
    return math.isfinite(value) and value > 0


def _exp(exponent: float) -> float:
    """Return e^exponent, or infinity if two seeds are so far apart that it overflows."""
    return math.exp(exponent) if exponent < math.log(sys.float_info.max) else math.inf
