"""The claims against lambda as drawn: points, intervals and places, recomputed from the runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from report.drawn import Panel, Picture, picture
from report.generic import LAYERS, TEN_LAYERS, network, zero_function
from scipy import stats

from janus_pl.records.run import Run
from janus_pl.report.figures import claims

EPOCHS = tuple(range(0, 21, 2))  # the last fifth: 18 and 20
LAMBDAS = (0.0, 1e-6, 1e-4, 2e-3)
SEEDS = {0.0: 3, 1e-6: 1, 1e-4: 2, 2e-3: 3}
SGD, GD = "#0072b2", "#d55e00"
PANELS = ("spread", "velocity", "rank")


def made() -> list[Run]:
    """SGD at four lambdas, GD at two of them, and networks that are in neither."""
    runs = [network(lam, seed=s, epochs=EPOCHS) for lam in LAMBDAS for s in range(SEEDS[lam])]
    runs += [network(lam, "full", seed=s, epochs=EPOCHS) for lam in LAMBDAS[::3] for s in (0, 1)]
    runs += [network(1e-4, "full", epochs=EPOCHS, model={"learning_rate": 0.3})]
    runs += [zero_function(network(1e-2, epochs=EPOCHS))]
    return [*runs, network(0.0, loss="cross_entropy", epochs=EPOCHS)]


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    return made()


@pytest.fixture(scope="module")
def drawn(runs: list[Run], tmp_path_factory: pytest.TempPathFactory) -> Picture:
    return picture(runs, tmp_path_factory.mktemp("claims"), "claims")


def group(runs: Sequence[Run], lam: float, batch: int | str) -> list[Run]:
    """The runs of a point, by their names."""
    start = f"square-B{batch}-lam{lam:g}-seed"
    rate = [run.config["model"]["init_args"]["learning_rate"] for run in runs]
    return [r for r, x in zip(runs, rate, strict=True) if r.name.startswith(start) and x == 0.1]


def late(run: Run, panel: str) -> float:
    """The mean over epochs 18 and 20, of layers the geometric mean."""
    rows = run.rows.iloc[-2:]
    if panel == "spread":
        return float((rows["margin/std"] / rows["margin/mean"].abs()).mean())
    kind, layers = ("velocity", LAYERS) if panel == "velocity" else ("effective_rank", LAYERS[2:5])
    return float(stats.gmean([rows[f"{kind}/{k}"].mean() for k in layers]))


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Geometric mean and Student's t interval of the logarithms, by scipy.stats."""
    logs = np.log(values)
    center = float(np.exp(logs.mean()))
    if len(values) == 1:
        return center, center, center
    low, high = stats.t.interval(0.95, len(logs) - 1, logs.mean(), stats.sem(logs))
    return center, float(np.exp(low)), float(np.exp(high))


def check(found: Picture, runs: Sequence[Run]) -> None:
    """Everything in the three panels."""
    assert len(found.panels) == 3
    for name, panel in zip(PANELS, found.panels, strict=True):
        assert len(panel.bars) == 2
        check_side(found, panel, name, runs, LAMBDAS, 32, SGD)
        check_side(found, panel, name, runs, LAMBDAS[::3], "full", GD)
        check_axis(panel, name)


def check_side(
    found: Picture,
    panel: Panel,
    name: str,
    runs: Sequence[Run],
    lams: Sequence[float],
    batch: int | str,
    colour: str,
) -> None:
    (bars,) = [bars for bars in panel.bars if bars.colour == colour]
    expected = [interval([late(r, name) for r in group(runs, lam, batch)]) for lam in lams]
    center, low, high = np.array(expected).T
    aside = 10 ** (0.015 * 5 * (1 if batch == "full" else -1))  # of five decades
    np.testing.assert_allclose(bars.x, [(lam or 1e-7) * aside for lam in lams])
    np.testing.assert_allclose(bars.y, center)
    np.testing.assert_allclose(bars.low, low)
    np.testing.assert_allclose(bars.high, high)
    # A line joins the points at lambda > 0 and leaves zero alone.
    (line,) = [x for x in panel.lines if x.colour == colour and x.marker == ""]
    np.testing.assert_allclose(line.x, np.array(lams[1:]) * aside)
    np.testing.assert_allclose(line.y, center[1:])
    (dots,) = [x for x in panel.lines if x.colour == colour and x.marker == "."]
    own = [(lam or 1e-7, run) for lam in lams for run in group(runs, lam, batch)]
    seeds = [(place * aside, late(run, name)) for place, run in own]
    np.testing.assert_allclose(np.transpose([dots.x, dots.y]), seeds)
    assert panel.ylim[0] <= dots.y.min() and dots.y.max() <= panel.ylim[1]
    check_written(found, name, runs, lams, batch, expected)


