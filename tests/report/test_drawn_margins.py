"""Figures 1, 2 and 5 as drawn: outlines, curves, legends and frames against runs and CSV."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from report.drawn import Entry, Panel, Picture, picture, pictures
from report.generic import network

from janus_pl.records.run import Histogram, Run
from janus_pl.report.figures import margins as deep
from janus_pl.report.figures import series, sheet, style

WORDS = {0.0: "0", 1e-4: "1e-4", 2e-3: "2e-3", 1.5e-2: "1.5e-2"}
HIST, SPREAD = "margin/hist", "margin/std / |margin/mean|"


def lam_of(run: Run) -> float:
    return run.config["model"]["init_args"]["weight_decay"]


def made() -> list[Run]:
    """SGD at four lambdas and two seeds (one at the largest), GD at three, cross entropy at two."""
    runs = [network(lam, seed=seed) for lam in WORDS for seed in (0, 1)][:-1]
    # Margins of a network whose classes have changed sides.
    runs[1].rows["margin/mean"] *= -1
    # The first run's margins lie within those of the others at small lambda.
    *others, last = runs[0].histograms[HIST]
    middle = np.mean([run.histograms[HIST][-1].edges[[0, -1]] for run in runs[1:4]])
    inside = middle + 0.01 * (last.edges - last.edges.mean())
    runs[0] = replace(runs[0], histograms={HIST: [*others, last._replace(edges=inside)]})
    runs += [network(lam, "full", seed) for lam in list(WORDS)[:3] for seed in (0, 1)]
    runs += [network(lam, loss="cross_entropy") for lam in (0.0, 2e-3)]
    return runs


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    return made()


@pytest.fixture(scope="module")
def drawn(runs: list[Run], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Picture]:
    keys = ("fig1a", "fig1b", "fig2a", "fig2b", "fig5a", "fig5b")
    return pictures(runs, tmp_path_factory.mktemp("margins"), keys)


OF = {
    "fig1a": ("square", 32),
    "fig1b": ("square", 32),
    "fig2a": ("square", "full"),
    "fig2b": ("square", "full"),
    "fig5a": ("cross_entropy", 32),
    "fig5b": ("square", 32),
}


def shown_in(key: str, runs: Sequence[Run]) -> list[Run]:
    """The runs of a figure, by lambda and then by seed."""
    loss, batch = OF[key]
    own = [
        run
        for run in runs
        if run.config["model"]["init_args"]["loss"] == loss
        and run.config["data"]["init_args"]["batch_size"] == batch
    ]
    return sorted(own, key=lambda run: (lam_of(run), run.config["seed_everything"]))


def colour(lam: float) -> str:
    """From dark violet to orange, one step for each lambda of the report."""
    return ("#2b0a3d", "#1179c0", "#54a239", "#f4934a")[sorted(WORDS).index(lam)]


def check_outlines(panel: Panel, shown: Sequence[Run]) -> None:
    """Of each run, in its colour and row, its last histogram relative to its fullest bin, twice."""
    assert len(panel.outlines) == 2 * len(shown)
    rows = sorted({lam_of(run) for run in shown})
    assert panel.rows == {float(row): WORDS[lam] for row, lam in enumerate(rows)}
    for k, run in enumerate(shown):
        last = run.histograms[HIST][-1]
        row = rows.index(lam_of(run))
        for outline, filled in zip(panel.outlines[2 * k : 2 * k + 2], (True, False), strict=True):
            assert outline.filled is filled
            assert outline.colour == colour(lam_of(run)), run.name
            heights = last.counts / np.max(last.counts)
            np.testing.assert_allclose(outline.heights - row, 0.9 * heights, atol=1e-12)
            assert outline.base == row
            np.testing.assert_array_equal(outline.edges, last.edges)


def check_written(found: Picture, panel: str, shown: Sequence[Run]) -> None:
    """The CSV has the counts of the drawn outlines, and the runs that they are of."""
    rows = found.written(panel=panel)
    assert list(dict.fromkeys(row["id"] for row in rows)) == [run.id for run in shown]
    for run in shown:
        last = run.histograms[HIST][-1]
        mine = {"panel": panel, "id": run.id, "key": HIST, "kind": "run", "x_name": "margin"}
        np.testing.assert_array_equal(found.column("x", **mine), last.edges[:-1])
        np.testing.assert_array_equal(found.column("x_end", **mine), last.edges[1:])
        np.testing.assert_array_equal(found.column("value", **mine), last.counts)
        (outline,) = [
            o
            for page in found.panels
            for o in page.outlines
            if o.filled and np.array_equal(o.edges, last.edges)
        ]
        written = found.column("value", **mine)
        heights = 0.9 * written / written.max()
        np.testing.assert_allclose(outline.heights - outline.base, heights, atol=1e-12)
        for row in found.written(**mine):
            assert (row["run"], row["dynamics"]) == (run.name, run.dynamics)
            assert float(row["lambda"]) == lam_of(run)
            assert float(row["seed"]) == run.config["seed_everything"]


def legend_of(shown: Sequence[Run]) -> list[Entry]:
    lams = sorted({lam_of(run) for run in shown})
    return [Entry(f"λ = {WORDS[lam]}", colour(lam), "-", "None") for lam in lams]


def relative(shown: Sequence[Run]) -> list[str]:
    """The relative spread of each lambda from the lowest row up, and what heads them."""
    found = []
    for lam in sorted({lam_of(run) for run in shown}):
        ratios = [
            run.rows["margin/std"].iloc[-1] / abs(run.rows["margin/mean"].iloc[-1])
            for run in shown
            if lam_of(run) == lam
        ]
        mean = np.prod(ratios) ** (1 / len(ratios))
        found.append(f"{mean:.1e}")
    return [*found, "σ/μ"]


def check_frame(panel: Panel, shown: Sequence[Run]) -> None:
    edges = [run.histograms[HIST][-1].edges for run in shown]
    assert panel.xlim[0] <= min(e[0] for e in edges)
    assert panel.xlim[1] >= max(e[-1] for e in edges)
    check_rows(panel, len({lam_of(run) for run in shown}))


def check_rows(panel: Panel, count: int) -> None:
    assert panel.ylim == (0, count + 0.05)
    assert (panel.xscale, panel.yscale) == ("linear", "linear")
    assert panel.xlabel == r"margin $\bar f_n$"
    assert panel.ylabel == "λ, samples per bin"


def region_of(shown: Sequence[Run]) -> tuple[float, float]:
    """All last histograms at lambda of 1e-4 or less, a tenth of their width wider on both sides."""
    edges = [run.histograms[HIST][-1].edges for run in shown if lam_of(run) <= 1e-4]
    low, high = min(e[0] for e in edges), max(e[-1] for e in edges)
    return low - (high - low) / 10, high + (high - low) / 10


def check_figure(found: Picture, runs: Sequence[Run]) -> None:
    """All of a figure of margins."""
    shown = shown_in(found.key, runs)
    assert found.missing is None
    if found.key == "fig1b":
        check_zoom(found, shown)
        return
    (panel,) = found.panels
    check_outlines(panel, shown)
    check_written(found, "margins", shown)
    check_frame(panel, shown)
    assert found.legend == []
    box = found.key == "fig1a"
    assert panel.texts == [*relative(shown), *["(b)"] * box]
    check_box(panel, shown if box else [])


def check_box(panel: Panel, shown: Sequence[Run]) -> None:
    """Around the margins at small lambda, from zero to above the fullest bin."""
    assert len(panel.boxes) == bool(shown)
    for box in panel.boxes:
        np.testing.assert_allclose((box.low, box.high), region_of(shown), rtol=1e-12)
        assert (box.bottom, box.colour) == (0, "#0050d0")
        assert box.top == len({lam_of(run) for run in shown if lam_of(run) <= 1e-4})


def check_zoom(found: Picture, shown: Sequence[Run]) -> None:
    near, time = found.panels
    region = region_of(shown)
    inside = [run for run in shown if lam_of(run) <= 1e-4]
    check_outlines(near, inside)
    check_written(found, "zoom", inside)
    np.testing.assert_allclose(near.xlim, region, rtol=1e-12)
    check_rows(near, 2)
    assert near.title == "Zoom of (a): λ ≤ 1e-4"
    assert near.texts == relative(inside)
    assert found.legend == legend_of(shown)
    check_spreads(found, time, shown)


def check_spreads(found: Picture, time: Panel, shown: Sequence[Run]) -> None:
    """Geometric means over seeds of std/|mean|, and bands from the least to the largest seed."""
    assert (time.xscale, time.yscale, time.xlabel) == ("linear", "log", "epoch")
    assert time.title == "Spread of the margins during training"
    lams = sorted({lam_of(run) for run in shown})
    assert len(time.lines) == len(time.bands) == len(lams)
    for lam, line, band in zip(lams, time.lines, time.bands, strict=True):
        own = [run for run in shown if lam_of(run) == lam]
        spreads = np.array([r.rows["margin/std"] / r.rows["margin/mean"].abs() for r in own])
        assert line.colour == band.colour == colour(lam)
        for drawn in (line, band):
            np.testing.assert_array_equal(drawn.x, own[0].rows["epoch"])
        np.testing.assert_allclose(line.y, np.prod(spreads, axis=0) ** (1 / len(own)))
        np.testing.assert_allclose(band.low, spreads.min(axis=0))
        np.testing.assert_allclose(band.high, spreads.max(axis=0))
        for run, values in zip(own, spreads, strict=True):
            mine = {"panel": "spread", "key": SPREAD, "kind": "run", "id": run.id}
            np.testing.assert_allclose(found.column("value", **mine), values)
            np.testing.assert_array_equal(found.column("x", **mine), run.rows["epoch"])
        means = {"panel": "spread", "key": SPREAD, "kind": "mean", "lam": lam}
        assert bool(found.written(**means)) == (len(own) > 1)
        if len(own) > 1:
            np.testing.assert_array_equal(found.column("x", **means), line.x)
            np.testing.assert_array_equal(found.column("value", **means), line.y)
            np.testing.assert_array_equal(found.column("low", **means), band.low)
            np.testing.assert_array_equal(found.column("high", **means), band.high)
            assert set(found.column("seeds", **means)) == {len(own)}


@pytest.mark.parametrize("key", OF)
def test_what_is_drawn_is_what_the_runs_hold_and_what_is_written(
    key: str, drawn: dict[str, Picture], runs: list[Run]
) -> None:
    check_figure(drawn[key], runs)


def test_titles_say_dynamics_batch_size_and_loss(drawn: dict[str, Picture]) -> None:
    titles = {key: found.panels[0].title for key, found in drawn.items()}
    assert titles == {
        "fig1a": "Margins under SGD, B = 32, square loss",
        "fig1b": "Zoom of (a): λ ≤ 1e-4",
        "fig2a": "Margins under GD, B = N, else as Figure 1",
        "fig2b": "Margins under converged GD, error < 1%",
        "fig5a": "Margins under SGD, B = 32, cross entropy",
        "fig5b": "Margins under SGD, B = 32, square loss",
    }


def first_histogram(run: Run) -> Histogram | None:
    return next(iter(run.histograms[HIST]), None)


def half_as_high(axes: Axes, values: Any, *args: Any, **look: Any) -> Any:
    row = look["baseline"]
    return STAIRS(axes, row + (np.asarray(values) - row) / 2, *args, **look)


def backwards(axes: Axes, values: Any, *args: Any, **look: Any) -> Any:
    return STAIRS(axes, values if look.get("fill") else values[::-1], *args, **look)


def half_the_line(axes: Axes, x: Any, y: Any, **look: Any) -> Any:
    return PLOT(axes, x, y / 2, **look)


def linear_axis(axes: Axes) -> None:
    axes.set_yscale("linear")


def next_colour(lams: Any) -> dict[float, Any]:
    found = COLOURS(lams)
    return dict(zip(found, [*list(found.values())[1:], *list(found.values())[:1]], strict=True))


def shifted_legend(figure: Any, handles: list, columns: int) -> None:
    labels = [handle.get_label() for handle in handles]
    for handle, label in zip(handles, [*labels[1:], labels[0]], strict=True):
        handle.set_label(label)
    LEGEND(figure, handles, columns)


def first_seed(group: series.Group) -> str:
    return RELATIVE(group._replace(runs=group.runs[:1]))


def smallest_for_mean(curves: Any, logarithmic: bool) -> Any:
    found = BAND(curves, logarithmic)
    return found._replace(center=found.low)


def arithmetic(curves: Any, logarithmic: bool) -> Any:
    found = BAND(curves, False)
    return found


def signed(run: Run, x: str) -> Any:
    return series.curve(run, "margin/std", x) / series.curve(run, "margin/mean", x)


RELATIVE = deep._relative
STAIRS, PLOT, COLOURS, LEGEND, BAND = (
    Axes.stairs,
    Axes.plot,
    style.colours,
    style.legend,
    series.band,
)
FAULTS: dict[str, tuple[str, type | ModuleType, str, Callable]] = {
    "the first histogram for the last": ("fig1a", deep, "final_histogram", first_histogram),
    "the zoom of the first histograms": ("fig1b", deep, "final_histogram", first_histogram),
    "half as high": ("fig2a", Axes, "stairs", half_as_high),
    "outlines back to front": ("fig5a", Axes, "stairs", backwards),
    "another lambda's colour": ("fig2b", style, "colours", next_colour),
    "labels one entry off": ("fig1b", style, "legend", shifted_legend),
    "the first seed for the mean": ("fig5b", deep, "_relative", first_seed),
    "curves half as high": ("fig1b", Axes, "plot", half_the_line),
    "a linear axis": ("fig1b", style, "logarithmic", linear_axis),
    "the smallest seed for the mean": ("fig1b", sheet, "band", smallest_for_mean),
    "arithmetic means on a logarithmic axis": ("fig1b", sheet, "band", arithmetic),
    "the sign of the mean": ("fig1b", deep, "relative_spread", signed),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_seen(
    fault: str, runs: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative controls of the comparison above."""
    key, owner, name, replacement = FAULTS[fault]
    check_figure(picture(runs, tmp_path, key), runs)
    monkeypatch.setattr(owner, name, replacement)
    with pytest.raises(AssertionError):
        check_figure(picture(runs, tmp_path, key), runs)


