"""The two faces side by side: SGD beside the runs that lack its minibatches or its weight decay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from janus_pl.records.families import families, is_zero_function, lambda_of
from janus_pl.records.late import WINDOW
from janus_pl.records.run import Run
from janus_pl.report.figures import style
from janus_pl.report.figures.caption import bands
from janus_pl.report.figures.series import (
    Unavailable,
    batch_of,
    curve,
    layers,
    relative_spread,
)
from janus_pl.report.figures.sheet import Sheet
from janus_pl.report.figures.study import Study, names_of, others, time_axis

RANK, VELOCITY = "effective_rank", "velocity"
WITHOUT_DECAY = {"color": "#009E73", "linestyle": (0, (1, 1))}  # Okabe and Ito's green, dotted


class Side(NamedTuple):
    """Runs that differ in nothing but their seeds, and how they are drawn."""

    name: str
    runs: list[Run]
    look: dict[str, Any]


def janus(study: Study) -> Sheet:
    """Draw margins, velocities and ranks of SGD, of SGD without decay and of GD over time.

    The upper row is over epochs, the lower one over the accumulated learning rate eta t, by which
    GD has come less far: it takes one step where SGD takes N/B.
    """
    sides = sides_of(study.runs)
    shown = [run for side in sides for run in side.runs]
    networks = [run for run in study.runs if run.description.is_network]
    sheet = Sheet(style.canvas(style.PAGE, 4.1), left_out=others(networks, shown))
    grid = sheet.canvas.subplots(2, 3, sharey="col")
    for row, x in zip(grid, ("epoch", "eta_t"), strict=True):
        for axes, panel in zip(row, PANELS, strict=True):
            _panel(sheet, axes, panel, sides, x)
    for axes, panel in zip(grid[0], PANELS, strict=True):
        axes.set_title(panel.title)
    handles = [style.handle(side.name, **side.look) for side in sides]
    style.legend(sheet.canvas, handles, len(handles))
    sheet.text = (
        "Left: std/|mean| of the margins of all training samples. Middle: noise, the mean of"
        " ||V̇_k|| over an epoch's minibatches, geometric mean over layers. Right: effective rank"
        " of V_k as a share of that at the start, geometric mean over layers. Above over epochs,"
        f" below over the accumulated learning rate eta t. {bands(shown)}"
    )
    return sheet


def sides_of(runs: Sequence[Run]) -> list[Side]:
    """Return SGD with decay, SGD without, and GD with the decay of the first, where they are.

    All of them have the same options but for lambda, batch size and seeds. Of several such
    families the one with most sides is taken, then the one with most runs; of several lambdas the
    largest that GD has, too.

    Raises:
        Unavailable: There is no SGD run at lambda > 0 with one of the others beside it.
    """
    networks = [run for run in runs if run.description.is_network]
    found = [_sides(family) for family in families(networks, "lambda", "batch")]
    best = max(found, key=_size, default=[])
    if len(best) < 2:
        few = f"no SGD run at lambda > 0 with GD or lambda = 0 beside it in {names_of(networks)}"
        raise Unavailable(few if networks else "no network")
    return best


def layer_mean(run: Run, kind: str, x: str) -> pd.Series:
    """Return the geometric mean over the layers of a key against x; empty if no layer has it."""
    curves = [curve(run, f"{kind}/{layer}", x) for layer in layers([run], kind)]
    return _geometric(curves)


def rank_share(run: Run, x: str) -> pd.Series:
    """Return the effective rank over that at the start, geometric mean over the layers."""
    curves = [curve(run, f"{RANK}/{layer}", x) for layer in layers([run], RANK)]
    return _geometric([values / values.iloc[0] for values in curves if len(values)])


def late(values: pd.Series) -> float:
    """Return the geometric mean over the last fifth of the epochs; NaN without a number."""
    epochs = values.index.get_level_values(0)
    kept = values[epochs >= (1 - WINDOW) * epochs.max()] if len(values) else values
    kept = kept[kept > 0]
    return float(np.exp(np.log(kept).mean())) if len(kept) else float("nan")


class Panel(NamedTuple):
    """One column of the figure."""

    key: str
    title: str
    label: str
    values: Callable[[Run, str], pd.Series]
    logarithmic: bool


PANELS = (
    Panel("margins", "Margins: their spread", "σ/|μ| of the margins", relative_spread, True),
    Panel(
        VELOCITY,
        "Noise",
        r"$\|\dot V_k\|_F$",
        lambda run, x: layer_mean(run, VELOCITY, x),
        True,
    ),
    Panel(RANK, "Rank", "effective rank / start", rank_share, False),
)


def _panel(sheet: Sheet, axes: Axes, panel: Panel, sides: Sequence[Side], x: str) -> None:
    for side in sides:
        found = [panel.values(run, x) for run in side.runs]
        look = {"linewidth": 1.2, **side.look}
        sheet.curves(panel.key, axes, side.runs, panel.key, found, panel.logarithmic, x=x, **look)
    axes.set(ylabel=panel.label)
    if panel.logarithmic:
        style.logarithmic(axes)
    else:
        style.from_zero(axes)
    time_axis(axes, x)
    style.tell_empty(axes, panel.title.lower())


def _sides(family: Sequence[Run]) -> list[Side]:
    sgd = [run for run in family if run.dynamics == "SGD"]
    gd = [run for run in family if run.dynamics == "GD"]
    lams = {lambda_of(run) for run in sgd if lambda_of(run) > 0}
    sound = {lambda_of(run) for run in sgd if not is_zero_function(run)}
    lams = lams & sound or lams
    both = lams & {lambda_of(run) for run in gd}
    if not lams:
        return []
    lam = max(both or lams)
    batch = max({run.description.batch_size for run in sgd}, key=lambda size: _count(sgd, size))
    sgd = [run for run in sgd if run.description.batch_size == batch]
    given = (
        ([run for run in sgd if lambda_of(run) == lam], style.look("SGD")),
        ([run for run in sgd if lambda_of(run) == 0], WITHOUT_DECAY),
        ([run for run in gd if lambda_of(run) == lam], style.look("GD")),
    )
    return [Side(_named(runs), _sound(runs), dict(look)) for runs, look in given if runs]


def _sound(runs: list[Run]) -> list[Run]:
    """Return the runs that have not ended as f = 0; all if there is none."""
    return [run for run in runs if not is_zero_function(run)] or runs


def _count(runs: Sequence[Run], size: object) -> int:
    return sum(run.description.batch_size == size for run in runs)


def _named(runs: Sequence[Run]) -> str:
    run = runs[0]
    lam = style.number(lambda_of(run))
    return f"{run.dynamics}, B = {batch_of(run)}, λ = {lam}"


def _size(sides: Sequence[Side]) -> tuple[int, int]:
    return len(sides), sum(len(side.runs) for side in sides)


def _geometric(curves: Sequence[pd.Series]) -> pd.Series:
    table = pd.concat([c for c in curves if len(c)], axis=1) if any(map(len, curves)) else None
    if table is None:
        return pd.Series(dtype=float, index=pd.MultiIndex.from_arrays([[], []]))
    values = table[(table > 0).all(axis=1)]
    return np.exp(np.log(values).mean(axis=1))
