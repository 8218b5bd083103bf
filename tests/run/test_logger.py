"""The run of a process: the folders that it holds and has made, and what its end leaves."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb

from janus_pl.errors import Exit, StorageError, UsageError
from janus_pl.run import account
from janus_pl.run import folder as run_folder
from janus_pl.run import logger as wandb_run
from janus_pl.run.folder import RunFolder, exit_code_of, interrupted, is_held
from janus_pl.run.logger import RunLogger


class Run:
    """W&B's run, as far as it is used here."""

    def __init__(self, step: int = 0) -> None:
        self.step, self.entity, self.job_type = step, None, None
        self.settings = SimpleNamespace(sync_dir="record", run_job_type=None)
        self.ended: list[int] = []
        self.preempting = 0

    def mark_preempting(self) -> None:
        self.preempting += 1


@pytest.fixture(autouse=True)
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """A run is under way, of which W&B knows; nothing is held before or after a test."""
    assert wandb_run._folders == []
    run = Run()

    def finish(exit_code: int = 0) -> None:
        run.ended.append(exit_code)

    monkeypatch.setattr(wandb, "run", run)
    for module in (account, wandb_run):  # nobody has called wandb.init() before
        monkeypatch.setattr(module, "begun_run", lambda: None)
    monkeypatch.setattr(wandb, "finish", finish)
    monkeypatch.setattr(wandb_run, "_made", [])
    yield run
    for held in wandb_run._folders:
        held.let_go()
    wandb_run._folders.clear()


def outcome(folder: Path) -> Any:
    path = folder / "outcome.json"
    return json.loads(path.read_text()) if path.exists() else None


# Folders of this process


@pytest.mark.parametrize("code", [0, 3, 143])
def test_the_end_writes_how_and_lets_go_of_every_folder(
    code: int, run: Run, tmp_path: Path
) -> None:
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        wandb_run._hold(folder)
    assert all(is_held(folder) for folder in folders)
    wandb_run.finish(code)
    assert [outcome(folder) for folder in folders] == [{"exit_code": code}] * 2
    assert not any(is_held(folder) for folder in folders)
    assert run.ended == [code]


def test_a_second_end_says_nothing_of_a_run_that_has_ended(tmp_path: Path) -> None:
    """Two runs in one process, one after the other."""
    wandb_run._hold(tmp_path / "a")
    wandb_run.finish(0)
    wandb_run._hold(tmp_path / "b")
    wandb_run.finish(3)
    assert outcome(tmp_path / "a") == {"exit_code": 0}
    assert outcome(tmp_path / "b") == {"exit_code": 3}
    (tmp_path / "a" / "outcome.json").unlink()
    wandb_run.finish(1)
    assert outcome(tmp_path / "a") is None


def test_a_run_that_goes_on_in_the_same_process_is_held_again(tmp_path: Path) -> None:
    for code in (143, 3):
        wandb_run._hold(tmp_path / "a")
        assert is_held(tmp_path / "a") and outcome(tmp_path / "a") is None
        wandb_run.finish(code)
        assert outcome(tmp_path / "a") == {"exit_code": code}


