"""Figures A.1 to A.7: linear regression, SGD beside GD."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes

from janus_pl.records.families import lambda_of
from janus_pl.records.run import STEP, Run
from janus_pl.report.figures import style
from janus_pl.report.figures.caption import bands
from janus_pl.report.figures.linear_settings import (
    EIGENVALUES,
    NOISE_W,
    NOISE_Y,
    NULL,
    PREDICTED,
    SETTINGS,
    SINGULAR,
    Pair,
    Panel,
    Setting,
    keys_of,
    pair_of,
)
from janus_pl.report.figures.series import (
    Band,
    Unavailable,
    band,
    batch_of,
    curve,
    has,
    last,
)
from janus_pl.report.figures.sheet import Sheet
from janus_pl.report.figures.study import Study, time_axis, x_name

FLOOR = 1e-18  # of a panel's largest number: below is rounding
FITTED = 1e-12  # the same for a fit
ROUNDING = 1e-12  # a null space of this norm is empty
DECADES = 100  # largest over smallest number from where an axis is logarithmic


def figure(key: str) -> Callable[[Study], Sheet]:
    """Return the function that draws one of A.1 to A.6."""

    def draw(study: Study) -> Sheet:
        setting = SETTINGS[key]
        pair = pair_of(study.runs, setting, ("SGD",) if key == "a5" else ("SGD", "GD"))
        runs = [run for some in pair.runs.values() for run in some]
        panels = [panel for panel in setting.panels if any(keys_of(runs, panel))]
        if not panels:
            raise Unavailable(f"no {' or '.join(p.key for p in setting.panels)} in {runs[0].name}")
        sheet = Sheet(style.canvas(style.PAGE, 4.0), study.x, left_out=pair.left_out)
        full = len(panels) == 4
        places = np.ravel(sheet.canvas.subplots(2, 2, sharex=full))
        for axes, panel in zip(places, panels, strict=False):
            _fill(sheet, axes, panel, pair, study)
        for axes in places[:2] if full else ():
            axes.set_xlabel("")
        for axes in places[len(panels) :]:
            axes.remove()
        sheet.canvas.suptitle(_title(setting, runs), fontsize=8, x=0.01, ha="left")
        _legend(sheet, pair, closed_form=NULL in panels and key != "a1")
        _tell_noise(sheet, runs, panels)
        values = (
            "; the smallest value is thick" if EIGENVALUES in panels or SINGULAR in panels else ""
        )
        sheet.text = (
            f"{_describe(setting, runs)} Against {x_name(study.x)}{values}. {bands(runs)}"
            f"{_closed_form(pair, panels)}"
        )
        _tell_missing(sheet, setting, panels)
        return sheet

    return draw


def fig_a7(study: Study) -> Sheet:
    """Return the smallest and the largest singular value, with the log-slope of the smallest."""
    setting = SETTINGS["a7"]
    pair = pair_of(study.runs, setting, ("SGD", "GD"))
    runs = [run for some in pair.runs.values() for run in some]
    keys = keys_of(runs, SINGULAR)
    if not keys:
        raise Unavailable(f"no {SINGULAR.key}/K in {runs[0].name}")
    sheet = Sheet(style.canvas(style.COLUMN, 4.2), study.x, left_out=pair.left_out)
    top, bottom = sheet.canvas.subplots(2, 1)
    slopes = {}
    for dynamics, some in pair.runs.items():
        look = {**style.look(dynamics), "linewidth": 1.2}
        sheet.curves("smallest", top, some, keys[-1], **look)
        sheet.curves("largest", bottom, some, keys[0], logarithmic=False, **look)
        shown = band([curve(run, keys[-1], study.x) for run in some], logarithmic=True)
        slopes[dynamics] = _fit(top, shown)
    for axes, name, label in (
        (top, "Smallest singular value (dotted: fits)", r"$\sigma_{\min}(W)$"),
        (bottom, "Largest singular value", r"$\sigma_{\max}(W)$"),
    ):
        axes.set(title=name, ylabel=label)
        time_axis(axes, study.x)
    _log(top)
    top.set_xlabel("")
    _legend(sheet, pair, closed_form=False)
    fits = {name: fit for name, fit in slopes.items() if fit}
    said = ", ".join(f"{name} {fit[0]:.3g} (R^2 {fit[1]:.3g})" for name, fit in fits.items())
    sheet.text = f"{_describe(setting, runs)} Against {x_name(study.x)}. {bands(runs)}"
    if said:
        sheet.text += f" Slope of ln sigma_min, least squares over the second half: {said}"
        both = len(fits) == 2 and fits["GD"][0] != 0
        sheet.text += f"; ratio {fits['SGD'][0] / fits['GD'][0]:.3g}." if both else "."
        unit = {"epoch": " per epoch", STEP: " per step"}.get(study.x, "")
        lines = [f"{name}: slope {fit[0]:.2e}{unit}" for name, fit in fits.items()]
        top.text(0.02, 0.03, "\n".join(lines), transform=top.transAxes, va="bottom")
    return sheet


def _fill(sheet: Sheet, axes: Axes, panel: Panel, pair: Pair, study: Study) -> None:
    runs = [run for some in pair.runs.values() for run in some]
    keys = keys_of(runs, panel)
    for dynamics, some in pair.runs.items():
        for key in keys:
            thick = key == keys[-1]
            width, alpha = (1.2, 1.0) if thick else (0.5, 0.6)
            look = {**style.look(dynamics), "linewidth": width, "alpha": alpha}
            sheet.curves(panel.key, axes, some, key, shaded=thick, **look)
        if panel is NULL:
            look = {"color": "black", "linestyle": ":", "linewidth": 0.9, "zorder": 5}
            sheet.curves(panel.key, axes, some, PREDICTED, shaded=False, **look)
    axes.set(title=panel.title, ylabel=panel.label)
    time_axis(axes, study.x)
    _log(axes)
    largest = max((np.nanmax(line.get_ydata(), initial=0) for line in axes.lines), default=0)
    if panel is NULL and largest < ROUNDING:
        axes.set_yscale("log")
        axes.set_ylim(FLOOR, 1)
        said = "rounding; the closed form is 0"
        axes.text(0.5, 0.5, said, transform=axes.transAxes, ha="center")


def _log(axes: Axes) -> None:
    """Make the y axis logarithmic from two powers of ten on; cut it where numbers are rounding."""
    drawn = [np.asarray(line.get_ydata(), float) for line in axes.lines]
    positive = np.concatenate([y[np.isfinite(y) & (y > 0)] for y in drawn] or [np.zeros(0)])
    if not len(positive) or positive.max() < DECADES * positive.min():
        style.plain_ticks(axes, y=5)
        return
    style.logarithmic(axes)
    if positive.min() < FLOOR * positive.max():
        axes.set_ylim(bottom=FLOOR * positive.max())


def _fit(axes: Axes, shown: Band) -> tuple[float, float] | None:
    """Fit and draw the logarithm over the second half of x; return slope and R^2, or None.

    It is None if there are fewer than three points. In the first half the component in the null
    space is not yet the smallest value.
    """
    if not len(shown.x) or not shown.center.max() > 0:
        return None
    late = shown.x >= (shown.x[0] + shown.x[-1]) / 2
    kept = late & (shown.center > FITTED * shown.center.max())
    x, y = shown.x[kept], np.log(shown.center[kept])
    if len(np.unique(x)) < 3 or np.ptp(y) == 0:
        return None
    slope, start = np.polyfit(x, y, 1)
    residual = np.var(y - slope * x - start) / np.var(y)
    axes.plot(x, np.exp(slope * x + start), color="black", linestyle=":", linewidth=0.8)
    return float(slope), float(1 - residual)


def _legend(sheet: Sheet, pair: Pair, closed_form: bool) -> None:
    handles = []
    for dynamics, some in pair.runs.items():
        label = f"{dynamics}, B = {batch_of(some[0])}"
        handles.append(style.handle(label, **style.look(dynamics)))
    if closed_form:
        handles.append(style.handle("closed form (Theorem 1)", color="black", linestyle=":"))
    style.legend(sheet.canvas, handles, 3)


def _title(setting: Setting, runs: Sequence[Run]) -> str:
    options, lam = runs[0].options, style.number(lambda_of(runs[0]))
    size = f"N = {options.get('data.num_train')}, d = {options.get('data.dim')}"
    return rf"{setting.what}: {size.replace('$', '')}, λ = {lam}"


def _describe(setting: Setting, runs: Sequence[Run]) -> str:
    options = runs[0].options
    size = f"N = {options.get('data.num_train')}, d = {options.get('data.dim')}"
    rate = f"learning rate {options.get('model.learning_rate')} ({options.get('model.schedule')})"
    lam = style.number(lambda_of(runs[0]))
    return f"Linear regression {setting.what}: {size}, lambda = {lam}, {rate}."


def _closed_form(pair: Pair, panels: Sequence[Panel]) -> str:
    if NULL not in panels:
        return ""
    runs = [run for some in pair.runs.values() for run in some if has(run, PREDICTED)]
    return (
        " The closed form of the null space is the start times the product of 1 - 2 eta_t lambda"
        " over all steps." * bool(runs)
    )


def _tell_noise(sheet: Sheet, runs: Sequence[Run], panels: Sequence[Panel]) -> None:
    """Note the noise over the run's last tenth and over the tenth before, to see if it falls."""
    for panel in panels:
        ends = [f"{panel.key}_{tenth}" for tenth in ("tenth_before", "last_tenth")]
        found = [run for run in runs if all(has(run, end) for end in ends)]
        if panel in (NOISE_W, NOISE_Y) and found:
            before, after = (last(found[0], end) for end in ends)
            sheet.notes.append(
                f"{panel.key} over the last tenth of {found[0].name} {after:.3g}, over the tenth"
                f" before {before:.3g}."
            )


def _tell_missing(sheet: Sheet, setting: Setting, panels: Sequence[Panel]) -> None:
    missing = [panel.key for panel in setting.panels if panel not in panels]
    if missing:
        sheet.notes.append(f"Not in the record, so without a panel: {', '.join(missing)}.")
