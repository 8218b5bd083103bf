"""The numbers of a run that claims are about, as means over a window of its rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from janus_pl.records.late import CLOCKS as CLOCKS
from janus_pl.records.late import Window, geometric_mean, middle, rank, spread, velocity
from janus_pl.records.run import Run

RISE = 10  # of the running loss over its least so far


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


def rank_kept(at: Window) -> float:
    """Return the effective rank over that at the start, geometric mean over the middle layers.

    1 says that training has not changed the ranks. The start is the run's first recorded rank.
    """
    first = {k: at.run.first(f"effective_rank/{k}") for k in middle(at.run)}
    kept = [
        at.mean(f"effective_rank/{k}") / start if start > 0 else math.nan
        for k, start in first.items()
    ]
    return geometric_mean(kept)


def edge(at: Window) -> float:
    """Return the largest curvature over the limit of stable steps, as `Sharpness` records it."""
    return at.mean("sharpness/ratio")


def first_rise(at: Window) -> float:
    """Return the first epoch of the window whose running loss is above ten times the least so far.

    NaN if there is none.
    """
    losses = at.rows.set_index("epoch")["train/loss_running"].dropna()
    risen = losses.index[losses > RISE * losses.cummin()]
    return float(risen[0]) if len(risen) else math.nan


def edge_before_rise(at: Window) -> float:
    """Return the largest curvature over its limit at the last look before the loss rises.

    The rise is `first_rise`. 1 says that the loss rises where the limit is crossed; NaN if it does
    not rise.
    """
    looks = at.run.rows.set_index("epoch")["sharpness/ratio"].dropna()
    before = looks[looks.index < first_rise(at)]
    return float(before.iloc[-1]) if len(before) else math.nan


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
    "rank_kept": Quantity("effective rank over that at the start", rank_kept, ("effective_rank/",)),
    "spread": Quantity("std/|mean| of the margins", spread, ("margin/std", "margin/mean")),
    "mean_margin": Quantity("mean margin", lambda at: at.mean("margin/mean"), ("margin/mean",)),
    "top_layer": Quantity(
        "||V_k dot|| of the last layer over the least of the others", top_layer, ("velocity/",)
    ),
    "edge": Quantity("largest curvature over its limit", edge, ("sharpness/ratio",)),
    "edge_before_rise": Quantity(
        "largest curvature over its limit before the loss rises tenfold",
        edge_before_rise,
        ("sharpness/ratio", "train/loss_running"),
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