# What is left out, and where one of the runs lacks something


def test_lambdas_beyond_the_zoom_have_no_row_in_it(tmp_path: Path) -> None:
    near, far = network(0.0), network(2e-3)
    shifted = [h._replace(edges=h.edges + 1.0) for h in far.histograms[HIST]]
    far = replace(far, histograms={HIST: shifted})
    found = picture([near, far], tmp_path, "fig1b")
    assert len(found.panels[0].outlines) == 2
    assert {row["id"] for row in found.written(panel="zoom")} == {near.id}
    assert {row["id"] for row in found.written(panel="spread")} == {near.id, far.id}


@pytest.mark.parametrize(("lam", "there"), [(1e-4, True), (1.01e-4, False), (0.0, True)])
def test_the_largest_lambda_of_the_zoom_is_1e_4(lam: float, there: bool, tmp_path: Path) -> None:
    found = pictures([network(lam), network(2e-3)], tmp_path, ("fig1a", "fig1b"))
    assert (found["fig1b"].missing is None) is there
    assert len(found["fig1a"].panels[0].boxes) == there
    assert ("region of Figure 1b" in found["fig1a"].caption) is there
    if not there:
        assert found["fig1b"].missing == "no SGD run at lambda <= 1e-4 with margin/hist"


def test_the_last_histogram_that_can_be_drawn_is(tmp_path: Path) -> None:
    run = network(0.0)
    *others, last = run.histograms[HIST]
    edges, counts = last.edges, last.counts
    broken = [
        last._replace(counts=np.zeros(7)),
        last._replace(edges=edges * np.nan),
        last._replace(edges=edges[1:]),
        last._replace(edges=edges[::-1]),
        last._replace(edges=np.full(8, edges[0])),
        last._replace(counts=np.where(np.arange(7) == 2, np.inf, counts)),
    ]
    for odd in broken:
        changed = replace(run, histograms={HIST: [*others, last, odd]})
        (panel,) = picture([changed], tmp_path, "fig1a").panels
        np.testing.assert_array_equal(panel.outlines[0].edges, edges)
        np.testing.assert_allclose(panel.outlines[1].heights, 0.9 * counts / max(counts))


