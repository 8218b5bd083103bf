"""Figures 3 and 4: the velocities and ranks of the layers under SGD."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from janus_pl.records.run import Run
from janus_pl.report.figures import style
from janus_pl.report.figures.caption import bands
from janus_pl.report.figures.series import (
    Band,
    Family,
    Unavailable,
    band,
    family,
    has,
    last,
    layers,
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

PANELS = 12  # layers with a panel of their own
ACROSS = 3
BARS = "bars reach"
VELOCITY = r"$\|\dot V_k\|_F$"


def fig3(study: Study) -> Sheet:
    """Draw ||V_k dot|| over time, a panel a layer."""
    networks, shown, names = _family(study, "velocity")
    if not any(has(run, study.x) for run in shown.runs):
        raise Unavailable(f"no {study.x} in {names_of(shown.runs)}")
    panels = _spread(names)
    rows = -(-len(panels) // ACROSS)
    sheet = sheet_of(networks, style.PAGE, 0.6 + 1.45 * rows, study.x, shown.left_out)
    grid = sheet.canvas.add_gridspec(rows, ACROSS)
    axes: list[Axes] = []
    for i in range(len(panels)):
        first = axes[0] if axes else None
        axes.append(sheet.canvas.add_subplot(grid[divmod(i, ACROSS)], sharey=first))
    _over_time(sheet, axes, study, shown, "velocity", panels, VELOCITY, logarithmic=True)
    title = _title(f"{networks.dynamics} noise by layer", shown)
    sheet.canvas.suptitle(title, fontsize=8, x=0.01, ha="left", parse_math=False)
    style.legend(sheet.canvas, _handles(shown, study), 6)
    sheet.text = (
        "Norm of the velocity V̇_k of a layer's normalized weights, mean over an epoch's"
        f" minibatches, against {x_name(study.x)}; one panel a layer. {bands(shown.runs)}"
    )
    _tell_hidden(sheet, names, panels)
    return sheet


def fig4a(study: Study) -> Sheet:
    """Draw ||V_k dot|| at the end, by layer."""
    networks, shown, names = _family(study, "velocity")
    sheet, axes = _column(study, networks, shown)
    _at_end(sheet, axes, "velocity", study, shown, names, logarithmic=True)
    axes.set(ylabel=VELOCITY)
    axes.set_title(_title(f"{networks.dynamics} noise at the end", shown), parse_math=False)
    sheet.text = (
        "Norm of the velocity V̇_k of each layer's normalized weights in the run's last epoch."
        f" {bands(shown.runs, what=BARS)}"
    )
    return sheet


def fig4b(study: Study) -> Sheet:
    """Draw ranks at the end, by layer, and the effective rank over time."""
    networks, shown, names = _family(study, "effective_rank")
    panels = _spread(names)
    rows = -(-len(panels) // ACROSS)
    sheet = sheet_of(networks, style.PAGE, 2.7 + 1.3 * rows, study.x, shown.left_out)
    grid = sheet.canvas.add_gridspec(1 + rows, 2 * ACROSS, height_ratios=[1.5, *[1] * rows])
    kind, label = _counted(shown.runs)
    tolerant = layers(shown.runs, kind)
    half = ACROSS if tolerant else 2 * ACROSS
    effective = sheet.canvas.add_subplot(grid[0, :half])
    _at_end(sheet, effective, "effective_rank", study, shown, names, logarithmic=False)
    effective.set(ylabel="effective rank of $V_k$")
    effective.set_title(_title("Ranks at the end", shown))
    if tolerant:
        counted = sheet.canvas.add_subplot(grid[0, half:])
        _at_end(sheet, counted, kind, study, shown, tolerant, logarithmic=False)
        counted.set(ylabel=label)
        counted.set_title("Singular values above the tolerance, at the end")
    places = [divmod(i, ACROSS) for i in range(len(panels))]
    axes = [sheet.canvas.add_subplot(grid[1 + i, 2 * j : 2 * j + 2]) for i, j in places]
    name = "effective rank"
    _over_time(sheet, axes, study, shown, "effective_rank", panels, name, logarithmic=False)
    style.legend(sheet.canvas, _handles(shown, study, markers=True), 6)
    sheet.text = (
        "Top: effective rank exp(entropy of sigma_i/sum sigma) and number of singular values above"
        " the tolerance (the record has others), of each layer's V_k (unit Frobenius norm),"
        " last of each run."
        f" {bands(shown.runs, False, BARS)} Below, not in the paper: the effective rank against"
        f" {x_name(study.x)}. {bands(shown.runs, logarithmic=False)}"
    )
    _tell_hidden(sheet, names, panels)
    return sheet


def _family(study: Study, kind: str) -> tuple[Networks, Family, list[str]]:
    networks = study.noisy("square")
    runs = networks.runs
    drawable = [run for run in runs if layers([run], kind)]
    if not drawable:
        raise Unavailable(f"no {kind}/LAYER in {names_of(runs)}")
    found = family(drawable)
    found = found._replace(left_out=others(runs, found.runs))
    return networks, found, layers(found.runs, kind)


def _spread(names: Sequence[str]) -> list[str]:
    """Return all layers, or as many as there are panels, evenly from first to last."""
    at = np.unique(np.linspace(0, len(names) - 1, min(len(names), PANELS)).round().astype(int))
    return [names[i] for i in at]


def _column(study: Study, networks: Networks, shown: Family) -> tuple[Sheet, Axes]:
    rows = -(-len(shown.groups) // 3)
    sheet = sheet_of(networks, style.COLUMN, 2.4 + 0.14 * rows, study.x, shown.left_out)
    axes = sheet.canvas.subplots()
    style.legend(sheet.canvas, _handles(shown, study, markers=True), 3)
    return sheet, axes


def _over_time(
    sheet: Sheet,
    axes: Sequence[Axes],
    study: Study,
    shown: Family,
    kind: str,
    names: Sequence[str],
    label: str,
    logarithmic: bool,
) -> None:
    def curves(panel: Axes, layer: str, lam: float, runs: Sequence[Run], **look: Any) -> None:
        if not runs:
            return
        look = {"color": study.colours[lam], "linewidth": 0.8, **look}
        key = f"{kind}/{layer}"
        sheet.curves("time", panel, runs, key, logarithmic=logarithmic, layer=layer, **look)

    panels = list(zip(axes, names, strict=True))
    for panel, layer in panels:
        for group in shown.groups:
            curves(panel, layer, group.lam, group.sound)
    sound = [panel for panel in axes if panel.lines]
    _scale(sound, logarithmic)
    for panel, layer in panels:
        for group in shown.groups:
            curves(panel, layer, group.lam, group.collapsed, linestyle=COLLAPSED)
    _scale([panel for panel in axes if panel not in sound], logarithmic and not sound)
    _label(panels, study, label, logarithmic)


def _label(panels: Sequence[tuple[Axes, str]], study: Study, label: str, logarithmic: bool) -> None:
    """Write the titles and axes of time courses; labels stand at the outer panels alone."""
    for i, (panel, layer) in enumerate(panels):
        panel.set_title(layer, parse_math=False)
        time_axis(panel, study.x)
        style.tell_empty(panel, study.x)
        if i % ACROSS == 0:
            panel.set_ylabel(label)
        elif logarithmic:  # all panels have the same axis
            panel.tick_params(labelleft=False)
        if i + ACROSS < len(panels):
            panel.set_xlabel("")
            panel.tick_params(labelbottom=False)


def _scale(panels: Sequence[Axes], logarithmic: bool) -> None:
    """Set the y axes by what is drawn so far, and keep them."""
    for panel in panels:
        if logarithmic:
            style.logarithmic(panel)
        elif panel.get_yscale() == "linear":
            style.from_zero(panel)
    for panel in panels:  # some share an axis, so keep none before all are set
        style.keep_limits(panel)


def _at_end(
    sheet: Sheet,
    axes: Axes,
    kind: str,
    study: Study,
    shown: Family,
    names: Sequence[str],
    logarithmic: bool,
) -> None:
    """Draw the last numbers by layer: a line a lambda, bars from the least to the largest."""
    count = len(shown.groups)

    def points(i: int, runs: Sequence[Run], **look: Any) -> None:
        over = _ends_of(sheet, runs, kind, names, logarithmic) if runs else None
        if over is None or not len(over.x):
            return
        # A little apart, so that the bars of several lambdas do not hide each other.
        at = over.x + 0.16 * (i - (count - 1) / 2) / count
        bars = np.stack([over.center - over.low, over.high - over.center])
        colour = study.colours[shown.groups[i].lam]
        look = {"color": colour, "marker": _marker(i), "elinewidth": 0.7, **look}
        axes.errorbar(at, over.center, bars, **look)

    for i, group in enumerate(shown.groups):
        points(i, group.sound)
    sound = [axes] if axes.lines else []
    _scale(sound, logarithmic)
    for i, group in enumerate(shown.groups):
        points(i, group.collapsed, linestyle=COLLAPSED)
    _scale([] if sound else [axes], logarithmic)
    _tell_below(axes, shown)
    turn = 45 if len(names) > 8 or max(map(len, names)) > 8 else 0
    aligned = "right" if turn else "center"
    axes.set_xticks(range(len(names)), names, rotation=turn, ha=aligned, parse_math=False)
    axes.set_xlabel("layer")


def _ends_of(
    sheet: Sheet, runs: Sequence[Run], kind: str, names: Sequence[str], logarithmic: bool
) -> Band:
    """Write the last numbers of runs that differ in seeds alone, and return their band."""
    ends = [_ends(run, kind, names) for run in runs]
    for run, values in zip(runs, ends, strict=True):
        for at in values.index.get_level_values(0):
            layer = names[int(at)]
            sheet.add("end", run, f"{kind}/{layer}", values[(at, 0)], layer=layer)
    over = band([values for values in ends if len(values)], logarithmic)
    if len(over.x):
        named = [names[int(at)] for at in over.x]
        sheet.add_band("end", runs, f"{kind}/LAYER", over, layer=named)
    return over


def _tell_below(axes: Axes, shown: Family) -> None:
    """Say which lambdas are wholly below the axis, where runs that ended as f = 0 may be."""
    low, high = axes.get_ylim()
    lams = [group.lam for group in shown.groups if group.collapsed]
    points = [line.get_ydata() for line in axes.lines if line.get_linestyle() != "-"]
    if not lams or not points or np.max(np.concatenate(points)) >= low:
        return
    if axes.get_yscale() == "log":  # room for the words
        axes.set_ylim(low * (low / high) ** 0.15, high)
    said = ", ".join(f"λ = {style.number(lam)}" for lam in lams)
    axes.text(0.02, 0.02, f"below, f = 0: {said}", transform=axes.transAxes, color="0.3")


def _ends(run: Run, kind: str, names: Sequence[str]) -> pd.Series:
    found = {(i, 0): last(run, f"{kind}/{layer}") for i, layer in enumerate(names)}
    series = pd.Series(found, dtype=float)
    return series[np.isfinite(series.to_numpy(float))]


def _marker(i: int) -> str:
    return style.MARKERS[i % len(style.MARKERS)]


def _handles(shown: Family, study: Study, markers: bool = False) -> list[Any]:
    return [
        entry(group, study, _marker(i) if markers else None) for i, group in enumerate(shown.groups)
    ]


def _title(what: str, shown: Family) -> str:
    return f"{what}, {shown.batch}, square loss"


def _counted(runs: Sequence[Run]) -> tuple[str, str]:
    """Return rank and label at the largest relative tolerance, where falling ranks show first."""
    pattern = re.compile(r"(rank_relative_([^/]+))/.")
    kinds = {
        found[1]: found[2] for run in runs for key in run.rows if (found := pattern.match(key))
    }
    numbers = {kind: float(given) for kind, given in kinds.items() if _is_number(given)}
    if not numbers:
        return "rank", rf"#$\{{\sigma_i>${_tolerance(runs)}$\}}$"
    kind = max(numbers, key=lambda name: numbers[name])
    return kind, rf"#$\{{\sigma_i>{numbers[kind]:g}\,\sigma_1\}}$"


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\d+(\.\d+)?(e-?\d+)?", text) is not None


def _tolerance(runs: Sequence[Run]) -> str:
    for callback in runs[0].options.get("trainer.callbacks") or ():
        given = callback.get("init_args", {}) if isinstance(callback, dict) else {}
        if isinstance(given.get("tolerance"), int | float):
            return style.number(given["tolerance"])
    return "tolerance"


def _tell_hidden(sheet: Sheet, names: Sequence[str], panels: Sequence[str]) -> None:
    if len(panels) < len(names):
        sheet.notes.append(
            f"{len(panels)} of {len(names)} layers have a panel: {', '.join(panels)}."
        )
