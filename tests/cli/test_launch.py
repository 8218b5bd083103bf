"""Commands that start several processes, as on one machine, on two, and when one of them dies."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from environments import LIMIT, PACKAGE
from record_reader import exit_code

from janus_pl.cli.main import main
from janus_pl.records.read import read
from janus_pl.run.folder import exit_code_of

pytestmark = pytest.mark.soak

CALLBACKS = [
    f'{{"class_path": "callbacks.{name}", "init_args": {{"every_n_epochs": 1}}}}'
    for name in ("MarginHistogram", "LayerVelocity", "LayerRank", "RunCheckpoint")
]
FIT = ["fit", "--config", "sgd.yaml", "--data", "janus_pl.data.DigitsPair"]
FIT += ["--data.num_train", "101", "--data.batch_size", "16", "--model.strides", "[2, 2, 2, 2]"]
FIT += ["--model.hidden", "8", "--model.channels", "[2, 3, 4, 4]", "--trainer.accelerator", "cpu"]
FIT += ["--trainer.precision", "64-true", "--trainer.check_val_every_n_epoch", "1"]
FIT += ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
FIT += [f"--trainer.callbacks=[{', '.join(CALLBACKS)}]"]
THREE_EPOCHS = ["--trainer.max_epochs", "3"]
FOR_EVER = ["--trainer.max_epochs", "1000000", "--model.schedule", "constant"]
TWO = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]

MARKER = "JANUS_TEST_OF"  # in the environment of all that a test starts
Start = Callable[..., subprocess.Popen]


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a command; whatever of it and of its children is left when the test ends is killed."""
    started: list[subprocess.Popen] = []

    def run(*command: str, **environment: str) -> subprocess.Popen:
        marker = {MARKER: str(tmp_path)}
        env = {k: v for k, v in os.environ.items() if k != "WANDB_SERVICE"}  # of this process
        env |= {"PYTHONPATH": PACKAGE, "OMP_NUM_THREADS": "1"} | marker | environment
        with (tmp_path / f"{len(started)}.log").open("w") as log:
            started.append(subprocess.Popen(command, env=env, stdout=log, stderr=log))
        return started[-1]

    yield run
    for pid in running():
        os.kill(pid, signal.SIGKILL)
    for process in started:
        process.wait(LIMIT)


def running() -> dict[int, str]:
    """The command lines of all processes that this test started and that have not ended, by id."""
    found = {}
    marker = f"{MARKER}={Path.cwd()}"
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if marker in (folder / "environ").read_text(errors="replace").split("\0"):
                found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
        except OSError:  # it has just ended
            continue
    return {pid: command for pid, command in found.items() if command}  # a zombie has none


def ranks() -> list[int]:
    """The processes of the run among them, neither torchrun's agents nor W&B's service."""
    ours = re.compile(r" -m janus_pl\S* fit ")
    agents = " torch.distributed.run "
    return [p for p, c in running().items() if ours.search(c) and agents not in c]


def wait_for(condition: Callable[[], Any], seconds: float) -> float:
    """The seconds until a condition holds."""
    begin = time.monotonic()
    while not condition():
        waited = time.monotonic() - begin
        assert waited < seconds, f"still not after {seconds:.0f} s\n{logs()}"
        time.sleep(0.1)
    return time.monotonic() - begin


def logs() -> str:
    return "\n".join(path.read_text()[-2000:] for path in sorted(Path.cwd().glob("*.log")))


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def janus(*args: str) -> list[str]:
    return [sys.executable, "-m", "janus_pl", *FIT, *args]


