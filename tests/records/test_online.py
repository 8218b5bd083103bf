"""Runs read from a W&B server with the real client, against one on loopback."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from environments import LIMIT, PACKAGE
from wandb_server import RunsServer, node

from janus_pl.errors import UsageError
from janus_pl.records.read import Records, read

CONFIG = {
    "seed_everything": 3,
    "model": {"class_path": "janus_pl.DeepReLUClassifier", "init_args": {"weight_decay": 0.1}},
    "data": {"init_args": {"batch_size": "full"}},
}
HISTOGRAM = {"_type": "histogram", "values": [1, 2], "bins": [0.0, 1.0, 2.0]}
ROWS = [
    {"epoch": 0, "trainer/global_step": 0, "margin/mean": 0.5, "margin/hist": HISTOGRAM},
    {"epoch": 1, "trainer/global_step": 4, "margin/mean": "NaN"},
    {"epoch": 2, "trainer/global_step": 8, "margin/mean": 0.25},
]


# In a process of its own, for W&B's client keeps its settings and its service for the process.
SCRIPT = """
import pickle, sys
from janus_pl.records.read import read
records = read([sys.argv[1]], unfinished=sys.argv[2] == "True")
with open("records", "wb") as file:
    pickle.dump(records, file)
"""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunsServer]:
    heads = {
        "good": node("good", CONFIG, group="g", displayName="a good one"),
        "failed": node("failed", CONFIG, state="failed"),
        "running": node("running", CONFIG, state="running"),
        "empty": node("empty", CONFIG),
    }
    rows: dict[str, Any] = {"good": ROWS, "failed": ROWS, "running": ROWS[:2], "empty": []}
    server = RunsServer({name: (head, rows[name]) for name, head in heads.items()})
    monkeypatch.chdir(tmp_path)
    yield server
    server.die()


def ask(server: RunsServer, path: str, unfinished: bool = False) -> Records:
    env = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    env |= {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "k" * 40, "PYTHONPATH": PACKAGE}
    command = [sys.executable, "-c", SCRIPT, path, str(unfinished)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stderr
    return pickle.loads(Path("records").read_bytes())


def test_runs_of_a_project_are_as_those_of_files(server: RunsServer) -> None:
    records = ask(server, "somebody/janus_pl")
    (run,) = records.runs
    assert (run.id, run.name, run.group, run.exit_code) == ("good", "a good one", "g", 0)
    assert run.options["model.weight_decay"] == 0.1
    assert run.dynamics == "GD"
    assert run.rows["epoch"].tolist() == [0, 1, 2]
    assert run.rows["margin/mean"].isna().tolist() == [False, True, False]
    assert run.last("margin/mean") == 0.25
    (histogram,) = run.histograms["margin/hist"]
    assert histogram.counts.tolist() == [1, 2]
    assert histogram.edges.tolist() == [0, 1, 2]
    assert {path.name for path, _ in records.skipped} == {"failed", "running", "empty"}
    assert server.filters == [{"jobType": {"$ne": "report"}}]


def test_a_group_is_asked_for_by_name_and_unfinished_runs_only_on_demand(
    server: RunsServer,
) -> None:
    records = ask(server, "somebody/janus_pl/fig1 again", unfinished=True)
    assert server.filters[0]["group"] == "fig1 again"
    assert {run.id for run in records.runs} == {"good", "running"}


def test_a_folder_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("somebody/janus_pl").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"on W&B$"):
        read(["somebody/janus_pl"])


@pytest.mark.heavy  # W&B's settings start a process
def test_without_an_account_it_is_said_that_no_such_folder_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    with pytest.raises(UsageError) as error:
        read(["runs/janus_p"])
    assert "\n" not in str(error.value)
    assert "RUN: got 'runs/janus_p'" in str(error.value)
    assert "there is no such folder" in str(error.value)
