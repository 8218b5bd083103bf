"""The numbers of a run that claims are about, as means over a window of its rows.

The window is the last fifth of the run, or of the common reach of two runs by another clock. A last
row alone is one draw of a noise that spans orders of magnitude.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from janus_pl.records.run import STEP, Run

WINDOW = 0.2  # of the epochs, or of another clock
CLOCKS = {"epochs": "epoch", "steps": STEP, "eta_t": "eta_t"}
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


class Quantity(NamedTuple):
    """A positive number of a window, or several, one a layer.

    Attributes:
        words: What it is called.
        of: The function of a window.
        keys: The keys that it needs; `KIND/` stands for a key of each layer.
    """

    words: str
    of: Callable[[Window], float]
    keys: Sequence[str]


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


def top_layer(at: Window) -> float:
    """Return ||V_k dot|| of the last layer over the least of the others."""
    *others, top = (at.mean(f"velocity/{k}") for k in at.run.layers("velocity"))
    return top / min(others) if others and min(others) > 0 else math.nan


def equilibrium(at: Window) -> float:
    """Return |mu - (M + lambda) rho - common mode|/|mu|, in units of the learned rho (Eq. 13)."""
    residual = at.mean("equilibrium/residual") - at.mean("equilibrium/common_mode")
    learned = abs(at.mean("rho_learned"))
    mu = abs(at.mean("margin/mean") * at.mean("rho")) / learned if learned else math.inf
    return abs(residual) / mu if mu else math.nan


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
    return [layer for layer in MIDDLE if layer in layers] or layers[1:-1] or layers


def by_layer(at: Window, kind: str) -> list[float]:
    """Return the mean of `kind/LAYER` for each middle layer."""
    return [at.mean(f"{kind}/{k}") for k in middle(at.run)]


def rank_lost(run: Run) -> tuple[float, float] | None:
    """Return the effective rank lost within spikes of the loss and between them, up to the end.

    It is the mean over the middle layers; None if the run did not record it.
    """
    kinds = [
        [run.last(f"event/rank_{where}/{layer}") for layer in middle(run)]
        for where in ("within", "between")
    ]
    if any(math.isnan(value) for values in kinds for value in values):
        return None
    within, between = (float(np.mean(values)) for values in kinds)
    return within, between


QUANTITIES = {
    "velocity": Quantity("||V_k dot||", velocity, ("velocity/",)),
    "rank": Quantity("effective rank", rank, ("effective_rank/",)),
    "spread": Quantity("std/|mean| of the margins", spread, ("margin/std", "margin/mean")),
    "mean_margin": Quantity("mean margin", lambda at: at.mean("margin/mean"), ("margin/mean",)),
    "top_layer": Quantity(
        "||V_k dot|| of the last layer over the least of the others", top_layer, ("velocity/",)
    ),
    "equilibrium": Quantity(
        "|mu - (M + lambda) rho|/|mu|",
        equilibrium,
        *[("equilibrium/residual", "equilibrium/common_mode", "margin/mean", "rho", "rho_learned")],
    ),
}


def lacking(run: Run, quantity: Quantity) -> str | None:
    """Return the first key of a quantity that a run does not have; None if it has all."""
    for key in quantity.keys:
        there = run.layers(key.removesuffix("/")) if key.endswith("/") else run.has(key)
        if not there:
            return f"{key}*" if key.endswith("/") else key
    return None
