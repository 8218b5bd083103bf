"""A run ends as what it is, whatever is gone by then: a reader, a terminal, W&B, folders, locks.

Each process has a working directory of its own, and `rows` counts the rows on the disk.
"""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb
from conftest import ROOT
from environments import LIMIT, PACKAGE
from storage import read_only
from troublemakers import kill_service

from janus_pl.cli.main import main
from janus_pl.run.folder import exit_code_of as exit_code

SMALL = ["--model.hidden=8", "--model.channels=[2,3,4,4]", "--data.num_train=40"]
PLAIN = ["--trainer.enable_model_summary=false", "--trainer.limit_val_batches=0"]
BARE = "--trainer.enable_progress_bar=false"
LOOKS = [
    {"class_path": "janus_pl.callbacks.LayerRank"},  # a table at the last epoch
    {"class_path": "janus_pl.callbacks.RunCheckpoint", "init_args": {"every_n_epochs": 1}},
    {"class_path": "janus_pl.callbacks.ProgressBar"},
]
FIT = ["fit", "--config=quickstart.yaml", *SMALL, *PLAIN]
LINEAR = ["fit", "--config=linear/a1.yaml", "--model.learning_rate=0.03", BARE, PLAIN[0]]


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["janus_pl"])


def fit(epochs: int, *trouble: tuple[str, dict[str, Any]]) -> list[str]:
    """A command line with callbacks that make trouble."""
    made = [{"class_path": f"troublemakers.{name}", "init_args": given} for name, given in trouble]
    return [
        *FIT,
        f"--trainer.max_epochs={epochs}",
        f"--trainer.callbacks={json.dumps([*LOOKS, *made])}",
    ]


def environment(source: str | Path = PACKAGE, **given: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k != "WANDB_SERVICE"}
    return {**kept, "PYTHONPATH": f"{source}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1", **given}


def run(args: list[str], source: str | Path = PACKAGE, **env: str) -> tuple[int, str]:
    """The exit code and stderr of a command line in a process of its own."""
    command = [sys.executable, "-m", "janus_pl", *args]
    ended = subprocess.run(
        command, env=environment(source, **env), capture_output=True, text=True, timeout=LIMIT
    )
    return ended.returncode, ended.stderr


def folder() -> Path:
    (found,) = Path("runs/janus_pl").iterdir()
    return found


def rows() -> int:
    return sum('"epoch"' in line for line in (folder() / "rows.jsonl").read_text().splitlines())


def warnings_in(err: str) -> list[str]:
    assert "Traceback" not in err, err
    return [line for line in err.splitlines() if line.startswith(("warning:", "W&B:"))]


# Readers and terminals


FRAIL = """
import sys
import janus_pl.cli.streams as streams
from janus_pl.cli.main import main
from janus_pl.run.folder import exit_code_of as exit_code
streams.LastingStream.write = lambda self, text: self._stream.write(text)
streams.LastingStream.flush = lambda self: self._stream.flush()
raise SystemExit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("both", [False, True], ids=["stdout", "stdout and stderr"])
def test_a_reader_that_goes_away_ends_no_run(both: bool) -> None:
    """As in `fit | head -2`, and in `fit 2>&1 | head -2`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "janus_pl", *fit(4)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if both else subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    err = "" if both else process.communicate(timeout=LIMIT)[1]
    assert process.wait(LIMIT) == 0
    assert warnings_in(err) == [] and "BrokenPipe" not in err
    assert (exit_code(folder()), rows()) == (0, 5)


