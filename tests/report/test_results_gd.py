"""The table and the figure of GD at as many steps as SGD, from runs that were never trained."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from report.drawn import sketch
from report.generic import LAYERS, STEP, network, zero_function
from report.told import cells, tagged, told

from janus_pl.records.run import Run

MIDDLE = ("conv3", "conv4", "fc1")
RATE = {"whose_decay": ("constant", 2.5e-3), "whose_gd": ("constant", 2.5e-3)}
RATE |= {"dose_batch": ("cosine", 5e-3), "dose_full": ("cosine", 5e-3)}


@pytest.fixture(scope="module")
def docs() -> Iterator[ModuleType]:
    sys.path.insert(0, str(ROOT / "docs"))
    import results_figures

    yield results_figures
    sys.path.remove(str(ROOT / "docs"))


def of(sweep: str, seed: int, batch: int | str = 8, **more: Any) -> Run:
    schedule, lam = RATE[sweep]
    model = {"schedule": schedule, "learning_rate": 0.03, **more}
    batch = "full" if sweep in ("whose_gd", "dose_full") else batch
    return tagged(network(lam, batch, seed, model=model, data={"num_train": 500}), sweep)


def pairs() -> list[Run]:
    """Two seeds of each, and what is no twin: another seed, batch size, schedule or sweep."""
    return [of(sweep, seed) for sweep in RATE for seed in (0, 2)]


def strangers() -> list[Run]:
    return [
        of("whose_decay", 7),
        of("dose_full", 7),
        of("whose_decay", 0, schedule="growing"),
        of("dose_batch", 0, batch=64),
        tagged(of("dose_batch", 0), "dose_decay"),
    ]


def test_the_table_has_gd_and_sgd_of_the_same_seeds_alone(docs: ModuleType) -> None:
    import results_tables as tables

    runs = pairs()
    rows = cells(tables.of_runs([*strangers(), *reversed(runs)])["gd_steps"])
    shown = [(row["dynamics"], row["lambda"], row["seeds"]) for row in rows]
    assert shown == [
        *(("SGD", "0.0025", "2"), ("SGD", "0.005", "2")),
        *(("GD", "0.0025", "2"), ("GD", "0.005", "2")),
    ]
    for row, sweep in zip(
        rows, ("whose_decay", "dose_batch", "whose_gd", "dose_full"), strict=True
    ):
        own = [run.rows.iloc[-1] for run in runs if sweep in run.config["tags"]]
        noise = [
            float(np.exp(np.mean([np.log(end[f"velocity/{k}"]) for k in LAYERS]))) for end in own
        ]
        assert row["‖V̇‖"] == told(noise, True, ".3g")
        for layer in MIDDLE:
            ranks = [end[f"effective_rank/{layer}"] for end in own]
            assert row[f"rank {layer}"] == told(ranks, False, ".1f")


def test_ranks_and_velocity_over_steps_by_schedule(docs: ModuleType) -> None:
    runs = pairs()
    emptied = tagged(zero_function(runs[2]), "whose_gd")
    runs[2] = emptied
    drawn, found = sketch(docs.FIGURES["gd_steps"], [*runs, *strangers()])
    assert drawn and [panel.title for panel in found.panels[:2]] == ["a constant rate", "a cosine"]
    assert [panel.yscale for panel in found.panels] == ["linear", "linear", "log", "log"]
    assert [panel.xlabel for panel in found.panels] == ["", "", "step", "step"]
    colours = {entry.label: (entry.colour, entry.dashes) for entry in found.legend}
    for place, panel in enumerate(found.panels):
        schedule = ("constant", "cosine")[place % 2]
        own = [run for run in runs if run.options["model.schedule"] == schedule]
        assert len(panel.lines) == len(own) == 4
        for line, run in zip(panel.lines, own, strict=True):
            colour, dashes = colours[run.dynamics]
            assert (line.colour, line.dashes) == (colour, ":" if run is emptied else dashes)
            kind, layers = ("effective_rank", MIDDLE) if place < 2 else ("velocity", LAYERS)
            values = run.rows[[f"{kind}/{layer}" for layer in layers]].to_numpy()
            over = values.mean(1) if place < 2 else np.exp(np.log(values).mean(1))
            np.testing.assert_array_equal(line.x, run.rows[STEP])
            np.testing.assert_allclose(line.y, over)
    # Control: without one of the two there is nothing to compare.
    assert sketch(docs.FIGURES["gd_steps"], [r for r in runs if r.dynamics == "GD"])[0] is False