@pytest.mark.parametrize(
    ("error", "converged"), [(0.0099, True), (0.01, False), (0.0, True), (np.nan, False)]
)
def test_gd_has_converged_below_one_percent_at_the_end(
    error: float, converged: bool, tmp_path: Path
) -> None:
    errors = [0.001, 0.5, 0.4, 0.02, error]
    run = network(0.0, "full", columns={"train/error": errors})
    if np.isnan(error):  # the newest number counts
        run.rows.loc[3, "train/error"] = 0.01
    found = picture([run], tmp_path, "fig2b")
    assert (found.missing is None) is converged
    if converged:
        assert f"Training error: {error:.2g} to {error:.2g}." in found.caption
    else:
        assert found.missing == "no GD run with train/error below 0.01; the least is 0.01"


def test_captions_tell_errors_twins_and_what_did_not_converge(tmp_path: Path) -> None:
    errors = {0.0: 0.008, 1e-4: 0.002, 2e-3: 0.3}
    gd = [network(lam, "full", columns={"train/error": [e] * 5}) for lam, e in errors.items()]
    found = pictures([*gd, network(0.0)], tmp_path, ("fig2a", "fig2b"))
    assert "Training error: 0.002 to 0.3." in found["fig2a"].caption
    assert "Training error: 0.002 to 0.008." in found["fig2b"].caption
    assert f"left out: {gd[2].name} (0.3)." in found["fig2b"].caption
    twins = "They are among the runs of Figure 2a: with its options GD converges."
    assert twins in found["fig2b"].caption
    assert "no SGD runs of the same options" not in found["fig2a"].caption
    # A second family that converges, and the SGD runs are of the first.
    other = [network(lam, "full", model={"learning_rate": 0.3}) for lam in (*errors, 1.5e-2)]
    found = pictures([*gd, *other, network(0.0)], tmp_path, ("fig2a", "fig2b"))
    assert {row["id"] for row in found["fig2a"].rows} == {run.id for run in gd}
    assert len(found["fig2b"].panels[0].rows) == 4
    assert twins not in found["fig2b"].caption
    # Without SGD runs the title does not name them.
    alone = picture(gd, tmp_path, "fig2a")
    assert alone.panels[0].title == "Margins under GD, B = N, square loss"
    assert "There are no SGD runs of the same options beside them." in alone.caption


