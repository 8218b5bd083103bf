"""The end of a sweep names the commands that look at its runs, and they work as printed."""

from __future__ import annotations

import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sweep.driving import Sweep, write_sweep

from janus_pl.cli import subcommands
from janus_pl.cli.sweep import next_commands
from janus_pl.sweep.states import State


def entry(folder: Path, state: State = State.DONE) -> Any:
    if state is not State.WAITING:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").touch()
    return SimpleNamespace(run=SimpleNamespace(folder=folder), state=state)


def named(entries: list[Any]) -> list[str]:
    figures, verdicts = map(shlex.split, next_commands(entries))
    assert figures[:5] == ["Figures:", "python", "-m", "janus_pl", "report"]
    assert figures[-2:] == ["--out", "report"]
    assert verdicts[:5] == ["Verdicts:", "python", "-m", "janus_pl", "verify"]
    assert figures[5:-2] == verdicts[5:]
    return verdicts[5:]


def test_a_folder_of_the_sweep_alone_is_named_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("my runs") / "p"
    entries = [entry(folder / "a"), entry(folder / "b"), entry(folder / "c", State.DIVERGED)]
    assert named(entries) == ["my runs/p"]
    entry(folder / "other")
    assert named(entries) == ["my runs/p/a", "my runs/p/b"], "runs that are not of the sweep"
    assert named([*entries, entry(Path("q/d"))]) == ["my runs/p/a", "my runs/p/b", "q"]


def test_without_a_run_that_is_done_there_is_nothing_to_look_at(tmp_path: Path) -> None:
    states = [State.FAILED, State.DIVERGED, State.WAITING]
    assert next_commands([entry(tmp_path / state, state) for state in states]) == []


def test_the_commands_work_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = {"trainer.max_epochs": 2, "data.num_train": 60, "model.hidden": 8}
    write_sweep(tmp_path, **{**few, "model.channels": [[2, 3, 4, 4]]})
    sweep = Sweep(tmp_path, program=None)
    assert sweep.end() == 0
    monkeypatch.chdir(tmp_path)
    lines = [line for line in sweep.text.splitlines() if ": " in line and "-m janus_pl" in line]
    commands = [shlex.split(line.partition(":")[2]) for line in lines]
    assert [command[3] for command in commands] == ["report", "verify"]
    for command in commands:
        assert command[:3] == ["python", "-m", "janus_pl"]
        assert subcommands.main(command[3:]) == 0
    assert (tmp_path / "report" / "index.html").is_file()
