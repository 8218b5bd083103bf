"""Runs as the figures take them: families, groups of seeds, curves and their bands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from janus_pl.errors import UsageError
from janus_pl.records.families import Varied, families, is_zero_function, lambda_of, seed_of
from janus_pl.records.run import STEP, Run, natural, ordered

AXES = {"epoch": "epoch", STEP: "step", "eta_t": "accumulated learning rate ηt"}
QUANTILES = ("q05", "q95")


class Unavailable(Exception):
    """A figure that the runs do not allow; the message says which run or key is missing."""


class Group(NamedTuple):
    """Runs that differ in nothing but their seeds."""

    lam: float
    runs: list[Run]

    @property
    def sound(self) -> list[Run]:
        """The runs that axes and means over seeds follow: those that have not ended as f = 0."""
        return [run for run in self.runs if not is_zero_function(run)]

    @property
    def collapsed(self) -> list[Run]:
        """The runs that ended as f = 0: their numbers are rounding errors."""
        return [run for run in self.runs if is_zero_function(run)]


class Family(NamedTuple):
    """Runs that differ in nothing but lambda and seeds, by lambda, and those left out for it."""

    groups: list[Group]
    left_out: list[Run]

    @property
    def runs(self) -> list[Run]:
        """All of them, by lambda and then by seed."""
        return [run for group in self.groups for run in group.runs]

    @property
    def batch(self) -> str:
        """The batch size, for a title."""
        return f"B = {batch_of(self.runs[0])}"


class Band(NamedTuple):
    """Several curves as one: at each x the mean over runs, the extremes, and of how many runs."""

    x: NDArray[np.float64]
    center: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    seeds: NDArray[np.int64]


def axis(x: str) -> str:
    """Return the column of a record behind the name of an x axis.

    Raises:
        UsageError: a name that is none.
    """
    name = STEP if x == "step" else x
    if name not in AXES:
        raise UsageError("--x", x, "epoch, step or eta_t")
    return name


def batch_of(run: Run) -> str:
    """Return the batch size in words: `N` for the whole training set."""
    return "N" if run.description.whole else str(run.description.batch_size)


def layers(runs: Sequence[Run], kind: str) -> list[str]:
    """Return the layers with finite numbers in any run, in the order of the forward pass."""
    found = [layer for run in runs for layer in run.layers(kind) if has(run, f"{kind}/{layer}")]
    return ordered([name for name in found if not name.endswith(QUANTILES)], runs)


def has(run: Run, key: str) -> bool:
    """Tell whether a record holds at least one finite number under a key."""
    return key in run.rows and bool(np.isfinite(run.rows[key].to_numpy(float)).any())


def last(run: Run, key: str) -> float:
    """Return the newest finite number; NaN where there is none."""
    if not has(run, key):
        return float("nan")
    values = run.rows[key].to_numpy(float)
    return float(values[np.isfinite(values)][-1])


def curve(run: Run, key: str, x: str) -> pd.Series:
    """Return the finite numbers of a key, indexed by x and by their turn at the same x."""
    if x not in run.rows or key not in run.rows:
        return _series([], [])
    at, values = (run.rows[name].to_numpy(float) for name in (x, key))
    kept = np.isfinite(at) & np.isfinite(values)
    return _series(at[kept], values[kept])


def relative_spread(run: Run, x: str) -> pd.Series:
    """Return std/|mean| of the margins: the units of the margins move with rho, this does not."""
    spread = curve(run, "margin/std", x) / curve(run, "margin/mean", x).abs()
    return spread[np.isfinite(spread.to_numpy(float))]


def band(curves: Sequence[pd.Series], logarithmic: bool) -> Band:
    """Return the mean, the smallest and the largest of the runs at each x.

    On logarithmic axes the mean is the geometric one. Runs without a number at an x do not count
    there, nor do values of zero or less on logarithmic axes.
    """
    table = pd.concat(curves, axis=1).sort_index() if curves else pd.DataFrame()
    values = table.to_numpy(float)
    if logarithmic:
        values = np.where(values > 0, values, np.nan)
    kept = np.isfinite(values).any(axis=1) if values.size else np.zeros(0, bool)
    values, x = values[kept], table.index.get_level_values(0).to_numpy(float)[kept]
    if not len(x):
        empty = np.zeros(0)
        return Band(empty, empty, empty, empty, np.zeros(0, np.int64))
    low, high = np.nanmin(values, axis=1), np.nanmax(values, axis=1)
    if logarithmic:
        center = np.exp(np.nanmean(np.log(values), axis=1))
    else:
        center = np.nanmean(values, axis=1)
    # Rounding may carry a mean of equal numbers past them.
    return Band(x, np.clip(center, low, high), low, high, np.isfinite(values).sum(axis=1))


def family(runs: Sequence[Run], varied: Varied = "lambda", like: Run | None = None) -> Family:
    """Return the runs of most lambdas, then most runs, that differ in lambda and seeds alone.

    Args:
        runs: at least one, of one dynamics and loss.
        varied: what the family may differ in from `like`, beside lambda and seeds.
        like: a run whose family is taken first, where it has one among these.
    """
    found = families(runs, "lambda")
    best = max(found, key=lambda some: _rank(some, varied, like))
    by_lambda: dict[float, list[Run]] = {}
    for run in best:
        by_lambda.setdefault(lambda_of(run), []).append(run)
    groups = [Group(lam, sorted(by_lambda[lam], key=_seed_order)) for lam in sorted(by_lambda)]
    chosen = {id(run) for run in best}
    return Family(groups, [run for run in runs if id(run) not in chosen])


def alike(run: Run, other: Run | None, varied: Varied) -> bool:
    """Tell whether two runs differ in nothing but lambda, seeds and what is varied."""
    return other is not None and len(families([run, other], "lambda", varied)) == 1


def seeds(runs: Iterable[Run]) -> list[str]:
    """Return the seeds of some runs, each once; weights/samples if the two differ."""
    names = []
    for run in sorted(runs, key=_seed_order):
        weights, samples = seed_of(run)
        names.append(f"{weights}" if samples in (weights, None) else f"{weights}/{samples}")
    return list(dict.fromkeys(names))


def _series(x: object, values: object) -> pd.Series:
    index = _index(np.asarray(x, float).tobytes())
    return pd.Series(np.asarray(values, float), index=index)


@lru_cache(maxsize=256)
def _index(x: bytes) -> pd.MultiIndex:
    """Return the index of all curves over the same x, whose making takes longer than theirs."""
    at = np.frombuffer(x)
    turn = pd.Series(at).groupby(at).cumcount().to_numpy()
    return pd.MultiIndex.from_arrays([at, turn])


def _seed_order(run: Run) -> tuple[list[tuple[bool, int, str]], str, str]:
    weights, samples = seed_of(run)
    return natural(f"{weights}/{samples}"), run.name, run.id


def _rank(some: Sequence[Run], varied: Varied, like: Run | None) -> tuple[bool, int, int]:
    return alike(some[0], like, varied), len({lambda_of(run) for run in some}), len(some)
