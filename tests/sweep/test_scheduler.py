"""Many processes, with a stand-in for training: who runs when, what is skipped, how it ends."""

from __future__ import annotations

import fcntl
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sweep.driving import Sweep, behave, ledger, wait_for, write_sweep

SEEDS = [1, 2, 3, 4]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A grid of four seeds."""
    write_sweep(tmp_path, **{"data.seed": SEEDS})
    behave(tmp_path)
    return tmp_path


@pytest.fixture(params=[True, False], ids=["forked", "apart"], autouse=True)
def forks(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[bool]:
    """All of it holds of both ways to start a run, and the one that is meant is taken."""
    monkeypatch.setattr(Sweep, "forks", request.param)
    yield request.param
    assert {entry["forked"] for entry in ledger(tmp_path, "start")} == {request.param}


def epochs_made(folder: Path) -> Counter[tuple[str, int]]:
    return Counter((entry["id"], entry["epoch"]) for entry in ledger(folder))


def assert_each_once(folder: Path, runs: int = 4, epochs: int = 6) -> None:
    """Every epoch of every run was made, and none twice."""
    made = epochs_made(folder)
    assert len({run for run, _ in made}) == runs
    assert len(made) == runs * epochs
    assert set(made.values()) == {1}
    assert len(ledger(folder, "end")) == runs


def test_all_runs_are_made_and_a_second_time_none(folder: Path) -> None:
    first = Sweep(folder, "--jobs", "2")
    assert first.end() == 0
    assert_each_once(folder)
    assert first.text.count(": done (epoch 6/150, loss 0.1667") == 4
    assert "4 done. Runs lie in runs/janus_pl" in first.text
    assert "goes on from here" not in first.text
    again = Sweep(folder, "--jobs", "2")
    assert again.end() == 0
    assert_each_once(folder)
    assert "4 runs, 4 done before; 2 at a time" in again.text
    assert ": running" not in again.text


def test_without_an_id_runs_are_made_twice(folder: Path) -> None:
    """The control: what keeps a second sweep from doing it all again is the id."""
    for _ in range(2):
        assert Sweep(folder, "--jobs", "4", forget=True).end() == 0
    with pytest.raises(AssertionError):
        assert_each_once(folder)
    assert len(ledger(folder, "end")) == 8


@pytest.mark.parametrize("jobs", [1, 3])
def test_so_many_at_a_time_and_the_cores_divided(jobs: int, folder: Path) -> None:
    # None goes on before so many have begun, however slowly processes start.
    behave(folder, **{f"s{seed}": {"together": jobs} for seed in SEEDS})
    assert Sweep(folder, "--jobs", str(jobs)).end() == 0
    marks = [(entry["time"], 1) for entry in ledger(folder, "start")]
    marks += [(entry["time"], -1) for entry in ledger(folder, "end")]
    at_once, most = 0, 0
    for _, change in sorted(marks):
        at_once += change
        most = max(most, at_once)
    assert most == jobs
    from janus_pl.sweep.resources import cores

    threads = {entry["OMP_NUM_THREADS"] for entry in ledger(folder, "start")}
    assert threads == {str(max(1, cores() // jobs))}


@pytest.mark.parametrize(
    ("signum", "code"),
    [
        *((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)),
        (signal.SIGKILL, -9),
    ],
)
def test_stopped_in_the_middle_and_started_again(signum: int, code: int, folder: Path) -> None:
    """At the 4th epoch of 24, and at the 16th."""
    for epochs in (4, 16):
        behave(folder, **{f"s{seed}": {"until_told": epochs} for seed in SEEDS})
        sweep = Sweep(folder, "--jobs", "2")
        sweep.kill_when(lambda: len(ledger(folder)) >= epochs, signum)  # noqa: B023
        assert sweep.end() == code
        assert len(ledger(folder, "end")) < 4
        if signum != signal.SIGKILL:
            assert "stopping; checkpoints are awaited, another Ctrl-C kills" in sweep.text
            assert "interrupted (epoch" in sweep.text
            assert "The same command goes on from here: python -m janus_pl sweep" in sweep.text
    behave(folder)
    last = Sweep(folder, "--jobs", "2")
    assert last.end() == 0
    assert "running, resumed" in last.text
    assert_each_once(folder)


@pytest.mark.soak
def test_ten_interruptions_in_a_row_lose_nothing(folder: Path) -> None:
    """At every second epoch of 24, by each signal in turn."""
    signals = [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 143)]
    for number in range(10):
        epochs = 2 * (number + 1)
        signum, code = signals[number % 3]
        behave(folder, **{f"s{seed}": {"until_told": epochs} for seed in SEEDS})
        sweep = Sweep(folder, "--jobs", "2")
        sweep.kill_when(lambda: len(ledger(folder)) >= epochs, signum)  # noqa: B023
        assert sweep.end() == code, sweep.text
    behave(folder)
    assert Sweep(folder, "--jobs", "2").end() == 0
    assert_each_once(folder)


def test_the_processes_end_with_a_sweep_that_is_killed(folder: Path) -> None:
    """So that nobody writes to a folder that the next sweep takes for its own."""
    waiting = {"together": 4, "until_told": 4}
    behave(folder, **{f"s{seed}": waiting for seed in SEEDS})
    sweep = Sweep(folder, "--jobs", "4")
    sweep.kill_when(lambda: len(ledger(folder)) >= 4, signal.SIGKILL)
    assert sweep.end() == -9
    runs = list(folder.glob("runs/janus_pl/*/outcome.json"))
    wait_for(lambda: len(list(folder.glob("runs/janus_pl/*/outcome.json"))) == 4)
    assert all("143" in run.read_text() for run in runs)
    assert not ledger(folder, "end")


def test_another_ctrl_c_kills_what_does_not_end(folder: Path) -> None:
    waiting = {"deaf": True, "together": 2, "until_told": 4}
    behave(folder, **{f"s{seed}": waiting for seed in SEEDS})
    sweep = Sweep(folder, "--jobs", "2")
    sweep.kill_when(lambda: len(ledger(folder)) >= 4, signal.SIGINT)
    wait_for(lambda: sweep.text.count("stopping") == 2, sweep.process.is_alive)
    sweep.kill_when(lambda: True, signal.SIGINT)
    assert sweep.end() == 130
    assert "2 waiting, 2 interrupted" in sweep.text
    assert not ledger(folder, "end")


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "s1": ({"code": 3}, "seed=1: diverged (epoch 2/150"),
    "s2": ({"code": 5}, "seed=2: theorem broken (epoch 2/150"),
    "s3": (
        {"code": 1, "says": "Traceback\nValueError: why"},
        "seed=3: ValueError: why\n  output: r",
    ),
    "s4": ({"code": 2, "says": "error: x: got 1"}, "failed: seed=4: error: x: got 1"),
    "s5": ({"code": 143}, "seed=5: interrupted (epoch 2/150"),
    "s6": ({"signal": 9}, "failed: seed=6: killed by SIGKILL; the last line of its output:"),
    "s9": ({"signal": 11}, "failed: seed=9: killed by SIGSEGV; the last line of its output:"),
    "s10": ({"leaves": 7}, "failed: seed=10: exit code 7"),
    "s11": ({"imports": "nowhere"}, "seed=11: ModuleNotFoundError: No module named 'nowhere'"),
}


def test_it_goes_on_past_bad_runs_and_the_worst_is_the_exit_code(folder: Path) -> None:
    write_sweep(folder, **{"data.seed": [*range(1, 12)]})
    behave(folder, **{seed: how for seed, (how, _) in BAD.items()})
    sweep = Sweep(folder, "--jobs", "2")
    assert sweep.end() == 1
    for _, says in BAD.values():
        assert says in sweep.text
    assert "2 done, 1 diverged, 1 theorem broken, 6 failed, 1 interrupted. Runs lie" in sweep.text
    assert len(ledger(folder, "end")) == 2
    behave(folder)
    again = Sweep(folder, "--jobs", "2")
    assert again.end() == 5
    assert again.text.count(": running, resumed;") == 7, "failed runs are tried again"
    assert "9 done, 1 diverged, 1 theorem broken. Runs lie" in again.text


def test_a_diverged_run_among_good_ones_is_exit_code_3(folder: Path) -> None:
    behave(folder, s2={"code": 3})
    for _ in range(2):
        assert Sweep(folder, "--jobs", "4").end() == 3
    assert len(ledger(folder, "start")) == 4


def test_a_run_of_another_process_is_left_alone(folder: Path) -> None:
    """Held while this sweep lasts; two sweeps side by side make every run once."""
    assert Sweep(folder, "--jobs", "4").end() == 0
    held, *_ = sorted(folder.glob("runs/janus_pl/*/outcome.json"))
    held.unlink()
    (held.parent / "state").write_text("5")
    with (held.parent / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        sweep = Sweep(folder, "--jobs", "4", "--dry-run")
        assert sweep.end() == 0
        assert "elsewhere" in sweep.text
        waits = Sweep(folder, "--jobs", "4")
        wait_for(lambda: "3 done before" in waits.text, waits.process.is_alive)
        assert len(ledger(folder, "end")) == 4
    assert waits.end() == 0, "once it is let go of, it is taken on"
    assert len(ledger(folder, "end")) == 5


def test_two_sweeps_side_by_side_make_every_run_once(folder: Path) -> None:
    behave(folder, **{f"s{seed}": {"pace": 0.05} for seed in SEEDS})
    both = [Sweep(folder, "--jobs", "2") for _ in range(2)]
    codes = [sweep.end() for sweep in both]
    assert codes == [0, 0], "\n".join(sweep.text for sweep in both)
    assert_each_once(folder)
