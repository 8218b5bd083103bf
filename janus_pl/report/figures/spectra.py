"""The histories of all singular values of the V_k by layer, with the spectra at the start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from janus_pl.records.run import STEP, Look, Run, ordered
from janus_pl.report.figures import style
from janus_pl.report.figures.pair import option_of, pair_of, title_of, told
from janus_pl.report.figures.series import Unavailable
from janus_pl.report.figures.sheet import Sheet
from janus_pl.report.figures.study import Study, time_axis, x_name

T = TypeVar("T")
Array = NDArray[np.float64]
PANELS = {1: 12, 2: 8}  # the most layers, by the number of runs
ACROSS = {1: 3, 2: 4}
ROUNDING = 4e-8  # singular values below are rounding
DASHED = 7  # levels of the first spectrum in a panel; more of them hide the histories
START: dict[str, Any] = {"color": "black", "linewidth": 0.5, "linestyle": (0, (4, 3)), "zorder": 3}
TOLERANCE: dict[str, Any] = {
    "color": "#D55E00",
    "linewidth": 0.8,
    "linestyle": (0, (1, 1)),
    "zorder": 3,
}


def spectra(study: Study) -> Sheet:
    """Draw every singular value over time: a panel a layer, SGD beside GD where both are."""
    runs, left_out = pair_of(study.runs, lambda run: bool(run.spectra), "spectra.jsonl")
    names = ordered([k for run in runs for look in run.spectra for k in look.sigma], runs)
    shown = _spread([name for name in names if _most(runs, name) > 1], PANELS[len(runs)])
    if not shown:
        raise Unavailable("each layer has one singular value, which is 1")
    rows = -(-len(shown) * len(runs) // ACROSS[len(runs)])
    sheet = Sheet(style.canvas(style.PAGE, 0.7 + 1.5 * rows), study.x, runs[0].dynamics)
    sheet.left_out, sheet.notes = left_out, told(runs, left_out)
    grid = sheet.canvas.add_gridspec(rows, ACROSS[len(runs)])
    for i, layer in enumerate(shown):
        first: Axes | None = None
        for j, run in enumerate(runs):
            place = divmod(i * len(runs) + j, ACROSS[len(runs)])
            axes = sheet.canvas.add_subplot(grid[place], sharey=first)
            _panel(sheet, axes, run, layer, study.x)
            axes.set_title(f"{layer}, {run.dynamics}", parse_math=False)
            if place[1] == 0:
                axes.set_ylabel(r"$\sigma_i$")
            if place[0] < rows - 1:
                axes.set_xlabel("")
            if first is not None:
                axes.tick_params(labelleft=False)
            first = first or axes
    _finish(sheet, runs, names, shown)
    return sheet


def history(run: Run, layer: str, x: str) -> tuple[Array, Array]:
    """Return the looks' x, (T,), and the singular values, (T, min(m, n)), of a layer."""
    looks = [look for look in run.spectra if layer in look.sigma]
    size = max((len(look.sigma[layer]) for look in looks), default=0)
    looks = [look for look in looks if len(look.sigma[layer]) == size]
    sigma = np.array([look.sigma[layer] for look in looks]).reshape(len(looks), size)
    return np.array([_time(look, x) for look in looks]), sigma


def _panel(sheet: Sheet, axes: Axes, run: Run, layer: str, x: str) -> None:
    at, sigma = history(run, layer, x)
    if not len(at):
        style.tell_empty(axes, "singular values")
        return
    seen = np.where(sigma > ROUNDING, sigma, np.nan)
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.88, sigma.shape[1]))
    for i, colour in enumerate(colours):
        axes.plot(at, seen[:, i], color=colour, linewidth=0.4, zorder=2)
        key = f"singular_value_{i + 1}/{layer}"
        sheet.add("history", run, key, sigma[:, i], x=at, x_name=x, layer=layer)
    for i in _spread(range(sigma.shape[1]), DASHED):
        axes.plot(at[[0, -1]], seen[[0, 0], i], **START)
    if tolerance := option_of(run, "LayerRank", "tolerance"):
        axes.plot(at[[0, -1]], [tolerance, tolerance], **TOLERANCE)
    style.logarithmic(axes)
    time_axis(axes, x)


def _finish(sheet: Sheet, runs: Sequence[Run], names: Sequence[str], shown: Sequence[str]) -> None:
    scale = matplotlib.colormaps["viridis"]
    handles: list[Any] = [
        style.handle(r"largest $\sigma_i$", color=scale(0.0)),
        style.handle("in the middle", color=scale(0.44)),
        style.handle("smallest", color=scale(0.88)),
        style.handle("at the start", **{**START, "linewidth": 0.8}),
        style.handle("tolerance of the rank", **TOLERANCE),
    ]
    known = [run for run in runs if option_of(run, "LayerRank", "tolerance")]
    style.legend(sheet.canvas, handles if known else handles[:-1], 5)
    sheet.text = (
        "Every singular value sigma_i of V_k (unit Frobenius norm) at every look, against"
        f" {x_name(sheet.x)}, coloured by its index i. Dashed: at most {DASHED} of the first look's"
        f" (epoch {runs[0].spectra[0].epoch:g}), evenly by index."
        f" Shown: {' beside '.join(map(title_of, runs))}."
    ).replace("λ", "lambda")
    if single := [name for name in names if _most(runs, name) == 1]:
        sheet.notes.append(f"Without a panel, since the only singular value is 1: {_list(single)}.")
    if len(shown) + len(single) < len(names):
        several = len(names) - len(single)
        sheet.notes.append(f"{len(shown)} of {several} layers have a panel: {_list(shown)}.")


def _most(runs: Sequence[Run], layer: str) -> int:
    return max(history(run, layer, "epoch")[1].shape[1] for run in runs)


def _time(look: Look, x: str) -> float:
    return {"epoch": look.epoch, STEP: look.step}.get(x, look.eta_t)


def _spread(given: Sequence[T], most: int) -> list[T]:
    """Return all of some things, or so many of them, evenly from first to last."""
    at = np.unique(np.linspace(0, len(given) - 1, min(len(given), most)).round().astype(int))
    return [given[i] for i in at]


def _list(names: Sequence[str]) -> str:
    return ", ".join(names)
