"""The figures of scans as drawn and written: recomputed from the rows of the runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from report.drawn import Panel, Picture, pictures
from report.generic import LAYERS, measured, zero_function
from report.scanned import EPOCHS, MIDDLE, classified, scanned
from scipy import stats

from janus_pl.records import scans as records
from janus_pl.records.parts import Look
from janus_pl.records.run import Run
from janus_pl.report.figures import scans

BATCHES: tuple[int | str, ...] = (16, 64, 256, "full")
SIZE = {16: 16.0, 64: 64.0, 256: 256.0, "full": 512.0}
LAMBDAS = (5e-4, 2e-3)
SEEDS = {16: 3, 64: 2, 256: 1, "full": 3}
CLOCKS = {"epochs": "epoch", "steps": "trainer/global_step", "eta_t": "eta_t"}
BY = ("batch_size", "weight_decay")
LAW = {"b": 0.3, "l": -0.25}


def run(batch: int | str = 32, **options: Any) -> Run:
    """A run with errors and all three kinds of noise; no two numbers are equal."""
    seed = (int(SIZE.get(batch, 32)), options.get("seed", 0), int(1e6 * options.get("lam", 0)))
    draw = np.random.default_rng(seed)
    keys = ["train/error", "val/error", "gradient_noise/scale"]
    keys += [f"noise_time/direction/{k}" for k in LAYERS]
    columns = {key: draw.uniform(0.01, 0.3, len(options.get("epochs", EPOCHS))) for key in keys}
    return scanned(batch, law=LAW, columns=columns, **options)


def made() -> list[Run]:
    runs = [
        run(batch, lam=lam, seed=seed)
        for batch in BATCHES
        for lam in LAMBDAS
        for seed in range(SEEDS[batch])
    ]
    broken = replace(run(16, lam=5e-4, seed=8), exit_code=3)
    early = replace(run(16, lam=5e-4, seed=9), exit_code=None)
    other = run(16, lam=5e-4, seed=0, model={"loss": "square", "strides": [2, 2, 2, 2]})
    diverged = replace(broken, exit_code=0, rows=broken.rows.assign(diverged=1.0), id="id-diverged")
    odd = [early, zero_function(run(16, lam=5e-4, seed=7)), replace(other, id="id-other")]
    return [*runs, *odd, diverged]


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    return made()


@pytest.fixture(scope="module")
def drawn(runs: list[Run], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Picture]:
    return pictures(runs, tmp_path_factory.mktemp("scan"), ["janus"], by=BY)


def shown(runs: Sequence[Run], batch: int | str, lam: float) -> list[Run]:
    """The runs of a point, by their names, without the odd ones."""
    start = f"square-B{batch}-lam{lam:g}-seed"
    own = [r for r in runs if r.id.startswith(f"id-{start}")]
    return [r for r in own if int(r.name.split("seed")[1][0]) < 5]


def common_end(runs: Sequence[Run], column: str) -> float:
    every = [r for b in BATCHES for lam in LAMBDAS for r in shown(runs, b, lam)]
    return min(float(r.rows[column].iloc[-1]) for r in every)


def late(one: Run, keys: Sequence[str], clock: str, end: float) -> float:
    """The geometric mean over keys of the mean over the last fifth before the end."""
    at = one.rows[CLOCKS[clock]]
    inside = one.rows[(at > 0.8 * end * (1 + 1e-9)) & (at <= end * (1 + 1e-9))]
    means = [float(inside[key].mean()) for key in keys] if len(inside) else [np.nan]
    return means[0] if len(means) == 1 else float(stats.gmean(means))


def interval(values: Sequence[float], logs: bool) -> tuple[float, float, float]:
    given = np.log(values) if logs else np.asarray(values)
    center = float(given.mean())
    ends = (center, center)
    if len(values) > 1:
        ends = stats.t.interval(0.95, len(values) - 1, center, stats.sem(given))
    found = (center, *map(float, ends))
    return tuple(np.exp(found)) if logs else found  # type: ignore[return-value]


class Row(NamedTuple):
    """A row of panels: the figure, its place, the CSV's key, what it is of, the line's dashes."""

    figure: str
    row: int
    key: str
    keys: Sequence[str]
    logs: bool
    dashes: str = "-"


ROWS = (
    Row("scan_rank", 0, "effective_rank", [f"effective_rank/{k}" for k in MIDDLE], True),
    Row("scan_rank", 1, "train/error", ["train/error"], False),
    Row("scan_rank", 1, "val/error", ["val/error"], False, "--"),
    Row("scan_noise", 0, "velocity", [f"velocity/{k}" for k in LAYERS], True),
    Row(
        *("scan_noise", 1, "noise_time/direction"),
        [f"noise_time/direction/{k}" for k in LAYERS],
        True,
    ),
    Row("scan_noise", 2, "gradient_noise/scale", ["gradient_noise/scale"], True),
)


def check(found: dict[str, Picture], runs: Sequence[Run], row: Row) -> None:
    """A quantity in its three panels, and in the CSV."""
    figure = found[row.figure]
    for column, clock in enumerate(CLOCKS):
        panel = figure.panels[3 * row.row + column]
        assert panel.place[2] == column and panel.place[0] == row.row
        end = common_end(runs, CLOCKS[clock])
        for i, lam in enumerate(LAMBDAS):
            check_line(figure, panel, runs, row, clock, end, i, lam)


def check_line(
    figure: Picture,
    panel: Panel,
    runs: Sequence[Run],
    row: Row,
    clock: str,
    end: float,
    i: int,
    lam: float,
) -> None:
    expected: dict[float, tuple[float, float, float]] = {}
    line = ("5e-4", "2e-3")[i]
    for batch in BATCHES:
        own = shown(runs, batch, lam)
        values = [late(r, row.keys, clock, end) for r in own]
        if np.isnan(values).any():
            assert np.isnan(values).all(), "the shorter epochs of a batch size have rows, or none"
            assert not figure.written(key=row.key, clock=clock, line=line, x=SIZE[batch])
            continue
        center, *ends = interval(values, row.logs)
        if row.key.endswith("/error"):  # which lies between 0 and 1
            ends = [min(max(end, 0.0), 1.0) for end in ends]
        expected[SIZE[batch]] = (center, ends[0], ends[1])
        where = {"key": row.key, "clock": clock, "line": line, "x": SIZE[batch]}
        for one, value in zip(own, values, strict=True):
            (written,) = figure.written(kind="run", id=one.id, **where)
            assert float(written["value"]) == pytest.approx(value, rel=1e-12)
            assert (written["at"], written["x_name"]) == (f"{SIZE[batch]:g}", "batch_size")
        means = figure.written(kind="mean", lam=lam, **where)
        assert len(means) == (len(own) > 1)
        for mean in means:
            told = [float(mean[name]) for name in ("value", "low", "high")]
            assert told == pytest.approx(expected[SIZE[batch]], rel=1e-9)
            assert int(mean["seeds"]) == len(own)
    aside = 10 ** (0.025 * np.log10(512 / 16) * (i - 0.5))
    x = np.array([*expected]) * aside
    center, low, high = np.array([*expected.values()]).T
    (bars,) = [b for b in panel.bars if np.allclose(b.y, center)]
    np.testing.assert_allclose(bars.x, x)
    np.testing.assert_allclose(bars.low, low)
    np.testing.assert_allclose(bars.high, high)
    (joined,) = [k for k in panel.lines if len(k.y) == len(center) and np.allclose(k.y, center)]
    assert joined.dashes == row.dashes and joined.colour == bars.colour
    np.testing.assert_allclose(joined.x, x)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.key)
def test_points_and_intervals_are_those_of_the_runs(
    row: Row, drawn: dict[str, Picture], runs: list[Run]
) -> None:
    check(drawn, runs, row)


def test_what_has_no_row_by_steps_is_said(drawn: dict[str, Picture]) -> None:
    what = {"scan_rank": "rank", "scan_noise": "velocity", "scan_map": "rank"}
    told = "in the last 20% of the common steps, so not there: batch_size 16 (6 runs)."
    for key, word in what.items():
        assert f"No {word} {told}" in drawn[key].caption


def test_a_row_without_the_rank_is_no_point_and_said(tmp_path: Path) -> None:
    """Callbacks look at few epochs, so a row in the window may lack what is shown."""
    some = [run(batch) for batch in (16, 64, 256)]
    for k in MIDDLE:
        some[0].rows.loc[some[0].rows["epoch"] > 32, f"effective_rank/{k}"] = np.nan
    figure = pictures(some, tmp_path, ["janus"], by=["batch_size"])["scan_rank"]
    assert list(figure.panels[0].bars[0].x) == [64, 256]
    told = "No rank in the last 20% of the common epochs, so not there: batch_size 16 (1 run)."
    assert told in figure.caption
    by = ["batch_size", "weight_decay"]
    figure = pictures(some, tmp_path / "map", ["janus"], by=by)["scan_map"]
    assert len(figure.panels[0].texts) == 2 and told in figure.caption


def test_axes_and_legend(drawn: dict[str, Picture]) -> None:
    figure = drawn["scan_rank"]
    assert [panel.title for panel in figure.panels[:3]] == [
        "Equal epochs, to 40",
        "Equal steps, to 40",
        "Equal ηt, to 4",
    ]
    for panel in figure.panels:
        assert panel.xscale == "log"
        assert panel.xlim == figure.panels[0].xlim, "one axis for the three clocks"
        assert panel.ticks == {16: "16", 64: "64", 256: "256", 512: "512"}
        assert panel.ylim[0] == 0
        assert all(line.y.max() <= panel.ylim[1] for line in panel.lines)
    assert [(entry.label, entry.dashes) for entry in figure.legend] == [
        ("λ = 5e-4", "-"),
        ("λ = 2e-3", "-"),
        ("training", "-"),
        ("test", "--"),
    ]
    colours = {entry.colour for entry in figure.legend[:2]}
    assert colours == {bars.colour for bars in figure.panels[0].bars}


def test_runs_that_are_not_there_are_named(drawn: dict[str, Picture], runs: list[Run]) -> None:
    caption = drawn["scan_rank"].caption
    assert "Left out, since they diverged: square-B16-lam0.0005-seed8-eta0.1." in caption
    assert "Left out, since they have not ended: square-B16-lam0.0005-seed9-eta0.1." in caption
    ended = "since they ended as f = 0 or lack what is shown: square-B16-lam0.0005-seed7-eta0.1"
    assert ended in caption
    assert "differ or they lack what is shown: square-B16-lam0.0005-seed0-eta0.1 (id-other)" in (
        caption
    )
    assert "batch_size 16 (6 runs), 64 (4 runs), 256 (2 runs), 512 (6 runs)." in caption
    written = {row["id"] for row in drawn["scan_rank"].rows}
    assert not written & {"id-other", "id-diverged"}
    assert all("seed7" not in each and "seed9" not in each for each in written)


def test_the_map_has_the_mean_of_each_pair(drawn: dict[str, Picture], runs: list[Run]) -> None:
    keys = [f"effective_rank/{k}" for k in MIDDLE]
    for panel, clock in zip(drawn["scan_map"].panels, CLOCKS, strict=True):
        end = common_end(runs, CLOCKS[clock])
        table = [
            [late(r, keys, clock, end) for r in shown(runs, b, lam)]
            for lam in LAMBDAS
            for b in BATCHES
        ]
        means = [float(stats.gmean(values)) for values in table]
        assert panel.texts == [f"{value:.3g}" for value in means if np.isfinite(value)]
        assert list(panel.ticks.values()) == ["16", "64", "256", "512"]
        assert list(panel.rows.values()) == ["5e-4", "2e-3"]
    rows = drawn["scan_map"].written(kind="mean", clock="epochs", line="5e-4", at="16")
    assert len(rows) == 1


RATIO = scans.ratio
WINDOW = records.window


def last_row(one: Run, *_: Any) -> Any:
    return records.Window(one, one.rows.iloc[-1:])


def to_its_own_end(one: Run, column: str, end: float) -> Any:
    return WINDOW(one, column)


def arithmetic(name: str, values: Sequence[float]) -> Any:
    return RATIO(name, values)._replace(value=float(np.mean(values)))


FAULTS: dict[str, tuple[Any, str, Callable[..., Any]]] = {
    "the last row for the mean": (records, "window", last_row),
    "each run to its own end": (records, "window", to_its_own_end),
    "arithmetic means of ranks": (scans, "ratio", arithmetic),
    "f = 0 among the runs": (records, "is_zero_function", lambda one: False),
    "clocks exchanged": (
        *(records, "CLOCKS"),
        {"epochs": "trainer/global_step", "steps": "epoch", "eta_t": "eta_t"},  # type: ignore[dict-item]
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_seen(
    fault: str, runs: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative controls of the comparison above."""
    place, name, replacement = FAULTS[fault]
    monkeypatch.setattr(place, name, replacement)
    found = pictures(runs, tmp_path, ["janus"], by=BY)
    with pytest.raises((AssertionError, ValueError)):
        for row in ROWS:
            check(found, runs, row)


