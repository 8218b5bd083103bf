"""The paper's figures from records: all of them, their numbers, their bytes, their captions."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from PIL import Image
from report.synthetic import deep_run, linear_run

from janus_pl.errors import UsageError
from janus_pl.records.run import Look, Run
from janus_pl.report.figures import Figure, draw, style

KEYS = ["janus", "edge", *(f"fig{k}" for k in ("1a", "1b", "2a", "2b", "3", "4a", "4b"))]
KEYS += ["spectra", "events", "fig5a", "fig5b"]
KEYS += [f"a{k}" for k in range(1, 8)]
LAMBDAS = (0.0, 1e-4, 1e-3)
PROBLEMS: dict[str, dict[str, Any]] = {
    "a1": {"num_train": 10, "dim": 11, "init": "zero"},
    "a2": {"num_train": 10, "dim": 11, "init": "gaussian"},
    "a3": {"num_train": 5, "dim": 10, "informative": 2},
    "a4": {"num_train": 200, "dim": 10, "informative": 2, "order": "online"},
    "a5": {"num_train": 100_000, "dim": 10, "order": "online"},
    "a6": {"num_train": 10, "dim": 2, "empty": 1},
    "a7": {"num_train": 6, "dim": 6, "empty": 1},
}


def named(run: Run, name: str) -> Run:
    return replace(run, name=name, id=f"id-{name}")


def linear_pair(key: str) -> list[Run]:
    start = 0.0 if key == "a1" else 2.0
    sizes = ("full", 1)
    made = [linear_run(batch, start=start, problem=PROBLEMS[key]) for batch in sizes]
    return [named(run, f"{key}-{run.dynamics}") for run in made]


def sgd(lam: float, seed: int, **options: Any) -> Run:
    # Other velocities in every run, so that a number in the wrong place is seen.
    norms = [(1 + seed) * (k + 1) * (1 + 1e3 * lam) for k in range(6)]
    ranks = [rank / (1 + 1e3 * lam) + seed for rank in (20, 60, 100, 100, 100, 2)]
    shift = 1 + 900 * lam + 0.1 * seed
    return deep_run(lam, seed=seed, velocities=norms, ranks=ranks, mean=shift, **options)


def mechanism(run: Run) -> Run:
    """The run with a loss that spikes and singular values that fall."""
    loss = np.where(run.rows["epoch"] % 3 == 2, 0.2, 0.01)
    looks = [
        Look(epoch, step, 0.1 * step, {"fc1": np.array([0.9, 0.4 / (1 + step)])})
        for epoch, step in run.rows[["epoch", "trainer/global_step"]].to_numpy()
    ]
    return replace(run, rows=run.rows.assign(**{"train/loss_running": loss}), spectra=looks)


def with_sharpness(run: Run) -> Run:
    keys = ("hessian", "batch", "limit", "ratio")
    columns = {f"sharpness/{key}": np.geomspace(1, 9, len(run.rows)) for key in keys}
    if not run.has("train/loss_running"):
        columns |= {"train/loss_running": np.geomspace(0.9, 0.01, len(run.rows))}
    return replace(run, rows=run.rows.assign(**columns))


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    """All that the paper has: three lambdas, two seeds (one at 1e-3), GD, cross entropy, linear."""
    deep = [sgd(lam, seed) for lam in LAMBDAS for seed in (0, 1)][:-1]
    deep = [mechanism(deep[0]), *deep[1:]]
    gd = [deep_run(lam, "full", error=0.001) for lam in LAMBDAS]
    entropy = [sgd(lam, 0, loss="cross_entropy") for lam in LAMBDAS]
    deep[0], gd[0] = with_sharpness(deep[0]), with_sharpness(gd[0])
    return deep + gd + entropy + [run for key in PROBLEMS for run in linear_pair(key)]


@pytest.fixture(scope="module")
def drawn(runs: list[Run], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Figure]:
    figures = draw(runs, tmp_path_factory.mktemp("figures"))
    assert len(runs) > 20
    assert [figure.key for figure in figures] == KEYS
    return {figure.key: figure for figure in figures}


def table(figure: Figure) -> list[dict[str, str]]:
    (path,) = [file for file in figure.files if file.suffix == ".csv"]
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def shown(figure: Figure, run: Run, key: str, layer: str = "", panel: str = "") -> list[float]:
    return [
        float(row["value"])
        for row in table(figure)
        if (row["kind"], row["id"], row["key"], row["layer"]) == ("run", run.id, key, layer)
        and (not panel or row["panel"] == panel)
    ]


def nothing_is_cut_off(png: Path) -> bool:
    """White at all four edges."""
    with Image.open(png) as image:
        pixels = np.asarray(image.convert("L"))
    edges = (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1])
    return all(edge.min() == 255 for edge in edges)


@pytest.mark.parametrize("key", KEYS)
def test_every_figure_is_drawn_and_fits_a_column(drawn: dict[str, Figure], key: str) -> None:
    figure = drawn[key]
    assert figure.missing is None
    assert [file.name for file in figure.files] == [
        f"{key}.{suffix}" for suffix in ("png", "svg", "csv", "txt")
    ]
    png, svg, _, text = figure.files
    assert png.stat().st_size < 150_000
    with Image.open(png) as image:
        width, height = image.size
        assert width in (round(200 * style.COLUMN), round(200 * style.PAGE))
        assert height < 1600
    assert nothing_is_cut_off(png)
    markup = svg.read_text(encoding="utf-8")
    assert "<text" in markup
    assert "<date>" not in markup.replace("dc:", "")
    assert text.read_text(encoding="utf-8") == figure.caption + "\n"


def test_the_ten_lambdas_of_the_paper_fit(tmp_path: Path) -> None:
    lams = (0, 1e-6, 1e-5, 5e-5, 1e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2)
    figures = draw([sgd(lam, seed) for lam in lams for seed in (0, 1)], tmp_path)
    pictures = [figure.files[0] for figure in figures if figure.missing is None]
    assert len(pictures) == 7
    for picture in pictures:
        assert nothing_is_cut_off(picture), picture.name


def test_the_numbers_of_figure_3_are_those_of_the_runs(
    drawn: dict[str, Figure], runs: list[Run]
) -> None:
    square = [run for run in runs if run.name.startswith("square-B32")]
    for run in square:
        for layer in ("conv1", "fc2"):
            expected = list(run.rows[f"velocity/{layer}"])
            assert shown(drawn["fig3"], run, f"velocity/{layer}", layer) == expected
    means = [
        row
        for row in table(drawn["fig3"])
        if row["kind"] == "mean" and row["layer"] == "conv1" and float(row["lambda"]) == 1e-4
    ]
    a, b = (
        run.rows["velocity/conv1"] for run in square if run.options["model.weight_decay"] == 1e-4
    )
    assert [float(row["x"]) for row in means] == list(square[0].rows["epoch"])
    for row, one, other in zip(means, a, b, strict=True):
        assert float(row["value"]) == pytest.approx(math.sqrt(one * other), rel=1e-12)
        assert (float(row["low"]), float(row["high"])) == (min(one, other), max(one, other))
        assert row["seeds"] == "2"


def test_a_number_that_is_off_by_a_bit_is_seen(drawn: dict[str, Figure], runs: list[Run]) -> None:
    run = next(run for run in runs if run.name.startswith("square-B32"))
    rows = run.rows.copy()
    rows.loc[3, "velocity/conv1"] = np.nextafter(rows.loc[3, "velocity/conv1"], np.inf)
    assert shown(drawn["fig3"], run, "velocity/conv1", "conv1") != list(rows["velocity/conv1"])


@pytest.mark.parametrize("key", ["fig1a", "fig2a", "fig2b", "fig5a", "fig5b"])
def test_histograms_are_the_last_of_each_run(
    drawn: dict[str, Figure], runs: list[Run], key: str
) -> None:
    loss = "cross_entropy" if key == "fig5a" else "square"
    batch = "full" if key.startswith("fig2") else "32"
    wanted = [run for run in runs if run.name.startswith(f"{loss}-B{batch}")]
    assert {row["id"] for row in table(drawn[key])} == {run.id for run in wanted}
    for run in wanted:
        last = run.histograms["margin/hist"][-1]
        rows = [row for row in table(drawn[key]) if row["id"] == run.id]
        assert [float(row["value"]) for row in rows] == list(last.counts)
        assert [float(row["x"]) for row in rows] == list(last.edges[:-1])
        assert [float(row["x_end"]) for row in rows] == list(last.edges[1:])


def test_ranks_and_velocities_at_the_end(drawn: dict[str, Figure], runs: list[Run]) -> None:
    for run in (run for run in runs if run.name.startswith("square-B32")):
        for layer in ("conv3", "fc2"):
            (velocity,) = shown(drawn["fig4a"], run, f"velocity/{layer}", layer)
            assert velocity == run.rows[f"velocity/{layer}"].iloc[-1]
            (rank,) = shown(drawn["fig4b"], run, f"effective_rank/{layer}", layer, "end")
            assert rank == run.rows[f"effective_rank/{layer}"].iloc[-1]


def test_the_spread_over_time_is_std_over_mean(drawn: dict[str, Figure], runs: list[Run]) -> None:
    run = next(run for run in runs if run.name == "square-B32-lam0.001-seed0")
    expected = [
        s / abs(m) for s, m in zip(run.rows["margin/std"], run.rows["margin/mean"], strict=True)
    ]
    assert shown(drawn["fig1b"], run, "margin/std / |margin/mean|") == expected


@pytest.mark.parametrize("key", ["a2", "a3", "a6"])
def test_the_null_space_and_its_closed_form(
    drawn: dict[str, Figure], runs: list[Run], key: str
) -> None:
    for run in (run for run in runs if run.name.startswith(f"{key}-")):
        for name in ("null/norm", "null/predicted", "singular_value/1"):
            if name in ("null/norm", "null/predicted") or key != "a2":  # a2 shows eigenvalues
                assert shown(drawn[key], run, name) == list(run.rows[name])


def test_the_slopes_of_figure_a7(drawn: dict[str, Figure]) -> None:
    # sigma_min shrinks by 0.99 a step; SGD of the synthetic record takes ten steps an epoch.
    slope = math.log(0.99)
    assert f"SGD {10 * slope:.3g} (R^2 1), GD {slope:.3g} (R^2 1); ratio 10." in drawn["a7"].caption


def test_captions_name_runs_seeds_and_commands(drawn: dict[str, Figure], runs: list[Run]) -> None:
    said = drawn["fig1a"].caption
    for run in (run for run in runs if run.name.startswith("square-B32")):
        assert f"{run.name} ({run.id})" in said
    assert "lambda = 1e-4: " in said
    assert "seeds 0, 1;" in said
    assert "Fewer seeds than the 2 of the others: SGD at lambda = 1e-3 (1)." in said
    assert f"python -m janus_pl fit --config runs/{runs[0].id}/config.yaml" in said
    assert "python -m janus_pl report RUN... --out DIR --x epoch" in said
    assert "Fewer seeds" not in drawn["fig5a"].caption


def test_the_same_bytes_whatever_the_order_and_the_thread(runs: list[Run], tmp_path: Path) -> None:
    few = [run for run in runs if run.name.startswith(("square-Bfull", "a2"))]

    def bytes_of(folder: Path, some: Sequence[Run]) -> dict[str, bytes]:
        figures = draw(some, folder)
        return {file.name: file.read_bytes() for f in figures for file in f.files}

    with ThreadPoolExecutor(2) as pool:
        tasks = [
            pool.submit(bytes_of, tmp_path / name, some)
            for name, some in (("forth", few), ("back", few[::-1]))
        ]
        forth, back = (task.result() for task in tasks)
    assert {name for name in forth if forth[name] != back[name]} == set()
    other = bytes_of(tmp_path / "other", few[:-1])  # and a run less is another figure
    assert other != forth


def test_matplotlib_is_left_as_it_was(tmp_path: Path) -> None:
    with matplotlib.rc_context({"font.size": 31, "svg.fonttype": "path"}):
        before = dict(matplotlib.rcParams)
        draw([sgd(0.0, 0)], tmp_path)
        assert dict(matplotlib.rcParams) == before


def test_time_courses_by_steps_and_by_eta_t(tmp_path: Path) -> None:
    run = sgd(1e-3, 0)
    for x, column in (("step", "trainer/global_step"), ("eta_t", "eta_t")):
        figures = {figure.key: figure for figure in draw([run], tmp_path / x, x)}
        rows = [row for row in table(figures["fig3"]) if row["layer"] == "conv1"]
        assert [float(row["x"]) for row in rows] == list(run.rows[column])
        assert f"--x {x}" in figures["fig3"].caption
    with pytest.raises(UsageError, match="epoch, step or eta_t"):
        draw([run], tmp_path, "time")


def test_one_colour_a_lambda_from_dark_to_light() -> None:
    lams = [0, 1e-6, 1e-5, 5e-5, 1e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2]
    found = style.colours(lams[::-1])
    light = [0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b, _ in (found[lam] for lam in lams)]
    assert light == sorted(light)
    assert min(np.diff(light)) > 0.01
    assert light[-1] < 0.8  # seen on white
