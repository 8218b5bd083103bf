"""Figures 1, 2 and 5: the margins of all training samples, one row for each lambda."""

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
    COLLAPSED,
    Networks,
    Study,
    entry,
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
    " differ by powers of ten (the CSV has the counts). One row a lambda, in it one outline a seed;"
    " to the right the geometric mean over seeds of std/|mean|."
)
NEEDLES = 0.05  # of an axis: the least width of a rectangle around needles
ROW = 0.9  # height of a fullest bin, of the distance between rows


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
        low, high = _seen(region, axes.get_xlim())
        top = sum(group.lam <= ZOOMED for group in shown.groups)
        box = Rectangle((low, 0), high - low, top, fill=False, ec=style.ZOOM, lw=0.9, zorder=9)
        axes.add_patch(box)
        end = axes.get_xlim()[1]
        room = high < end - 0.1 * (end - low)
        look: dict[str, Any] = {"color": style.ZOOM, "ha": "left" if room else "right"}
        place = ((high, top), (2, -6)) if room else ((min(high, end), top), (-2, -8))
        axes.annotate("(b)", *place, textcoords="offset points", **look)
        sheet.text += " The blue rectangle has in it the region of Figure 1b."
    return sheet


def fig1b(study: Study) -> Sheet:
    """Draw the margins at small lambda from near, and their relative spread over time."""
    networks = study.noisy("square")
    shown = _with_histograms(networks)
    region = _region(shown)
    if region is None:
        least = f"lambda <= {style.number(ZOOMED)}"
        raise Unavailable(f"no {networks.dynamics} run at {least} with {HISTOGRAM}")
    rows = -(-len(shown.groups) // 6)
    sheet = sheet_of(networks, style.PAGE, 2.6 + 0.14 * rows, study.x, shown.left_out)
    near, time = sheet.canvas.subplots(1, 2)
    small = [group for group in shown.groups if group.lam <= ZOOMED]
    _rows(sheet, near, "zoom", study, small, region)
    near.set_title(f"Zoom of (a): λ ≤ {style.number(ZOOMED)}")
    _spreads(sheet, time, study, shown)
    style.legend(sheet.canvas, [entry(group, study) for group in shown.groups], 6)
    sheet.text = HOW + (
        f" Left: the blue rectangle of Figure 1a, where lambda is at most {style.number(ZOOMED)}."
        f" Right: std/|mean| of the margins against {x_name(study.x)}. {bands(shown.runs)}"
    )
    return sheet


def _spreads(sheet: Sheet, axes: Axes, study: Study, shown: Family) -> None:
    def curves(group: Group, runs: Sequence[Run], **look: Any) -> None:
        if not runs:
            return
        found = [relative_spread(run, study.x) for run in runs]
        look = {"color": study.colours[group.lam], "linewidth": 0.9, **look}
        sheet.curves("spread", axes, runs, SPREAD, found, **look)

    for group in shown.groups:
        curves(group, group.sound)
    if axes.lines:
        style.logarithmic(axes)
        style.keep_limits(axes)
    for group in shown.groups:
        curves(group, group.collapsed, linestyle=COLLAPSED)
    if axes.get_yscale() == "linear":
        style.logarithmic(axes)
    axes.set(ylabel="std/mean of the margins, σ/|μ|")
    time_axis(axes, study.x)
    axes.set_title("Spread of the margins during training")
    style.tell_empty(axes, "margin/std over margin/mean")


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
    height = max(1.9, 0.7 + 0.23 * len(shown.groups))
    sheet = sheet_of(networks, style.COLUMN, height, study.x, shown.left_out)
    axes = sheet.canvas.subplots()
    _rows(sheet, axes, "margins", study, shown.groups, _range(shown.groups, 0.05))
    sheet.text = HOW
    return sheet, axes, shown


def _rows(
    sheet: Sheet,
    axes: Axes,
    panel: str,
    study: Study,
    groups: Sequence[Group],
    within: tuple[float, float] | None,
) -> None:
    """Draw a row for each lambda, the smallest lowest, with its relative spread at the right."""
    for i, group in enumerate(groups):
        axes.axhline(i, color="0.85", linewidth=0.5, zorder=0)
        for run in group.runs:
            _outline(sheet, axes, panel, run, study.colours[group.lam], i)
        said = _relative(group)
        axes.text(1.02, i, said, transform=axes.get_yaxis_transform(), va="bottom")
    axes.text(1.02, len(groups), "σ/μ", transform=axes.get_yaxis_transform(), va="bottom")
    axes.set(xlim=within, xlabel=MARGIN, ylim=(0, len(groups) + 0.05))
    style.plain_ticks(axes)
    axes.set_yticks(range(len(groups)), [style.number(group.lam) for group in groups])
    axes.set_ylabel("λ, samples per bin")


def _outline(sheet: Sheet, axes: Axes, panel: str, run: Run, colour: Any, row: int) -> None:
    shown = final_histogram(run)
    assert shown is not None
    sheet.add_histogram(panel, run, HISTOGRAM, shown)
    heights = row + ROW * shown.counts / shown.counts.max()
    look = {"baseline": row, "color": colour}
    axes.stairs(heights, shown.edges, fill=True, alpha=0.3, linewidth=0, **look)
    axes.stairs(heights, shown.edges, linewidth=0.8, **look)


def _seen(region: tuple[float, float], axis: tuple[float, float]) -> tuple[float, float]:
    """Return a region, or what is around it and wide enough to show the needles in it."""
    low, high = region
    lacking = max(0.0, NEEDLES * (axis[1] - axis[0]) - (high - low)) / 2
    return low - lacking, high + lacking


def _region(shown: Family) -> tuple[float, float] | None:
    """Return the range of the margins at small lambda, wider by a tenth on both sides; or None."""
    return _range([group for group in shown.groups if group.lam <= ZOOMED], 0.1)


def _range(groups: Sequence[Group], wider: float) -> tuple[float, float] | None:
    """Return the range of the margins of the sound runs, or else of all; None without any."""
    sound = [run for group in groups for run in group.sound]
    runs = sound or [run for group in groups for run in group.runs]
    edges = [shown.edges for shown in map(final_histogram, runs) if shown]
    if not edges:
        return None
    low, high = min(e[0] for e in edges), max(e[-1] for e in edges)
    return low - wider * (high - low), high + wider * (high - low)


def _relative(group: Group) -> str:
    """Return std/|mean| of the sound seeds of a lambda in print, or that it ended as f = 0."""
    if not group.sound:
        return "f = 0"
    ratios = [last(r, "margin/std") / abs(last(r, "margin/mean") or np.nan) for r in group.sound]
    positive = [ratio for ratio in ratios if ratio > 0]
    return f"{np.exp(np.mean(np.log(positive))):.1e}" if positive else ""


def _errors(sheet: Sheet, runs: Sequence[Run]) -> None:
    errors = [last(run, "train/error") for run in runs if has(run, "train/error")]
    if errors:
        sheet.notes.append(f"Training error: {min(errors):.2g} to {max(errors):.2g}.")
