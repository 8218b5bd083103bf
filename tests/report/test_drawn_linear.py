"""Figures A.1 to A.7 as drawn: curves, fits, axes and legends against the runs and the CSV."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from report.drawn import Entry, Line, Panel, Picture, picture, pictures
from report.generic import regression

from janus_pl.records.run import Run
from janus_pl.report.figures import linear, sheet, style

PROBLEMS: dict[str, dict[str, Any]] = {
    "a1": {"num_train": 10, "dim": 11, "init": "zero"},
    "a2": {"num_train": 10, "dim": 11, "init": "gaussian"},
    "a3": {"num_train": 5, "dim": 10, "informative": 2},
    "a4": {"num_train": 200, "dim": 10, "informative": 2, "order": "online"},
    "a5": {"num_train": 100_000, "dim": 10, "order": "online"},
    "a6": {"num_train": 10, "dim": 2, "empty": 1},
    "a7": {"num_train": 6, "dim": 6, "empty": 1},
}
SGD, GD = ("#0072b2", "-"), ("#d55e00", "--")
CLOSED_FORM = ("#000000", ":")
CLOCKS = {"epoch": "epoch", "step": "trainer/global_step", "eta_t": "eta_t"}
LABELS = {"epoch": "epoch", "step": "step", "eta_t": "accumulated learning rate ηt"}

# Of each panel: the keys drawn in it, its title, its y axis.
MSE = (["train/mse_per_sample"], "Mean squared error", r"$\frac{1}{N}\sum\|Wx_i-y_i\|^2$")
EIGENVALUES = (
    [f"eigenvalue_modulus/{i}" for i in (1, 2, 3)],
    "Eigenvalues of W, moduli",
    r"$|\lambda_i(W)|$",
)
SINGULAR = ([f"singular_value/{i}" for i in (1, 2, 3)], "Singular values of W", r"$\sigma_i(W)$")
NULL = (["null/norm", "null/predicted"], "Component in the null space", r"$\|W_\perp\|$")
GRADIENT = (["gradient_norm"], "Velocity, mean over steps", r"$\|\dot W\|$")
DISTANCE = (["solution/distance"], "Distance from the regularized solution", r"$\|W-W^*\|$")
WEIGHTS = (["noise/weights"], "Noise of the weights", "std of W over steps")
PREDICTIONS = (["noise/predictions"], "Noise of the predictions", "std of Wx over steps")
PANELS = {
    "a1": (MSE, EIGENVALUES, NULL, GRADIENT),
    "a2": (MSE, EIGENVALUES, NULL, GRADIENT),
    "a3": (MSE, SINGULAR, NULL, GRADIENT),
    "a4": (MSE, SINGULAR, DISTANCE, GRADIENT),
    "a5": (MSE, DISTANCE, WEIGHTS, PREDICTIONS),
    "a6": (MSE, SINGULAR, NULL, GRADIENT),
}
TITLES = {
    "a1": "W x = y from W0 = 0: N = 10, d = 11, λ = 2e-2",
    "a2": "W x = y from a random W0, N < d: N = 10, d = 11, λ = 2e-2",
    "a3": "W x = y where few components of x matter: N = 5, d = 10, λ = 2e-2",
    "a4": "W x = y where few components of x matter, online, each sample once: N = 200, d = 10,"
    " λ = 2e-2",
    "a5": "W x = y online, each sample once, SGD at a constant rate: N = 100000, d = 10, λ = 2e-2",
    "a6": "W x = y in two dimensions, one of them without data: N = 10, d = 2, λ = 2e-2",
}


def of(key: str, seeds: int = 2, **options: Any) -> list[Run]:
    """SGD and GD of a figure's setting; of A.7 with enough rows in the second half for a fit."""
    if key == "a7":
        options = {"epochs": (0, 1, 3, 4, 6, 7, 8), **options}
    return [
        regression(batch, seed, data=PROBLEMS[key], **options)
        for batch in (1, "full")
        for seed in range(seeds)
    ]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Picture]:
    folder = tmp_path_factory.mktemp("linear")
    found = {}
    for key in PROBLEMS:
        for x in CLOCKS if key in ("a2", "a7") else ("epoch",):
            found[f"{key} {x}"] = picture(of(key), folder, key, x)
    return found


