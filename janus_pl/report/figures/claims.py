"""The claims as a figure: spread, velocity and rank against lambda, SGD beside GD."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator

from janus_pl.records.effects import CONFIDENCE, is_positive, ratio
from janus_pl.records.families import lambda_of
from janus_pl.records.late import WINDOW, Window, rank, spread, velocity, window
from janus_pl.records.run import Run
from janus_pl.report.figures import style
from janus_pl.report.figures.series import Band, Family, Unavailable, alike, batch_of, family
from janus_pl.report.figures.sheet import Sheet
from janus_pl.report.figures.study import Networks, Study, names_of, others, sheet_of

MARKERS = {"SGD": "o", "GD": "s"}
APART = 0.03  # of the axis: the distance between two dynamics
LABELS = 4  # powers of ten with a label
ROOM = 0.22  # of the axis: the least distance of other labels


class Panel(NamedTuple):
    """One quantity against lambda."""

    key: str
    title: str
    label: str
    of: Callable[[Window], float]
    logarithmic: bool


PANELS = (
    Panel("spread", "Margins: their spread", "σ/|μ| of the margins", spread, True),
    Panel("velocity", "Noise", r"$\|\dot V_k\|_F$, mean over layers", velocity, True),
    Panel("rank", "Rank", "effective rank, middle layers", rank, False),
)


def claims(study: Study) -> Sheet:
    """Draw spread, velocity and rank late in training against lambda, with intervals over seeds.

    Raises:
        Unavailable: No two runs under the square loss differ in lambda.
    """
    networks, sides = _sides(study)
    shown = [run for side in sides for run in side.runs]
    if len({lambda_of(run) for run in shown}) < 2:
        raise Unavailable(f"no two lambdas in {names_of(shown)}")
    left_out = [run for side in sides for run in side.left_out]
    left_out += [run for side in sides for group in side.groups for run in group.collapsed]
    sheet = sheet_of(networks, style.PAGE, 2.3, study.x, left_out)
    places = _places(shown)
    for axes, panel in zip(sheet.canvas.subplots(1, 3), PANELS, strict=True):
        numbers = [_numbers(sheet, panel, side) for side in sides]
        beside = [_beside(places, i, len(sides)) for i in range(len(sides))]
        drawn = list(zip(sides, numbers, beside, strict=True))
        for side, found, at in drawn:
            _seeds(axes, side, found, at)
        axes.set(xlabel="λ", ylabel=panel.label)
        axes.set_title(panel.title)
        if axes.lines:
            _finish(axes, panel, places)
            for side, found, at in drawn:
                _means(sheet, axes, panel, side, found, at)
            _collapsed(axes, sides, places)
        style.tell_empty(axes, panel.title.lower())
    handles = [style.handle(_named(side), **_look(side.runs[0].dynamics)) for side in sides]
    style.legend(sheet.canvas, handles, len(handles))
    sheet.text = (
        f"Each run's mean over the last {WINDOW:.0%} of its epochs, against lambda; lambda = 0 is"
        " at the left edge, beside the logarithmic axis. Points are geometric means over seeds,"
        f" bars their {CONFIDENCE:.0%} intervals (Student's t of the logarithms), small dots the"
        " seeds. Axes follow the seeds, so a wide bar may leave its panel (the CSV has its ends); a"
        " point without a bar is of one seed. Left: std/|mean| of the margins. Middle: ||V̇_k||,"
        " geometric mean over layers. Right: effective rank of V_k, geometric mean over the layers"
        " whose rank is far above the number of classes. GD takes one step an epoch where SGD takes"
        " N/B."
    )
    return sheet


def _sides(study: Study) -> tuple[Networks, list[Family]]:
    """Return the networks on minibatches and those of GD that are like them, as far as there are.

    Raises:
        Unavailable: There is neither.
    """
    try:
        networks = study.noisy("square")
    except Unavailable:
        networks = study.deep("GD", "square")
        return networks, [_family(networks)]
    noisy = _family(networks)
    try:
        whole = study.deep("GD", "square")
    except Unavailable:
        return networks, [noisy]
    gd = family(whole.runs, "batch", noisy.runs[0])
    if not alike(gd.runs[0], noisy.runs[0], "batch"):  # of other data, or options
        return networks, [noisy._replace(left_out=[*noisy.left_out, *whole.runs])]
    return networks, [noisy, gd._replace(left_out=others(whole.runs, gd.runs))]


def _family(networks: Networks) -> Family:
    found = family(networks.runs)
    return found._replace(left_out=others(networks.runs, found.runs))


def _places(runs: Sequence[Run]) -> dict[float, float]:
    """Return the place of each lambda on the axis; 0 is a decade left of the smallest other."""
    lams = sorted({lambda_of(run) for run in runs})
    least = min((lam for lam in lams if lam > 0), default=1.0)
    return {lam: lam or least / 10 for lam in lams}


def _beside(places: dict[float, float], i: int, count: int) -> dict[float, float]:
    """Return the places of one of several dynamics, a little apart so that bars do not overlap."""
    decades = math.log10(max(places.values()) / min(places.values()))
    apart = 10 ** (APART * decades * (i - (count - 1) / 2))
    return {lam: place * apart for lam, place in places.items()}


def _numbers(sheet: Sheet, panel: Panel, side: Family) -> dict[float, list[float]]:
    """Write the late mean of each sound run, and return those above 0 by lambda."""
    found: dict[float, list[float]] = {}
    for group in side.groups:
        for run in group.sound:
            value = panel.of(window(run)) if "epoch" in run.rows else math.nan
            if math.isfinite(value):
                sheet.add(panel.key, run, panel.key, value, x_name="lambda", x=group.lam)
            if is_positive(value):
                found.setdefault(group.lam, []).append(value)
    return found


def _seeds(
    axes: Axes, side: Family, found: dict[float, list[float]], places: dict[float, float]
) -> None:
    """Draw a dot a seed."""
    at = [places[lam] for lam, values in found.items() for _ in values]
    if at:
        colour = style.look(side.runs[0].dynamics)["color"]
        values = [value for values in found.values() for value in values]
        look = {"color": colour, "linestyle": "", "marker": ".", "markersize": 2}
        axes.plot(at, values, **look)


def _means(
    sheet: Sheet,
    axes: Axes,
    panel: Panel,
    side: Family,
    found: dict[float, list[float]],
    places: dict[float, float],
) -> None:
    """Draw the points with their bars; those at lambda > 0 are joined by a line."""
    if not found:
        return
    look = _look(side.runs[0].dynamics)
    points = []
    for group in side.groups:
        if group.lam not in found:
            continue
        over = ratio(panel.key, found[group.lam])
        low, high = over.low or over.value, over.high or over.value
        points.append((group.lam, over.value, low, high))
        band = Band(*(np.array([n]) for n in (*points[-1], over.seeds)))
        sheet.add_band(panel.key, group.sound, panel.key, band, x_name="lambda", x=group.lam)
    lams, center, lows, highs = (np.array(column) for column in zip(*points, strict=True))
    at = np.array([places[lam] for lam in lams])
    axes.errorbar(at, center, [center - lows, highs - center], **{**look, "linestyle": ""})
    axes.plot(at[lams > 0], center[lams > 0], **{**look, "marker": ""})


def _finish(axes: Axes, panel: Panel, places: dict[float, float]) -> None:
    """Set the axes: logarithmic in lambda, with 0 at the left edge."""
    axes.set_xscale("log")
    if panel.logarithmic:
        style.logarithmic(axes)
    else:
        style.from_zero(axes)
    style.keep_limits(axes)
    ticks = {places[lam]: style.number(lam) for lam in places if lam in _labelled(places)}
    axes.xaxis.set_major_locator(FixedLocator(list(ticks)))
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.xaxis.set_minor_locator(NullLocator())
    if 0 in places and len(places) > 1:
        edge = places[0] * 10**0.5
        axes.axvline(edge, color="0.8", linewidth=0.6, linestyle=(0, (2, 2)), zorder=0)
    low, high = min(places.values()), max(places.values())
    axes.set_xlim(low / 1.6, high * 1.6)


def _labelled(places: dict[float, float]) -> set[float]:
    """Return the lambdas with a label: zero, powers of ten, and others as far as there is room."""
    rest = sorted(lam for lam in places if lam > 0)
    tens = [lam for lam in rest if math.isclose(math.log10(lam) % 1, 0, abs_tol=1e-9)] or rest
    step = -(-len(tens) // LABELS)
    found = {0.0, *tens[::-1][::step]} if tens else {0.0}
    room = ROOM * math.log10(max(places.values()) / min(places.values()))
    for lam in reversed(rest):
        beside = [places[other] for other in found if other in places]
        if all(abs(math.log10(lam / place)) > room for place in beside):
            found.add(lam)
    return found


def _collapsed(axes: Axes, sides: Sequence[Family], places: dict[float, float]) -> None:
    """Mark at the lower edge the lambdas with runs that ended as f = 0."""
    for side in sides:
        at = [places[group.lam] for group in side.groups if group.collapsed]
        if at:
            colour = style.look(side.runs[0].dynamics)["color"]
            across = axes.get_xaxis_transform()
            axes.plot(at, [0.03] * len(at), "x", color=colour, transform=across, clip_on=False)
            look = {"color": colour, "transform": across, "ha": "center"}
            behind = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
            axes.text(at[-1], 0.06, "f = 0", bbox=behind, **look)


def _look(dynamics: str) -> dict[str, Any]:
    marker = MARKERS.get(dynamics, "D")
    # Hollow where the other dynamics may lie beneath.
    look = {"linewidth": 1.0, "markersize": 3.5, "fillstyle": "none" if marker == "s" else "full"}
    return {**style.look(dynamics), "marker": marker, **look}


def _named(side: Family) -> str:
    run = side.runs[0]
    return f"{run.dynamics}, B = {batch_of(run)}"
