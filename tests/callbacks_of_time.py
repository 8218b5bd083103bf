"""The noise and the drift of a window as NumPy finds them, and those of a row."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def expected(series: list[Array], mean: bool) -> tuple[float, float]:
    """The noise and the drift of a window: a line through each value by `polyfit`."""
    x, t = np.stack(series), np.arange(len(series))
    slope, start = np.polyfit(t, x, 1)
    rest = ((x - start - np.outer(t, slope)) ** 2).sum(0) / (len(t) - 2)
    gather = np.mean if mean else np.sum
    return float(np.sqrt(gather(rest))), float(np.sqrt(gather((slope * len(t)) ** 2)))


def of_noise(row: dict[str, Any]) -> dict[str, float]:
    """The numbers of a row that are noise in time."""
    return {k: v for k, v in row.items() if k.startswith("noise_time/")}
