"""What a page holds against the runs: every cell, curve, facet and first choice."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report.generic import LAYERS, STEP, network, regression
from report.pages import data_of, series_of

from janus_pl.cli import report, verify
from janus_pl.records.read import Records
from janus_pl.records.run import Histogram, Run
from janus_pl.report.page import document, write
from janus_pl.report.page.columns import MOST_LAYERS, table
from janus_pl.report.page.content import content
from janus_pl.report.page.numbers import rounded, thinned
from janus_pl.report.page.series import Limits, limits, smaller

ALL = Limits(1000, 1000)


def shown(*runs: Run, most: Limits = ALL) -> dict[str, Any]:
    return content(runs, {}, "command", most)


def row_of(run: Run, *others: Run) -> dict[str, Any]:
    heads, cells = table([run, *others])
    return dict(zip([head["label"] for head in heads], cells[0], strict=True))


def six(value: float) -> float:
    return float(f"{value:.6g}")


# The table


def test_each_cell_is_the_newest_number_of_its_key() -> None:
    nan = math.nan
    extra = {
        "val/error": [0.5, 0.4, 0.3, 0.25, nan],
        "null/norm": [9.0, 8.0, 7.0, 6.5, nan],
        "null/predicted": [4.0] * 4 + [3.5],
        "sigma_min": [4.0] * 4 + [0.125],
        "margin/mean": [1.0, 1.0, 1.0, -0.4, nan],
        "margin/std": [9.0, 9.0, 9.0, 0.2, nan],
    }
    run = network(2e-3, 16, 3, model={"normalization": "weight_norm"}, columns=extra)
    run = replace(run, group="the group")
    rows = run.rows
    assert row_of(run) == {
        "family": "the group",
        "model": "DeepReLUClassifier",
        "dynamics": "SGD",
        "B": 16,
        "λ": 2e-3,
        "loss": "square",
        "normalization": "weight_norm",
        "seed": 3,
        "epochs": 9,
        "steps": 63,
        "end": "done",
        "train/loss": six(rows["train/loss"].iloc[-1]),
        "train/error": six(rows["train/error"].iloc[-1]),
        "val/error": 0.25,
        "margin/mean": -0.4,
        "margin/std": 0.2,
        "std/mean": 0.5,
        **{f"eff. rank {k}": six(rows[f"effective_rank/{k}"].iloc[-1]) for k in LAYERS},
        "null/norm": 6.5,
        "null/predicted": 3.5,
        "sigma_min": 0.125,
    }


def test_a_cell_without_a_value_is_none_and_a_column_without_one_is_not_there() -> None:
    zero = network(columns={"margin/mean": [0.0] * 5})
    assert "std/mean" not in row_of(zero)
    assert row_of(zero, network(seed=1))["std/mean"] is None
    assert "null/norm" not in row_of(network())
    assert row_of(network(), regression())["null/norm"] is None


@pytest.mark.parametrize(
    ("code", "end"), [(0, "done"), (5, "theorem broke"), (143, "unfinished"), (None, "unfinished")]
)
def test_how_a_run_ended(code: int | None, end: str) -> None:
    assert row_of(replace(network(), exit_code=code))["end"] == end


def test_the_seed_is_that_of_the_weights_or_else_of_the_samples() -> None:
    assert row_of(network(seed=3, data_seed=4))["seed"] == 3
    run = network(seed=3, data_seed=4)
    without = {key: value for key, value in run.config.items() if key != "seed_everything"}
    assert row_of(replace(run, config=without))["seed"] == 4


def test_runs_without_a_group_are_a_family_by_their_model() -> None:
    assert row_of(network())["family"] == "DeepReLUClassifier"
    assert row_of(replace(network(), config={}))["model"] == "model"


def test_the_first_layers_have_columns() -> None:
    names = [f"layer{k}" for k in range(12)]
    labels = [k for k in row_of(network(layers=names)) if k.startswith("eff. rank")]
    assert labels == [f"eff. rank layer{k}" for k in range(MOST_LAYERS)]
    assert MOST_LAYERS == 8


def test_options_of_another_kind_are_not_shown() -> None:
    model = {"loss": None, "normalization": True}
    row = row_of(network(data={"batch_size": [8, 16]}, model=model))
    assert not row.keys() & {"B", "normalization", "loss"}, "of another kind than a run's"


# Facets, layers, ranks, quantities


def test_facets_name_what_a_run_is_each_in_its_place() -> None:
    found = shown(replace(network(2e-3, 16, 3, "logistic"), group="g"), network(0.0, "full"))
    names = ["family", "model", "dynamics", "λ", "B", "loss", "seed"]
    assert found["facets"] == names
    assert found["runs"][0]["facets"] == dict(
        zip(names, ["g", "DeepReLUClassifier", "SGD", 2e-3, 16, "logistic", 3], strict=True)
    )
    assert found["runs"][1]["facets"]["B"] == "full"
    assert found["runs"][1]["facets"]["dynamics"] == "GD"


def test_layers_are_by_model_of_numbers_or_of_spectra() -> None:
    spectra = {"spectrum/extra10": [Histogram(0, np.ones(2), np.arange(3.0))]}
    spectra["spectrum/extra9"] = spectra["spectrum/extra10"]
    one = replace(network(layers=("b", "a")), histograms=spectra)
    found = shown(one, regression())
    names = ["a", "b", "extra9", "extra10"]
    assert found["layers"] == {"LinearRegressor": [], "DeepReLUClassifier": names}


def test_ranks_come_with_words_the_known_ones_first() -> None:
    run = network(layers=("fc1",))
    extra = {f"{kind}/fc1": 1.0 for kind in ("stable_rank", "rank_relative_0.5")}
    found = shown(replace(run, rows=run.rows.assign(**extra)))
    assert [(rank["kind"], rank["label"]) for rank in found["ranks"]] == [
        ("effective_rank", "effective rank, exp(entropy of σᵢ/Σσ)"),
        ("stable_rank", "stable rank, 1/σ₁²"),
        ("rank", "rank at the config's tolerance"),
        ("rank_absolute_1e-01", "rank, σᵢ > 0.1"),
        ("rank_relative_0.5", "rank, σᵢ > 0.5 σ₁"),
        ("rank_relative_1e-02", "rank, σᵢ > 0.01 σ₁"),
        ("rank_relative_1e-04", "rank, σᵢ > 0.0001 σ₁"),
    ]


def test_quantities_are_those_of_the_whole_run() -> None:
    found = shown(network(), regression())["quantities"]
    assert {"margin/mean", "rho", "train/loss", "null/norm", "gradient_norm"} <= set(found)
    kinds = ("velocity/", "effective_rank/", "singular_value/", "rank")
    assert not [key for key in found if key.startswith(kinds)]
    assert not {"epoch", STEP, "eta_t"} & set(found)
    assert found == sorted(found)


# Curves


def test_curves_have_the_clocks_of_their_own_points() -> None:
    nan = math.nan
    gaps = {"rho": [nan, 2.0, math.inf, 4.0, 5.0], "train/loss": [1.0, nan, 3.0, 4.0, nan]}
    run = network(columns=gaps)
    (found,) = shown(run)["runs"]
    for key, places in (("rho", [1, 3, 4]), ("train/loss", [0, 2, 3]), ("velocity/fc1", range(5))):
        axes, values = series_of(found, key)
        kept = run.rows.iloc[list(places)]
        assert values == [six(v) for v in kept[key]]
        for axis, column in (("epoch", "epoch"), ("step", STEP), ("eta", "eta_t")):
            assert axes[axis] == [six(v) for v in kept[column]], axis


def test_the_relative_spread_is_of_the_size_of_the_mean() -> None:
    columns = {"margin/mean": [0.0, -2.0, 4.0, 1.0, -0.5], "margin/std": [1.0, 1.0, 3.0, 0.25, 2.0]}
    (found,) = shown(network(columns=columns))["runs"]
    axes, values = series_of(found, "margin/std over mean")
    assert (axes["epoch"], values) == ([1, 3, 4, 9], [0.5, 0.75, 0.25, 4])


def test_points_are_thinned_evenly_and_towards_the_start() -> None:
    kept = thinned(1000, 90)
    even = {round(k * 999 / 59) for k in range(60)}
    early = {round(999 ** (k / 29)) for k in range(30)}
    assert set(kept.tolist()) == even | early
    assert len(thinned(90, 90)) == 90
    (found,) = shown(network(epochs=range(1000)), most=Limits(90, 5))["runs"]
    axes, _ = series_of(found, "rho")
    assert axes["epoch"] == kept.tolist()
    assert len(found["histograms"]["margin/hist"]) <= 5


@pytest.mark.parametrize(
    ("runs", "points", "epochs"),
    [(1, 400, 60), (20, 400, 60), (40, 200, 30), (100, 80, 12), (1000, 60, 12)],
)
def test_the_more_runs_the_fewer_points(runs: int, points: int, epochs: int) -> None:
    assert limits(runs) == Limits(points, epochs)


def test_a_share_of_the_limits_keeps_two_points() -> None:
    assert smaller(Limits(400, 60), 0.5) == Limits(200, 30)
    assert smaller(Limits(3, 2), 0.5) == Limits(2, 2)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (27.0, 27),
        (1e15, 1e15),
        (-3.0, -3),
        (0.1 + 0.2, 0.3),
        (1234567.0, 1234570),
        (math.inf, None),
    ],
)
def test_numbers_have_six_digits(value: float, expected: float | None) -> None:
    found = rounded(value)
    assert found == expected
    assert isinstance(found, int) == (expected not in (0.3, 1e15, None))


def test_histograms_keep_the_bins_from_the_first_to_the_last_that_is_filled() -> None:
    uneven = np.array([0.0, 1.0, 3.0, 7.0, 8.0, 9.5])
    even = np.linspace(1, 2, 6)
    given = {
        "margin/hist": [
            Histogram(1, np.array([0, 2, 0, 3, 0.0]), uneven),
            Histogram(2, np.array([4, 0, 0, 0, 5.0]), even),
            Histogram(3, np.array([0, 0, 0, 0, 6.0]), even),
        ]
    }
    (found,) = shown(replace(network(), histograms=given))["runs"]
    assert found["histograms"]["margin/hist"] == [
        [1, [0, 1, 3, 7, 8, 9.5], 5, 1, [2, 0, 3]],
        [2, [1, 2], 5, 0, [4, 0, 0, 0, 5]],
        [3, [1, 2], 5, 4, [6]],
    ]


def test_edges_a_hundredth_of_a_bin_off_are_even_and_more_is_not() -> None:
    counts = np.ones(5)
    for off, kept in ((0.9e-2, 2), (1.1e-2, 6)):
        edges = np.linspace(0, 5, 6)
        edges[2] += off
        run = replace(network(), histograms={"margin/hist": [Histogram(1, counts, edges)]})
        (found,) = shown(run)["runs"]
        assert len(found["histograms"]["margin/hist"][0][1]) == kept


def test_broken_histograms_are_not_shown() -> None:
    whole = Histogram(4, np.ones(2), np.arange(3.0))
    broken = [
        whole._replace(epoch=1, edges=np.array([0, np.inf, 1])),
        whole._replace(epoch=2, edges=np.arange(2.0)),
        whole._replace(epoch=3, counts=np.ones(0), edges=np.ones(1)),
    ]
    run = replace(network(), histograms={"margin/hist": [*broken, whole], "spectrum/x": broken})
    (found,) = shown(run)["runs"]
    assert [h[0] for h in found["histograms"]["margin/hist"]] == [4]
    assert list(found["histograms"]) == ["margin/hist"]


# What is ticked at first


def names(found: Mapping[str, Any]) -> list[str]:
    return [found["runs"][k]["name"] for k in found["chosen"]]


def test_of_each_lambda_and_batch_the_smallest_seed_is_ticked() -> None:
    runs = [network(lam, b, s) for s in (4, 2, 3) for lam in (0.0, 1e-3) for b in (32, "full")]
    ticked = names(shown(*runs))
    assert sorted(ticked) == sorted(
        network(lam, b, 2).name for lam in (0.0, 1e-3) for b in (32, "full")
    )


def test_a_network_that_ended_as_zero_is_not_ticked_beside_sound_ones() -> None:
    sound = [network(lam) for lam in (0.0, 1e-3)]
    flat = {"train/loss": [1.0] * 5, "rho": [10, 10, 10, 1e-9, 1e-9]}
    zero = network(5e-3, columns={**flat, "margin/mean": [1.0] * 5, "margin/std": [1.0] * 5})
    assert shown(*sound, zero)["chosen"] == [0, 1]
    assert shown(zero)["chosen"] == [0]


def test_the_largest_family_is_ticked_and_of_equal_ones_the_longest() -> None:
    many = [network(lam, model={"learning_rate": 0.5}) for lam in (0.0, 1e-4, 1e-3)]
    long = [network(lam, epochs=range(50)) for lam in (0.0, 1e-3)]
    found = shown(*long, *many)
    assert found["chosen"] == [2, 3, 4]
    short = [network(lam, model={"learning_rate": 0.5}) for lam in (0.0, 1e-3)]
    assert shown(*short, *long)["chosen"] == [2, 3]
    assert shown(*short, *long, regression())["chosen"] == [2, 3, 4], "of each model"


# The page as a file, the commands


def test_a_page_that_is_too_large_is_thinned_until_it_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [network(epochs=range(500))]
    whole = write(runs, tmp_path / "whole.html")
    size = len(json.dumps(data_of(whole), separators=(",", ":")))
    monkeypatch.setattr(document, "ROOM", size // 3)
    thin = data_of(write(runs, tmp_path / "thin.html"))
    left = len(json.dumps(thin, separators=(",", ":")))
    assert left <= size // 3
    assert left > size // 6, "no more than needed"
    axes, _ = series_of(thin["runs"][0], "rho")
    assert (axes["epoch"][0], axes["epoch"][-1]) == (0, 499)
    # Room grows as the root of the number of runs from 20 on.
    asked = []

    def content(*_: Any) -> str:
        asked.append(1)
        return "x" * 1000

    monkeypatch.setattr(document, "content", content)
    monkeypatch.setattr(document, "ROOM", 501)
    for count, fits in ((79, False), (80, True)):
        asked.clear()
        document._data([network()] * count, {}, "")
        assert (len(asked) == 1) == fits, count


def test_the_clock_of_the_command_is_the_column_of_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    asked = []

    def draw(runs: Any, out: Any, x: str, again: str, by: Any) -> list[Any]:
        assert again.startswith(f"python -m janus_pl report runs --out {tmp_path}")
        assert list(by) == []
        asked.append(x)
        return []

    monkeypatch.setattr(report, "read", lambda *given: Records([network()], []))
    monkeypatch.setattr(report, "draw", draw)
    for name in ("epoch", "step", "eta_t"):
        assert report.main(["runs", "--out", str(tmp_path), "--x", name]) == 0
    assert report.main(["runs", "--out", str(tmp_path)]) == 0
    assert asked == ["epoch", STEP, "eta_t", "epoch"]
    assert capsys.readouterr().out.count("1 run") == 4


@pytest.mark.parametrize("main", [report.main, verify.main])
@pytest.mark.parametrize("unfinished", [True, False])
def test_unfinished_runs_are_asked_for_by_the_option_alone(
    main: Any, unfinished: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def read(paths: list[str], given: bool) -> Records:
        asked.append((paths, given))
        return Records([network()], [])

    for module in (report, verify):
        monkeypatch.setattr(module, "read", read)
    monkeypatch.setattr(report, "draw", lambda *_: [])
    monkeypatch.chdir(tmp_path)
    assert main(["a", "b", *(["--unfinished"] * unfinished)]) == 0
    assert asked == [(["a", "b"], unfinished)]
