"""Runs read from a W&B server with the real client, against one on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb
from wandb_server import RunsServer, node

from janus_pl.errors import UsageError
from janus_pl.report.records import read

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


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[RunsServer]:
    heads = {
        "good": node("good", CONFIG, group="g", displayName="a good one"),
        "failed": node("failed", CONFIG, state="failed"),
        "running": node("running", CONFIG, state="running"),
        "empty": node("empty", CONFIG),
    }
    rows = {"good": ROWS, "failed": ROWS, "running": ROWS[:2], "empty": []}
    server = RunsServer({name: (head, rows[name]) for name, head in heads.items()})
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    wandb.teardown()  # of the settings that this process has read so far
    yield server
    server.die()
    monkeypatch.undo()
    wandb.teardown()


def test_runs_of_a_project_are_as_those_of_files(server: RunsServer) -> None:
    records = read(["somebody/janus_pl"])
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
    assert {run.id for run in read(["somebody/janus_pl"], unfinished=True).runs} == {
        "good",
        "running",
    }


def test_a_group_is_asked_for_by_name(server: RunsServer) -> None:
    read(["somebody/janus_pl/fig1 again"])
    assert server.filters[0]["group"] == "fig1 again"


def test_a_folder_comes_first(
    server: RunsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("somebody/janus_pl").mkdir(parents=True)
    with pytest.raises(UsageError, match="a folder with W&B's records"):
        read(["somebody/janus_pl"])
    assert not server.filters


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