def test_one_option_has_one_line_and_no_map(runs: list[Run], tmp_path: Path) -> None:
    found = pictures(runs, tmp_path, ["janus"], by=["batch_size"])
    assert found["scan_map"].missing == "it takes two options: --by OPTION --by OPTION"
    panel = found["scan_rank"].panels[0]
    assert len(panel.bars) == 1
    assert list(panel.bars[0].x) == [16, 64, 256, 512], "not aside of anything"
    hint = "Runs that are left out differ in weight_decay: name it by a second --by."
    assert hint in found["scan_rank"].caption


def test_zero_is_at_the_left_edge_and_no_line_joins_it(tmp_path: Path) -> None:
    some = [run(lam=lam, seed=s) for lam in (0.0, 1e-4, 1e-3) for s in (0, 1)]
    panel = pictures(some, tmp_path, ["janus"], by=["weight_decay"])["scan_rank"].panels[0]
    assert list(panel.bars[0].x) == pytest.approx([1e-5, 1e-4, 1e-3])
    assert panel.ticks == pytest.approx({1e-5: "0", 1e-4: "1e-4", 1e-3: "1e-3"})
    (line,) = [line for line in panel.lines if line.marker == ""]
    assert list(line.x) == pytest.approx([1e-4, 1e-3])


def test_optimizers_are_beside_each_other_and_no_line_joins_them(tmp_path: Path) -> None:
    given = (("SGD", 0.0), ("SGD", 0.9), ("Adam", 0.9))
    some = [
        replace(measured(run(seed=s), optimizer=name, momentum=m), id=f"{name}{m}{s}")
        for name, m in given
        for s in (0, 1)
    ]
    panel = pictures(some, tmp_path, ["janus"], by=["optimizer"])["scan_rank"].panels[0]
    assert panel.ticks == {0: "Adam", 1: "SGD\nmomentum\n0.0", 2: "SGD\nmomentum\n0.9"}
    assert all(len(line.x) == 0 for line in panel.lines if line.marker == "")