def test_the_runs_of_figure_2a_that_converged_are_told_as_its_own(tmp_path: Path) -> None:
    slow = [network(lam, "full", columns={"train/error": [0.2] * 5}) for lam in (1e-4, 2e-3)]
    converged = network(0.0, "full")
    found = pictures([network(0.0), *slow, converged], tmp_path, ("fig2a", "fig2b"))
    assert {row["id"] for row in found["fig2a"].rows} == {run.id for run in (*slow, converged)}
    assert {row["id"] for row in found["fig2b"].rows} == {converged.id}
    assert "They are among the runs of Figure 2a" in found["fig2b"].caption


def test_figure_5b_is_of_the_family_of_5a(tmp_path: Path) -> None:
    """That of the cross entropy's options, though another has more lambdas."""
    more = [network(lam) for lam in WORDS]
    options = {"learning_rate": 0.7}
    pair = [network(0.0, loss=loss, model=options) for loss in ("square", "cross_entropy")]
    found = picture([*more, *pair], tmp_path, "fig5b")
    assert {row["lambda"] for row in found.rows} == {"0.0"}
    assert len(found.panels[0].rows) == 1
    assert "More than the loss differs" not in found.caption
    unlike = picture([*more, pair[1]], tmp_path, "fig5b")
    assert len(unlike.panels[0].rows) == 4
    assert "More than the loss differs from the runs of Figure 5a." in unlike.caption


