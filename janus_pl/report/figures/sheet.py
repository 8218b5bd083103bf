"""One figure while it is drawn: the canvas, the numbers behind it, the runs it is of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from numpy.typing import NDArray

from janus_pl.records.families import lambda_of, seed_of
from janus_pl.records.run import Histogram, Run
from janus_pl.report.figures import style
from janus_pl.report.figures.caption import Again, caption
from janus_pl.report.figures.series import QUANTILES, Band, Unavailable, band, curve, has, seeds
from janus_pl.run.text import cell

COLUMNS = (
    *("panel", "kind", "run", "id", "dynamics", "loss", "lambda", "seed", "data_seed", "layer"),
    *("key", "x_name", "x", "x_end", "value", "low", "high", "seeds"),
)
NUMBERS = ("x", "x_end", "value", "low", "high")
DRAWN = 300  # points of a band; more are not seen in three inches


@dataclass
class Sheet:
    """What a figure of the paper is made of.

    Attributes:
        canvas: the drawing.
        x: the column that time-course panels have as their x axis.
        dynamics: the dynamics in the figure's title.
        text: what the caption says is shown.
        left_out: runs of the same kind that the figure does not show.
        notes: further sentences of the caption.
        runs: those that are shown, in the order of their first number.
        tables: the numbers, in the columns.
        columns: `COLUMNS`, and further ones of a scan.
    """

    canvas: Canvas
    x: str = "epoch"
    dynamics: str = "SGD"
    text: str = ""
    left_out: Sequence[Run] = ()
    notes: list[str] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    tables: list[dict[str, Any]] = field(default_factory=list)
    columns: Sequence[str] = COLUMNS

    def add(self, panel: str, run: Run, key: str, values: Any, **columns: Any) -> None:
        """Add numbers of a run that a panel shows."""
        if not any(run is known for known in self.runs):
            self.runs.append(run)
        weights, samples = seed_of(run)
        who = {"run": run.name, "id": run.id, "dynamics": run.dynamics}
        what = {"loss": run.description.loss, "lambda": lambda_of(run)}
        seeded = {"seed": weights, "data_seed": samples}
        self._append({"panel": panel, "kind": "run", **who, **what, **seeded}, key, values, columns)

    def add_band(
        self, panel: str, runs: Sequence[Run], key: str, over: Band, **columns: Any
    ) -> None:
        """Add the means over seeds that a panel shows; a single run has none."""
        if len(runs) < 2:
            return
        who = {"panel": panel, "kind": "mean", "run": f"seeds {' '.join(seeds(runs))}"}
        what = {"dynamics": runs[0].dynamics, "loss": runs[0].description.loss}
        spread = {"low": over.low, "high": over.high, "seeds": over.seeds}
        shared = {**who, **what, "lambda": lambda_of(runs[0])}
        self._append(shared, key, over.center, {**spread, **columns})

    def add_histogram(self, panel: str, run: Run, key: str, shown: Histogram) -> None:
        """Add counts by bin; x is the left edge and x_end the right one."""
        edges = {"x": shown.edges[:-1], "x_end": shown.edges[1:]}
        self.add(panel, run, key, shown.counts, x_name="margin", **edges)

    def curves(
        self,
        panel: str,
        axes: Axes,
        runs: Sequence[Run],
        key: str,
        found: Sequence[pd.Series] | None = None,
        logarithmic: bool = True,
        layer: str | None = None,
        shaded: bool = True,
        x: str | None = None,
        **look: Any,
    ) -> None:
        """Draw the mean of a key over runs against x, with the band of their extremes.

        Args:
            panel: its name in the CSV.
            axes: where to draw.
            runs: those that differ in seeds alone.
            key: of the record.
            found: the runs' curves, where they are no column of the record.
            logarithmic: whether the y axis is.
            layer: the layer's name in the CSV.
            shaded: whether with the band.
            x: the column of the x axis, if it is not that of the sheet.
            look: of the line.
        """
        x = x or self.x
        found = [curve(run, key, x) for run in runs] if found is None else found
        columns = {"x_name": x, "layer": layer}
        for run, values in zip(runs, found, strict=True):
            if len(values):
                at = values.index.get_level_values(0)
                self.add(panel, run, key, values.to_numpy(), x=at, **columns)
        shown = band([values for values in found if len(values)], logarithmic)
        self.add_band(panel, runs, key, shown, x=shown.x, **columns)
        if not len(shown.x):
            return
        marker = "o" if len(shown.x) == 1 else None
        axes.plot(shown.x, shown.center, marker=marker, **look)
        if shaded:
            fill_band(axes, self._replicas(panel, runs, key, shown, columns), look["color"])

    def _replicas(
        self, panel: str, runs: Sequence[Run], key: str, shown: Band, columns: dict[str, Any]
    ) -> Band:
        """Return the band itself, or of one run over many seeds its recorded quantiles."""
        ends = [f"{key}/{quantile}" for quantile in QUANTILES]
        if len(runs) > 1 or not all(has(runs[0], end) for end in ends):
            return shown
        found = [curve(runs[0], end, self.x) for end in ends]
        for end, values in zip(ends, found, strict=True):
            at = values.index.get_level_values(0)
            self.add(panel, runs[0], end, values.to_numpy(), x=at, **columns)
        low, high = (band([values], logarithmic=False) for values in found)
        return low._replace(low=low.center, high=high.center) if len(low.x) == len(high.x) else low

    def write(self, key: str, title: str, again: Again) -> tuple[str, list[Path]]:
        """Write KEY.png, KEY.svg, KEY.csv and KEY.txt; return the caption and the files.

        Raises:
            Unavailable: nothing to show.
        """
        if not self.runs:
            raise Unavailable(f"no finite numbers against {self.x}")
        folder = again.folder
        files = style.save(self.canvas, folder, key)
        table, text = folder / f"{key}.csv", folder / f"{key}.txt"
        columns = {name: np.concatenate([t[name] for t in self.tables]) for name in self.columns}
        pd.DataFrame(columns).to_csv(table, index=False, lineterminator="\n")
        said = caption(title, self.text, self.runs, self.left_out, self.notes, again)
        text.write_text(said + "\n", encoding="utf-8", newline="\n")
        return said, [*files, table, text]

    def _append(self, shared: dict[str, Any], key: str, values: Any, columns: Any) -> None:
        given = {**shared, "key": key, "value": np.atleast_1d(values), **columns}
        rows = len(given["value"])
        self.tables.append({name: _column(given.get(name), name, rows) for name in self.columns})


def _column(value: Any, name: str, rows: int) -> NDArray[Any]:
    if name in NUMBERS:
        return np.array(np.broadcast_to(np.nan if value is None else value, rows), float)
    words = [*map(cell, value)] if isinstance(value, list) else cell(value)
    return np.array(np.broadcast_to(np.asarray(words, object), rows), object)


def fill_band(axes: Axes, shown: Band, colour: Any) -> None:
    """Return the extremes over seeds; of many points, those of neighbours together."""
    cuts = np.unique(np.linspace(0, len(shown.x), DRAWN + 1).astype(int)[:-1])
    low, high = np.minimum.reduceat(shown.low, cuts), np.maximum.reduceat(shown.high, cuts)
    axes.fill_between(shown.x[cuts], low, high, color=colour, alpha=0.18, linewidth=0)


def shown_lambdas(runs: Iterable[Run]) -> list[float]:
    """Return the lambdas of some runs, each once, from small to large."""
    return sorted({lam for lam in map(lambda_of, runs) if np.isfinite(lam)})
