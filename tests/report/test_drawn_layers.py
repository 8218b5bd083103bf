"""Figures 3 and 4 as drawn: a panel a layer, points with bars, ranks, against the runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from report.drawn import Bars, Entry, Panel, Picture, picture, pictures
from report.generic import LAYERS, network

from janus_pl.records.run import Run
from janus_pl.report.figures import by_layer, sheet, style

WORDS = {0.0: "0", 1e-4: "1e-4", 2e-3: "2e-3", 1.5e-2: "1.5e-2"}
SEEDS = {0.0: 3, 1e-4: 2, 2e-3: 3, 1.5e-2: 1}
MARKERS = "osD^"
VELOCITY = r"$\|\dot V_k\|_F$"
CLOCKS = {"epoch": "epoch", "step": "trainer/global_step", "eta_t": "eta_t"}


def lam_of(run: Run) -> float:
    return run.config["model"]["init_args"]["weight_decay"]


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    """SGD at four lambdas and up to three seeds, and others that are in none of these figures."""
    own = [network(lam, seed=seed) for lam, seeds in SEEDS.items() for seed in range(seeds)]
    return [*own, network(0.0, "full"), network(0.0, loss="cross_entropy")]


@pytest.fixture(scope="module")
def drawn(runs: list[Run], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Picture]:
    folder = tmp_path_factory.mktemp("layers")
    found = {x: pictures(runs, folder, ("fig3", "fig4a", "fig4b"), x) for x in CLOCKS}
    return {f"{key} {x}": f for x, figures in found.items() for key, f in figures.items()}


def sgd(runs: Sequence[Run]) -> list[Run]:
    kinds = [(r.config["model"]["init_args"], r.config["data"]["init_args"]) for r in runs]
    return [
        run
        for run, (model, data) in zip(runs, kinds, strict=True)
        if (model["loss"], data["batch_size"]) == ("square", 32)
    ]


def colour(lam: float) -> str:
    return ("#2b0a3d", "#1179c0", "#54a239", "#f4934a")[list(WORDS).index(lam)]


def mean_of(values: np.ndarray, geometric: bool) -> np.ndarray:
    """Over the first axis."""
    return np.prod(values, axis=0) ** (1 / len(values)) if geometric else np.mean(values, axis=0)


def check_legend(found: Picture, markers: bool) -> None:
    assert found.legend == [
        Entry(f"λ = {said}", colour(lam), "-", MARKERS[i] if markers else "None")
        for i, (lam, said) in enumerate(WORDS.items())
    ]


def check_time(
    found: Picture, panel: Panel, runs: Sequence[Run], key: str, x: str, geometric: bool
) -> None:
    """A curve and a band for each lambda, as the rows have them and as they are written."""
    layer = key.partition("/")[2]
    assert panel.title == layer
    assert len(panel.lines) == len(panel.bands) == len(WORDS)
    for lam, line, band in zip(WORDS, panel.lines, panel.bands, strict=True):
        own = [run for run in sgd(runs) if lam_of(run) == lam]
        values = np.array([run.rows[key] for run in own])
        assert line.colour == band.colour == colour(lam)
        assert line.dashes == "-"
        np.testing.assert_array_equal(line.x, own[0].rows[CLOCKS[x]])
        np.testing.assert_array_equal(band.x, line.x)
        np.testing.assert_allclose(line.y, mean_of(values, geometric))
        np.testing.assert_allclose(band.low, values.min(axis=0))
        np.testing.assert_allclose(band.high, values.max(axis=0))
        written = {"panel": "time", "key": key, "layer": layer, "x_name": CLOCKS[x]}
        for run in own:
            mine = {**written, "kind": "run", "id": run.id}
            np.testing.assert_array_equal(found.column("value", **mine), run.rows[key])
            np.testing.assert_array_equal(found.column("x", **mine), run.rows[CLOCKS[x]])
        means = {**written, "kind": "mean", "lam": lam}
        assert bool(found.written(**means)) == (len(own) > 1)
        if len(own) > 1:
            for name, values in (("x", line.x), ("value", line.y), ("low", band.low)):
                np.testing.assert_array_equal(found.column(name, **means), values)
            np.testing.assert_array_equal(found.column("high", **means), band.high)
            assert set(found.column("seeds", **means)) == {len(own)}
            assert {r["run"] for r in found.written(**means)} == {
                "seeds " + " ".join(str(run.config["seed_everything"]) for run in own)
            }


def check_end(
    found: Picture, panel: Panel, runs: Sequence[Run], kind: str, geometric: bool
) -> None:
    """A point with a bar for each lambda and layer: mean, least and largest of the last rows."""
    assert list(panel.ticks.values()) == list(LAYERS)
    assert list(panel.ticks) == list(range(len(LAYERS)))
    assert panel.xlabel == "layer"
    assert len(panel.bars) == len(WORDS)
    before = np.full(len(LAYERS), -np.inf)
    for i, (lam, bars) in enumerate(zip(WORDS, panel.bars, strict=True)):
        own = [run for run in sgd(runs) if lam_of(run) == lam]
        ends = np.array([[r.rows[f"{kind}/{layer}"].iloc[-1] for layer in LAYERS] for r in own])
        assert (bars.colour, bars.marker) == (colour(lam), MARKERS[i])
        np.testing.assert_array_equal(np.round(bars.x), np.arange(len(LAYERS)))
        assert (np.abs(bars.x - np.round(bars.x)) < 0.1).all()
        assert (bars.x > before).all()
        before = bars.x
        np.testing.assert_allclose(bars.y, mean_of(ends, geometric))
        np.testing.assert_allclose(bars.low, ends.min(axis=0))
        np.testing.assert_allclose(bars.high, ends.max(axis=0))
        check_end_written(found, bars, own, kind, lam)


def check_end_written(
    found: Picture, bars: Bars, own: Sequence[Run], kind: str, lam: float
) -> None:
    for run in own:
        for layer in LAYERS:
            mine = {"panel": "end", "id": run.id, "key": f"{kind}/{layer}", "layer": layer}
            (value,) = found.column("value", **mine)
            assert value == run.rows[f"{kind}/{layer}"].iloc[-1]
    means = {"panel": "end", "kind": "mean", "key": f"{kind}/LAYER", "lam": lam}
    rows = found.written(**means)
    assert [row["layer"] for row in rows] == list(LAYERS) * (len(own) > 1)
    if rows:
        for name, values in (("value", bars.y), ("low", bars.low), ("high", bars.high)):
            np.testing.assert_allclose(found.column(name, **means), values, rtol=1e-12)
        assert set(found.column("seeds", **means)) == {len(own)}


def check_fig3(found: Picture, runs: Sequence[Run], x: str) -> None:
    assert found.title == "SGD noise by layer, B = 32, square loss"
    assert [panel.title for panel in found.panels] == list(LAYERS)
    for i, (layer, panel) in enumerate(zip(LAYERS, found.panels, strict=True)):
        check_time(found, panel, runs, f"velocity/{layer}", x, geometric=True)
        assert panel.place == (i // 3, i // 3, i % 3, i % 3)
        assert (panel.xscale, panel.yscale) == ("linear", "log")
        assert panel.ylabel == (VELOCITY if i in (0, 3) else "")
        assert panel.ylim == found.panels[0].ylim, "one axis for all"
        assert panel.numbered == (i >= 3, i in (0, 3))
        check_clock(panel, x, i >= 3)
    every = np.concatenate([b.low for p in found.panels for b in p.bands])
    assert found.panels[0].ylim[0] <= every.min()
    check_legend(found, markers=False)


def check_clock(panel: Panel, x: str, shown: bool) -> None:
    names = {"epoch": "epoch", "step": "step", "eta_t": "accumulated learning rate ηt"}
    assert panel.xlabel == (names[x] if shown else "")
    ends = [line.x for line in panel.lines]
    assert panel.xlim[0] <= min(e[0] for e in ends)
    assert panel.xlim[1] >= max(e[-1] for e in ends)
    span = max(e[-1] for e in ends) - min(e[0] for e in ends)
    assert panel.xlim[1] - panel.xlim[0] == pytest.approx(1.04 * span), "2% on both sides"


def check_fig4a(found: Picture, runs: Sequence[Run], x: str) -> None:
    (panel,) = found.panels
    check_end(found, panel, runs, "velocity", geometric=True)
    assert panel.title == "SGD noise at the end, B = 32, square loss"
    assert (panel.yscale, panel.ylabel) == ("log", VELOCITY)
    check_legend(found, markers=True)


def check_fig4b(found: Picture, runs: Sequence[Run], x: str) -> None:
    effective, counted, *over_time = found.panels
    assert (effective.place, counted.place) == ((0, 0, 0, 2), (0, 0, 3, 5))
    check_end(found, effective, runs, "effective_rank", geometric=False)
    assert effective.title == "Ranks at the end, B = 32, square loss"
    assert effective.ylabel == "effective rank of $V_k$"
    check_end(found, counted, runs, "rank_relative_1e-02", geometric=False)
    assert counted.title == "Singular values above the tolerance, at the end"
    assert counted.ylabel == r"#$\{\sigma_i>0.01\,\sigma_1\}$"
    for panel in found.panels:
        assert (panel.xscale, panel.yscale) == ("linear", "linear")
        assert panel.ylim[0] == 0
        drawn = [bars.high for bars in panel.bars] + [band.high for band in panel.bands]
        highest = max(np.max(high) for high in drawn)
        assert highest <= panel.ylim[1]
    for i, (layer, panel) in enumerate(zip(LAYERS, over_time, strict=True)):
        check_time(found, panel, runs, f"effective_rank/{layer}", x, geometric=False)
        column = 2 * (i % 3)
        assert panel.place == (1 + i // 3, 1 + i // 3, column, column + 1)
        assert panel.ylabel == ("effective rank" if i in (0, 3) else "")
        assert panel.numbered == (i >= 3, True), "each has an axis of its own"
        check_clock(panel, x, i >= 3)
    check_legend(found, markers=True)


CHECKS: dict[str, Callable[[Picture, Sequence[Run], str], None]] = {
    "fig3": check_fig3,
    "fig4a": check_fig4a,
    "fig4b": check_fig4b,
}


@pytest.mark.parametrize("x", CLOCKS)
@pytest.mark.parametrize("key", CHECKS)
def test_what_is_drawn_is_what_the_runs_hold_and_what_is_written(
    key: str, x: str, drawn: dict[str, Picture], runs: list[Run]
) -> None:
    CHECKS[key](drawn[f"{key} {x}"], runs, x)


# Negative controls

PLOT, ERRORBAR, COLOURS, BAND = Axes.plot, Axes.errorbar, style.colours, sheet.band
ENDS, HANDLES = by_layer._ends, by_layer._handles


def halved(axes: Axes, x: Any, y: Any, **look: Any) -> Any:
    return PLOT(axes, x, np.asarray(y) / 2, **look)


def bars_turned(axes: Axes, x: Any, y: Any, bars: Any, **look: Any) -> Any:
    return ERRORBAR(axes, x, y, bars[::-1], **look)


def a_layer_on(axes: Axes, x: Any, y: Any, bars: Any, **look: Any) -> Any:
    return ERRORBAR(axes, np.roll(x, 1), y, bars, **look)


def median(curves: Any, logarithmic: bool) -> Any:
    found = BAND(curves, logarithmic)
    table = np.array([curve.to_numpy() for curve in curves])
    return found._replace(center=np.median(table, axis=0))


def other_mean(curves: Any, logarithmic: bool) -> Any:
    return BAND(curves, not logarithmic)


def first_rows(run: Run, kind: str, names: Sequence[str]) -> Any:
    return ENDS(replace(run, rows=run.rows.iloc[:1]), kind, names)


def other_layers(run: Run, kind: str, names: Sequence[str]) -> Any:
    return ENDS(run, kind, names[::-1])


def one_marker_on(shown: Any, study: Any, markers: bool = False) -> Any:
    handles = HANDLES(shown, study, markers)
    for i, handle in enumerate(handles):
        handle.set_marker(MARKERS[(i + 1) % 4] if markers else None)
    return handles


def colours_turned(shown: Any, study: Any, markers: bool = False) -> Any:
    handles = HANDLES(shown, study, markers)
    for handle, other in zip(handles, HANDLES(shown, study)[::-1], strict=True):
        handle.set_color(other.get_color())
    return handles


def no_log(axes: Axes) -> None:
    axes.set_yscale("linear")


FAULTS: dict[str, tuple[str, Any, str, Callable]] = {
    "curves half as high": ("fig3", Axes, "plot", halved),
    "bars upside down": ("fig4a", Axes, "errorbar", bars_turned),
    "points at the next layer": ("fig4b", Axes, "errorbar", a_layer_on),
    "the median over seeds": ("fig3", sheet, "band", median),
    "the median over seeds at the end": ("fig4b", by_layer, "band", median),
    "the arithmetic mean on a logarithmic axis": ("fig4a", by_layer, "band", other_mean),
    "the geometric mean on a linear axis": ("fig4b", by_layer, "band", other_mean),
    "the first rows at the end": ("fig4a", by_layer, "_ends", first_rows),
    "the layers in another order": ("fig4b", by_layer, "_ends", other_layers),
    "the next marker in the legend": ("fig4a", by_layer, "_handles", one_marker_on),
    "other colours in the legend": ("fig3", by_layer, "_handles", colours_turned),
    "a linear axis": ("fig4a", style, "logarithmic", no_log),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_seen(
    fault: str, runs: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, owner, name, replacement = FAULTS[fault]
    monkeypatch.setattr(owner, name, replacement)
    with pytest.raises(AssertionError):
        CHECKS[key](picture(runs, tmp_path, key), runs, "epoch")


# Records that lack something


def test_seeds_without_a_number_do_not_count_where_they_have_none(tmp_path: Path) -> None:
    """Missing, infinite, zero and negative numbers on a logarithmic axis: each at another epoch."""
    nan, inf = np.nan, np.inf
    a = network(0.0, columns={"velocity/fc1": [1.0, nan, inf, 0.0, -1.0]})
    b = network(0.0, seed=1, columns={"velocity/fc1": [4.0, 3.0, 5.0, 7.0, 9.0]})
    found = picture([a, b], tmp_path, "fig3")
    panel = found.named("fc1")
    np.testing.assert_allclose(panel.lines[0].y, [2, 3, 5, 7, 9])
    np.testing.assert_allclose(panel.bands[0].low, [1, 3, 5, 7, 9])
    np.testing.assert_allclose(panel.bands[0].high, [4, 3, 5, 7, 9])
    assert list(found.column("seeds", kind="mean", layer="fc1")) == [2, 1, 1, 1, 1]
    # What is written of a run are all its finite numbers.
    mine = {"kind": "run", "id": a.id, "layer": "fc1"}
    assert list(found.column("value", **mine)) == [1, 0, -1]
    assert list(found.column("x", **mine)) == [0, 4, 9]


def test_at_the_end_the_newest_finite_number_of_each_layer_counts(tmp_path: Path) -> None:
    nan = np.nan
    columns = {"velocity/conv2": [1, 2, 3, nan, np.inf], "velocity/conv3": [nan] * 5}
    a, b = network(0.0, columns=columns), network(0.0, seed=1, columns={"velocity/conv2": [27] * 5})
    (panel,) = picture([a, b], tmp_path, "fig4a").panels
    (bars,) = panel.bars
    assert (bars.low[1], bars.high[1]) == (3, 27)
    assert bars.y[1] == pytest.approx(9)
    assert bars.y[2] == bars.low[2] == bars.high[2] == b.rows["velocity/conv3"].iloc[-1]


def test_a_layer_that_one_lambda_lacks_stays_at_its_place(tmp_path: Path) -> None:
    lacks = {f"{kind}/conv2": None for kind in ("velocity", "effective_rank")}
    whole = [network(0.0, seed=seed) for seed in (0, 1)]
    short = [network(2e-3, seed=seed, columns=lacks) for seed in (0, 1)]
    for key, kind in (("fig4a", "velocity"), ("fig4b", "effective_rank")):
        found = picture([*whole, *short], tmp_path, key)
        panel = found.panels[0]
        assert list(panel.ticks.values()) == list(LAYERS)
        assert list(np.round(panel.bars[1].x)) == [0, 2, 3, 4, 5]
        means = {"panel": "end", "kind": "mean", "key": f"{kind}/LAYER", "lam": 2e-3}
        rows = found.written(**means)
        assert [row["layer"] for row in rows] == [k for k in LAYERS if k != "conv2"]
        for row in rows:
            ends = [run.rows[f"{kind}/{row['layer']}"].iloc[-1] for run in short]
            assert (float(row["low"]), float(row["high"])) == (min(ends), max(ends))
        for run in short:
            for layer in ("conv1", "fc2"):
                mine = {"panel": "end", "id": run.id, "layer": layer, "key": f"{kind}/{layer}"}
                assert found.column("value", **mine) == [run.rows[f"{kind}/{layer}"].iloc[-1]]


def test_of_many_layers_each_panel_shows_its_own(tmp_path: Path) -> None:
    names = [f"block{k}" for k in range(40)]
    run = network(0.0, layers=names)
    found = pictures([run], tmp_path, ("fig3", "fig4a", "fig4b"))
    for key, kind, skipped in (("fig3", "velocity", 0), ("fig4b", "effective_rank", 2)):
        panels = found[key].panels[skipped:]
        titles = [panel.title for panel in panels]
        places = [names.index(title) for title in titles]
        assert len(panels) == 12
        assert (places[0], places[-1]) == (0, 39)
        assert set(np.diff(places)) <= {3, 4}
        for panel in panels:
            np.testing.assert_array_equal(panel.lines[0].y, run.rows[f"{kind}/{panel.title}"])
        assert f"12 of 40 layers have a panel: {', '.join(titles)}." in found[key].caption
    (panel,) = found["fig4a"].panels
    assert list(panel.ticks.values()) == names
    few = picture([network(0.0, layers=names[:12])], tmp_path, "fig3")
    assert len(few.panels) == 12
    assert "have a panel" not in few.caption


@pytest.mark.parametrize(
    ("kinds", "callbacks", "label"),
    [
        (["rank_relative_1e-03", "rank_relative_0.1"], None, r"#$\{\sigma_i>0.1\,\sigma_1\}$"),
        (["rank_relative_1e-02", "rank_relative_3e-02"], None, r"#$\{\sigma_i>0.03\,\sigma_1\}$"),
        (["rank"], [{"init_args": {"tolerance": 1e-3}}], r"#$\{\sigma_i>$1e-3$\}$"),
        (["rank"], ["odd", {"init_args": {"tolerance": "x"}}], r"#$\{\sigma_i>$tolerance$\}$"),
        (["rank_relative_mine", "rank"], None, r"#$\{\sigma_i>$tolerance$\}$"),
    ],
)
def test_the_rank_at_the_largest_relative_tolerance_is_drawn(
    kinds: list[str], callbacks: Any, label: str, tmp_path: Path
) -> None:
    run = network(0.0, trainer={"callbacks": callbacks})
    rows = run.rows[[key for key in run.rows if not key.startswith("rank")]].copy()
    for i, kind in enumerate(kinds):
        rows[f"{kind}/conv1"] = 10.0 * (i + 1)
        rows[f"{kind}/fc2"] = 10.0 * (i + 1) + 1
    _, counted, *_ = picture([replace(run, rows=rows)], tmp_path, "fig4b").panels
    assert counted.ylabel == label
    assert list(counted.bars[0].y) == [10.0 * len(kinds), 10.0 * len(kinds) + 1]
    assert list(counted.ticks.values()) == ["conv1", "fc2"]


def test_without_counted_ranks_there_is_no_panel_of_them(tmp_path: Path) -> None:
    run = network(0.0)
    rows = run.rows[[key for key in run.rows if not key.startswith("rank")]]
    found = picture([replace(run, rows=rows)], tmp_path, "fig4b")
    assert [panel.title for panel in found.panels[1:]] == list(LAYERS)
    assert found.panels[0].place == (0, 0, 0, 5), "then the other has the whole row"


def test_a_panel_without_a_positive_number_says_so(tmp_path: Path) -> None:
    run = network(0.0, columns={"velocity/fc1": [0.0] * 5})
    found = picture([run], tmp_path, "fig3")
    assert found.named("fc1").texts == ["no epoch to show"]
    assert not found.named("fc1").lines
    assert found.named("fc2").texts == []


def test_a_single_row_is_a_point(tmp_path: Path) -> None:
    one, more = network(0.0, epochs=(0,)), network(0.0)
    for run, marker in ((one, "o"), (more, "None")):
        panel = picture([run], tmp_path, "fig3").named("conv4")
        assert [line.marker for line in panel.lines] == [marker]
        assert len(panel.lines[0].x) == len(run.rows)


def test_a_band_of_many_points_holds_every_extreme(tmp_path: Path) -> None:
    """Of a thousand points 300 are drawn, each with the ends of its neighbours."""
    many = range(1000)
    runs = [network(0.0, seed=seed, epochs=many) for seed in (0, 1)]
    panel = picture(runs, tmp_path, "fig3").named("conv1")
    (band,) = panel.bands
    both = np.array([run.rows["velocity/conv1"] for run in runs])
    assert len(panel.lines[0].x) == 1000
    assert len(band.x) == 300
    ends = [*band.x[1:].astype(int), 1000]
    for start, end, low, high in zip(band.x.astype(int), ends, band.low, band.high, strict=True):
        assert low == both[:, start:end].min()
        assert high == both[:, start:end].max()


def test_rows_of_one_epoch_are_all_drawn_in_their_order(tmp_path: Path) -> None:
    """A run resumed within an epoch has rows of the same clock."""
    runs = [network(0.0, seed=seed, epochs=(0, 1, 1, 2)) for seed in (0, 1)]
    line = picture(runs, tmp_path, "fig3").named("fc1").lines[0]
    both = np.array([run.rows["velocity/fc1"] for run in runs])
    assert list(line.x) == [0, 1, 1, 2]
    np.testing.assert_allclose(line.y, np.sqrt(both[0] * both[1]))
    # Of another run with fewer such rows the first ones go with the first.
    other = network(0.0, seed=2, epochs=(0, 1, 2), trainer={"max_epochs": 2})
    line = picture([runs[0], other], tmp_path, "fig3").named("fc1").lines[0]
    single = other.rows["velocity/fc1"].to_numpy()
    np.testing.assert_allclose(
        line.y, np.sqrt(both[0] * [single[0], single[1], both[0, 2], single[2]])
    )
    odd = replace(runs[0], rows=runs[0].rows.assign(epoch=[0, 1, np.nan, 2]))
    line = picture([odd], tmp_path, "fig3").named("fc1").lines[0]
    np.testing.assert_array_equal(line.y, odd.rows["velocity/fc1"].iloc[[0, 1, 3]])


def test_layers_by_depth_and_no_quantile_is_one(tmp_path: Path) -> None:
    names = ["layer10", "layer2", "embed", "layer1"]
    run = network(0.0, layers=names)
    rows = run.rows.assign(**{"velocity/layer2/q05": 1.0, "velocity/layer2/q95": 2.0})
    found = picture([replace(run, rows=rows)], tmp_path, "fig3")
    assert [panel.title for panel in found.panels] == ["embed", "layer1", "layer2", "layer10"]


def test_the_family_of_most_lambdas_and_then_of_most_runs_is_drawn(tmp_path: Path) -> None:
    many = [network(0.0, 64, seed=seed) for seed in range(4)]
    two = [network(lam, 16) for lam in (0.0, 2e-3)]
    found = picture([*many, *two], tmp_path, "fig3")
    assert {row["id"] for row in found.written(kind="run")} == {run.id for run in two}
    assert found.title == "SGD noise by layer, B = 16, square loss"
    more = [network(lam, 8, seed=seed) for lam in (0.0, 2e-3) for seed in (0, 1)]
    found = picture([*two, *more], tmp_path, "fig3")
    assert {row["id"] for row in found.written(kind="run")} == {run.id for run in more}
    assert f"they lack what is shown: {two[0].name}" in found.caption


def test_both_seeds_are_written_each_in_its_column(tmp_path: Path) -> None:
    runs = [network(0.0, seed=3, data_seed=8), network(0.0, seed=10), network(0.0, seed=2)]
    found = picture(runs, tmp_path, "fig3")
    for run, seeds in zip(runs, ((3, 8), (10, 10), (2, 2)), strict=True):
        rows = found.written(kind="run", id=run.id)
        assert {(int(row["seed"]), int(row["data_seed"])) for row in rows} == {seeds}
    assert {row["run"] for row in found.written(kind="mean")} == {"seeds 2 3/8 10"}
    assert "seeds 2, 3/8, 10." in found.caption
    for row in found.written(kind="mean"):
        assert (row["dynamics"], row["loss"], row["seed"], row["id"]) == ("SGD", "square", "", "")