def agent(node: int, port: str, *args: str) -> list[str]:
    """The command of one of two nodes, as docs/devices.md has it."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2"]
    torchrun += ["--node_rank", str(node), "--nproc_per_node", "1"]
    torchrun += ["--master_addr", "127.0.0.1", "--master_port", port, "-m", "janus_pl"]
    two_nodes = ["--trainer.num_nodes", "2", "--trainer.devices", "1", "--trainer.strategy", "ddp"]
    return [*torchrun, *FIT, *two_nodes, *args]


def run_folder(base: str) -> Path:
    """The only run of all processes."""
    (folder,) = Path(base, "janus_pl").iterdir()
    return folder


def assert_same_run(found: Path, right: Path, parts: int = 1, rows_in_all: int = 4) -> None:
    """One folder with one of everything, and the weights and rows of the run by one process."""
    names = {
        ".lock",
        "checkpoints",
        "config.yaml",
        "description.json",
        "outcome.json",
        "rows.jsonl",
        "spectra.jsonl",
        "wandb",
    }
    assert {p.name for p in found.iterdir()} == names
    kept = {p.name for p in (found / "checkpoints").iterdir()}
    assert kept == {p.name for p in (right / "checkpoints").iterdir()}
    assert {"last.ckpt", "best.ckpt"} <= kept
    assert len(list((found / "wandb").glob("offline-run-*"))) == parts
    rows, expected = (read([folder]).runs[0].rows for folder in (found, right))
    assert len(rows) == len(expected) == rows_in_all
    pd.testing.assert_frame_equal(rows, expected, rtol=1e-9, atol=0, check_like=True)
    weights = [
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for folder in (found, right)
    ]
    for a, b in zip(*(w.values() for w in weights), strict=True):
        assert float((a - b).norm() / b.norm()) < 1e-12
    assert yaml.safe_load((found / "config.yaml").read_text())["data"]["init_args"]["seed"] == 0
    assert exit_code_of(found) == 0


def test_two_processes_and_two_nodes_are_one_process(start: Start) -> None:
    assert main([*FIT, *THREE_EPOCHS, "--run_dir", "one"]) == 0
    right = run_folder("one")

    process = start(*janus(*THREE_EPOCHS, *TWO, "--run_dir", "devices"))
    assert process.wait(LIMIT) == 0, logs()
    assert_same_run(run_folder("devices"), right)
    assert Path("0.log").read_text().count("Run folder:") == 1

    port = free_port()
    nodes = [start(*agent(i, port, *THREE_EPOCHS, "--run_dir", "nodes")) for i in (0, 1)]
    assert [node.wait(LIMIT) for node in nodes] == [0, 0], logs()
    assert_same_run(run_folder("nodes"), right)


MANY_EPOCHS = ["--trainer.max_epochs", "60", "--ckpt_path", "last"]


def rows_written(base: str, count: int) -> Callable[[], bool]:
    """Whether the run has so many rows on disk."""

    def enough() -> bool:
        found = [len(f.read_text().splitlines()) for f in Path(base).glob("*/*/rows.jsonl")]
        return max(found, default=0) >= count

    return enough


def test_killed_or_stopped_two_processes_go_on_as_if_they_had_not_been(start: Start) -> None:
    """By Lightning's launcher, killed; under torchrun, which hands its SIGTERM to both."""
    assert main([*FIT, *MANY_EPOCHS, "--run_dir", "one"]) == 0
    right = run_folder("one")

    start(*janus(*MANY_EPOCHS, *TWO, "--run_dir", "devices"))
    wait_for(rows_written("devices", 3), LIMIT)
    for pid in ranks():
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not running(), LIMIT)
    assert not (run_folder("devices") / "outcome.json").exists(), "it was too fast to be killed"
    assert start(*janus(*MANY_EPOCHS, *TWO, "--run_dir", "devices")).wait(LIMIT) == 0, logs()
    assert_same_run(run_folder("devices"), right, parts=2, rows_in_all=61)

    port = free_port()
    nodes = [start(*agent(i, port, *MANY_EPOCHS, "--run_dir", "nodes")) for i in (0, 1)]
    wait_for(rows_written("nodes", 3), LIMIT)
    for node in nodes:
        node.terminate()
    wait_for(lambda: not running(), LIMIT)
    assert exit_code_of(run_folder("nodes")) == 143
    port = free_port()
    nodes = [start(*agent(i, port, *MANY_EPOCHS, "--run_dir", "nodes")) for i in (0, 1)]
    assert [node.wait(LIMIT) for node in nodes] == [0, 0], logs()
    assert_same_run(run_folder("nodes"), right, parts=2, rows_in_all=61)


def test_divergence_of_two_processes_is_one_line_and_exit_code_3(start: Start) -> None:
    args = ["--trainer.max_epochs", "30", "--model.learning_rate", "1e20", *TWO]
    assert start(*janus(*args)).wait(LIMIT) == 3, logs()
    lines = [x for x in Path("0.log").read_text().splitlines() if x.startswith("error:")]
    assert len(lines) == 1
    assert "not finite" in lines[0]
    assert exit_code(run_folder("runs")) == 3


def trained(base: str) -> Callable[[], bool]:
    """Whether a checkpoint of the run is there."""
    return lambda: bool(list(Path(base).glob("*/*/checkpoints/last.ckpt")))


def test_lightnings_launcher_ends_when_a_process_is_killed(start: Start) -> None:
    process = start(*janus(*FOR_EVER, *TWO))
    wait_for(trained("runs"), LIMIT)
    (other,) = set(ranks()) - {process.pid}
    os.kill(other, signal.SIGKILL)
    wait_for(lambda: not running(), LIMIT)
    assert process.wait(1) != 0


def test_torchrun_ends_on_both_nodes_when_a_process_is_killed(start: Start) -> None:
    port = free_port()
    nodes = [start(*agent(i, port, *FOR_EVER)) for i in (0, 1)]
    wait_for(trained("runs"), LIMIT)
    os.kill(ranks()[-1], signal.SIGKILL)
    wait_for(lambda: not running(), LIMIT)
    assert all(node.wait(1) != 0 for node in nodes)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_whose_other_is_killed_ends_by_itself(victim: int, start: Start) -> None:
    """No agent, no launcher: what the processes of a cluster's own environment do."""
    world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": "2"}
    both = [
        start(*janus(*FOR_EVER, *TWO), **world, NODE_RANK="0", LOCAL_RANK=str(i)) for i in (0, 1)
    ]
    wait_for(trained("runs"), LIMIT)
    both[victim].kill()
    wait_for(lambda: all(rank.poll() is not None for rank in both), LIMIT)
    assert both[victim].wait(1) == -signal.SIGKILL
    assert both[1 - victim].wait(1) == 1
