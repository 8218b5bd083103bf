"""Sharpness beside its limit: which runs are taken, every point, and the spikes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from report.drawn import Picture, picture
from report.generic import network, regression

from janus_pl.records.run import Run
from janus_pl.report.figures.edge import Spike, runs_of, spikes_of
from janus_pl.report.figures.series import Unavailable

NAN = float("nan")
SGD = {"class_path": "torch.optim.SGD", "init_args": {"momentum": 0.9}}
EPOCHS = tuple(range(10))
#         0    1    2     3     4    5    6     7     8    9
LOSS = [NAN, 0.9, 0.04, 0.02, 0.2, 0.3, 0.01, 0.01, 0.09, 0.2]
RATIO = [0.1, 0.2, 0.3, NAN, 0.9, 0.5, 0.6, NAN, NAN, 0.7]
SPIKES = [Spike(4, 6, 0.3), Spike(8, 9, 0.6)]  # the last one still lasts


def sharp(batch: int | str = 32, lam: float = 1e-3, **options: Any) -> Run:
    """A run with looks at some epochs, in units of its limit."""
    columns: Mapping[str, Any] = {
        "train/loss_running": LOSS,
        "learning_rate": [NAN, *np.linspace(0.1, 0.05, 9)],
        "sharpness/limit": 2 * 1.9 / np.linspace(0.1, 0.05, 10),
        "sharpness/hessian": np.array(RATIO) * 2 * 1.9 / np.linspace(0.1, 0.05, 10),
        "sharpness/batch": np.array(RATIO) * 7,
        "sharpness/ratio": RATIO,
        **options.pop("columns", {}),
    }
    columns = {key: values for key, values in columns.items() if values is not None}
    model = {"optimizer": SGD, **options.pop("model", {})}
    return network(lam, batch, epochs=EPOCHS, columns=columns, model=model, **options)


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    return [sharp("full"), sharp(), network(2e-3, epochs=EPOCHS), regression()]


@pytest.fixture(scope="module")
def drawn(runs: list[Run], tmp_path_factory: pytest.TempPathFactory) -> Picture:
    return picture(runs, tmp_path_factory.mktemp("edge"), "edge")


def test_minibatches_are_left_and_the_full_batch_right(drawn: Picture, runs: list[Run]) -> None:
    assert [panel.title.partition(",")[0] for panel in drawn.panels] == ["SGD", "GD", "", ""]
    assert [panel.yscale for panel in drawn.panels] == ["log"] * 4
    assert [panel.xlabel for panel in drawn.panels[2:]] == ["epoch"] * 2
    assert "square-B32-lam0.002-seed0" in drawn.caption  # named as left out
    assert "linear" not in drawn.caption.partition("python -m janus_pl report")[0]


@pytest.mark.parametrize("column", [0, 1])
def test_every_line_is_that_of_the_record(column: int, drawn: Picture, runs: list[Run]) -> None:
    rows = runs[1 - column].rows
    limit, *small, batch, hessian = drawn.panels[column].lines
    assert len(small) == 1 - column, "of small batches alone"
    for line, values in (
        (limit, rows["sharpness/limit"]),
        *((line, 2 * (1 - 0.9) / rows["learning_rate"]) for line in small),
        (batch, rows["sharpness/batch"]),
        (hessian, rows["sharpness/hessian"]),
        (drawn.panels[2 + column].lines[0], rows["train/loss_running"]),
    ):
        known = values.notna()
        np.testing.assert_allclose(line.x, rows["epoch"][known])
        np.testing.assert_allclose(line.y, values[known], rtol=1e-12)
    labels = [entry.label for entry in drawn.legend]
    assert labels == [
        *("Hessian, SGD", "Hessian, GD", "batch sharpness", "limit"),
        *("2(1 - β)/η, small B", "spike"),
    ]


def test_spikes_are_shaded_in_every_panel_and_written(drawn: Picture) -> None:
    for panel in drawn.panels:
        assert [(box.low, box.high) for box in panel.boxes] == [(3.5, 5.5), (7.5, 8.5)]
    for name in ("SGD", "GD"):
        written = {"panel": "spikes", "dynamics": name}
        assert drawn.column("x", **written).tolist() == [4, 8]
        assert drawn.column("x_end", **written).tolist() == [6, 9]
        assert drawn.column("value", **written).tolist() == [0.3, 0.6]


def test_the_caption_has_the_ratio_at_spikes(drawn: Picture) -> None:
    # Without: 0.1, 0.2, 0.3, 0.6, 0.7. Before: 0.3, 0.6. Within: 0.9, 0.5.
    for who in ("SGD, B = 32", "GD, B = N"):
        assert (
            f"Sharpness over its limit under {who}: 0.3 (0.1 to 0.7) at looks outside of spikes,"
            " 0.45 (0.3 to 0.6) at the last look before 2 spikes, 0.7 (0.5 to 0.9) at looks within."
        ) in drawn.caption
    small = ", dotted, 2(1 - beta)/eta, that of small batches with momentum"
    assert small in drawn.caption


def test_spikes_by_the_definition_or_as_recorded() -> None:
    assert spikes_of(sharp()) == SPIKES
    begins = [NAN, NAN, NAN, NAN, 2.0, NAN, NAN, 5.0, NAN, NAN]
    ends = [NAN, NAN, NAN, NAN, 3.0, NAN, NAN, 6.0, NAN, NAN]
    recorded = {"event/begin": begins, "event/end": ends, "event/count": [0.0] * 9 + [2.0]}
    assert spikes_of(sharp(columns=recorded)) == [Spike(2, 3, 0.2), Spike(5, 6, 0.9)]
    none = {"event/count": [0.0] * 10}
    assert spikes_of(sharp(columns=none)) == []


def test_a_spike_before_the_first_look_has_no_ratio() -> None:
    run = sharp(columns={"sharpness/ratio": [NAN] * 5 + [0.5] * 5})
    first, second = spikes_of(run)
    assert np.isnan(first.ratio) and second.ratio == 0.5


@pytest.mark.parametrize(
    ("optimizer", "columns", "lines", "says"),
    [
        ("SGD", {}, 4, "at the last look"),
        ("Adam", {"sharpness/preconditioned": RATIO}, 4, "at the last look"),
        ("Adagrad", {"sharpness/limit": None, "sharpness/ratio": None}, 2, "limit is not known"),
    ],
)
def test_one_run_fits_a_column(
    optimizer: str, columns: Any, lines: int, says: str, tmp_path: Path
) -> None:
    options = {**SGD, "class_path": f"torch.optim.{optimizer}"}
    found = picture([sharp(model={"optimizer": options}, columns=columns)], tmp_path, "edge")
    assert found.missing is None and len(found.panels) == 2
    assert len(found.panels[0].lines) == lines
    assert says in found.caption
    labels = [entry.label for entry in found.legend]
    assert ("preconditioned" in labels) == (optimizer == "Adam")
    assert ("2(1 - β)/η, small B" in labels) == (optimizer == "SGD")
    assert ("small batches" in found.caption) == (optimizer == "SGD")


@pytest.mark.parametrize("x", ["trainer/global_step", "eta_t"])
def test_spikes_are_where_their_epochs_are_on_other_axes(x: str, tmp_path: Path) -> None:
    run = sharp()
    found = picture([run], tmp_path, "edge", x)
    ends = np.interp([3.5, 5.5], run.rows["epoch"], run.rows[x])
    for panel in found.panels:
        box = panel.boxes[0]
        assert (box.low, box.high) == pytest.approx(tuple(ends))


def test_two_runs_of_one_family_are_taken_before_those_with_more_looks() -> None:
    few = [NAN] * 9 + [0.5]
    gd, sgd = sharp("full", columns={"sharpness/hessian": few}), sharp()
    other = sharp("full", model={"learning_rate": 0.7})
    assert [run.name for run in runs_of([other, gd, sgd])] == [sgd.name, gd.name]
    assert runs_of([other, gd, sgd])[1] is gd
    # Without a common family the two are shown all the same; alone, the one with most looks.
    assert runs_of([other, sgd]) == [sgd, other] or runs_of([other, sgd])[1] is other
    more = sharp(seed=1)
    fewer = sharp(columns={"sharpness/hessian": few})
    assert runs_of([fewer, more])[0] is more


@pytest.mark.parametrize(
    ("runs", "says"),
    [([], "no network"), ([network()], "callbacks.Sharpness"), ([regression()], "no network")],
)
def test_without_sharpness_there_is_no_figure(runs: list[Run], says: str, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=says):
        runs_of(runs)
    missing = picture(runs, tmp_path, "edge").missing
    assert missing is not None and says in missing


def test_a_run_without_a_spike_says_so(tmp_path: Path) -> None:
    found = picture([sharp(columns={"train/loss_running": [0.01] * 10})], tmp_path, "edge")
    assert "there is no spike" in found.caption
    assert not any(panel.boxes for panel in found.panels)
    assert pd.isna(found.column("value", panel="spikes")).size == 0
