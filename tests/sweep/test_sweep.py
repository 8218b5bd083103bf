"""Real runs: a sweep that is killed and started again is the sweep that never was."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch
from sweep.driving import Sweep, write_sweep
from training.test_resume import assert_equal

from janus_pl.records.read import read

NETWORK = {"model.hidden": 8, "model.channels": [[2, 3, 4, 4]], "trainer.max_epochs": 300}
# Two good runs and two that diverge.
GRID = {**NETWORK, "data.num_train": [60, 100], "model.learning_rate": [0.05, 1e30]}
ENDS = "2 done, 2 diverged. Runs lie in runs/janus_pl"


def rows_of(folder: Path) -> dict[str, bytes]:
    """The rows of every run, by its id."""
    files = folder.glob("runs/janus_pl/*/rows.jsonl")
    return {file.parent.name: file.read_bytes() for file in files}


def epochs_made(folder: Path) -> int:
    return sum(rows.count(b"\n") for rows in rows_of(folder).values())


def parts_of(folder: Path) -> list[Path]:
    """One for every time that a run was started or resumed."""
    return sorted(folder.glob("runs/janus_pl/*/wandb/offline-run-*"))


def assert_same_sweep(resumed: Path, whole: Path) -> None:
    """The same runs, bitwise: rows, weights, optimizer, schedule, generators."""
    assert rows_of(resumed) == rows_of(whole)
    for path in whole.glob("runs/janus_pl/*/checkpoints/last.ckpt"):
        one, other = (
            torch.load(folder / path.relative_to(whole), map_location="cpu", weights_only=True)
            for folder in (resumed, whole)
        )
        for part in ("state_dict", "optimizer_states", "lr_schedulers", "exact_resume", "epoch"):
            assert_equal(one[part], other[part], f"{path.parts[-3]} {part}")
    for folder in (resumed, whole):
        runs, skipped = read([folder / "runs"])
        assert [reason for _, reason in skipped] == ["it ended with exit code 3"] * 2
        assert len(runs) == 2
        assert all(run.rows["epoch"].is_unique for run in runs)


# Ten in a row: the signal, and the exit code of the sweep.
STOPS = [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]


@pytest.mark.soak
def test_interrupted_ten_times_in_a_row_it_is_the_same_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole one is made by processes with imports of their own, the other one is forked."""
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    for folder in (whole, resumed):
        folder.mkdir()
        write_sweep(folder, **GRID)
    with monkeypatch.context() as patch:
        patch.setattr(Sweep, "forks", False)
        first = Sweep(whole, "--jobs", "2", program=None)
        assert first.end() == 3
    assert ENDS in first.text
    assert "num_train=60 learning_rate=1e+30: diverged" in first.text

    for number in range(10):
        signum, code = STOPS[number % 4]
        epochs = 40 * (number + 1)
        sweep = Sweep(resumed, "--jobs", "2", program=None)
        sweep.kill_when(lambda: epochs_made(resumed) >= epochs, signum)  # noqa: B023
        assert sweep.end() == code, sweep.text
    last = Sweep(resumed, "--jobs", "2", program=None)
    assert last.end() == 3
    assert ENDS in last.text
    assert "running, resumed" in last.text
    assert_same_sweep(resumed, whole)

    parts = parts_of(resumed)
    again = Sweep(resumed, "--jobs", "2", program=None)
    assert again.end() == 3
    assert ENDS in again.text
    assert "2 done before, 2 diverged before" in again.text
    assert parts_of(resumed) == parts, "what is done is not done again"


@pytest.mark.soak
def test_with_another_seed_it_is_another_sweep(tmp_path: Path) -> None:
    """The control: what is compared tells runs apart."""
    folders = [tmp_path / "one", tmp_path / "other"]
    for seed, folder in enumerate(folders):
        folder.mkdir()
        few = {"trainer.max_epochs": 3, "data.num_train": 60, "data.seed": seed}
        write_sweep(folder, **{**NETWORK, **few})
        assert Sweep(folder, program=None).end() == 0
    (one,), (other,) = (rows_of(folder).values() for folder in folders)
    assert one.count(b"\n") == other.count(b"\n") == 4
    assert one != other


@pytest.mark.soak
def test_more_samples_than_there_are_is_refused_before_any_run(tmp_path: Path) -> None:
    """A run is known by its data, so the data are read before the first one starts."""
    few = {"trainer.max_epochs": 3, "data.num_train": [60, 100_000]}
    write_sweep(tmp_path, **{**NETWORK, **few})
    sweep = Sweep(tmp_path, program=None)
    assert sweep.end() == 2
    assert sweep.text.count("error: data.num_train: got 100000, allowed: an integer") == 1
    assert not (tmp_path / "runs").exists()