def test_a_stream_that_does_not_last_ends_the_run() -> None:
    """The negative control."""
    process = subprocess.Popen(
        [sys.executable, "-c", FRAIL, *fit(4)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(LIMIT) != 0


@contextmanager
def in_terminal(args: list[str], ignored: bool) -> Iterator[tuple[int, int]]:
    """A command line in a terminal of its own: its process, and the terminal's other end."""
    pid, master = pty.fork()
    if pid == 0:
        if ignored:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as `nohup` does
        os.execve(sys.executable, [sys.executable, "-m", "janus_pl", *args], environment())
    try:
        yield pid, master
    finally:
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


@pytest.mark.parametrize(("ignored", "code"), [(False, 129), (True, 0)])
def test_a_terminal_that_closes_stops_a_run_unless_it_ignores_that(
    ignored: bool, code: int
) -> None:
    epochs = 30 if ignored else 100_000
    with in_terminal(fit(epochs), ignored) as (pid, master):
        seen = b""
        while b"Epoch" not in seen:
            seen += os.read(master, 4096)
        os.close(master)  # SIGHUP, and an error at each write from here on
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == code
    assert exit_code(folder()) == code
    assert rows() == epochs + 1 if ignored else (folder() / "checkpoints/last.ckpt").is_file()


# W&B's service


def test_a_service_killed_in_mid_run_costs_no_row() -> None:
    code, err = run([*fit(4, ("KillService", {"epoch": 1})), BARE])
    assert code == 0
    (line,) = warnings_in(err)
    assert "W&B: its service has died" in line and "The run goes on" in line
    assert (exit_code(folder()), rows()) == (0, 5)


@pytest.mark.parametrize("when", ["before", "within"])
def test_a_service_killed_at_the_end_changes_no_outcome(
    when: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Before W&B's finish, or while that waits for the service. The next run has a new service."""
    from wandb.sdk.interface.interface_shared import InterfaceShared

    owner, name = {"before": (wandb, "finish"), "within": (InterfaceShared, "deliver_exit")}[when]
    wrapped: Callable[..., Any] = getattr(owner, name)

    def kill(*args: Any, **kwargs: Any) -> Any:
        if when == "before":
            kill_service()
            return wrapped(*args, **kwargs)
        handle = wrapped(*args, **kwargs)
        kill_service()
        return handle

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, kill)
        assert main([*fit(2), BARE]) == 0
    (line,) = warnings_in(capsys.readouterr().err)
    assert "W&B: its record of this run could not be closed" in line
    assert (exit_code(folder()), rows()) == (0, 3)
    assert main([*fit(2), BARE, "--project=next"]) == 0
    assert warnings_in(capsys.readouterr().err) == []


# Folders


@pytest.fixture
def nowhere(tmp_path: Path) -> str:
    """A home that nobody can write to, not even root: a file."""
    (tmp_path / "home").touch()
    return str(tmp_path / "home")


def test_a_home_that_cannot_be_written_is_said_before_the_first_step(nowhere: str) -> None:
    code, err = run([*fit(4), BARE], HOME=nowhere)
    assert code == 0
    (line,) = warnings_in(err)
    assert f"W&B: {nowhere}/.local/share/wandb cannot be written" in line
    assert "INFO" not in err, "W&B's service has a place for its log"
    assert (exit_code(folder()), rows()) == (0, 5)
    assert len([*folder().rglob("*.table.json")]) == 1


def test_folders_that_a_cleaner_has_removed_cost_no_row(tmp_path: Path) -> None:
    cleaned = fit(4, ("RemoveFolders", {"epoch": 2}))
    code, err = run([*cleaned, BARE], WANDB_DATA_DIR=str(tmp_path / "data"))
    assert code == 0
    (line,) = warnings_in(err)
    assert "W&B: its record lacks spectrum_table" in line
    assert (exit_code(folder()), rows()) == (0, 5)
    assert "spectrum_table" in (folder() / "rows.jsonl").read_text()


def test_a_program_that_cannot_be_written_to_compiles_in_memory(
    tmp_path: Path, nowhere: str
) -> None:
    """A bind mount, or permission bits where the tests are not root's."""
    source = tmp_path / "source"
    for name in ("janus_pl", "callbacks", "configs"):
        leave = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=leave)
    with read_only(source):
        if os.access(source / "janus_pl/linear", os.W_OK):
            pytest.skip("permission bits of the folder alone do not hold here")
        code, err = run([*LINEAR, "--trainer.max_epochs=20"], source, HOME=nowhere)
    assert code == 0
    assert any("numba finds no folder to keep compiled code in" in x for x in warnings_in(err))
    assert (exit_code(folder()), rows()) == (0, 21)


def test_a_run_that_cannot_fit_is_refused_before_anything_is_made(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=2**40, free=1000))
    assert main([*fit(2), BARE]) == 4
    (line,) = (x for x in capsys.readouterr().err.splitlines() if x.startswith("error:"))
    assert line.startswith(f"error: {tmp_path}: cannot be written: No space left on device")
    assert "0.000954 MiB is free and a checkpoint takes at least" in line
    assert not Path("runs").exists()


# Locks


NO_LOCKS = """
#include <errno.h>
int flock(int descriptor, int operation) { errno = %s; return -1; }
"""


@pytest.mark.parametrize("name", ["ENOSYS", "ENOLCK"])
def test_a_file_system_without_locks(name: str, tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("no C compiler here for a library to be loaded first")
    (tmp_path / "locks.c").write_text(NO_LOCKS % name)
    library = tmp_path / "locks.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, tmp_path / "locks.c"], check=True)
    code, err = run([*fit(2), BARE], LD_PRELOAD=str(library))
    assert code == 0
    (line,) = warnings_in(err)
    assert "this file system has no locks" in line and str(folder()) in line
    assert (exit_code(folder()), rows()) == (0, 3)
