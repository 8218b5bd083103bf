"""The figures from a short real run of each parametrization, SGD and GD."""

from __future__ import annotations

import csv
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from janus_pl.cli.config_files import find_configs
from janus_pl.cli.lightning_cli import JanusCLI
from janus_pl.deep import PARAMETRIZATIONS
from janus_pl.records.read import read
from janus_pl.records.run import Run
from janus_pl.report.figures import Figure, draw, style
from janus_pl.run.logger import finish

# Panels are what takes the time, and six a figure are drawn elsewhere.
LAYERS = ("conv1", "fc2")
LEFT_OUT = ("conv2", "conv3", "conv4", "fc1")
# What two epochs at a small lambda allow: no GD has converged (2b), and there is no cross entropy.
AVAILABLE = {"janus", "fig1a", "fig1b", "fig2a", "fig3", "fig4a", "fig4b", "fig5b"}
AVAILABLE |= {"spectra", "events"}
OPTIONS = ["--model.channels=[3,4,5,4]", "--model.hidden=7", "--model.learning_rate=3e-4"]
OPTIONS += ["--model.weight_decay=1e-4", "--data.num_train=60", "--trainer.max_epochs=2"]
OPTIONS += ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """SGD and GD on the digits in all parametrizations, read back from their records."""
    folder = tmp_path_factory.mktemp("dynamics")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_SILENT", "true")
        patch.setattr(sys, "argv", ["janus_pl"])
        for name in PARAMETRIZATIONS:
            for size in ("20", "full"):
                args = [f"--model.normalization={name}", f"--data.batch_size={size}", *OPTIONS]
                JanusCLI(find_configs(["fit", "--config", "quickstart.yaml", *args]))
                finish()
        records = read([folder])
    assert not records.skipped
    assert len(records.runs) == 2 * len(PARAMETRIZATIONS)
    return [few_layers(run) for run in records.runs]


def few_layers(run: Run) -> Run:
    return replace(run, rows=run.rows[[key for key in run.rows if not key.endswith(LEFT_OUT)]])


def numbers(figure: Figure, run: Run, key: str) -> list[float]:
    (path,) = [file for file in figure.files if file.suffix == ".csv"]
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [float(row["value"]) for row in rows if row["id"] == run.id and row["key"] == key]


@pytest.mark.parametrize("normalization", list(PARAMETRIZATIONS))
def test_every_figure_that_applies_is_drawn(
    normalization: str, runs: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(style, "DPI", 40)  # a coarse raster is soon there
    own = [run for run in runs if run.options["model.normalization"] == normalization]
    (sgd,) = [run for run in own if run.dynamics == "SGD"]
    # Where every layer learns its own norm there is no equilibrium of one rho to be off from.
    assert sgd.has("equilibrium/residual") == (normalization in ("weight_norm", "lagrange"))
    figures = {figure.key: figure for figure in draw(own, tmp_path)}
    assert {key for key, figure in figures.items() if figure.missing is None} == AVAILABLE
    for key in AVAILABLE:
        assert all(file.stat().st_size for file in figures[key].files)
        assert len(figures[key].files) == 4
    for layer in LAYERS:
        velocity, rank = sgd.last(f"velocity/{layer}"), sgd.last(f"effective_rank/{layer}")
        assert velocity > 0 and rank > 1
        assert numbers(figures["fig4a"], sgd, f"velocity/{layer}") == [velocity]
        # At the end, and then epoch by epoch.
        at_end, *_, last = numbers(figures["fig4b"], sgd, f"effective_rank/{layer}")
        assert at_end == last == rank
