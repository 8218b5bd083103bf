"""The numbers at the end of a run: means over a window of its rows.

The window is the last fifth of the run, or of the common reach of two runs by another clock. A last
row alone is one draw of a noise that spans orders of magnitude.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from janus_pl.records.run import STEP, Run

CLOCKS = {"epochs": "epoch", "steps": STEP, "eta_t": "eta_t"}
WINDOW = 0.2  # of the epochs, or of another clock
# Layers whose rank is far above the number of classes. conv1 and conv2 have few columns.
MIDDLE = ("conv3", "conv4", "fc1")


class Window(NamedTuple):
    """The rows of a run by which a claim is judged.

    Attributes:
        run: The run.
        rows: These rows.
    """

    run: Run
    rows: pd.DataFrame

    def mean(self, key: str) -> float:
        """Return the mean of a key over the rows that have it; NaN if none has."""
        values = self.rows[key].dropna() if key in self.rows else []
        return float(np.mean(values)) if len(values) else math.nan


def window(
    run: Run, clock: str = "epoch", end: float | None = None, start: float | None = None
) -> Window:
    """Return the rows in the last fifth of a clock's time, or after another start.

    Args:
        run: The run.
        clock: The column of the clock.
        end: The time at the window's end; None is the run's end.
        start: The time that the window begins after; None is four fifths of the end.
    """
    times = run.rows[clock]
    last = times.max() if end is None else end
    first = (1 - WINDOW) * last if start is None else start
    inside = (times > first * (1 + 1e-9)) & (times <= last * (1 + 1e-9))
    return Window(run, run.rows[inside])


def until(run: Run, epoch: float) -> Run:
    """Return a run as it was at the end of an epoch."""
    return replace(run, rows=run.rows[run.rows["epoch"] <= epoch])


def spread(at: Window) -> float:
    """Return std/|mean| of the margins; rho changes the units of the margins, not this ratio."""
    if not {"margin/std", "margin/mean"} <= {*at.rows}:
        return math.nan
    ratios = (at.rows["margin/std"] / at.rows["margin/mean"].abs()).dropna()
    return float(ratios.mean()) if len(ratios) else math.nan


def velocity(at: Window) -> float:
    """Return the geometric mean of ||V_k dot|| over the layers."""
    return geometric_mean([at.mean(f"velocity/{k}") for k in at.run.layers("velocity")])


def rank(at: Window) -> float:
    """Return the geometric mean of the effective ranks of the middle layers."""
    return geometric_mean([at.mean(f"effective_rank/{k}") for k in middle(at.run)])


def geometric_mean(values: Sequence[float]) -> float:
    """Return the geometric mean; 0 if a value is 0 or less, NaN if there is none."""
    if not values or any(map(math.isnan, values)):
        return math.nan
    if min(values) <= 0:
        return 0.0
    return float(np.exp(np.mean(np.log(values))))


def middle(run: Run) -> list[str]:
    """Return conv3, conv4 and fc1; of other networks, all layers but the first and the last."""
    layers = run.layers("effective_rank")
    if run.description.kind == "network":
        found = [layer for layer in MIDDLE if layer in layers]
        if found:
            return found
    return layers[1:-1] or layers