def wanted_lines(key: str, keys: Sequence[str]) -> list[tuple[str, str, tuple[str, str]]]:
    """What is drawn in a panel, in turn: batch size, key, look."""
    found = []
    for batch, look in (("1", SGD), ("full", GD)):
        if batch == "full" and key == "a5":
            continue
        for name in keys:
            found.append((batch, name, CLOSED_FORM if name == "null/predicted" else look))
    return found


def check_curve(
    found: Picture, line: Line, panel: str, key: str, runs: Sequence[Run], x: str, geometric: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the seeds, drawn and written; returns the least and largest."""
    values = np.array([run.rows[key] for run in runs])
    mean = np.prod(values, axis=0) ** (1 / len(values)) if geometric else values.mean(axis=0)
    np.testing.assert_array_equal(line.x, runs[0].rows[CLOCKS[x]])
    np.testing.assert_allclose(line.y, mean)
    for run in runs:
        mine = {"panel": panel, "kind": "run", "id": run.id, "key": key, "x_name": CLOCKS[x]}
        np.testing.assert_array_equal(found.column("value", **mine), run.rows[key])
        np.testing.assert_array_equal(found.column("x", **mine), run.rows[CLOCKS[x]])
        assert {row["dynamics"] for row in found.written(**mine)} == {run.dynamics}
    means = {"panel": panel, "kind": "mean", "key": key, "dynamics": runs[0].dynamics}
    np.testing.assert_array_equal(found.column("value", **means), line.y)
    low, high = values.min(axis=0), values.max(axis=0)
    np.testing.assert_array_equal(found.column("low", **means), low)
    np.testing.assert_array_equal(found.column("high", **means), high)
    return low, high


def check_figure(found: Picture, runs: Sequence[Run], x: str = "epoch") -> None:
    """All of one of A.1 to A.6, of two seeds."""
    assert found.missing is None
    assert found.title == TITLES[found.key]
    assert len(found.panels) == 4
    for i, (panel, wanted) in enumerate(zip(found.panels, PANELS[found.key], strict=True)):
        keys, title, label = wanted
        assert (panel.title, panel.ylabel) == (title, label)
        assert panel.xlabel == (LABELS[x] if i >= 2 else "")
        assert panel.place == (i // 2, i // 2, i % 2, i % 2)
        lines = wanted_lines(found.key, keys)
        assert len(panel.lines) == len(lines)
        bands = iter(panel.bands)
        for (batch, key, look), line in zip(lines, panel.lines, strict=True):
            own = [r for r in runs if str(r.config["data"]["init_args"]["batch_size"]) == batch]
            name = keys[0].partition("/")[0] if len(keys) == 3 else keys[0]
            low, high = check_curve(found, line, name, key, own, x, geometric=True)
            assert (line.colour, line.dashes) == look
            if key == "null/predicted":
                continue
            thick = key == keys[-1] or len(keys) < 3
            assert (line.width, line.alpha) == ((1.2, 1.0) if thick else (0.5, 0.6)), key
            if thick:
                band = next(bands)
                assert band.colour == look[0]
                np.testing.assert_allclose(band.low, low)
                np.testing.assert_allclose(band.high, high)
        assert next(bands, None) is None
        check_scale(panel)
    check_legend(found, NULL in PANELS[found.key] and found.key != "a1")


def check_scale(panel: Panel) -> None:
    """Logarithmic for two powers of ten or more; nothing of these numbers is cut off."""
    drawn = np.concatenate([line.y for line in panel.lines])
    assert panel.yscale == ("log" if drawn.max() >= 100 * drawn.min() else "linear")
    assert panel.xscale == "linear"
    assert panel.ylim[0] <= drawn.min()
    assert panel.ylim[1] >= drawn.max()
    assert panel.xlim[0] <= min(line.x[0] for line in panel.lines)
    assert panel.xlim[1] >= max(line.x[-1] for line in panel.lines)


def check_legend(found: Picture, closed_form: bool) -> None:
    entries = [Entry("SGD, B = 1", *SGD, "None")]
    if found.key != "a5":
        entries.append(Entry("GD, B = N", *GD, "None"))
    if closed_form:
        entries.append(Entry("closed form (Theorem 1)", *CLOSED_FORM, "None"))
    assert found.legend == entries


@pytest.mark.parametrize("key", PANELS)
def test_what_is_drawn_is_what_the_runs_hold_and_what_is_written(
    key: str, drawn: dict[str, Picture]
) -> None:
    check_figure(drawn[f"{key} epoch"], of(key))


@pytest.mark.parametrize("x", CLOCKS)
def test_curves_are_against_the_clock_that_was_asked_for(x: str, drawn: dict[str, Picture]) -> None:
    check_figure(drawn[f"a2 {x}"], of("a2"), x)
    check_a7(drawn[f"a7 {x}"], of("a7"), x)


def test_scales_of_both_kinds_are_among_them(drawn: dict[str, Picture]) -> None:
    """The control of the scales above: the rule decides differently between these panels."""
    panels = [panel for found in drawn.values() for panel in found.panels]
    assert {panel.yscale for panel in panels} == {"linear", "log"}


# Figure A.7


def check_a7(found: Picture, runs: Sequence[Run], x: str = "epoch") -> None:
    top, bottom = found.panels
    assert top.title == "Smallest singular value (dotted: fits)"
    assert bottom.title == "Largest singular value"
    assert (top.ylabel, bottom.ylabel) == (r"$\sigma_{\min}(W)$", r"$\sigma_{\max}(W)$")
    assert (top.xlabel, bottom.xlabel) == ("", LABELS[x])
    assert (top.place, bottom.place) == ((0, 0, 0, 0), (1, 1, 0, 0))
    assert bottom.yscale == "linear"
    slopes = {}
    by_batch = {"SGD": (runs[:2], SGD), "GD": (runs[2:], GD)}
    fits = [line for line in top.lines if line.dashes == ":"]
    curves = [line for line in top.lines if line.dashes != ":"]
    assert len(fits) == len(curves) == len(bottom.lines) == 2
    for k, (name, (own, look)) in enumerate(by_batch.items()):
        for line, panel, key, geometric in (
            (curves[k], "smallest", "singular_value/3", True),
            (bottom.lines[k], "largest", "singular_value/1", False),
        ):
            low, high = check_curve(found, line, panel, key, own, x, geometric)
            assert (line.colour, line.dashes, line.width) == (*look, 1.2)
            band = (top if panel == "smallest" else bottom).bands[k]
            assert band.colour == look[0]
            np.testing.assert_allclose(band.low, low)
            np.testing.assert_allclose(band.high, high)
        slopes[name] = check_fit(fits[k], curves[k])
    check_slopes(found, top, slopes, x)
    check_legend(found, closed_form=False)


def check_fit(fit: Line, curve: Line) -> tuple[float, float]:
    """Least squares by its closed form, through the points of the second half; slope and R^2."""
    late = 2 * curve.x >= curve.x[0] + curve.x[-1]
    x, y = curve.x[late], np.log(curve.y[late])
    slope = np.sum((x - x.mean()) * (y - y.mean())) / np.sum((x - x.mean()) ** 2)
    fitted = y.mean() + slope * (x - x.mean())
    np.testing.assert_array_equal(fit.x, x)
    np.testing.assert_allclose(fit.y, np.exp(fitted))
    return slope, 1 - np.sum((y - fitted) ** 2) / np.sum((y - y.mean()) ** 2)


def check_slopes(
    found: Picture, top: Panel, slopes: Mapping[str, tuple[float, float]], x: str
) -> None:
    (sgd, sgd_r2), (gd, gd_r2) = slopes["SGD"], slopes["GD"]
    said = f"SGD {sgd:.3g} (R^2 {sgd_r2:.3g}), GD {gd:.3g} (R^2 {gd_r2:.3g}); ratio {sgd / gd:.3g}."
    assert found.caption.split("over the second half: ")[1].startswith(said)
    unit = {"epoch": " per epoch", "step": " per step", "eta_t": ""}[x]
    assert top.texts == [f"SGD: slope {sgd:.2e}{unit}\nGD: slope {gd:.2e}{unit}"]


def test_the_fit_takes_the_second_half_with_its_middle(tmp_path: Path) -> None:
    epochs = tuple(range(9))
    values = np.array([1, 0.9, 0.8, 0.7, 0.65, 0.3, 0.2, 0.05, 0.04])
    own = [
        regression(batch, data=PROBLEMS["a7"], epochs=epochs, columns={"singular_value/3": values})
        for batch in (1, "full")
    ]
    top, _ = picture(own, tmp_path, "a7").panels
    (fit, _) = [line for line in top.lines if line.dashes == ":"]
    assert list(fit.x) == [4, 5, 6, 7, 8]


@pytest.mark.parametrize(
    ("late", "kept"),
    [
        ([1e-3, 1.1e-12, 1e-4, 1e-5], 4),  # 1e-12 of the largest number is where rounding begins
        ([1e-3, 0.9e-12, 1e-4, 1e-5], 3),
        ([1e-3, 0.9e-12, 0.9e-12, 1e-5], 0),  # two points are no fit
        ([1e-3, 1e-3, 1e-3, 1e-3], 0),  # nor is a constant
        ([1e-3, 0.0, -1.0, 1e-4], 0),
    ],
)
def test_what_is_rounding_is_not_fitted(late: list[float], kept: int, tmp_path: Path) -> None:
    epochs = (0, 1, 4, 5, 6, 7)
    columns = {"singular_value/3": [1.0, 0.5, *late]}
    runs = [
        regression(batch, data=PROBLEMS["a7"], epochs=epochs, columns=columns)
        for batch in (1, "full")
    ]
    found = picture(runs, tmp_path, "a7")
    fits = [line for line in found.panels[0].lines if line.dashes == ":"]
    assert [len(fit.x) for fit in fits] == ([kept] * 2 if kept else [])
    assert ("Slope of ln sigma_min" in found.caption) == bool(kept)
    assert len(found.panels[0].texts) == bool(kept)


def test_one_fit_alone_has_no_ratio(tmp_path: Path) -> None:
    runs = of("a7", seeds=1)
    runs[1].rows["singular_value/3"] = 0.5
    found = picture(runs, tmp_path, "a7")
    assert "over the second half: SGD " in found.caption
    assert "ratio" not in found.caption
    assert found.panels[0].texts[0].startswith("SGD: slope ")
    assert "GD: slope" not in found.panels[0].texts[0].removeprefix("SGD: slope")


# Negative controls

PLOT, FIT, CURVES, DYNAMICS = Axes.plot, linear._fit, sheet.Sheet.curves, dict(style.DYNAMICS)
SWAPPED = {"SGD": DYNAMICS["GD"], "GD": DYNAMICS["SGD"]}


def halved(axes: Axes, x: Any, y: Any, **look: Any) -> Any:
    return PLOT(axes, x, np.asarray(y) / 2, **look)


def next_key(self: Any, panel: str, axes: Axes, runs: Any, key: str, **options: Any) -> None:
    """The curve of another quantity under this one's name."""
    other = "gradient_norm" if key != "gradient_norm" else "null/norm"
    found = [sheet.curve(run, other, self.x) for run in runs]
    CURVES(self, panel, axes, runs, key, found=found, **options)


def first_seed(self: Any, panel: str, axes: Axes, runs: Any, key: str, **options: Any) -> None:
    CURVES(self, panel, axes, runs[:1], key, **options)


def by_epoch(self: Any, panel: str, axes: Axes, runs: Any, key: str, **options: Any) -> None:
    found = [sheet.curve(run, key, "epoch") for run in runs]
    CURVES(self, panel, axes, runs, key, found=found, **options)


def always_linear(axes: Axes) -> None:
    style.plain_ticks(axes)


def whole_course(axes: Axes, shown: Any) -> Any:
    x = shown.x.copy()
    return FIT(axes, shown._replace(x=np.concatenate([[-x[-1]], x[1:]])))


def swapped_legend(sheet_: Any, pair: Any, closed_form: bool) -> None:
    style.legend(
        sheet_.canvas,
        [
            style.handle(f"{name}, B = {size}", **SWAPPED[name])
            for name, size in (("SGD", 1), ("GD", "N"))
        ],
        3,
    )


FAULTS: dict[str, tuple[str, str, Any, str, Any]] = {
    "half as high": ("a1", "epoch", Axes, "plot", halved),
    "SGD in GD's colour": ("a6", "epoch", style, "DYNAMICS", SWAPPED),
    "SGD and GD swapped in the legend": ("a4", "epoch", linear, "_legend", swapped_legend),
    "another quantity": ("a3", "epoch", sheet.Sheet, "curves", next_key),
    "one seed for all": ("a5", "epoch", sheet.Sheet, "curves", first_seed),
    "epochs for steps": ("a2", "step", sheet.Sheet, "curves", by_epoch),
    "linear axes": ("a2", "epoch", linear, "_log", always_linear),
    "a fit of the whole course": ("a7", "epoch", linear, "_fit", whole_course),
    "a fit half as high": ("a7", "epoch", Axes, "plot", halved),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_seen(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, x, owner, name, replacement = FAULTS[fault]
    check: Callable[..., None] = check_a7 if key == "a7" else check_figure
    monkeypatch.setattr(owner, name, replacement)
    with pytest.raises(AssertionError):
        check(picture(of(key), tmp_path, key, x), of(key), x)


# Axes


@pytest.mark.parametrize(("highest", "scale"), [(0.99, "linear"), (1.0, "log"), (1e3, "log")])
def test_two_powers_of_ten_make_an_axis_logarithmic(
    highest: float, scale: str, tmp_path: Path
) -> None:
    """Of what is drawn; zero is no number of such an axis."""
    runs = of("a2", seeds=1)
    for run in runs:
        run.rows["gradient_norm"] = [0.01, 0.02, highest, 0.0, 0.03]
    assert picture(runs, tmp_path, "a2").panels[3].yscale == scale


def test_an_axis_ends_where_numbers_are_rounding(tmp_path: Path) -> None:
    runs = of("a2", seeds=1)
    for run, lowest in zip(runs, (1e-25, 1e-3), strict=True):
        run.rows["gradient_norm"] = [4.0, 3.0, 2.0, 1.0, lowest]
        run.rows["train/mse_per_sample"] = [4.0, 3.0, 2.0, 1.0, 5e-18]
    mse, _, _, gradient = picture(runs, tmp_path, "a2").panels
    assert gradient.ylim[0] == pytest.approx(4e-18, rel=1e-9, abs=0)
    # Control: an axis whose lowest number is above that is not cut, and goes on below it.
    assert mse.ylim[0] < 3e-18


@pytest.mark.parametrize(("norm", "empty"), [(0.99e-12, True), (0.0, True), (1e-12, False)])
def test_an_empty_null_space_has_an_axis_to_one(norm: float, empty: bool, tmp_path: Path) -> None:
    columns = {"null/norm": [0.0, norm, norm / 2, norm, norm / 3], "null/predicted": [0.0] * 5}
    found = picture(of("a1", seeds=1, columns=columns), tmp_path, "a1")
    panel = found.panels[2]
    assert panel.texts == ["rounding; the closed form is 0"] * empty
    if empty:
        assert (panel.yscale, *panel.ylim) == ("log", pytest.approx(1e-18, abs=0), 1)
    # Other panels of as small numbers are no null space.
    runs = of("a1", seeds=1, columns={**columns, "gradient_norm": [1e-13] * 5})
    assert picture(runs, tmp_path, "a1").panels[3].texts == []


# Several seeds in one record


def test_a_record_over_many_seeds_has_a_band_between_its_quantiles(tmp_path: Path) -> None:
    low, high = [0.1, 0.2, 0.3, 0.4, 0.5], [9.0, 8.0, 7.0, 6.0, 5.5]
    quantiles = {"gradient_norm/q05": low, "gradient_norm/q95": high}
    data = {**PROBLEMS["a2"], "replicas": 9}
    runs = [regression(batch, data=data, columns=quantiles) for batch in (1, "full")]
    found = picture(runs, tmp_path, "a2")
    panel = found.panels[3]
    for line, band, run in zip(panel.lines, panel.bands, runs, strict=True):
        np.testing.assert_array_equal(line.y, run.rows["gradient_norm"])
        np.testing.assert_array_equal(band.low, low)
        np.testing.assert_array_equal(band.high, high)
        for end, values in (("q05", low), ("q95", high)):
            mine = {"id": run.id, "key": f"gradient_norm/{end}", "panel": "gradient_norm"}
            np.testing.assert_array_equal(found.column("value", **mine), values)
    assert "Lines are medians over seeds, bands reach from the 5% to the 95% quantile." in (
        found.caption
    )
    # Of a key without quantiles, or of several records, the band is that of the curves.
    (mse, *_) = found.panels
    np.testing.assert_array_equal(mse.bands[0].low, runs[0].rows["train/mse_per_sample"])
    two = [regression(b, s, data=data, columns=quantiles) for b in (1, "full") for s in (0, 1)]
    gradient = picture(two, tmp_path, "a2").panels[3]
    both = np.array([run.rows["gradient_norm"] for run in two[:2]])
    np.testing.assert_array_equal(gradient.bands[0].low, both.min(axis=0))


def test_a_band_of_many_points_reaches_from_the_lowest_to_the_highest_quantile(
    tmp_path: Path,
) -> None:
    draw = np.random.default_rng(3)
    low, high = draw.uniform(0.1, 1, 1000), draw.uniform(2, 9, 1000)
    columns = {"gradient_norm/q05": low, "gradient_norm/q95": high}
    data = {**PROBLEMS["a2"], "replicas": 9}
    runs = [
        regression(batch, data=data, epochs=range(1000), columns=columns) for batch in (1, "full")
    ]
    band = picture(runs, tmp_path, "a2").panels[3].bands[0]
    assert len(band.x) == 300
    cuts = [*band.x.astype(int), 1000]
    for start, end, least, most in zip(cuts, cuts[1:], band.low, band.high, strict=False):
        assert (least, most) == (low[start:end].min(), high[start:end].max())


def test_the_smallest_of_eleven_values_is_the_eleventh(tmp_path: Path) -> None:
    runs = [regression(batch, data=PROBLEMS["a3"], values=11) for batch in (1, "full")]
    for run in runs:
        run.rows["singular_value/11/q05"] = 7.0
    found = picture(runs, tmp_path, "a3")
    panel = found.panels[1]
    assert len(panel.lines) == 22
    (thick, _) = [line for line in panel.lines if line.width == 1.2]
    np.testing.assert_array_equal(thick.y, runs[0].rows["singular_value/11"])
    top, bottom = picture(
        [regression(batch, data=PROBLEMS["a7"], values=11) for batch in (1, "full")],
        tmp_path,
        "a7",
    ).panels
    np.testing.assert_array_equal(top.lines[0].y, runs[0].rows["singular_value/11"])
    np.testing.assert_array_equal(bottom.lines[0].y, runs[0].rows["singular_value/1"])


# Records that lack something, and notes


def test_a_panel_without_numbers_is_taken_away_and_named(tmp_path: Path) -> None:
    lacks = {"null/norm": None, "null/predicted": None}
    found = picture(of("a2", columns=lacks), tmp_path, "a2")
    titles = [MSE[1], EIGENVALUES[1], GRADIENT[1]]
    assert [panel.title for panel in found.panels] == titles
    assert [panel.xlabel for panel in found.panels] == ["epoch"] * 3
    assert "Not in the record, so without a panel: null/norm." in found.caption
    assert "closed form" not in found.caption
    assert [entry.label for entry in found.legend] == ["SGD, B = 1", "GD, B = N"]
    whole = picture(of("a2"), tmp_path, "a2")
    assert "without a panel" not in whole.caption
    assert "The closed form of the null space is the start times the product" in whole.caption
    columns = {"null/predicted": None}
    assert "closed form of" not in picture(of("a2", columns=columns), tmp_path, "a2").caption


def test_the_noise_of_the_last_tenths_is_told_each_with_its_number(tmp_path: Path) -> None:
    columns = {
        "noise/weights_last_tenth": [np.nan, 9, 9, 9, 0.125],
        "noise/weights_tenth_before": [np.nan, 9, 9, 9, 0.25],
        "noise/predictions_last_tenth": None,
    }
    runs = of("a5", seeds=1, columns=columns)
    said = picture(runs, tmp_path, "a5").caption
    name = runs[0].name
    assert f"noise/weights over the last tenth of {name} 0.125, over the tenth before 0.25." in said
    assert "noise/predictions over" not in said
    # The record of another figure holds them too, and shows no noise.
    assert "last tenth" not in picture(of("a2", seeds=1), tmp_path, "a2").caption


def test_captions_say_rate_schedule_clock_and_which_value_is_thick(tmp_path: Path) -> None:
    found = pictures([*of("a2"), *of("a5")], tmp_path, ("a2", "a5"), "step")
    said = found["a2"].caption
    rate = "N = 10, d = 11, lambda = 2e-2, learning rate 0.25 (constant). Against steps"
    assert f"{rate}; the smallest value is thick. Lines are geometric means over seeds" in said
    assert "the smallest value is thick" not in found["a5"].caption


# Which runs


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        *[(data, {key}) for key, data in PROBLEMS.items()],
        ({"num_train": 11, "dim": 11, "init": "gaussian"}, set()),  # N = d is not N < d
        ({"num_train": 10, "dim": 11, "init": "gaussian"}, {"a2"}),
        ({"num_train": 12, "dim": 11, "init": "zero"}, {"a1"}),
        ({"init": "gaussian"}, {"a2"}),  # where the record says neither
        ({"num_train": 10, "dim": 11, "source": "toy"}, set()),
        ({"num_train": 10, "dim": 2, "empty": 1, "source": "toy"}, set()),
        ({"num_train": 10, "dim": 2, "empty": 1, "order": "online"}, set()),
        ({"num_train": 10, "dim": 3, "empty": 1}, {"a7"}),
        ({"num_train": 10, "dim": 11, "informative": 0, "order": "epochs"}, {"a2"}),
    ],
)
def test_a_run_is_in_the_figure_of_its_setting_alone(
    data: dict[str, Any], keys: set[str], tmp_path: Path
) -> None:
    runs = [regression(batch, data=data) for batch in (1, "full")]
    found = pictures(runs, tmp_path, PROBLEMS)
    assert {key for key, one in found.items() if one.missing is None} == keys


@pytest.mark.parametrize(
    "options",
    [
        {"task": "janus_pl.DeepReLUClassifier"},
        {"task": "somebody.LinearRegressor"},
        {"model": {"weight_decay": [0.1, 0.2]}},
        {"model": {"learning_rate": [0.1, 0.2]}},
        {"columns": dict.fromkeys(("null/norm", *SINGULAR[0]))},
    ],
)
def test_runs_of_another_kind_are_in_none(options: dict[str, Any], tmp_path: Path) -> None:
    found = picture(of("a2", **options), tmp_path, "a2")
    assert found.missing == "no run of W x = y from a random W0, N < d (configs/linear/a2.yaml)"


def pair(key: str = "a2", seeds: int = 1, size: int | None = None, **model: Any) -> list[Run]:
    data = {**PROBLEMS[key], **({"num_train": size} if size else {})}
    return [
        regression(batch, seed, data=data, model=model)
        for batch in (1, "full")
        for seed in range(seeds)
    ]


FAMILIES: dict[str, tuple[list[Run], list[Run]]] = {
    # The first of the two is drawn: ...
    "both dynamics before the paper's size and more seeds": (
        pair(size=9),
        [run for run in pair(seeds=3) if run.dynamics == "SGD"],
    ),
    "one rate before the paper's size": (pair(size=9), pair(gd_schedule="constant", seeds=2)),
    "one rate, told by the other option": (pair(size=9), pair(gd_learning_rate=0.1, seeds=2)),
    "the paper's size before more seeds": (pair(), pair(size=9, seeds=2)),
    "more seeds": (pair(seeds=2), pair(learning_rate=0.125)),
}


@pytest.mark.parametrize("first", ["a", "z"])  # draw takes runs in the order of their names
@pytest.mark.parametrize("what", FAMILIES)
def test_of_several_experiments_the_paper_s_is_drawn(what: str, first: str, tmp_path: Path) -> None:
    wanted, others = FAMILIES[what]
    renamed = [
        Run(f"other-{run.id}", f"{first}-{run.name}", None, run.path, run.config, 0, run.rows)
        for run in others
    ]
    found = picture([*wanted, *renamed], tmp_path, "a2")
    assert {row["id"] for row in found.written(kind="run")} == {run.id for run in wanted}
    for run in renamed:
        assert f"{run.name} ({run.id})" in found.caption.split("Left out")[1]


# Other dimensions than two are of Figure A.7, not of A.6.
SIZES = [(k, name) for k in PROBLEMS for name in ("num_train", "dim") if (k, name) != ("a6", "dim")]


@pytest.mark.parametrize(("key", "changed"), SIZES)
def test_the_size_of_each_figure_is_that_of_its_config(
    key: str, changed: str, tmp_path: Path
) -> None:
    """Of a size more or less by one there are more seeds, and it is not drawn."""
    papers = of(key, seeds=1)
    others = []
    for off in (1, -1) if key not in ("a1", "a2") else (1,) if changed == "dim" else (-1,):
        data = {**PROBLEMS[key], changed: PROBLEMS[key][changed] + off}
        runs = [regression(batch, s, data=data) for batch in (1, "full") for s in (0, 1)]
        others += [replace(run, id=f"{off}-{run.id}") for run in runs]
    found = picture([*others, *papers], tmp_path, key)
    drawn = {row["id"] for row in found.written(kind="run")}
    assert drawn == {run.id for run in papers if key != "a5" or run.dynamics == "SGD"}


def test_without_one_of_the_dynamics_it_says_which_run_is_missing(tmp_path: Path) -> None:
    sgd, gd = pair()
    wanted = {
        "GD": (sgd, "no GD run beside linear-B1-seed0 (linear/a2.yaml, --data.batch_size full)"),
        "SGD": (gd, "no SGD run beside linear-Bfull-seed0 (linear/a2.yaml, --data.batch_size 1)"),
    }
    for run, said in wanted.values():
        assert picture([run], tmp_path, "a2").missing == said
    online = regression(1, data=PROBLEMS["a5"])
    assert picture([online], tmp_path, "a5").missing is None, "A.5 is of SGD alone"


def test_sgd_is_that_of_the_smallest_batch_in_any_order(tmp_path: Path) -> None:
    runs = [regression(batch, data=PROBLEMS["a2"]) for batch in (20, 3, "full", 100)]
    found = picture(runs, tmp_path, "a2")
    assert {row["id"] for row in found.written(kind="run")} == {runs[1].id, runs[2].id}
    assert [entry.label for entry in found.legend[:2]] == ["SGD, B = 3", "GD, B = N"]
