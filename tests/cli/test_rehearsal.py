"""What a forker does once for all runs: it leaves behind only what makes them quicker."""

from __future__ import annotations

import random
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from janus_pl.cli import rehearsal
from janus_pl.cli import sweep as tool
from janus_pl.cli.base_values import BaseValuesParser
from janus_pl.cli.sweep import Resolver
from janus_pl.run import service


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["janus_pl"])
    monkeypatch.setattr(BaseValuesParser, "kept_before", {})
    monkeypatch.setattr(service, "_listed", [])


def states() -> list[Any]:
    return [random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()]


def test_a_rehearsal_reads_the_runs_classes_and_changes_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Resolver()(["fit", "--config", "linear/a2.yaml"])
    BaseValuesParser.kept_before = {}
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = states()
    asked = list(warnings.filters)
    rehearsal.rehearse(tool._rehearsed(config))
    assert set(BaseValuesParser.kept_before) == {"model", "data"}, "runs guess their classes right"
    assert "torch" in {each.key for each in service._listed}
    assert states() == before
    assert [*tmp_path.iterdir()] == []
    assert warnings.filters == asked


def test_without_a_config_it_reads_the_defaults() -> None:
    rehearsal.rehearse()
    assert BaseValuesParser.kept_before == {}
    assert service._listed


def test_what_a_rehearsal_is_told_are_the_classes_if_all_are_imported_once() -> None:
    config: dict[str, Any] = {
        "seed_everything": 3,
        "model": {"class_path": "janus_pl.LinearRegressor", "init_args": {"schedule": "cosine"}},
        "trainer": {"callbacks": [{"class_path": "janus_pl.callbacks.MarginCSV"}], "devices": 1},
    }
    told = tool._rehearsed({**config, "data": None})
    assert told == {
        "model": config["model"],
        "trainer": {"callbacks": config["trainer"]["callbacks"]},
    }
    config["trainer"]["callbacks"] += [{"class_path": "own.Callback"}]
    assert tool._rehearsed(config) is None, "it is the runs that import it"
