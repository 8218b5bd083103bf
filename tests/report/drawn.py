"""What a figure shows, read off its artists, beside the numbers that it writes.

Figures are drawn as `report` draws them, but for the pictures' files, which take most of the time.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.style
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure as Canvas
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle, StepPatch
from numpy.typing import NDArray

from janus_pl.records.run import Run
from janus_pl.report import figures
from janus_pl.report.figures import style

Array = NDArray[np.float64]


class Line(NamedTuple):
    """A line: its points and its look; `dashes` is `-`, `--` or `:`."""

    x: Array
    y: Array
    colour: str
    dashes: str
    width: float
    alpha: float
    marker: str


class Band(NamedTuple):
    """A shaded area: at each x its ends."""

    x: Array
    low: Array
    high: Array
    colour: str


class Outline(NamedTuple):
    """A histogram as drawn."""

    heights: Array
    edges: Array
    colour: str
    filled: bool
    base: float


class Bars(NamedTuple):
    """Points with a bar each."""

    x: Array
    y: Array
    low: Array
    high: Array
    colour: str
    marker: str


class Box(NamedTuple):
    """A rectangle by its corners."""

    low: float
    high: float
    bottom: float
    top: float
    colour: str


class Entry(NamedTuple):
    """An entry of a legend."""

    label: str
    colour: str
    dashes: str
    marker: str


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    `ticks` and `rows` are the labels of x and y by their places, `numbered` says whether the x and
    the y axis have any, `place` is the first and last row, the first and last column in the grid
    of panels.
    """

    title: str
    xlabel: str
    ylabel: str
    xscale: str
    yscale: str
    xlim: tuple[float, float]
    ylim: tuple[float, float]
    lines: list[Line]
    bands: list[Band]
    bars: list[Bars]
    outlines: list[Outline]
    boxes: list[Box]
    texts: list[str]
    ticks: dict[float, str]
    rows: dict[float, str]
    numbered: tuple[bool, bool]
    place: tuple[int, int, int, int]


@dataclass(frozen=True)
class Picture:
    """A figure: what is drawn, what is written."""

    key: str
    title: str
    panels: list[Panel]
    legend: list[Entry]
    rows: list[dict[str, str]]
    caption: str
    missing: str | None

    def named(self, title: str) -> Panel:
        """The only panel of a title."""
        (panel,) = [panel for panel in self.panels if panel.title == title]
        return panel

    def written(self, **wanted: Any) -> list[dict[str, str]]:
        """Rows of the CSV: `written(kind="run", layer="fc1")`; `lam` is the column lambda."""
        texts = {("lambda" if key == "lam" else key): value for key, value in wanted.items()}
        return [row for row in self.rows if all(_same(row[k], v) for k, v in texts.items())]

    def column(self, name: str, **wanted: Any) -> Array:
        """The numbers in a column of some rows."""
        return np.array([float(row[name] or "nan") for row in self.written(**wanted)])


def pictures(
    runs: Sequence[Run],
    folder: Path,
    keys: Iterable[str] = (),
    x: str = "epoch",
    by: Sequence[str] = (),
) -> dict[str, Picture]:
    """The figures of some runs by key: all of them, or some, and none in place of another.

    Those of a scan `by` an option are all drawn.
    """
    canvases: dict[str, Canvas] = {}

    def keep(canvas: Canvas, _: Path, key: str) -> list[Path]:
        canvases[key] = canvas
        return []

    wanted = set(keys) or {key for key, *_ in figures.FIGURES}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "save", keep)
        patch.setattr(figures, "FIGURES", [g for g in figures.FIGURES if g[0] in wanted])
        patch.setattr(figures, "TWINS", {})
        found = figures.draw(runs, folder, x, by=by)
    assert {figure.key for figure in found} == wanted | ({*figures.SCANS} if by else set())
    return {figure.key: _picture(figure, canvases.get(figure.key)) for figure in found}


def picture(runs: Sequence[Run], folder: Path, key: str, x: str = "epoch") -> Picture:
    """One figure."""
    return pictures(runs, folder, [key], x)[key]


def sketch(function: Any, runs: Sequence[Run]) -> tuple[bool, Picture]:
    """What a function draws on an empty canvas, and what it returns."""
    with matplotlib.style.context(["default", style.STYLE]):
        canvas = style.canvas(style.PAGE, 2.5)
        returned = function(canvas, runs)
        panels = [_panel(axes) for axes in canvas.axes]
    return returned, Picture("", "", panels, _legend(canvas), [], "", None)


