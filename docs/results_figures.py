"""The figures of the pages of results that the paper does not have, from records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from results_tables import (
    DOSE,
    MIDDLE,
    WHOSE,
    arms,
    at_end,
    at_equal_steps,
    factors,
    groups,
    left,
    of_sweeps,
    relative_spread,
    velocity,
)

from janus_pl.records import late
from janus_pl.records.families import is_zero_function, lambda_of
from janus_pl.records.run import STEP, Run
from janus_pl.report.figures import style

HEIGHT = 2.5
DOSED = (8, 0.03, 5e-3)  # B, the learning rate and lambda of `dose.yaml`
GREY = "0.45"


def draw(runs: Sequence[Run], folder: Path) -> list[str]:
    """Those that the runs allow, KEY.png in a folder; returns their names."""
    drawn = []
    with matplotlib.style.context(["default", style.STYLE]):
        for key, figure in FIGURES.items():
            canvas = style.canvas(style.PAGE, HEIGHT)
            if figure(canvas, runs):
                *_, svg = style.save(canvas, folder, key)
                svg.unlink()
                drawn.append(key)
    return drawn


def settled(canvas: Canvas, runs: Sequence[Run]) -> bool:
    """The SGD runs under the cosine schedule."""
    return _time_courses(canvas, of_sweeps(runs, "two_cores_fig1", "two_cores_seeds"))


def constant(canvas: Canvas, runs: Sequence[Run]) -> bool:
    """SGD at a constant learning rate."""
    return _time_courses(canvas, of_sweeps(runs, "two_cores_constant", "two_cores_constant_seeds"))


def confirm(canvas: Canvas, runs: Sequence[Run]) -> bool:
    """The same of new seeds."""
    return _time_courses(canvas, of_sweeps(runs, "confirm_constant"))


def scale(canvas: Canvas, runs: Sequence[Run]) -> bool:
    """SGD at a constant learning rate at N = 10,000, and GD at equal epochs."""
    return _time_courses(canvas, of_sweeps(runs, "scale", "scale_gd"))


def whose(canvas: Canvas, runs: Sequence[Run]) -> bool:
    """Ranks of the arms of `whose.yaml` over eta t; runs that end as f = 0 are dotted."""
    shown = arms(of_sweeps(runs, *WHOSE))
    panels = {
        "weight normalization": "weight_norm",
        "norms held": "held",
        "no normalization": "none",
    }
    colours = dict(zip(shown, style.colours(range(len(shown))).values(), strict=True))
    for axes, (title, kind) in zip(canvas.subplots(1, 3, sharey=True), panels.items(), strict=True):
        for arm, of_arm in shown.items():
            if arm.kind != kind:
                continue
            for run in of_arm:
                ranks = _ranks(run, "eta_t")
                dashes = ":" if is_zero_function(run) else "-"
                axes.plot(ranks.index, ranks, dashes, color=colours[arm], linewidth=0.8)
        _labels(axes, "ηt", "effective rank, conv3 to fc1" if kind == "weight_norm" else "")
        axes.set_title(title)
    handles = [style.handle(arm.words, color=colours[arm], linewidth=2) for arm in shown]
    if shown:
        style.legend(canvas, handles, 4)
    return bool(shown)


def dose(canvas: Canvas, runs: Sequence[Run]) -> bool:
    """Velocity and rank against B, the learning rate and lambda, one at a time, SGD and GD."""
    shown = left(of_sweeps(runs, *DOSE))
    if not shown:
        return False
    canvas.set_figheight(2 * HEIGHT)
    rows = {r"$\|\dot V_k\|$, mean over layers": late.velocity, "effective rank": late.rank}
    columns = {"B": 1, "η": -1, "λ": -1}  # and the exponents of the bound of arXiv 2206.05794
    grid = canvas.subplots(2, 3, sharey="row", sharex="col")
    for (label, quantity), line in zip(rows.items(), grid, strict=True):
        for place, ((factor, exponent), axes) in enumerate(zip(columns.items(), line, strict=True)):
            points = pd.DataFrame(
                [
                    (factors(run)[place], run.dynamics, at_end(quantity)(run))
                    for run in shown
                    if _alone(factors(run), place)
                ],
                columns=["x", "dynamics", "y"],
            )
            for dynamics, some in points.groupby("dynamics"):
                look = style.look(str(dynamics))
                middle = some.groupby("x")["y"].apply(lambda y: late.geometric_mean([*y]))
                axes.plot(some["x"], some["y"], ".", markersize=4, color=look["color"])
                axes.plot(middle.index, middle, linewidth=0.8, color=look["color"])
            axes.set_xscale("log")
            ticks = sorted(points["x"].unique())
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], rotation=45)
            axes.minorticks_off()
            if quantity is late.rank:
                style.from_zero(axes)
                _slope_through(axes, points, DOSED[place], exponent)
            else:
                style.logarithmic(axes)
            _labels(axes, factor if quantity is late.rank else "", label if place == 0 else "")
    there = {run.dynamics for run in shown}
    looks = {name: look for name, look in style.DYNAMICS.items() if name in there}
    handles = [style.handle(name, **look) for name, look in looks.items()]
    handles.append(style.handle("exponent of the bound", color=GREY, linestyle=":"))
    style.legend(canvas, handles, 3)
    return True


def _slope_through(axes: Axes, points: pd.DataFrame, x: float, exponent: float) -> None:
    """A dotted line of an exponent through the mean of the points at x, inside the axes."""
    values = points.loc[(points["x"] == x) & (points["dynamics"] == "SGD"), "y"]
    if values.empty:
        return
    xs = np.geomspace(points["x"].min(), points["x"].max(), 50)
    low, high = axes.get_ylim()
    line = late.geometric_mean([*values]) * (xs / x) ** exponent
    axes.plot(xs, line, ":", color=GREY, linewidth=0.8)
    axes.set_ylim(low, high)


def _alone(values: tuple[int, float, float], place: int) -> bool:
    """Whether all factors but one are as in `dose.yaml`."""
    return all(v == w for k, (v, w) in enumerate(zip(values, DOSED, strict=True)) if k != place)


def _time_courses(canvas: Canvas, runs: Sequence[Run]) -> bool:
    """Velocity, spread and rank over epochs; not of networks that ended as f = 0.

    Where both are there, SGD has the colours of its lambdas, and GD is dashed and grey.
    """
    shown = [run for run in runs if not is_zero_function(run)]
    both = {run.dynamics for run in shown} == {"SGD", "GD"}

    def apart(run: Run) -> bool:
        return both and run.dynamics == "GD"

    panels: dict[str, Callable[[Run], pd.Series]] = {
        r"$\|\dot V_k\|$, mean over layers": lambda run: _velocities(run),
        r"std/mean of the margins": lambda run: (
            # Before training the mean is about 0, and of either sign.
            _column(run, "margin/std") / _column(run, "margin/mean").abs()
        ).loc[1:],
        "effective rank, conv3 to fc1": lambda run: _ranks(run),
    }
    for axes, (label, curve) in zip(canvas.subplots(1, 3), panels.items(), strict=True):
        colours = style.colours(lambda_of(run) for run in shown if not apart(run))
        for run in shown:
            values = curve(run)
            colour = GREY if apart(run) else colours[lambda_of(run)]
            look = {**style.look(run.dynamics), "color": colour}
            axes.plot(values.index, values, **look, linewidth=0.6)
        _labels(axes, "epoch", label)
        if "rank" not in label:
            style.logarithmic(axes)
    if shown:
        handles = [
            style.handle(f"λ = {style.number(lam)}", color=colour, linewidth=2)
            for lam, colour in colours.items()
        ]
        if both:
            gd = sorted({lambda_of(run) for run in shown if apart(run)})
            lams = ", ".join(map(style.number, gd))
            handles.append(style.handle(f"GD, λ = {lams}", **{**style.look("GD"), "color": GREY}))
        style.legend(canvas, handles, 5)
    return bool(shown)


def equal_clocks(canvas: Canvas, runs: Sequence[Run]) -> bool:
    """Ranks under SGD and GD against epochs, steps and the accumulated learning rate."""
    gd = of_sweeps(runs, "two_cores_equal_steps")
    sgd = of_sweeps(runs, "two_cores_equal_steps_sgd")
    lams = {lambda_of(run) for run in (*sgd, *gd)}
    looks = dict(zip(sorted(lams), ("o", "s", "D"), strict=False))
    clocks = {"epoch": "epoch", STEP: "step", "eta_t": "accumulated learning rate ηt"}
    for axes, (clock, words) in zip(
        canvas.subplots(1, 3, sharey=True), clocks.items(), strict=True
    ):
        for run in (*sgd, *gd):
            ranks = _ranks(run, clock)
            marker = looks[lambda_of(run)]
            axes.plot(ranks.index, ranks, marker=marker, markersize=2, **style.look(run.dynamics))
        axes.set_xscale("symlog", linthresh=0.1 if clock == "eta_t" else 1)
        _labels(axes, words, "effective rank, conv3 to fc1" if clock == "epoch" else "")
    handles = [style.handle(name, **look) for name, look in style.DYNAMICS.items()]
    handles += [
        style.handle(f"λ = {style.number(lam)}", color="0.3", marker=marker, linestyle="")
        for lam, marker in looks.items()
    ]
    if gd and sgd:
        style.legend(canvas, handles, 5)
    return bool(gd and sgd)


def gd_steps(canvas: Canvas, runs: Sequence[Run]) -> bool:
    """Ranks and velocity over steps, SGD and GD, at a constant rate and under a cosine."""
    shown = at_equal_steps(runs)
    canvas.set_figheight(2 * HEIGHT)
    rows: dict[str, Callable[[Run], pd.Series]] = {
        "effective rank, conv3 to fc1": lambda run: _ranks(run, STEP),
        r"$\|\dot V_k\|$, mean over layers": lambda run: _velocities(run, STEP),
    }
    columns = {"constant": "a constant rate", "cosine": "a cosine"}
    grid = canvas.subplots(2, 2, sharey="row", sharex=True)
    for (label, curve), line in zip(rows.items(), grid, strict=True):
        for (schedule, words), axes in zip(columns.items(), line, strict=True):
            for run in shown:
                if run.options["model.schedule"] == schedule:
                    look = {**style.look(run.dynamics), "linewidth": 0.6}
                    dotted = {"linestyle": ":"} if is_zero_function(run) else {}
                    axes.plot(curve(run), **look | dotted)
            if "rank" in label:
                axes.set_title(words)
                style.from_zero(axes)
            else:
                style.logarithmic(axes)
            last = "rank" not in label
            _labels(axes, "step" if last else "", label if schedule == "constant" else "")
    style.legend(canvas, [style.handle(name, **look) for name, look in style.DYNAMICS.items()], 2)
    return {run.dynamics for run in shown} == {"SGD", "GD"}


def controls(canvas: Canvas, runs: Sequence[Run]) -> bool:
    """Decay on all against decay on rho, weight normalization against multipliers, by lambda."""
    kinds = {
        "decay on all, weight normalization": ("two_cores_fig1", "#0072B2", "o"),
        "the same at a constant rate": ("two_cores_constant", "#000000", "v"),
        "decay on rho alone": ("two_cores_rho", "#009E73", "s"),
        "Lagrange multipliers": ("two_cores_lagrange", "#CC79A7", "D"),
        "cross entropy, decay on all": ("two_cores_fig5a", "#D55E00", "^"),
    }
    panels = {
        "std/mean of the margins": relative_spread,
        r"$\|\dot V_k\|$, mean over layers": velocity,
        "effective rank, conv3 to fc1": lambda run: float(_ranks(run).iloc[-1]),
    }
    for axes, (label, quantity) in zip(canvas.subplots(1, 3), panels.items(), strict=True):
        for sweep, colour, marker in kinds.values():
            ends = [run for run in of_sweeps(runs, sweep) if not is_zero_function(run)]
            points = sorted((lambda_of(run), quantity(run)) for run in ends)
            if points:
                axes.plot(*zip(*points, strict=True), marker=marker, color=colour)
        axes.set_xscale("symlog", linthresh=1e-6)
        axes.set_xticks([0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2])
        axes.minorticks_off()
        _labels(axes, "λ", label)
        if "rank" not in label:
            style.logarithmic(axes)
    handles = [
        style.handle(name, color=colour, marker=marker)
        for name, (sweep, colour, marker) in kinds.items()
        if of_sweeps(runs, sweep)
    ]
    if handles:
        style.legend(canvas, handles, 3)
    return len(handles) > 1


def a2_schedules(canvas: Canvas, runs: Sequence[Run]) -> bool:
    """The smallest singular value of Fig. A.2 under the shared and the printed schedule."""
    titles = {
        "linear-a2": "shared schedule, $1/\\sqrt{t}$ for both",
        "linear-a2_printed_schedule": "as printed: GD at a constant rate",
    }
    complete = True
    for axes, (sweep, title) in zip(
        canvas.subplots(1, 2, sharey=True), titles.items(), strict=True
    ):
        shown = of_sweeps(runs, sweep)
        for run in shown:
            values = _column(run, "sigma_min")
            values = values[values.index > 0]
            axes.plot(values.index, values, **style.look(run.dynamics))
        axes.set(xscale="log", title=title)
        style.logarithmic(axes)
        _labels(axes, "epoch", r"$\sigma_{\min}(W)$")
        complete &= len({run.dynamics for run in shown}) == 2
    style.legend(canvas, [style.handle(name, **look) for name, look in style.DYNAMICS.items()], 2)
    return complete


def default_network(canvas: Canvas, runs: Sequence[Run]) -> bool:
    """SGD and GD of the paper's own network, as far as they went."""
    shown = of_sweeps(runs, "default_network")
    panels: dict[str, Callable[[Run], pd.Series]] = {
        "training error": lambda run: _column(run, "train/error_running"),
        r"$\|\dot V_k\|$, mean over layers": lambda run: _velocities(run),
        "effective rank, conv3 to fc1": lambda run: _ranks(run),
    }
    for axes, (label, curve) in zip(canvas.subplots(1, 3), panels.items(), strict=True):
        for run in shown:
            values = curve(run)
            axes.plot(values.index, values, **style.look(run.dynamics))
        _labels(axes, "epoch", label)
        if "rank" in label:
            axes.set_ylim(bottom=0)  # else a change of a thousandth fills the panel
    style.legend(canvas, [style.handle(name, **look) for name, look in style.DYNAMICS.items()], 2)
    return bool(groups(shown))


FIGURES: dict[str, Callable[[Canvas, Sequence[Run]], bool]] = {
    "settled": settled,
    "constant": constant,
    "confirm": confirm,
    "scale": scale,
    "whose": whose,
    "dose": dose,
    "equal_clocks": equal_clocks,
    "gd_steps": gd_steps,
    "controls": controls,
    "a2_schedules": a2_schedules,
    "default_network": default_network,
}


def _column(run: Run, key: str, clock: str = "epoch") -> Any:
    if key not in run.rows:
        return pd.Series(dtype=float)
    return run.rows.set_index(clock)[key].dropna()


def _velocities(run: Run, clock: str = "epoch") -> pd.Series:
    columns = [_column(run, f"velocity/{layer}", clock) for layer in run.layers("velocity")]
    return pd.concat(columns, axis=1).apply(lambda row: row.prod() ** (1 / len(row)), axis=1)


def _ranks(run: Run, clock: str = "epoch") -> pd.Series:
    columns = [_column(run, f"effective_rank/{layer}", clock) for layer in MIDDLE]
    return pd.concat(columns, axis=1).mean(axis=1)


def _labels(axes: Axes, x: str, y: str) -> None:
    axes.set(xlabel=x, ylabel=y)