def check_written(
    found: Picture,
    name: str,
    runs: Sequence[Run],
    lams: Sequence[float],
    batch: int | str,
    expected: Sequence[tuple[float, float, float]],
) -> None:
    dynamics = "GD" if batch == "full" else "SGD"
    for lam, ends in zip(lams, expected, strict=True):
        own = group(runs, lam, batch)
        for run in own:
            (row,) = found.written(panel=name, kind="run", id=run.id)
            assert (float(row["x"]), row["x_name"]) == (lam, "lambda")
            assert float(row["value"]) == pytest.approx(late(run, name), rel=1e-12)
        rows = found.written(panel=name, kind="mean", lam=lam, dynamics=dynamics)
        assert len(rows) == (len(own) > 1)
        for row in rows:
            told = [float(row[column]) for column in ("value", "low", "high")]
            assert told == pytest.approx(ends, rel=1e-9)
            assert int(row["seeds"]) == len(own)


def check_axis(panel: Panel, name: str) -> None:
    assert panel.xscale == "log"
    assert panel.yscale == ("linear" if name == "rank" else "log")
    assert panel.ticks == {1e-7: "0", 1e-6: "1e-6", 1e-4: "1e-4", 1e-2: "1e-2"}
    assert panel.xlim[0] < 1e-7 and panel.xlim[1] > 1e-2
    (mark,) = [line for line in panel.lines if line.marker == "x"]
    assert (list(mark.x), mark.colour) == ([1e-2], SGD), "the lambda at which the network is f = 0"
    assert panel.texts == ["f = 0"]
    highest = max(line.y.max() for line in panel.lines if line.marker == ".")
    assert highest <= panel.ylim[1] < 2 * highest, "wide intervals do not stretch it"
    if name == "rank":
        assert panel.ylim[0] == 0


def test_points_and_intervals_are_those_of_the_runs(drawn: Picture, runs: list[Run]) -> None:
    check(drawn, runs)


def test_the_legend_and_the_caption_say_what_is_beside_what(
    drawn: Picture, runs: list[Run]
) -> None:
    assert [entry.label for entry in drawn.legend] == ["SGD, B = 32", "GD, B = N"]
    assert [entry.colour for entry in drawn.legend] == [SGD, GD]
    assert "last 20% of its epochs" in drawn.caption
    assert "their 95% intervals" in drawn.caption
    ended = next(run for run in runs if run.id.startswith("emptied"))
    assert f"since they ended as f = 0 or lack what is shown: {ended.name}" in drawn.caption
    other = next(r for r in runs if r.config["model"]["init_args"]["learning_rate"] == 0.3)
    assert f"differ or they lack what is shown: {other.name}" in drawn.caption


RATIO, SPREAD, PLOT = claims.ratio, claims.spread, Axes.plot


def last_row(run: Run, *_: Any) -> Any:
    return claims.Window(run, run.rows.iloc[-1:])


def narrower(name: str, values: Sequence[float]) -> Any:
    """Intervals of the normal distribution."""
    found = RATIO(name, values)
    if found.low is None:
        return found
    half = 1.96 * stats.sem(np.log(values))
    ends = found.value * np.exp([-half, half])
    return found._replace(low=ends[0], high=ends[1])


def arithmetic(name: str, values: Sequence[float]) -> Any:
    return RATIO(name, values)._replace(value=float(np.mean(values)))


