"""Figures 1, 2 and 5: the margins of all training samples, one colour for each lambda."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from janus_pl.records.families import CONVERGED_ERROR, Varied
from janus_pl.records.run import Histogram, Run
from janus_pl.report.figures import style
from janus_pl.report.figures.caption import bands
from janus_pl.report.figures.series import (
    Family,
    Group,
    Unavailable,
    alike,
    family,
    has,
    last,
    relative_spread,
)
from janus_pl.report.figures.sheet import Sheet
from janus_pl.report.figures.study import (
    Networks,
    Study,
    names_of,
    others,
    sheet_of,
    time_axis,
    x_name,
)

HISTOGRAM = "margin/hist"
SPREAD = "margin/std / |margin/mean|"
ZOOMED = 1e-4  # the largest lambda of Fig. 1b
MARGIN = r"margin $\bar f_n$"
HOW = (
    "Margins f̄_n = y_n f_W(x_n)/rho of all training samples, each run's last histogram; its bins"
    " lie between its own extremes, and heights are relative to its fullest bin, since the widths"
    " differ by powers of ten (the CSV has the counts). One outline a seed; the legend has the"
    " geometric mean over seeds of std/|mean|."
)


def final_histogram(run: Run) -> Histogram | None:
    """Return the newest histogram of the margins that can be drawn; None if there is none."""
    for shown in reversed(run.histograms.get(HISTOGRAM, ())):
        edges, counts = np.asarray(shown.edges, float), np.asarray(shown.counts, float)
        fits = len(edges) == len(counts) + 1 and np.isfinite(edges).all()
        if fits and np.isfinite(counts).all() and counts.sum() > 0 and (np.diff(edges) > 0).all():
            return Histogram(shown.epoch, counts, edges)
    return None


def fig1a(study: Study) -> Sheet:
    """Draw the margins under SGD and the square loss; a blue rectangle marks Fig. 1b.

    If there is no SGD run, this figure and those like it show another optimizer and say so.
    """
    networks = study.noisy("square")
    sheet, axes, shown = _histograms(study, networks, _with_histograms(networks))
    title = f"Margins under {networks.dynamics}, {shown.batch}, square loss"
    axes.set_title(title, parse_math=False)
    if region := _region(shown):
        low, high = region
        box = Rectangle((low, 0), high - low, 1.06, fill=False, ec=style.ZOOM, lw=0.9, zorder=9)
        axes.add_patch(box)
        axes.annotate("(b)", (high, 1.05), (2, 0), textcoords="offset points", color=style.ZOOM)
        sheet.text += " The blue rectangle is the region of Figure 1b."
    return sheet


def fig1b(study: Study) -> Sheet:
    """Draw the margins at small lambda from near, and their relative spread over time."""
    networks = study.noisy("square")
    shown = _with_histograms(networks)
    region = _region(shown)
    if region is None:
        least = f"lambda <= {style.number(ZOOMED)}"
        raise Unavailable(f"no {networks.dynamics} run at {least} with {HISTOGRAM}")
    rows = -(-len(shown.groups) // 4)
    sheet = sheet_of(networks, style.PAGE, 2.6 + 0.14 * rows, study.x, shown.left_out)
    near, time = sheet.canvas.subplots(1, 2)
    for group in shown.groups:
        for run in group.runs:
            _outline(sheet, near, "zoom", run, study.colours[group.lam], within=region)
        spreads = [relative_spread(run, study.x) for run in group.runs]
        look = {"color": study.colours[group.lam], "linewidth": 0.9}
        sheet.curves("spread", time, group.runs, SPREAD, spreads, **look)
    near.set(xlim=region, xlabel=MARGIN, ylabel="samples per bin (peak = 1)", ylim=(0, 1.13))
    near.set_title(rf"Zoom of (a): $\lambda\leq${style.number(ZOOMED)}")
    style.plain_ticks(near)
    time.set(ylabel=r"std/mean of the margins, $\sigma/|\mu|$")
    style.logarithmic(time)
    time_axis(time, study.x)
    time.set_title("Spread of the margins during training")
    style.tell_empty(time, "margin/std over margin/mean")
    handles = [_handle(group, study) for group in shown.groups]
    style.legend(sheet.canvas, handles, 4)
    sheet.text = HOW + (
        f" Left: the blue rectangle of Figure 1a, where lambda is at most {style.number(ZOOMED)}."
        f" Right: std/|mean| of the margins against {x_name(study.x)}. {bands(shown.runs)}"
    )
    return sheet


def fig2a(study: Study) -> Sheet:
    """Draw the margins under GD with the hyperparameters of Fig. 1."""
    networks = study.deep("GD", "square")
    try:
        like = _with_histograms(study.deep("SGD", "square")).runs[0]
    except Unavailable:
        like = None
    sheet, axes, shown = _histograms(study, networks, _with_histograms(networks, like))
    if alike(shown.runs[0], like, "batch"):
        axes.set_title("Margins under GD, B = N, else as Figure 1")
    else:
        axes.set_title("Margins under GD, B = N, square loss")
        sheet.notes.append("There are no SGD runs of the same options beside them.")
    _errors(sheet, shown.runs)
    return sheet


def fig2b(study: Study) -> Sheet:
    """Draw the margins of the GD runs that have converged."""
    networks = study.deep("GD", "square")
    runs = networks.runs
    converged = [run for run in runs if last(run, "train/error") < CONVERGED_ERROR]
    if not converged:
        least = min((last(run, "train/error") for run in runs), key=lambda e: (e != e, e))
        raise Unavailable(
            f"no GD run with train/error below {CONVERGED_ERROR:g}; the least is {least:.2g}"
        )
    drawn = networks._replace(runs=converged)
    sheet, axes, shown = _histograms(study, drawn, _with_histograms(drawn))
    axes.set_title(f"Margins under converged GD, error < {CONVERGED_ERROR:.0%}")
    _errors(sheet, shown.runs)
    twins = fig2a(study).runs
    if all(any(run is twin for twin in twins) for run in sheet.runs):
        sheet.notes.append("They are among the runs of Figure 2a: with its options GD converges.")
    far = others(runs, converged)
    if far:
        named = ", ".join(f"{run.name} ({last(run, 'train/error'):.2g})" for run in far)
        sheet.notes.append(f"Not converged, by train/error, and left out: {named}.")
    return sheet


def fig5a(study: Study) -> Sheet:
    """Draw the margins under SGD and cross entropy."""
    networks = study.noisy("cross_entropy")
    sheet, axes, shown = _histograms(study, networks, _with_histograms(networks))
    title = f"Margins under {networks.dynamics}, {shown.batch}, cross entropy"
    axes.set_title(title, parse_math=False)
    return sheet


def fig5b(study: Study) -> Sheet:
    """Draw the margins under SGD and the square loss, else as in Fig. 5a."""
    networks = study.noisy("square")
    try:
        like = _with_histograms(study.noisy("cross_entropy")).runs[0]
    except Unavailable:
        like = None
    sheet, axes, shown = _histograms(study, networks, _with_histograms(networks, like, "loss"))
    title = f"Margins under {networks.dynamics}, {shown.batch}, square loss"
    axes.set_title(title, parse_math=False)
    if like is not None and not alike(shown.runs[0], like, "loss"):
        sheet.notes.append("More than the loss differs from the runs of Figure 5a.")
    return sheet


def _with_histograms(
    networks: Networks, like: Run | None = None, varied: Varied = "batch"
) -> Family:
    drawable = [run for run in networks.runs if final_histogram(run)]
    if not drawable:
        raise Unavailable(f"no {HISTOGRAM} in {names_of(networks.runs)}")
    found = family(drawable, varied, like)
    return found._replace(left_out=others(networks.runs, found.runs))


def _histograms(study: Study, networks: Networks, shown: Family) -> tuple[Sheet, Axes, Family]:
    rows = -(-len(shown.groups) // 2)
    sheet = sheet_of(networks, style.COLUMN, 2.2 + 0.14 * rows, study.x, shown.left_out)
    axes = sheet.canvas.subplots()
    for group in shown.groups:
        for run in group.runs:
            _outline(sheet, axes, "margins", run, study.colours[group.lam])
    axes.set(xlabel=MARGIN, ylabel="samples per bin (peak = 1)", ylim=(0, 1.13))
    style.plain_ticks(axes)
    style.legend(sheet.canvas, [_handle(group, study) for group in shown.groups], 2)
    sheet.text = HOW
    return sheet, axes, shown


def _outline(
    sheet: Sheet,
    axes: Axes,
    panel: str,
    run: Run,
    colour: Any,
    within: tuple[float, float] | None = None,
) -> None:
    shown = final_histogram(run)
    assert shown is not None
    low, high = within or (-np.inf, np.inf)
    if shown.edges[-1] < low or shown.edges[0] > high:
        return
    sheet.add_histogram(panel, run, HISTOGRAM, shown)
    heights = shown.counts / shown.counts.max()
    axes.stairs(heights, shown.edges, color=colour, fill=True, alpha=0.3, linewidth=0)
    axes.stairs(heights, shown.edges, color=colour, linewidth=0.8)


def _region(shown: Family) -> tuple[float, float] | None:
    """Return the range of the margins at small lambda, wider by a tenth on both sides; or None."""
    small = [final_histogram(run) for group in shown.groups for run in group.runs]
    lams = [group.lam for group in shown.groups for _ in group.runs]
    edges = [h.edges for h, lam in zip(small, lams, strict=True) if h and lam <= ZOOMED]
    if not edges:
        return None
    low, high = min(e[0] for e in edges), max(e[-1] for e in edges)
    return low - 0.1 * (high - low), high + 0.1 * (high - low)


def _handle(group: Group, study: Study) -> Any:
    label = rf"$\lambda$ = {style.number(group.lam)}"
    ratios = [last(r, "margin/std") / abs(last(r, "margin/mean") or np.nan) for r in group.runs]
    positive = [ratio for ratio in ratios if ratio > 0]
    if positive:
        label += rf": $\sigma/\mu$ = {np.exp(np.mean(np.log(positive))):.1e}"
    return style.handle(label, color=study.colours[group.lam], linewidth=2.5)


def _errors(sheet: Sheet, runs: Sequence[Run]) -> None:
    errors = [last(run, "train/error") for run in runs if has(run, "train/error")]
    if errors:
        sheet.notes.append(f"Training error: {min(errors):.2g} to {max(errors):.2g}.")