@pytest.mark.parametrize(
    ("option", "model", "data"),
    [
        ("learning_rate", {"learning_rate": (0.1, 0.3)}, {}),
        ("width", {"network.init_args.width": (10, 100)}, {}),
        ("width", {"hidden": (10, 100)}, {}),
        ("depth", {"network.init_args.depth": (2, 5)}, {}),
        ("label_noise", {}, {"label_noise": (0.0, 0.2)}),
    ],
)
@pytest.mark.parametrize("kind", ["network", "module of ours"])
def test_every_option_is_scanned(
    option: str, model: dict[str, Any], data: dict[str, Any], kind: str, tmp_path: Path
) -> None:
    some = []
    for k in (0, 1):
        part = [{key: values[k] for key, values in given.items()} for given in (model, data)]
        made = [
            replace(run(seed=s, model=nested(part[0]), data=part[1]), id=f"{k}{s}") for s in (0, 1)
        ]
        some += made if kind == "network" else [classified(one) for one in made]
    (values,) = [*model.values(), *data.values()]
    panel = pictures(some, tmp_path, ["janus"], by=[option])["scan_rank"].panels[0]
    logs = option not in ("label_noise", "depth")
    assert list(panel.bars[0].x) == [*values]
    assert panel.xscale == ("log" if logs else "linear")
    assert records.varying(some) == [option]
    theirs = [measured(one, kind="module", task="m.M", weight_decay=None) for one in some]
    assert option == "label_noise" or option not in records.varying(theirs), "not known of theirs"


