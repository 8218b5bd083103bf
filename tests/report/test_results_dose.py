"""The table and the figure of dose and response, from runs that were never trained."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from report.drawn import Panel, sketch
from report.generic import LAYERS, network, zero_function
from report.told import cells, tagged, told

from janus_pl.records.run import Run

FULL, RATE, LAM = 500, 0.03, 5e-3
MIDDLE = ("conv3", "conv4", "fc1")


@pytest.fixture(scope="module")
def docs() -> Iterator[ModuleType]:
    sys.path.insert(0, str(ROOT / "docs"))
    import results_figures

    yield results_figures
    sys.path.remove(str(ROOT / "docs"))


def of(
    sweep: str, batch: int | str = 8, rate: float = RATE, lam: float = LAM, seed: int = 0
) -> Run:
    model: dict[str, Any] = {"learning_rate": rate}
    return tagged(network(lam, batch, seed, model=model, data={"num_train": FULL}), sweep)


def scan() -> list[Run]:
    runs = [of("dose_batch", batch, seed=seed) for batch in (8, 64) for seed in (0, 1)]
    runs += [of("dose_full", "full", seed=seed) for seed in (0, 1)]
    runs += [of("dose_rate_half", rate=0.015, seed=seed) for seed in (0, 1)]
    return [*runs, *(of("dose_decay", lam=1e-3, seed=seed) for seed in (0, 1))]


def last(run: Run, kind: str, layers: tuple[str, ...]) -> float:
    """The geometric mean over layers in the last row, the one that is in the last fifth."""
    return float(np.exp(np.mean([np.log(run.rows[f"{kind}/{k}"].iloc[-1]) for k in layers])))


def test_the_table_has_a_line_for_each_batch_size_rate_and_lambda(docs: ModuleType) -> None:
    import results_tables as tables

    emptied = zero_function(of("dose_decay", lam=2e-2))
    runs = scan()
    rows = cells(tables.dose([*reversed(runs), emptied]))
    settings = [(row["B"], row["rate"], row["lambda"]) for row in rows]
    assert settings == [
        *(("8", "0.015", "0.005"), ("8", "0.03", "0.001"), ("8", "0.03", "0.005")),
        *(("8", "0.03", "0.02"), ("64", "0.03", "0.005"), ("full", "0.03", "0.005")),
    ]
    own = runs[:2]  # B = 8, rate and lambda of dose.yaml
    row = rows[2]
    assert (row["seeds"], row["f = 0"], row["steps"]) == ("2", "0", "63")
    assert row["rank"] == told([last(run, "effective_rank", MIDDLE) for run in own], True, ".1f")
    assert row["‖V̇‖"] == told([last(run, "velocity", LAYERS) for run in own], True, ".3g")
    ends = [run.rows.iloc[-1] for run in own]
    spreads = [end["margin/std"] / end["margin/mean"] for end in ends]
    assert row["sigma/mu"] == told(spreads, True, ".3g")
    assert (rows[3]["seeds"], rows[3]["f = 0"], rows[3]["rank"]) == ("1", "1", "-")
    assert tables.of_runs(runs)["dose"] == tables.dose(runs)


def check(panel: Panel, x: float, y: list[float], colour: str) -> None:
    """Some dots, and the line that goes through their geometric mean."""
    dots = [line for line in panel.lines if line.marker == "." and line.colour == colour]
    found = [b for line in dots for a, b in zip(line.x, line.y, strict=True) if a == x]
    assert sorted(found) == pytest.approx(sorted(y))
    (line,) = (line for line in panel.lines if (line.dashes, line.colour) == ("-", colour))
    (mean,) = line.y[line.x == x]
    assert mean == pytest.approx(np.exp(np.mean(np.log(y))))


def test_velocity_and_rank_against_one_factor_at_a_time(docs: ModuleType) -> None:
    runs = scan()
    drawn, found = sketch(docs.FIGURES["dose"], [*runs, tagged(network(LAM), "other")])
    assert drawn
    above, below = found.panels[:3], found.panels[3:]
    assert [panel.xlabel for panel in below] == ["B", "η", "λ"]
    assert below[0].ylabel == "effective rank" and len(found.panels) == 6
    assert {(panel.xscale, panel.yscale) for panel in above} == {("log", "log")}
    assert {(panel.xscale, panel.yscale) for panel in below} == {("log", "linear")}
    sgd, gd = (entry.colour for entry in found.legend[:2])
    places = {(0, 8): runs[:2], (0, 64): runs[2:4], (1, 0.015): runs[6:8], (2, 1e-3): runs[8:]}
    places |= {(1, RATE): runs[:2], (2, LAM): runs[:2]}
    for (place, x), some in places.items():
        check(above[place], x, [last(run, "velocity", LAYERS) for run in some], sgd)
        check(below[place], x, [last(run, "effective_rank", MIDDLE) for run in some], sgd)
    check(below[0], FULL, [last(run, "effective_rank", MIDDLE) for run in runs[4:6]], gd)
    # The bound's exponents, through the runs of dose.yaml itself.
    through = np.exp(np.mean([np.log(last(run, "effective_rank", MIDDLE)) for run in runs[:2]]))
    for panel, at, exponent in zip(below, (8, RATE, LAM), (1, -1, -1), strict=True):
        (bound,) = (line for line in panel.lines if line.dashes == ":")
        np.testing.assert_allclose(bound.y, through * (bound.x / at) ** exponent)
    assert not [line for panel in above for line in panel.lines if line.dashes == ":"]
    alone = sketch(docs.FIGURES["dose"], [run for run in runs if run.dynamics == "SGD"])[1]
    assert [entry.label for entry in alone.legend] == ["SGD", "exponent of the bound"]
    assert sketch(docs.FIGURES["dose"], [tagged(network(LAM), "other")])[0] is False