def _picture(figure: figures.Figure, canvas: Canvas | None) -> Picture:
    if canvas is None:
        return Picture(figure.key, "", [], [], [], figure.caption, figure.missing)
    (table,) = [file for file in figure.files if file.suffix == ".csv"]
    with table.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return Picture(
        figure.key,
        canvas.get_suptitle(),
        [_panel(axes) for axes in canvas.axes],
        _legend(canvas),
        rows,
        figure.caption,
        figure.missing,
    )


def _panel(axes: Axes) -> Panel:
    bars = [c for c in axes.containers if isinstance(c, ErrorbarContainer)]
    points = [container.lines[0] for container in bars]
    return Panel(
        title=axes.get_title(loc="left"),
        xlabel=axes.get_xlabel(),
        ylabel=axes.get_ylabel(),
        xscale=axes.get_xscale(),
        yscale=axes.get_yscale(),
        xlim=axes.get_xlim(),
        ylim=axes.get_ylim(),
        lines=[_line(line) for line in axes.lines if line not in points],
        bands=[_band(c) for c in axes.collections if isinstance(c, PolyCollection)],
        bars=[_bars(container) for container in bars],
        outlines=[_outline(patch) for patch in axes.patches if isinstance(patch, StepPatch)],
        boxes=[_box(patch) for patch in axes.patches if isinstance(patch, Rectangle)],
        texts=[text.get_text() for text in axes.texts],
        ticks=_ticks(axes.xaxis),
        rows=_ticks(axes.yaxis),
        numbered=(_numbered(axes.xaxis), _numbered(axes.yaxis)),
        place=_place(axes),
    )


def _place(axes: Axes) -> tuple[int, int, int, int]:
    spec = axes.get_subplotspec()
    assert spec is not None
    rows, columns = spec.rowspan, spec.colspan
    return rows.start, rows.stop - 1, columns.start, columns.stop - 1


def _numbered(axis: Axis) -> bool:
    """Whether the numbers below, or left of, an axis are shown."""
    return any(tick.label1.get_visible() for tick in axis.get_major_ticks())


def _ticks(axis: Axis) -> dict[float, str]:
    at = [float(place) for place in axis.get_majorticklocs()]
    return dict(zip(at, axis.get_major_formatter().format_ticks(at), strict=True))


def _line(line: Line2D) -> Line:
    x, y = (np.asarray(values, float) for values in line.get_data())
    look = (to_hex(line.get_color()), str(line.get_linestyle()), float(line.get_linewidth()))
    alpha = line.get_alpha()
    return Line(x, y, *look, 1.0 if alpha is None else float(alpha), str(line.get_marker()))


def _band(area: PolyCollection) -> Band:
    (path,) = area.get_paths()
    x, y = np.asarray(path.vertices, float).T
    places = np.unique(x)
    low, high = (np.array([end(y[x == at]) for at in places]) for end in (np.min, np.max))
    return Band(places, low, high, to_hex(area.get_facecolor()[0]))


def _bars(container: ErrorbarContainer) -> Bars:
    points, _, (sticks,) = container.lines
    ends = np.array(sticks.get_segments(), float)
    x, y = (np.asarray(values, float) for values in points.get_data())
    assert np.array_equal(ends[:, 0, 0], x) and np.array_equal(ends[:, 1, 0], x)
    low, high = ends[:, :, 1].min(axis=1), ends[:, :, 1].max(axis=1)
    assert to_hex(sticks.get_color()[0]) == to_hex(points.get_color())
    return Bars(x, y, low, high, to_hex(points.get_color()), str(points.get_marker()))


def _outline(patch: StepPatch) -> Outline:
    heights, edges, base = patch.get_data()
    colour = to_hex(patch.get_facecolor() if patch.get_fill() else patch.get_edgecolor())
    filled = bool(patch.get_fill())
    shape = np.asarray(heights, float), np.asarray(edges, float)
    return Outline(*shape, colour, filled, float(base))


def _box(patch: Rectangle) -> Box:
    (low, bottom), width, height = patch.get_xy(), patch.get_width(), patch.get_height()
    return Box(low, low + width, bottom, bottom + height, to_hex(patch.get_edgecolor()))


def _legend(canvas: Canvas) -> list[Entry]:
    found: list[Legend] = canvas.legends
    return [
        Entry(
            text.get_text(),
            to_hex(handle.get_color()),
            str(handle.get_linestyle()),
            str(handle.get_marker()),
        )
        for legend in found
        for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True)
        if isinstance(handle, Line2D)
    ]


def _same(text: str, value: Any) -> bool:
    return text == value if isinstance(value, str) else bool(text) and float(text) == value
