"""The numbers of a run that the rules compare.

A number is taken from the last row that holds it, unless a docstring names another row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from janus_pl.records.run import Run

# Layers whose rank is far above the number of classes. conv1 and conv2 have few columns.
MIDDLE = ("conv3", "conv4", "fc1")

RANK, VELOCITY = "effective_rank", "velocity"

T = TypeVar("T")
Quantity = Callable[[Run], float]


class At(NamedTuple):
    """A run at one of its rows."""

    run: Run
    row: int


# Runs of SGD and GD of the same seed, each at a row.
Pair = tuple[At, At]


def relative_spread(run: Run) -> float:
    """Return std/|mean| of the margins; rho changes the units of the margins, not this ratio."""
    mean = abs(run.last("margin/mean"))
    return run.last("margin/std") / mean if mean else math.inf


def mean_margin(run: Run) -> float:
    """Return mu, in the paper's units."""
    return run.last("margin/mean")


def velocity(run: Run) -> float:
    """Return the geometric mean of ||V_k dot|| over the layers; NaN if none is recorded."""
    return geometric_mean([run.last(f"velocity/{layer}") for layer in run.layers("velocity")])


def velocity_at(at: At) -> float:
    """Return the geometric mean of ||V_k dot|| over the layers at a row."""
    layers = at.run.layers(VELOCITY)
    return geometric_mean([float(at.run.rows[f"{VELOCITY}/{k}"].loc[at.row]) for k in layers])


def geometric_mean(values: Sequence[float]) -> float:
    if not values:
        return math.nan
    if min(values) <= 0:
        return 0.0
    return float(np.exp(np.mean(np.log(values))))


def middle_rank(run: Run) -> float:
    """Return the mean effective rank of the middle layers."""
    return float(np.mean([run.last(f"effective_rank/{layer}") for layer in middle(run)]))


def middle(run: Run) -> list[str]:
    """Return conv3, conv4 and fc1; of other networks, all layers but the first and the last."""
    layers = run.layers("effective_rank")
    return [layer for layer in MIDDLE if layer in layers] or layers[1:-1] or layers


def least_rank_at_start(run: Run) -> float:
    """Return the least effective rank of the middle layers in the first row."""
    return min(run.first(f"effective_rank/{layer}") for layer in middle(run))


def falls(run: Run, row: int | None = None) -> dict[str, float]:
    """Return 1 - effective rank/that at the start, by middle layer, at a row or at the end."""
    found = {}
    for layer in middle(run):
        ranks = run.rows[f"effective_rank/{layer}"]
        now = float(ranks.dropna().iloc[-1] if row is None else ranks.loc[row])
        start = run.first(f"effective_rank/{layer}")
        found[layer] = 1 - now / start if start else math.nan
    return found


def learned_mu(run: Run) -> float:
    """Return |mu| in units of the learned rho."""
    learned = abs(run.last("rho_learned"))
    return abs(run.last("margin/mean") * run.last("rho")) / learned if learned else math.inf


def clock_of(at: At, clock: str) -> float:
    return float(at.run.rows[clock].loc[at.row])


def flat(nested: Iterable[Iterable[T]]) -> list[T]:
    return [each for inner in nested for each in inner]