def test_a_folder_is_held_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By whatever name, or the second fit of a process would wait for the first."""
    monkeypatch.chdir(tmp_path)
    wandb_run._hold(Path("a"))
    wandb_run._hold(tmp_path / "a")
    assert len(wandb_run._folders) == 1


def test_how_it_ended_is_written_first_and_stays_where_wandb_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "a"
    seen: list[Any] = []

    def fail(exit_code: int = 0) -> None:
        seen.append((outcome(folder), is_held(folder)))
        raise RuntimeError("no service")

    wandb_run._hold(folder)
    with monkeypatch.context() as patch:
        patch.setattr(wandb, "finish", fail)
        patch.setattr(wandb, "teardown", lambda: seen.append("teardown"))
        wandb_run.finish(0)
    assert seen == [({"exit_code": 0}, True), "teardown"]
    (line,) = capsys.readouterr().err.splitlines()
    assert "could not be closed (no service)" in line
    assert outcome(folder) == {"exit_code": 0}
    assert not is_held(folder)


def test_a_network_that_is_gone_is_said_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def late(exit_code: int = 0) -> None:
        raise TimeoutError

    wandb_run._hold(tmp_path / "a")
    with monkeypatch.context() as patch:
        patch.setattr(wandb, "finish", late)
        wandb_run.finish(0)
    assert "wandb sync --include-online record" in capsys.readouterr().err
    assert outcome(tmp_path / "a") == {"exit_code": 0}


# What is thrown away


def make(*places: Path) -> None:
    """As a logger makes them, the outermost last in the list."""
    for place in reversed(places):
        place.mkdir()
    wandb_run._made.extend(places)


def test_a_run_without_a_row_is_thrown_away_with_the_folders_made_for_it(
    run: Run, tmp_path: Path
) -> None:
    base, project, folder = (
        tmp_path / "runs",
        tmp_path / "runs" / "p",
        tmp_path / "runs" / "p" / "a",
    )
    make(folder, project, base)
    wandb_run._hold(folder)
    wandb_run.discard()
    assert not base.exists()
    assert (run.ended, wandb_run._folders) == ([Exit.USAGE], [])


def test_folders_with_something_of_others_stay(tmp_path: Path) -> None:
    base, folder = tmp_path / "runs", tmp_path / "runs" / "a"
    make(folder, base)
    wandb_run._hold(folder)
    (folder / "mine").touch()
    (base / "theirs").touch()
    wandb_run.discard()
    assert [path.name for path in base.iterdir()] == ["theirs"]


def test_a_run_with_a_row_is_kept_and_still_held(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "a"
    make(folder)
    wandb_run._hold(folder)
    run.step = 1
    wandb_run.discard()
    assert folder.exists() and is_held(folder) and run.ended == []
    wandb_run.finish(2)
    assert outcome(folder) == {"exit_code": 2}


def test_what_is_thrown_away_is_not_held_any_more(tmp_path: Path) -> None:
    """The folder was there before, and another process may go on with it."""
    folder = tmp_path / "a"
    wandb_run._hold(folder)
    wandb_run.discard()
    assert folder.exists() and not is_held(folder)
    wandb_run.finish(2)
    assert outcome(folder) is None


def test_a_run_that_has_ended_is_not_thrown_away_with_the_next_one(tmp_path: Path) -> None:
    make(tmp_path / "a")
    wandb_run._hold(tmp_path / "a")
    wandb_run.finish(0)
    wandb_run.discard()
    assert outcome(tmp_path / "a") == {"exit_code": 0}


# The logger


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, run: Run) -> Run:
    """W&B's own start is left out."""

    def start(self: RunLogger) -> Run:
        self._experiment = run  # type: ignore[assignment]
        return run

    monkeypatch.setattr(RunLogger, "_start", start)
    return run