def nested(options: dict[str, Any]) -> dict[str, Any]:
    """Return options with dotted names, nested."""
    found: dict[str, Any] = {}
    for name, value in options.items():
        *parts, last = name.split(".")
        at = found
        for part in parts:
            at = at.setdefault(part, {})
        at[last] = value
    return found


def test_where_the_bound_on_the_rank_is_vacuous_is_said(tmp_path: Path) -> None:
    sizes = {16: 3000, 64: 3000, 256: 3000}
    some = []
    for batch, most in sizes.items():
        one = run(batch, rate=0.5, lam=0.5)
        look = Look(1.0, 1.0, 1.0, {k: np.ones(most) for k in LAYERS})
        some.append(replace(one, spectra=(look,)))
    caption = pictures(some, tmp_path, ["janus"], by=["batch_size"])["scan_rank"].caption
    bounds = [batch * np.log(200) / 0.25 for batch in sizes]
    assert [bound >= 3000 for bound in bounds] == [False, False, True]
    told = f"is {bounds[0]:.3g} to {bounds[2]:.3g}; a middle layer has at most 3000 singular values"
    assert f"{told}, so it is vacuous in 1 of 3 runs." in caption
    bare = pictures([run(b) for b in sizes], tmp_path, ["janus"], by=["batch_size"])["scan_rank"]
    assert "the records do not say how many singular values a layer has" in bare.caption


def test_files_of_an_earlier_scan_are_removed(tmp_path: Path) -> None:
    some = [run(batch) for batch in (16, 64)]
    pictures(some, tmp_path, ["janus"], by=["batch_size"])
    assert (tmp_path / "scan_rank.csv").is_file()
    pictures(some, tmp_path, ["janus"])
    assert not [*tmp_path.glob("scan_*")]
