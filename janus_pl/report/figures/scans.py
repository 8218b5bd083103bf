"""Scans as figures: ranks, errors and noise against an option, at equal epochs, steps and eta t."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.ticker import FixedLocator, NullLocator

from janus_pl.records.effects import Estimate, is_positive, mean, ratio
from janus_pl.records.late import CLOCKS, Window, geometric_mean, rank
from janus_pl.records.scans import OPTIONS, Scan, Value, candidates, in_order, scan
from janus_pl.report.figures import style
from janus_pl.report.figures.scan_axes import Places, labels_of, places_of
from janus_pl.report.figures.scan_quantities import ERRORS, NAMES, NOISE, RANK, Quantity
from janus_pl.report.figures.scan_words import AT, notes_of, shown_by
from janus_pl.report.figures.series import Band, Unavailable
from janus_pl.report.figures.sheet import COLUMNS, Sheet
from janus_pl.report.figures.study import Study, names_of, others

MORE = ("clock", "at", "line")  # columns: the clock, the option's value, that of the second one
Scans = Mapping[str, Scan | None]

DARK = 1.25  # red, green and blue together, below which text is white
LEGEND = 6  # entries in a row
LOGARITHMIC = 5  # a y axis that spans less is linear, so that it has more than one label


def scan_rank(study: Study, by: Sequence[str]) -> Sheet:
    """Draw ranks late in training against an option, with the errors below them.

    Raises:
        Unavailable: No comparable runs have two values of the option.
    """
    found = scans_of(study, by)
    windows = [at for each in found.values() if each for at in each.windows]
    errors = [q for q in ERRORS if any(math.isfinite(q.of(at)) for at in windows)]
    sheet = _grid(study, by, found, [(RANK,), *([errors] if errors else [])], 1.75)
    handles = _handles(found, by)
    names = [NAMES[quantity.key] for quantity in errors]
    for quantity, name in zip(errors, names, strict=True):
        handles.append(style.handle(name, color="0.3", **quantity.look))
    if handles:
        style.legend(sheet.canvas, handles, LEGEND)
    said = (
        f" Bottom: error of the {' and the '.join(names)} set; its bars are cut off at 0 and 1."
        if errors
        else " These runs have recorded no train/error and no val/error."
    )
    sheet.text = (
        f"{shown_by(by)} Top: effective rank of V_k, geometric mean over the layers whose rank is"
        f" far above the number of classes.{said} {AT}"
    )
    return sheet


def scan_noise(study: Study, by: Sequence[str]) -> Sheet:
    """Draw velocity, noise in time and noise scale against an option, as far as they are recorded.

    Raises:
        Unavailable: No comparable runs have two values of the option, or none recorded noise.
    """
    found = scans_of(study, by)
    windows = [at for each in found.values() if each for at in each.windows]
    rows = [(q,) for q in NOISE if any(is_positive(q.of(at)) for at in windows)]
    if not rows:
        raise Unavailable(f"no velocity and no noise in {names_of([at.run for at in windows])}")
    sheet = _grid(study, by, found, rows, 1.6)
    if handles := _handles(found, by):
        style.legend(sheet.canvas, handles, LEGEND)
    said = {
        "velocity": "||V̇_k||, geometric mean over layers",
        "noise_time/direction": "standard deviation of V_k over the last steps without its line,"
        " geometric mean over layers (NoiseTime)",
        "gradient_noise/scale": "simple noise scale tr S/||V̇||^2 in samples (GradientNoise)",
    }
    told = "; ".join(said[quantity.key] for (quantity,) in rows)
    sheet.text = f"{shown_by(by)} From top to bottom: {told}. {AT}"
    return sheet


def scan_map(study: Study, by: Sequence[str]) -> Sheet:
    """Draw the rank late in training as a map over two options.

    Raises:
        Unavailable: There is one option, or no comparable runs have two values of the first.
    """
    if len(by) < 2:
        raise Unavailable("it takes two options: --by OPTION --by OPTION")
    found = scans_of(study, by)
    sheet = _sheet(study, by, found, RANK, 2.6)
    columns, rows = _values(found)
    maps = {clock: _means(each) for clock, each in found.items() if each}
    every = [value for means in maps.values() for value in means.values()]
    norm = LogNorm(min(every), max(every)) if every and min(every) < max(every) else None
    for axes, (clock, each) in zip(sheet.canvas.subplots(1, 3), found.items(), strict=True):
        axes.set_title(_title(clock, each))
        if each is None:
            style.tell_empty(axes, "two values")
            continue
        for line, values in each.runs.items():
            for at, windows in values.items():
                if numbers := _write(sheet, RANK, each, line, at, windows, by):
                    _write_mean(sheet, RANK, each, line, at, windows, numbers, by)
        _map(axes, maps[clock], (columns, in_order(rows)), norm, by)
    sheet.text = (
        f"{shown_by(by[:1], ' and '.join(OPTIONS[name].words for name in by))} Effective rank of"
        " V_k, geometric mean over the layers whose rank is far above the number of classes, and"
        f" over seeds; colours are logarithmic. {AT}"
    )
    return sheet


def scans_of(study: Study, by: Sequence[str]) -> dict[str, Scan | None]:
    """Return the scan at each clock.

    Raises:
        Unavailable: There is none at any.
    """
    runs = candidates(study.runs)
    found = {clock: scan(runs, by, clock) for clock in CLOCKS}
    if not any(found.values()):
        raise Unavailable(f"no two values of {by[0]} in comparable runs")
    return found


def _sheet(study: Study, by: Sequence[str], found: Scans, first: Quantity, height: float) -> Sheet:
    windows = [at for each in found.values() if each for at in each.windows]
    shown = list({id(at.run): at.run for at in windows}.values())
    left = others(candidates(study.runs), shown)
    sheet = Sheet(style.canvas(style.PAGE, height), columns=(*COLUMNS, *MORE))
    words = first.key.replace("effective_rank", "rank")
    told = notes_of(shown, left, found, by, (words, first.of))
    sheet.notes, sheet.left_out = told.sentences, told.left_out
    return sheet


def _grid(
    study: Study, by: Sequence[str], found: Scans, rows: Sequence[Sequence[Quantity]], height: float
) -> Sheet:
    """Draw a row of panels for each group of quantities, a column for each clock."""
    sheet = _sheet(study, by, found, rows[0][0], 0.45 + height * len(rows))
    grid = sheet.canvas.subplots(len(rows), len(found), squeeze=False, sharey="row")
    values, lines = _values(found)
    places, colours = places_of(values, by[0]), colours_of(lines)
    for i, quantities in enumerate(rows):
        for axes, (clock, each) in zip(grid[i], found.items(), strict=True):
            if i == 0:
                axes.set_title(_title(clock, each))
            if each is None:
                axes.text(0.5, 0.5, "no two values", transform=axes.transAxes, ha="center")
            else:
                _panel(sheet, axes, quantities, each, places, colours, by)
            places.set(axes, OPTIONS[by[0]].words if i == len(rows) - 1 else "")
        _finish(grid[i], quantities[0])
        grid[i][0].set_ylabel(quantities[0].label)
    return sheet


def _title(clock: str, each: Scan | None) -> str:
    name = {"epochs": "Equal epochs", "steps": "Equal steps", "eta_t": "Equal ηt"}[clock]
    return name if each is None else f"{name}, to {each.end:,.4g}"


def _panel(
    sheet: Sheet,
    axes: Axes,
    quantities: Sequence[Quantity],
    each: Scan,
    places: Places,
    colours: Mapping[Value | None, Any],
    by: Sequence[str],
) -> None:
    for quantity in quantities:
        for i, (line, colour) in enumerate(colours.items()):
            if line in each.runs:
                aside = places.aside(i, len(colours))
                _line(sheet, axes, quantity, each, line, aside, colour, by)


def _values(found: Scans) -> tuple[list[Value], list[Value | None]]:
    """Return the values of the option and of the second one at any clock."""
    scans = [each for each in found.values() if each]
    lines = dict.fromkeys(line for each in scans for line in each.runs)
    return in_order(value for each in scans for value in each.values), list(lines)


def _line(
    sheet: Sheet,
    axes: Axes,
    quantity: Quantity,
    each: Scan,
    line: Value | None,
    places: Places,
    colour: Any,
    by: Sequence[str],
) -> None:
    """Draw the means over seeds of a line with their bars, and a dot a seed."""
    found: dict[Value, Estimate] = {}
    for at in in_order(each.runs[line]):
        numbers = _write(sheet, quantity, each, line, at, each.runs[line][at], by)
        if not numbers:
            continue
        axes.plot([places[at]] * len(numbers), numbers, ".", color=colour, markersize=2)
        over = _write_mean(sheet, quantity, each, line, at, each.runs[line][at], numbers, by)
        found[at] = over
    if not found:
        return
    x, center = [places[at] for at in found], np.array([over.value for over in found.values()])
    low, high = np.transpose([_ends(over, quantity) for over in found.values()])
    look = {**quantity.look, "color": colour, "linewidth": 1.0, "markersize": 3.5}
    axes.errorbar(x, center, [center - low, high - center], **{**look, "linestyle": ""})
    joined = places.joined(list(found))
    at_line = [places[at] for at in joined], [found[at].value for at in joined]
    axes.plot(*at_line, color=colour, linestyle=quantity.look["linestyle"], marker="")


def _ends(over: Estimate, quantity: Quantity) -> tuple[float, float]:
    """Return the ends of an interval, of a share within [0, 1]; of a single seed, its number."""
    low, high = (over.value if end is None else end for end in (over.low, over.high))
    return (max(low, 0.0), min(high, 1.0)) if quantity.share else (low, high)


def _write(
    sheet: Sheet,
    quantity: Quantity,
    each: Scan,
    line: Value | None,
    at: Value,
    windows: Sequence[Window],
    by: Sequence[str],
) -> list[float]:
    """Write the number of each run, and return those that are drawn."""
    numbers: list[float] = []
    for window in windows:
        value = quantity.of(window)
        if math.isfinite(value):
            columns = _columns(each, line, at, by)
            sheet.add(quantity.key, window.run, quantity.key, value, **columns)
        if is_positive(value) or (math.isfinite(value) and not quantity.logarithmic):
            numbers.append(value)
    return numbers


def _write_mean(
    sheet: Sheet,
    quantity: Quantity,
    each: Scan,
    line: Value | None,
    at: Value,
    windows: Sequence[Window],
    numbers: Sequence[float],
    by: Sequence[str],
) -> Estimate:
    """Write the mean over seeds with its interval, and return it."""
    over = (ratio if quantity.logarithmic else mean)(quantity.key, numbers)
    band = Band(
        *(np.array([n]) for n in (math.nan, over.value, *_ends(over, quantity), over.seeds))
    )
    runs = [window.run for window in windows]
    sheet.add_band(quantity.key, runs, quantity.key, band, **_columns(each, line, at, by))
    return over


def _columns(each: Scan, line: Value | None, at: Value, by: Sequence[str]) -> dict[str, Any]:
    x = at if isinstance(at, float) else math.nan
    second = "" if line is None else labels_of(in_order(each.runs), by[1])[line]
    told = labels_of(each.values, by[0])[at]
    words = {"at": told.replace("\n", " "), "line": second.replace("\n", " ")}
    return {"x_name": by[0], "x": x, "clock": each.clock, **words}


def _finish(row: Sequence[Axes], quantity: Quantity) -> None:
    """Set the y axis that a row of panels shares."""
    drawn = [axes for axes in row if axes.lines]
    low = min((axes.dataLim.y0 for axes in drawn), default=0)
    high = max((axes.dataLim.y1 for axes in drawn), default=1)
    if quantity.axis and 0 < LOGARITHMIC * low < high:
        for axes in row:
            style.logarithmic(axes)
    else:
        row[0].set_ylim(0, 1.06 * high if high > 0 else 1)
    style.keep_limits(row[0])


def _handles(found: Scans, by: Sequence[str]) -> list[Any]:
    lines = [line for each in found.values() if each for line in each.runs]
    if len(by) < 2:
        return []
    names = labels_of(in_order(lines), by[1])
    colours = colours_of(lines)
    symbol = OPTIONS[by[1]].symbol
    look: dict[str, Any] = {"marker": "o", "linestyle": "-"}
    return [
        style.handle(symbol + names[k].replace("\n", " "), color=colours[k], **look)
        for k in in_order(lines)
    ]


def colours_of(lines: Sequence[Value | None]) -> dict[Value | None, Any]:
    """Return a colour for each value of the second option; the first one without."""
    ordered = _sorted(lines)
    found = style.colours(float(k) for k in range(len(ordered)))
    if ordered == [None]:
        return {None: style.DYNAMICS["SGD"]["color"]}
    return {line: found[float(k)] for k, line in enumerate(ordered)}


def _sorted(lines: Sequence[Value | None]) -> list[Value | None]:
    return [*([None] if None in lines else []), *in_order(lines)]


def _means(each: Scan) -> dict[tuple[Value | None, Value], float]:
    """Return the geometric mean of the ranks over the seeds of each pair of values."""
    found = {}
    for line, values in each.runs.items():
        for at, windows in values.items():
            numbers = [v for v in map(rank, windows) if is_positive(v)]
            if numbers:
                found[line, at] = geometric_mean(numbers)
    return found


def _map(
    axes: Axes,
    means: Mapping[tuple[Value | None, Value], float],
    shape: tuple[Sequence[Value], Sequence[Value]],
    norm: LogNorm | None,
    by: Sequence[str],
) -> None:
    columns, rows = shape
    table = np.array([[means.get((row, at), math.nan) for at in columns] for row in rows])
    axes.pcolormesh(table, cmap="viridis", norm=norm, edgecolors="white", linewidth=0.5)
    middle = matplotlib.colormaps["viridis"]
    for i, j in np.ndindex(table.shape):
        if np.isfinite(table[i, j]):
            shade = 0.5 if norm is None else float(norm(table[i, j]))
            dark = sum(middle(shade)[:3]) < DARK
            at: dict[str, Any] = {"ha": "center", "va": "center"}
            number = f"{table[i, j]:.3g}"
            axes.text(j + 0.5, i + 0.5, number, color="white" if dark else "black", **at)
    for axis, values, name in ((axes.xaxis, columns, by[0]), (axes.yaxis, rows, by[1])):
        names = labels_of(values, name)
        axis.set_major_locator(FixedLocator([k + 0.5 for k in range(len(values))]))
        axis.set_ticklabels([names[value] for value in values])
        axis.set_minor_locator(NullLocator())
        axis.set_tick_params(length=0)
        axis.set_label_text(OPTIONS[name].words)


FIGURES: tuple[tuple[str, str, Callable[[Study, Sequence[str]], Sheet]], ...] = (
    ("scan_rank", "Scan: ranks and errors by {by}", scan_rank),
    ("scan_noise", "Scan: noise by {by}", scan_noise),
    ("scan_map", "Scan: map of the ranks by {by}", scan_map),
)
