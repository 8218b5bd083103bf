"""SGD beside its controls: which runs are taken, and every point against the records."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from report.drawn import Picture, pictures
from report.generic import LAYERS, network

from janus_pl.records.run import Run
from janus_pl.report.figures.janus import late, sides_of
from janus_pl.report.figures.series import Unavailable

EPOCHS = (0, 1, 3, 4, 9)


def made() -> list[Run]:
    """SGD at three lambdas and GD at two, two seeds; another rate, optimizer's batch and loss."""
    runs = [network(lam, seed=seed) for lam in (0.0, 1e-3, 5e-3) for seed in (0, 1)]
    runs += [network(lam, "full", seed) for lam in (0.0, 1e-3) for seed in (0, 1)]
    runs += [network(1e-3, model={"learning_rate": 0.2}), network(1e-3, loss="cross_entropy")]
    return runs


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    return made()


@pytest.fixture(scope="module")
def drawn(runs: list[Run], tmp_path_factory: pytest.TempPathFactory) -> Picture:
    return pictures(runs, tmp_path_factory.mktemp("janus"), ["janus"])["janus"]


def names(runs: Sequence[Run]) -> list[list[str]]:
    return [sorted(run.name for run in side.runs) for side in sides_of(runs)]


def test_the_lambda_that_gd_has_too_is_taken(runs: list[Run]) -> None:
    assert names(runs) == [
        ["square-B32-lam0.001-seed0", "square-B32-lam0.001-seed1"],
        ["square-B32-lam0-seed0", "square-B32-lam0-seed1"],
        ["square-Bfull-lam0.001-seed0", "square-Bfull-lam0.001-seed1"],
    ]


def test_one_control_is_enough() -> None:
    sgd, without, gd = network(1e-3), network(0.0), network(1e-3, "full")
    assert names([sgd, without]) == [[sgd.name], [without.name]]
    assert names([gd, sgd]) == [[sgd.name], [gd.name]]


@pytest.mark.parametrize(
    "runs",
    [
        [network(1e-3)],
        [network(0.0), network(0.0, "full")],
        [network(1e-3, "full"), network(0.0)],
        [network(1e-3), network(2e-3, "full")],  # GD at another lambda is no control
        [network(1e-3), network(1e-3, "full", model={"learning_rate": 0.2})],
        [network(1e-3), network(0.0, epochs=(0, 1, 2))],  # not as long
        [],
    ],
    ids=["alone", "no decay", "no SGD with decay", "lambda", "rate", "length", "none"],
)
def test_without_a_control_there_is_no_figure(runs: list[Run]) -> None:
    with pytest.raises(Unavailable):
        sides_of(runs)


def geometric(run: Run, kind: str) -> np.ndarray:
    table = run.rows[[f"{kind}/{layer}" for layer in LAYERS]].to_numpy()
    return np.exp(np.log(table).mean(axis=1))


def expected(run: Run, panel: str) -> np.ndarray:
    if panel == "margins":
        return (run.rows["margin/std"] / run.rows["margin/mean"].abs()).to_numpy()
    if panel == "velocity":
        return geometric(run, "velocity")
    ranks = geometric(run, "effective_rank")
    return ranks / ranks[0]


@pytest.mark.parametrize("row", [0, 1], ids=["epoch", "eta_t"])
@pytest.mark.parametrize("column", [0, 1, 2], ids=["margins", "velocity", "effective_rank"])
def test_every_line_is_the_geometric_mean_over_layers_and_seeds(
    row: int, column: int, runs: list[Run], drawn: Picture
) -> None:
    panel = drawn.panels[3 * row + column]
    by_name = {run.name: run for run in runs}
    assert len(panel.lines) == 3
    for line, side in zip(panel.lines, names(runs), strict=True):
        of_side = [by_name[name] for name in side]
        values = [
            expected(run, ("margins", "velocity", "effective_rank")[column]) for run in of_side
        ]
        mean = np.exp(np.log(values).mean(0)) if column < 2 else np.mean(values, axis=0)
        np.testing.assert_allclose(line.y, mean, rtol=1e-12)
        x = of_side[0].rows["eta_t" if row else "epoch"].to_numpy()
        np.testing.assert_allclose(line.x, x)


def test_the_late_mean_is_over_the_last_fifth() -> None:
    index = pd.MultiIndex.from_arrays([[0, 70, 80, 100], [0, 0, 0, 0]])
    values = pd.Series([9.0, 9.0, 4.0, 1.0], index=index)
    assert late(values) == pytest.approx(2.0)
    assert np.isnan(late(values[:0]))
