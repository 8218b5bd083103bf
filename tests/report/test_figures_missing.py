"""Figures of records that lack something: drawn right, or a line that says why not."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from report.synthetic import deep_run, linear_run

from janus_pl.records.run import Histogram, Run
from janus_pl.report.figures import FIGURES, Figure, draw

DEEP = {f"fig{k}" for k in ("1a", "1b", "3", "4a", "4b", "5b")}  # from SGD alone
A2 = {"num_train": 10, "dim": 11, "init": "gaussian"}


def drawn(runs: Iterable[Run], folder: Path, x: str = "epoch") -> dict[str, Figure]:
    """The figures, each whole or with a line that says why not."""
    figures = {figure.key: figure for figure in draw(list(runs), folder, x)}
    assert len(figures) == len(FIGURES)
    for figure in figures.values():
        assert (figure.missing is None) == (len(figure.files) == 4)
        assert figure.missing is None or figure.missing.strip()
        assert "\n" not in (figure.missing or "")
        assert all(file.stat().st_size for file in figure.files)
    assert {file.name for file in folder.iterdir()} == {
        file.name for figure in figures.values() for file in figure.files
    }
    return figures


def available(figures: dict[str, Figure]) -> set[str]:
    return {key for key, figure in figures.items() if figure.missing is None}


def values(figure: Figure, run: Run, key: str) -> list[float]:
    (path,) = [file for file in figure.files if file.suffix == ".csv"]
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [float(row["value"]) for row in rows if row["id"] == run.id and row["key"] == key]


def with_rows(run: Run, **columns: Any) -> Run:
    return replace(
        run, rows=run.rows.assign(**{k.replace("__", "/"): v for k, v in columns.items()})
    )


def without(run: Run, *prefixes: str) -> Run:
    return replace(run, rows=run.rows[[c for c in run.rows if not c.startswith(prefixes)]])


def with_options(run: Run, **options: Any) -> Run:
    model = {**run.config["model"], "init_args": {**run.config["model"]["init_args"], **options}}
    return replace(run, config={**run.config, "model": model})


def test_no_runs(tmp_path: Path) -> None:
    figures = drawn([], tmp_path)
    assert available(figures) == set()
    assert figures["fig1a"].missing == "no SGD run with model.loss: square"
    assert figures["fig2a"].missing == "no GD run with model.loss: square"
    assert figures["fig5a"].missing == "no SGD run with model.loss: cross_entropy"
    assert "linear/a7.yaml" in str(figures["a7"].missing)


def test_one_run_of_each_kind(tmp_path: Path) -> None:
    assert available(drawn([deep_run()], tmp_path / "sgd")) == DEEP - {"fig1b"}  # lambda is 1e-3
    assert available(drawn([deep_run(0.0)], tmp_path / "zero")) == DEEP
    assert available(drawn([deep_run(0.0, "full")], tmp_path / "gd")) == {"fig2a", "fig2b"}
    figures = drawn([linear_run(1, problem=A2)], tmp_path / "linear")
    assert available(figures) == set()
    assert "no GD run beside" in str(figures["a2"].missing)


def _nan(run: Run) -> Run:
    return replace(run, rows=run.rows.assign(**dict.fromkeys(run.rows.columns, math.nan)))


def _histograms(*shown: Histogram) -> Callable[[Run], Run]:
    return lambda run: replace(run, histograms={"margin/hist": shown})


BROKEN: dict[str, tuple[Callable[[Run], Run], set[str]]] = {
    "only NaN": (_nan, {"fig1a", "fig1b", "fig5b"}),  # the histograms are still there
    "no rows": (lambda run: replace(run, rows=pd.DataFrame()), {"fig1a", "fig1b", "fig5b"}),
    "one row": (lambda run: replace(run, rows=run.rows.iloc[:1]), DEEP),
    "no histograms": (lambda run: replace(run, histograms={}), {"fig3", "fig4a", "fig4b"}),
    "empty histogram": (
        _histograms(Histogram(1, np.zeros(4), np.arange(5.0))),
        {"fig3", "fig4a", "fig4b"},
    ),
    "infinite histogram": (
        _histograms(Histogram(1, np.ones(2), np.array([0, 1, np.inf]))),
        {"fig3", "fig4a", "fig4b"},
    ),
    "no velocities": (lambda run: without(run, "velocity"), DEEP - {"fig3", "fig4a"}),
    "no ranks": (lambda run: without(run, "effective_rank"), DEEP - {"fig4b"}),
    "no epochs": (lambda run: without(run, "epoch"), DEEP - {"fig3"}),
    "zero velocity": (lambda run: with_rows(run, velocity__conv1=0.0, velocity__fc2=0.0), DEEP),
    "all velocities zero": (
        lambda run: with_rows(run, **{c.replace("/", "__"): 0.0 for c in run.rows if "veloc" in c}),
        DEEP,
    ),
    "zero spread": (lambda run: with_rows(run, margin__std=0.0), DEEP),
    "zero mean": (lambda run: with_rows(run, margin__mean=0.0), DEEP),
    "negative margins": (lambda run: with_rows(run, margin__mean=-1e-8), DEEP),
    "one margin": (_histograms(Histogram(1, np.ones(1), np.array([1e-8, 1.1e-8]))), DEEP),
    "infinite velocity": (lambda run: with_rows(run, velocity__conv1=math.inf), DEEP),
    "lambda a list": (lambda run: with_options(run, weight_decay=[0.0, 1e-3]), set()),
    "lambda absent": (lambda run: with_options(run, weight_decay=None), set()),
    "a loss of its own": (lambda run: with_options(run, loss={"class_path": "Mine"}), set()),
    "no config": (lambda run: replace(run, config={}), set()),
    "callbacks odd": (
        lambda run: replace(run, config={**run.config, "trainer": {"callbacks": ["X", None]}}),
        DEEP,
    ),
}


QUICK = ("only NaN", "no epochs", "infinite histogram", "all velocities zero", "no config")


@pytest.mark.parametrize(
    "what",
    [what if what in QUICK else pytest.param(what, marks=pytest.mark.soak) for what in BROKEN],
)
def test_a_broken_record(what: str, tmp_path: Path) -> None:
    spoil, expected = BROKEN[what]
    assert available(drawn([spoil(deep_run(0.0, epochs=4, fall_at=2))], tmp_path)) == expected


def test_what_a_record_lacks_is_named(tmp_path: Path) -> None:
    run = without(replace(deep_run(0.0), histograms={}), "velocity")
    figures = drawn([run], tmp_path)
    assert figures["fig1a"].missing == f"no margin/hist in {run.name}"
    assert figures["fig3"].missing == f"no velocity/LAYER in {run.name}"


def test_a_run_that_lacks_a_key_is_left_out_and_named(tmp_path: Path) -> None:
    whole, broken = deep_run(0.0, seed=0), replace(deep_run(0.0, seed=1), histograms={})
    figures = drawn([whole, broken], tmp_path)
    assert values(figures["fig1a"], broken, "margin/hist") == []
    assert (
        "Left out, since options or data of theirs differ or they lack what is shown:"
        f" {broken.name}" in (figures["fig1a"].caption)
    )
    assert values(figures["fig3"], broken, "velocity/conv1") != []


def test_a_diverged_run_is_shown_as_far_as_it_got(tmp_path: Path) -> None:
    run = deep_run(0.0)
    rows = run.rows.copy()
    rows.loc[6:, [c for c in rows if c.startswith("velocity")]] = math.nan
    diverged = replace(run, rows=rows, exit_code=3)
    figures = drawn([diverged, deep_run(0.0, seed=1)], tmp_path)
    assert len(values(figures["fig3"], diverged, "velocity/conv1")) == 6
    assert (
        f"Not finished, shown as far as they got: {run.name} (epoch 10)." in figures["fig3"].caption
    )


def test_foreign_layers_by_depth_and_no_more_panels_than_can_be_read(tmp_path: Path) -> None:
    names = [f"encoder_layer{k}" for k in range(1, 7)]
    figures = drawn([deep_run(0.0, layers=names)], tmp_path / "few")
    assert available(figures) == DEEP
    run = deep_run(0.0)
    many = {f"velocity/block{k}": 1.0 + k for k in range(40)}
    figures = drawn([replace(run, rows=run.rows[["epoch"]].assign(**many))], tmp_path / "many")
    assert "12 of 40 layers have a panel: block0, block4, " in figures["fig3"].caption
    assert figures["fig3"].caption.count("block39") == 1


def test_the_family_of_most_lambdas_is_drawn(tmp_path: Path) -> None:
    sweep = [deep_run(lam, 32) for lam in (0.0, 1e-3)]
    seeds = [deep_run(0.0, 64, seed=seed) for seed in range(3)]
    figures = drawn([*seeds, *sweep], tmp_path)
    assert values(figures["fig3"], sweep[1], "velocity/conv1")
    assert not values(figures["fig3"], seeds[0], "velocity/conv1")
    named = ", ".join(f"{run.name} ({run.id})" for run in seeds)
    assert f"differ or they lack what is shown: {named}." in figures["fig3"].caption


def test_gd_is_that_of_the_hyperparameters_of_sgd(tmp_path: Path) -> None:
    twin = replace(deep_run(0.0, "full", error=0.2), id="twin")
    longer = [deep_run(lam, "full", epochs=30, error=0.0) for lam in (0.0, 1e-3)]
    figures = drawn([deep_run(0.0), twin, *longer], tmp_path)
    assert values(figures["fig2a"], twin, "margin/hist")
    assert not values(figures["fig2b"], twin, "margin/hist")
    assert values(figures["fig2b"], longer[0], "margin/hist")
    assert f"Not converged, by train/error, and left out: {twin.name} (0.2)" in (
        figures["fig2b"].caption
    )
    alone = drawn([deep_run(0.0), twin], tmp_path)  # whose files of Figure 2b then go
    assert alone["fig2b"].missing == "no GD run with train/error below 0.01; the least is 0.2"


def test_linear_records_that_lack_panels(tmp_path: Path) -> None:
    pair = [linear_run(batch, problem=A2) for batch in (1, "full")]
    figures = drawn([without(run, "null", "gradient") for run in pair], tmp_path / "two")
    assert "without a panel: eigenvalue_modulus, null/norm, gradient_norm." in figures["a2"].caption
    bare = [without(run, "gradient", "train", "singular") for run in pair]
    zero = [with_rows(run, null__norm=0.0, null__predicted=0.0) for run in bare]
    assert available(drawn(zero, tmp_path / "zero")) == {"a2"}
    figures = drawn([_nan(run) for run in pair], tmp_path / "nan")
    assert available(figures) == set()


def test_one_record_over_many_seeds_has_its_quantiles_as_band(tmp_path: Path) -> None:
    pair = [linear_run(batch, problem={**A2, "replicas": 9}) for batch in (1, "full")]
    many = [
        with_rows(
            run,
            null__norm__q05=run.rows["null/norm"] / 2,
            null__norm__q95=2 * run.rows["null/norm"],
        )
        for run in pair
    ]
    figures = drawn(many, tmp_path)
    assert values(figures["a2"], many[0], "null/norm/q05") == list(many[0].rows["null/norm"] / 2)
    assert "median" in figures["a2"].caption


def test_the_smallest_batch_stands_for_sgd(tmp_path: Path) -> None:
    three = [linear_run(batch, problem=A2) for batch in (1, 5, "full")]
    figures = drawn(three, tmp_path)
    assert values(figures["a2"], three[0], "null/norm")
    assert not values(figures["a2"], three[1], "null/norm")
    assert three[1].name in figures["a2"].caption.split("Left out")[1]
