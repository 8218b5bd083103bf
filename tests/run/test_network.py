"""W&B's network gone: in the middle of a run, or before it. Nothing of the record is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import wandb
from environments import LIMIT
from record_reader import inspect, read_rows
from training.crashing import CONTEXT, code_of
from wandb_server import Server

from janus_pl.run import logger as wandb_run
from janus_pl.run import rows as record

SMALL = ["--model.strides=[2,2,2,2]", "--model.hidden=8", "--model.channels=[2,3,4,4]"]
PLAIN = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
DIGITS = ["fit", "--config=sgd.yaml", "--data=janus_pl.data.DigitsPair", *SMALL, *PLAIN]
FINISH_TIMEOUT = 5


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """An account on a server of our own."""
    server = Server()
    monkeypatch.chdir(tmp_path)
    yield server
    server.die()


def environment(url: str) -> dict[str, str]:
    ours = {"WANDB_MODE": "online", "WANDB_BASE_URL": url, "WANDB_API_KEY": "0" * 40}
    ours |= {"WANDB_FINISH_TIMEOUT": str(FINISH_TIMEOUT), "OMP_NUM_THREADS": "1"}
    return {**{k: v for k, v in os.environ.items() if not k.startswith("WANDB")}, **ours}


def fit(url: str, used: list[dict[str, Any]], *args: str, **env: str) -> tuple[int, str]:
    """The exit code and stderr of a run with callbacks, in a process of its own: W&B keeps its
    settings for one process."""
    said = Path("said.txt").absolute()
    args = (*DIGITS, "--trainer.callbacks=" + json.dumps(used), *args)
    given = (list(args), {**environment(url), **env}, str(Path.cwd()), str(said))
    process = CONTEXT.Process(target=_main, args=given)
    process.start()
    return code_of(process, limit=150), said.read_text()


def _main(args: list[str], env: dict[str, str], folder: str, said: str) -> None:
    from janus_pl.cli.main import main

    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    os.dup2(
        os.open(said, os.O_CREAT | os.O_TRUNC | os.O_WRONLY), 2
    )  # W&B's service writes there too
    sys.stderr = os.fdopen(2, "w", buffering=1)
    sys.argv = ["janus_pl"]
    torch.set_num_threads(1)
    sys.exit(main(args))


def visit(server: Server, look: str, page: str, epoch: int) -> list[dict[str, Any]]:
    """Callbacks of a run that asks the server for a page, once."""
    asks = {"url": server.url + page, "epoch": epoch}
    return [
        {"class_path": f"callbacks.{look}", "init_args": {"every_n_epochs": 1}},
        {"class_path": "janus_pl.callbacks.RunCheckpoint"},
        {"class_path": "troublemakers.Visit", "init_args": asks},
    ]


@pytest.mark.soak
def test_the_network_dies_in_the_middle_of_a_run(server: Server) -> None:
    used = visit(server, "LayerRank", "/die", epoch=4)
    code, said = fit(server.url, used, "--trainer.max_epochs=30")
    assert code == 0, said
    assert not server.alive
    assert "UpsertBucket" in server.asked
    (folder,) = Path("runs/janus_pl").iterdir()
    (record,) = folder.glob("wandb/run-*")
    rows = read_rows(folder)
    assert [row["epoch"] for row in rows] == [*range(31)]
    assert all({"train/loss_running", "effective_rank/fc1"} <= row.keys() for row in rows[1:])
    assert rows[-1]["spectrum_table.nrows"] == 19
    assert len(list(record.rglob("*.table.json"))) == 1
    ends = [r["exit"].get("exit_code", 0) for r in inspect(record) if r["type"] == "exit"]
    assert ends == [0]
    (line,) = (x for x in said.splitlines() if x.startswith("W&B:"))
    command = f"wandb sync --include-online {record.absolute()}"
    assert f"`{command}`" in line
    assert "Traceback" not in said

    again = Server()
    try:
        sync = [sys.executable, "-m", "wandb", *command.split()[1:]]
        subprocess.run(sync, env=environment(again.url), timeout=LIMIT, capture_output=True)
    finally:
        again.die()
    assert "UpsertBucket" in again.asked  # what is said is right


@pytest.mark.soak
def test_a_network_that_holds_says_nothing(server: Server) -> None:
    """The negative control: a run, and nobody dies. Artifacts are beyond this server: no table."""
    used = visit(server, "MarginHistogram", "/hello", epoch=1)
    code, said = fit(server.url, used, "--trainer.max_epochs=2")
    assert code == 0, said
    assert server.alive
    assert "brings it online later" not in said
    assert any("file_stream" in asked for asked in server.asked)


@pytest.mark.soak
def test_a_run_that_is_killed_and_resumed_is_one_run_to_the_server(server: Server) -> None:
    """Killed in its 8th step of 12, the 2nd of an epoch."""
    kill = {"signal_name": "SIGKILL", "hook": "on_train_batch_start", "calls": 7}
    used = [
        {"class_path": "janus_pl.callbacks.RunCheckpoint", "init_args": {"every_n_epochs": 1}},
        {"class_path": "troublemakers.SendSignal", "init_args": kill},
    ]
    args = ["--trainer.max_epochs=4", "--ckpt_path=last"]
    codes = [fit(server.url, used, *args)[0] for _ in range(2)]
    assert codes == [-signal.SIGKILL, 0]
    (folder,) = Path("runs/janus_pl").iterdir()
    assert len(list(folder.glob("wandb/run-*"))) == 2
    assert set(server.runs_told) == {folder.name}
    lines = (folder / "rows.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [0, 1, 2, 3, 4]


@pytest.mark.soak
def test_no_network_at_the_start_is_an_offline_run(server: Server) -> None:
    server.die()
    used = visit(server, "LayerRank", "/hello", epoch=99)
    code, said = fit(server.url, used, "--trainer.max_epochs=2", WANDB_INIT_TIMEOUT="2")
    assert code == 0, said
    (record,) = Path("runs/janus_pl").glob("*/wandb/offline-run-*")
    rows = [r["history"]["item"] for r in inspect(record) if r["type"] == "history"]
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    (line,) = (x for x in said.splitlines() if "no connection" in x)
    assert "is recorded offline" in line


def test_a_table_does_without_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is gone refuses the table, and with it, at first, the row."""
    run = wandb.init(mode="offline", dir=tmp_path)
    refused = []

    def log_artifact(artifact: Any, *args: Any) -> None:
        refused.append(artifact.name)
        raise wandb.errors.AuthenticationError("no network")

    monkeypatch.setattr(run, "log_artifact", log_artifact)
    values: dict[str, Any] = {
        "spectrum": record.Histogram(np.array([1, 2]), np.array([0.0, 1.0, 2.0])),
        "table": record.Table(("a", "b"), [(1, 2.0), (3, 4.0)]),
    }
    record._log(run, {"epoch": 3, **values})
    directory = Path(run.settings.sync_dir)
    wandb.finish()
    assert len(refused) == 1
    (row,) = (r["history"]["item"] for r in inspect(directory) if r["type"] == "history")
    assert (row["epoch"], row["table.nrows"], row["spectrum._type"]) == (3, 2, "histogram")
    (file,) = directory.rglob("*.table.json")
    assert json.loads(file.read_text())["data"] == [[1, 2.0], [3, 4.0]]


def test_a_network_that_takes_nothing_at_the_end_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    run = wandb.init(mode="offline", dir=tmp_path)
    finish = wandb.finish

    def too_late(exit_code: int) -> None:
        finish(exit_code=exit_code)
        raise TimeoutError("Timed out finishing run.")

    with monkeypatch.context() as patch:
        patch.setattr(wandb, "finish", too_late)
        wandb_run.finish(0)
    (line,) = capsys.readouterr().err.splitlines()
    assert f"`wandb sync --include-online {run.settings.sync_dir}`" in line