def through_zero(places: Any) -> Any:
    return {lam: lam or 1e-8 for lam in PLACES(places)}


PLACES = claims._places
FAULTS: dict[str, tuple[str, Callable[..., Any]]] = {
    "the last row for the mean": ("window", last_row),
    "intervals of a normal": ("ratio", narrower),
    "arithmetic means": ("ratio", arithmetic),
    "zero elsewhere": ("_places", through_zero),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_seen(
    fault: str, runs: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative controls of the comparison above."""
    name, replacement = FAULTS[fault]
    monkeypatch.setattr(claims, name, replacement)
    with pytest.raises(AssertionError):
        check(picture(runs, tmp_path, "claims"), runs)


def test_one_lambda_is_no_figure(tmp_path: Path) -> None:
    found = picture([network(1e-3), network(1e-3, "full")], tmp_path, "claims")
    assert found.missing == (
        "no two lambdas in square-B32-lam0.001-seed0, square-Bfull-lam0.001-seed0"
    )
    assert picture([], tmp_path, "claims").missing == "no GD run with model.loss: square"


@pytest.mark.parametrize("batch", [32, "full"])
def test_one_dynamics_alone_is_one(batch: int | str, tmp_path: Path) -> None:
    found = picture([network(lam, batch) for lam in (1e-4, 1e-3)], tmp_path, "claims")
    assert len(found.legend) == 1
    for panel in found.panels:
        assert panel.ticks == {1e-4: "1e-4", 1e-3: "1e-3"}, "no place for zero without a run at it"
        assert len(panel.bars) == 1


@pytest.mark.parametrize("rate", [0.1, 0.3])
def test_gd_of_other_options_is_not_beside_sgd(rate: float, tmp_path: Path) -> None:
    lams = (1e-4, 1e-3)
    runs = [network(lam) for lam in lams]
    runs += [network(lam, "full", model={"learning_rate": rate}) for lam in lams]
    found = picture(runs, tmp_path, "claims")
    assert [entry.label for entry in found.legend][1:] == (["GD, B = N"] if rate == 0.1 else [])
    left_out = "Left out, since options or data of theirs differ or they lack what is shown: "
    assert (f"{left_out}{runs[2].name}" in found.caption) == (rate == 0.3)


def test_layers_of_other_names_and_records_that_lack_a_quantity(tmp_path: Path) -> None:
    bare = {f"velocity/{k}": None for k in TEN_LAYERS}
    runs = [network(lam, layers=TEN_LAYERS, columns=bare) for lam in (0.0, 1e-3)]
    spread, velocity, rank = picture(runs, tmp_path, "claims").panels
    assert velocity.texts == ["no noise to show"]
    assert len(spread.bars) == len(rank.bars) == 1
    inner = sorted(TEN_LAYERS, key=lambda name: (name.split("_")[0], len(name), name))[1:-1]
    means = [run.rows[[f"effective_rank/{k}" for k in inner]].iloc[-1:] for run in runs]
    np.testing.assert_allclose(rank.bars[0].y, [stats.gmean(m.to_numpy()[0]) for m in means])


def test_the_paper_s_ten_lambdas_have_labels_with_room(tmp_path: Path) -> None:
    lams = (0.0, 1e-6, 1e-5, 5e-5, 1e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2)
    found = picture([network(lam) for lam in lams], tmp_path, "claims")
    for panel in found.panels:
        assert list(panel.ticks.values()) == ["0", "1e-6", "1e-4", "1e-2"]


def test_lambdas_that_are_no_powers_of_ten_have_labels_with_room(tmp_path: Path) -> None:
    for lams, labels in (
        ((0.0, 1e-3, 5e-3), ["0", "1e-3", "5e-3"]),
        ((0.0, 1e-3, 1.2e-3, 5e-3), ["0", "1e-3", "5e-3"]),
        ((2e-3, 5e-3), ["2e-3", "5e-3"]),
    ):
        found = picture([network(lam) for lam in lams], tmp_path, "claims")
        assert list(found.panels[0].ticks.values()) == labels
