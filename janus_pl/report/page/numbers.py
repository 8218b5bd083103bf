"""Numbers as the page holds them: few digits, few points, and nothing that is not JSON."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

DIGITS = 6


def rounded(value: float, digits: int = DIGITS) -> float | int | None:
    """Return a number to some significant digits, a whole one without its `.0`; None if not finite.

    >>> rounded(1.23456789e-8), rounded(27.0), rounded(float("nan"))
    (1.23457e-08, 27, None)
    """
    if not math.isfinite(value):
        return None
    short = float(f"{value:.{digits}g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short


def all_rounded(values: NDArray[Any], digits: int = DIGITS) -> list[float | int | None]:
    """Return `rounded` of many numbers, many times as fast.

    >>> all_rounded(np.array([1.23456789e-8, 27.0, np.nan])), all_rounded(np.array([0.5, 1e7]))
    ([1.23457e-08, 27, None], [0.5, 10000000])
    """
    # The exceptions: numbers that are none in JSON, and whole ones that `%g` writes with an e.
    if not (np.abs(values) < 10.0**digits / 2).all():
        return [rounded(value, digits) for value in values.tolist()]
    text = ",".join([f"%.{digits}g"] * len(values)) % tuple(values.tolist())
    found: list[float | int | None] = json.loads(f"[{text}]")
    return found


def thinned(count: int, most: int) -> NDArray[np.int64]:
    """Choose which of some points in a row to keep: two thirds evenly, the others log-spaced.

    Early points are where curves bend; the even ones keep what happens late.

    Args:
        count: how many there are.
        most: how many may stay, at least 2.

    Returns:
        Rising indices, (<= most,); the first and the last point are among them.

    >>> thinned(1000, 6).tolist(), thinned(3, 6).tolist()
    ([0, 1, 333, 666, 999], [0, 1, 2])
    """
    if count <= most:
        return np.arange(count)
    even = np.linspace(0, count - 1, most - most // 3)
    early = np.geomspace(1, count - 1, most // 3)
    return np.unique(np.round(np.concatenate([even, early])).astype(np.int64))


def inline_json(value: Any) -> str:
    """Return compact JSON that cannot end the script element that it stands in.

    >>> inline_json(["</script>", 1.5])
    '["\\\\u003c/script>",1.5]'
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    return text.replace("<", "\\u003c")