def test_relative_spreads_are_of_the_newest_numbers_and_without_what_is_no_ratio(
    tmp_path: Path,
) -> None:
    def said(runs: Sequence[Run]) -> str:
        return picture(runs, tmp_path, "fig1a").panels[0].texts[0]

    ends = {"margin/mean": [1, 2, 3, -4, np.nan], "margin/std": [1, 1, 1, 2, np.nan]}
    run = network(0.0, columns=ends)
    assert said([run]) == "5.0e-01"
    two = [run, network(0.0, seed=1, columns={"margin/mean": [1] * 5, "margin/std": [8] * 5})]
    assert said(two) == "2.0e+00"
    none = network(0.0, columns={"margin/std": [0.0] * 5})
    assert said([none]) == ""
    assert said([run, replace(none, id="b")]) == "5.0e-01"


@pytest.mark.parametrize(
    ("x", "label", "words"),
    [
        ("epoch", "epoch", "epochs"),
        ("step", "step", "steps"),
        ("eta_t", "accumulated learning rate ηt", "accumulated learning rate eta t"),
    ],
)
def test_the_clock_of_time_courses_is_the_one_asked_for(
    x: str, label: str, words: str, tmp_path: Path
) -> None:
    run = network(0.0)
    found = picture([run], tmp_path, "fig1b", x)
    time = found.panels[1]
    column = "trainer/global_step" if x == "step" else x
    assert time.xlabel == label
    np.testing.assert_array_equal(time.lines[0].x, run.rows[column])
    np.testing.assert_array_equal(found.column("x", panel="spread"), run.rows[column])
    assert {row["x_name"] for row in found.written(panel="spread")} == {column}
    assert f"std/|mean| of the margins against {words}. One seed each." in found.caption