def test_the_folder_is_made_when_the_run_starts_and_not_before(
    offline: Run, tmp_path: Path
) -> None:
    logger = RunLogger("p", run_dir=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
    assert logger.experiment is offline
    assert is_held(logger.folder)
    assert wandb_run._made == [logger.folder, tmp_path / "runs" / "p", tmp_path / "runs"]


def test_a_second_run_of_a_process_throws_away_its_own_alone(offline: Run, tmp_path: Path) -> None:
    """The first one has no end yet: its folders are not those of the second."""
    first = RunLogger("p", run_dir=tmp_path / "runs")
    assert first.experiment is offline
    (first.folder / "config.yaml").touch()
    second = RunLogger("p", run_dir=tmp_path / "runs")
    assert second.experiment is offline
    assert wandb_run._made == [second.folder]
    wandb_run.discard()
    assert first.folder.exists() and not second.folder.exists()


def test_a_folder_of_another_process_is_refused_and_stays(offline: Run, tmp_path: Path) -> None:
    """The other one has just made it: it was not there when this one looked."""
    logger = RunLogger("p", run_dir=tmp_path / "runs")
    hold = RunFolder._hold

    def late(self: RunFolder, path: Path) -> Any:
        (path / "theirs").touch()
        return None

    RunFolder._hold = late
    try:
        with pytest.raises(UsageError, match="no other process"):
            logger.experiment  # noqa: B018
    finally:
        RunFolder._hold = hold
    wandb_run.discard()
    assert (logger.folder / "theirs").exists()


def test_a_folder_that_cannot_be_made_is_a_fault_of_storage(offline: Run, tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    with pytest.raises(StorageError, match="cannot be written"):
        RunLogger("p", run_dir=tmp_path / "runs").experiment  # noqa: B018


@pytest.mark.parametrize(
    ("resumed", "summary", "recorded"),
    [
        (False, {"trainer/global_step": 9}, -1),
        (True, {"trainer/global_step": 9}, 9),
        (True, {}, -1),
    ],
)
def test_a_run_that_wandb_resumes_has_its_rows_up_to_a_step(
    resumed: bool, summary: dict[str, int], recorded: int, offline: Run, tmp_path: Path
) -> None:
    vars(offline).update(resumed=resumed, summary=summary)
    logger = RunLogger("p", run_dir=tmp_path)
    assert logger.sent_steps == -1
    assert logger.experiment is offline
    assert logger.sent_steps == recorded


@pytest.mark.parametrize(
    ("outcome", "allowed"),
    [
        (None, "the folder of a run"),
        (0, "a run that has not ended"),
        (3, "a run that has not ended"),
        (143, None),
    ],
)
def test_only_a_run_that_has_not_ended_goes_on(
    outcome: int | None, allowed: str | None, tmp_path: Path
) -> None:
    """Otherwise a mistyped folder would be a new run, and a finished record would change."""
    place = tmp_path / "p" / "x"
    if outcome is not None:
        place.mkdir(parents=True)
        (place / "config.yaml").touch()
        (place / "outcome.json").write_text(json.dumps({"exit_code": outcome}))
    if allowed is None:
        assert RunLogger("p", run_dir=tmp_path, resumed=str(place)).run_id == "x"
        return
    before = {*tmp_path.rglob("*")}
    with pytest.raises(UsageError, match=f"resumed: got '{place}', allowed: {allowed}"):
        RunLogger("p", run_dir=tmp_path, resumed=place)
    assert {*tmp_path.rglob("*")} == before


def test_a_run_that_was_told_to_stop_is_marked(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb_run.mark_preempting()
    assert run.preempting == 1
    monkeypatch.setattr(wandb, "run", None)
    wandb_run.mark_preempting()
    wandb_run.finish(0)
    assert run.ended == []


# A run's folder


def test_a_run_that_begins_again_has_no_outcome_and_one_that_is_refused_leaves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that another process holds is left as it is."""
    monkeypatch.setattr(run_folder.time, "sleep", lambda seconds: None)
    RunFolder(tmp_path).end(3)
    held = RunFolder(tmp_path)
    assert outcome(tmp_path) is None
    (tmp_path / "outcome.json").write_text('{"exit_code": 0}')
    with pytest.raises(UsageError, match="no other process"):
        RunFolder(tmp_path)
    assert outcome(tmp_path) == {"exit_code": 0}
    held.let_go()


def test_it_is_held_until_the_outcome_is_written_and_also_where_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    write = run_folder.write_atomically

    def watched(path: Path, content: Any) -> None:
        seen.append(is_held(tmp_path))
        write(path, content)

    monkeypatch.setattr(run_folder, "write_atomically", watched)
    folder = RunFolder(tmp_path)
    folder.end(0)
    folder.end(1)  # it has ended
    folder.let_go()
    assert (seen, outcome(tmp_path)) == ([True], {"exit_code": 0})
    assert not is_held(tmp_path)

    def full(path: Path, content: Any) -> None:
        raise StorageError(path, OSError(28, "No space left on device"))

    monkeypatch.setattr(run_folder, "write_atomically", full)
    again = RunFolder(tmp_path)
    with pytest.raises(StorageError):
        again.end(0)
    assert not is_held(tmp_path)


def test_the_outcome_is_in_the_folder_wherever_the_process_has_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = RunFolder(Path("a"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    folder.end(0)
    assert outcome(tmp_path / "a") == {"exit_code": 0}


def test_looking_holds_nothing_and_two_may_look_at_once(tmp_path: Path) -> None:
    assert not is_held(tmp_path)
    assert list(tmp_path.iterdir()) == [], "looking makes no file"
    RunFolder(tmp_path).end(143)
    with (tmp_path / ".lock").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_SH)  # somebody else is looking
        assert not is_held(tmp_path)
    assert not is_held(tmp_path)
    with (tmp_path / ".lock").open("a") as mine:
        fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody holds it after a look


def test_one_who_only_looks_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    RunFolder(tmp_path).end(143)
    other = (tmp_path / ".lock").open("a")
    fcntl.flock(other, fcntl.LOCK_SH)
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            other.close()

    monkeypatch.setattr(run_folder.time, "sleep", sleep)
    RunFolder(tmp_path).let_go()
    assert len(waited) == 3


def test_what_ended_by_itself_is_not_interrupted(tmp_path: Path) -> None:
    for code in (0, 1, 2, 3, 5, 130, 143):
        folder = tmp_path / str(code)
        RunFolder(folder).end(code)
        (folder / "config.yaml").touch()
        assert exit_code_of(folder) == code
    names = {folder.name for folder in interrupted(tmp_path)}
    assert names == {"1", "2", "130", "143"}


def test_a_row_waits_no_longer_than_a_moment_in_wandbs_memory(tmp_path: Path) -> None:
    """A kill -9 loses what waits there."""
    settings = RunLogger(run_dir=tmp_path)._settings()
    assert 0 < settings.x_transaction_log_flush_interval <= 1


@pytest.mark.parametrize(("account", "mode"), [(False, "offline"), (True, None)])
def test_a_run_goes_online_only_with_an_account(
    account: bool, mode: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr(wandb_run, "has_account", lambda: account)
    asked: list[str | None] = []
    monkeypatch.setattr(
        RunLogger, "_start", lambda self: asked.append(self._wandb_init.get("mode"))
    )
    assert RunLogger(run_dir=tmp_path).experiment is None
    assert asked == [mode]
