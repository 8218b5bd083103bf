"""The edge of stability: sharpness beside its limit, and the spikes of the loss beneath."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray

from janus_pl.observables.events import THRESHOLD, Events
from janus_pl.records.families import families, lambda_of
from janus_pl.records.run import Run
from janus_pl.report.figures import style
from janus_pl.report.figures.series import Unavailable, batch_of, curve, has
from janus_pl.report.figures.sheet import Sheet
from janus_pl.report.figures.study import Study, names_of, others, time_axis, x_name

HESSIAN, SCALED = "sharpness/hessian", "sharpness/preconditioned"
LOSS = "train/loss_running"
SPIKE: dict[str, Any] = {
    "color": "#E69F00",
    "alpha": 0.25,
    "linewidth": 0,
}  # Okabe and Ito's orange
SMALL = {"color": "0.45", "linestyle": (0, (1, 1.5)), "linewidth": 1.0}  # of small batches
LIMIT = {"color": "black", "linestyle": (0, (5, 1.5)), "linewidth": 1.0}
BATCH = {"color": "#CC79A7", "linestyle": (0, (3, 1, 1, 1)), "linewidth": 0.9}  # reddish purple


class Spike(NamedTuple):
    """A spike of the running loss, in epochs.

    Attributes:
        begin: The first epoch above the threshold.
        end: The first one after it that is not, or the last epoch of the run.
        ratio: Sharpness over its limit at the last look before it; NaN without one.
    """

    begin: float
    end: float
    ratio: float


def edge(study: Study) -> Sheet:
    """Draw sharpness with its limit over time, the running loss beneath, and the spikes in both.

    A run on minibatches is on the left and one on the full batch on the right, where both are.
    """
    runs = runs_of(study.runs)
    networks = [run for run in study.runs if run.description.is_network]
    width = style.PAGE if len(runs) > 1 else style.COLUMN
    sheet = Sheet(style.canvas(width, 3.7), study.x, left_out=others(networks, runs))
    grid = sheet.canvas.subplots(
        2, len(runs), squeeze=False, sharex="col", sharey="row", height_ratios=(1.4, 1)
    )
    for above, below, run in zip(*grid, runs, strict=True):
        _column(sheet, above, below, run, study.x)
    for axes in grid[:, 0]:
        style.logarithmic(axes)
    # Of a full batch the curvature along the gradient falls far below, where nothing else is.
    lowest = min(curve(run, HESSIAN, study.x).min() for run in runs)
    if lowest > 0:
        grid[0, 0].set_ylim(bottom=max(lowest / 2, grid[0, 0].get_ylim()[0]))
    grid[0, 0].set(ylabel="largest curvature")
    grid[1, 0].set(ylabel="running loss")
    style.legend(sheet.canvas, _handles(runs), 3 * len(runs))
    small = " and, dotted, 2(1 - beta)/eta, that of small batches with momentum (arXiv 2604.14108)"
    small *= any(map(_of_small_batches, runs))
    sheet.text = (
        "Above: largest eigenvalue of the Hessian of the descended loss, of the preconditioned one"
        " of an adaptive optimizer, and batch sharpness, with the limit above which steps on a"
        f" quadratic diverge{small}. Below: mean loss over the samples as seen, against"
        f" {x_name(study.x)}."
        f" Shaded: spikes of that loss. {' '.join(map(_said, runs))}"
    )
    return sheet


def runs_of(runs: Sequence[Run]) -> list[Run]:
    """Return a run on minibatches and one on the full batch with sharpness, or one of them.

    Both have the same options but for lambda, batch size and length, if there are two such runs.
    Of several the one with most looks is taken.

    Raises:
        Unavailable: No network has sharpness.
    """
    networks = [run for run in runs if run.description.is_network]
    seen = [run for run in networks if has(run, HESSIAN)]
    if not seen:
        why = f"no {HESSIAN} in {names_of(networks)}: callbacks.Sharpness records it"
        raise Unavailable(why if networks else "no network")
    pairs = [_both(family) for family in families(seen, "lambda", "batch", "epochs")]
    best = max(pairs, key=lambda pair: (len(pair), sum(map(_looks, pair))))
    return best if len(best) > 1 else _both(seen)


def spikes_of(run: Run) -> list[Spike]:
    """Return the spikes that the run recorded, or else those of its running loss."""
    losses = curve(run, LOSS, "epoch")
    epochs = losses.index.get_level_values(0).to_numpy(float)
    if has(run, "event/count"):
        found = [(float(b), float(e)) for b, e in _recorded(run)]
    else:
        events = Events(THRESHOLD)
        for epoch, loss in zip(epochs, losses, strict=True):
            events.add(epoch, loss)
        found = [
            (each.begin, epochs[-1] if each.end is None else each.end) for each in events.found
        ]
    return [Spike(begin, end, _before(run, begin)) for begin, end in found]


def _both(runs: Sequence[Run]) -> list[Run]:
    """Return the run with most looks on minibatches, and the one on the full batch."""
    sides = [[run for run in runs if run.description.whole == whole] for whole in (False, True)]
    return [max(side, key=_looks) for side in sides if side]


def _looks(run: Run) -> int:
    return len(curve(run, HESSIAN, "epoch"))


def _recorded(run: Run) -> NDArray[np.float64]:
    if not has(run, "event/begin"):
        return np.zeros((0, 2))
    table = run.rows[["event/begin", "event/end"]].to_numpy(float)
    return table[np.isfinite(table).all(axis=1)]


def _before(run: Run, epoch: float) -> float:
    ratios = curve(run, "sharpness/ratio", "epoch")
    earlier = ratios[ratios.index.get_level_values(0) < epoch]
    return float(earlier.iloc[-1]) if len(earlier) else float("nan")


def _column(sheet: Sheet, above: Axes, below: Axes, run: Run, x: str) -> None:
    for panel, axes, shown in (("sharpness", above, _curves(run, x)), ("loss", below, _loss(run))):
        for key, values, look in shown:
            found = curve(run, key, x) if values is None else values
            sheet.curves(panel, axes, [run], key, [found], shaded=False, **look)
        _shade(axes, run, x)
        style.tell_empty(axes, panel)
    for spike in spikes_of(run):
        ends = {"x": spike.begin, "x_end": spike.end, "x_name": "epoch"}
        sheet.add("spikes", run, "sharpness/ratio", spike.ratio, **ends)
    lam = style.number(lambda_of(run))
    above.set_title(f"{run.dynamics}, B = {batch_of(run)}, λ = {lam}")
    time_axis(below, x)


Shown = list[tuple[str, pd.Series | None, dict[str, Any]]]


def _curves(run: Run, x: str) -> Shown:
    own = {"linewidth": 1.3, **style.look(run.dynamics), "linestyle": "-"}
    shown: Shown = [("sharpness/limit", None, LIMIT)]
    if _of_small_batches(run):
        own_limit = 2 * (1 - float(run.description.momentum or 0)) / curve(run, "learning_rate", x)
        shown.append(("learning_rate", own_limit, SMALL))
    shown += [("sharpness/batch", None, BATCH), (HESSIAN, None, own)]
    return [*shown, (SCALED, None, {**own, "color": style.ELSE})]


def _loss(run: Run) -> Shown:
    return [(LOSS, None, {**style.look(run.dynamics), "linestyle": "-", "linewidth": 0.8})]


def _of_small_batches(run: Run) -> bool:
    """Tell whether batch sharpness has a limit of its own, 2(1 - beta)/eta (arXiv 2604.14108)."""
    known = run.description
    momentum = known.optimizer == "SGD" and bool(known.momentum)
    return momentum and not known.whole and has(run, "learning_rate")


def _shade(axes: Axes, run: Run, x: str) -> None:
    epochs, at = run.rows["epoch"].to_numpy(float), run.rows[x].to_numpy(float)
    for spike in spikes_of(run):
        axes.axvspan(*np.interp([spike.begin - 0.5, spike.end - 0.5], epochs, at), **SPIKE)


def _handles(runs: Sequence[Run]) -> list[Any]:
    handles = [
        style.handle(f"Hessian, {run.dynamics}", **{**style.look(run.dynamics), "linestyle": "-"})
        for run in runs
    ]
    if any(has(run, SCALED) for run in runs):
        handles.append(style.handle("preconditioned", color=style.ELSE))
    if any(has(run, "sharpness/batch") for run in runs):
        handles.append(style.handle("batch sharpness", **BATCH))
    if any(has(run, "sharpness/limit") for run in runs):
        handles.append(style.handle("limit", **LIMIT))
    if any(map(_of_small_batches, runs)):
        handles.append(style.handle("2(1 - β)/η, small B", **SMALL))
    if any(map(spikes_of, runs)):
        handles.append(style.handle("spike", **{**SPIKE, "linewidth": 6}))
    return handles


def _said(run: Run) -> str:
    """Return the ratio of sharpness to its limit at spikes and elsewhere, in one sentence."""
    ratios = curve(run, "sharpness/ratio", "epoch")
    who = f"{run.dynamics}, B = {batch_of(run)}"
    if not len(ratios):
        return f"{who}: the limit is not known."
    spikes = spikes_of(run)
    at = ratios.index.get_level_values(0).to_numpy(float)
    within = np.zeros(len(at), bool)
    for spike in spikes:
        within |= (at >= spike.begin) & (at < spike.end)
    before = np.array([s.ratio for s in spikes if np.isfinite(s.ratio)])
    parts = [f"{_range(ratios.to_numpy()[~within])} at looks outside of spikes"]
    if len(before):
        several = f"{len(before)} spikes" if len(before) > 1 else "the spike"
        parts.append(f"{_range(before)} at the last look before {several}")
    if within.any():
        parts.append(f"{_range(ratios.to_numpy()[within])} at looks within")
    if not spikes:
        parts.append("there is no spike of the loss")
    return f"Sharpness over its limit under {who}: {', '.join(parts)}."


def _range(values: NDArray[np.float64]) -> str:
    """Return the median of some numbers, and their extremes."""
    if not len(values):
        return "none"
    if len(values) == 1:
        return f"{values[0]:.3g}"
    return f"{np.median(values):.3g} ({values.min():.3g} to {values.max():.3g})"
