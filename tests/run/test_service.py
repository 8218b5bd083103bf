"""W&B's service dead, its folders closed, a file system without locks or room: a run goes on."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import wandb
from lightning.pytorch.utilities import rank_zero_only

from janus_pl.errors import Exit, StorageError
from janus_pl.run import folder as run_folder
from janus_pl.run import logger as wandb_run
from janus_pl.run import rows, service
from janus_pl.run.files import check_room
from janus_pl.run.folder import RunFolder, exit_code_of, interrupted, is_held
from janus_pl.run.logger import RunLogger
from janus_pl.run.rows import Table, log_row
from janus_pl.run.service import NoRun, check_folders, forget_service, signs_of_death
from janus_pl.training.room import check_room_for_checkpoint

ROW = {"epoch": 1, "trainer/global_step": 3, "eta_t": 0.3, "loss": 1.0}
TABLE = Table(["layer"], [["fc1"]])


class Run:
    """W&B's run; `error` is what it raises when something is logged, once or always."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = [*errors]
        self.logged: list[dict[str, Any]] = []
        self.settings = SimpleNamespace(sync_dir="record")
        self.disabled, self.step = False, 0

    def define_metric(self, *args: Any, **kwargs: Any) -> None: ...

    def log(self, row: dict[str, Any], **options: Any) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.logged.append(row)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is said to the user, and whether W&B's service was left."""
    said: list[str] = []
    for module in (wandb_run, rows, service):
        monkeypatch.setattr(module, "rank_zero_warn", said.append)
    monkeypatch.setattr(wandb_run, "forget_service", lambda: said.append("left"))
    return said


def logger_of(run: Any, folder: Path) -> RunLogger:
    logger = RunLogger(run_dir=folder)
    logger._experiment = run
    return logger


# The service


SIGNS = [BrokenPipeError(32, "Broken pipe"), *(kind() for kind in signs_of_death())]


@pytest.mark.parametrize("error", SIGNS, ids=lambda error: type(error).__name__)
def test_a_service_that_dies_is_said_once_and_asked_nothing_more(
    error: Exception, said: list[str], tmp_path: Path
) -> None:
    run: Any = Run(error)
    logger = logger_of(run, tmp_path)
    for _ in range(3):
        log_row(logger, ROW)
        logger.log_metrics({"loss": 1.0}, 3)
    assert run.logged == []
    assert said[1:] == ["left"]
    assert "its service has died" in said[0] and str(logger.folder / "rows.jsonl") in said[0]
    assert not logger.experiment.disabled and logger.wandb_folder == Path("record")


def test_a_service_that_lives_gets_all_and_another_error_is_no_death(
    said: list[str], tmp_path: Path
) -> None:
    """The negative control."""
    run: Any = Run()
    logger = logger_of(run, tmp_path)
    log_row(logger, ROW)
    logger.flush()
    assert run.logged == [ROW] and said == []
    run.errors += [ValueError("a defect"), ValueError("another")]
    for _ in range(3):
        log_row(logger, ROW)
    assert logger.experiment is run and run.logged == [ROW, ROW]
    (line,) = said
    assert "its record lacks rows (a defect)" in line and str(logger.folder / "rows.jsonl") in line


def test_what_stands_for_a_dead_run_takes_everything() -> None:
    run: Any = NoRun(Run())
    run.config.update({"a": 1}, allow_val_change=True)
    run.name = "a"
    run.tags = (*(run.summary or ()), "t")
    assert run.log({"a": 1}) is run and [*run.nothing] == []
    assert (run.settings.sync_dir, run.disabled) == ("record", False)


def test_a_service_that_is_left_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = [KeyboardInterrupt(), SystemExit(1), ConnectionResetError("Connection lost")]

    def teardown() -> None:
        raise errors.pop()

    monkeypatch.setattr(wandb, "teardown", teardown)
    for _ in range(2):
        monkeypatch.setattr(wandb, "run", object())
        forget_service()
        assert wandb.run is None
    with pytest.raises(KeyboardInterrupt):  # which is meant for the program
        forget_service()


def test_the_warning_of_sockets_alone_is_hushed(caplog: pytest.LogCaptureFixture) -> None:
    service.hush_sockets()
    logging.getLogger("asyncio").warning("socket.send() raised exception.")
    logging.getLogger("asyncio").warning("something else")
    assert caplog.messages == ["something else"]


def test_a_run_that_was_stopped_is_marked_or_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The service is gone: that is said at the end, and stops nothing."""

    def fail() -> None:
        raise BrokenPipeError

    with monkeypatch.context() as patch:
        patch.setattr(wandb, "run", SimpleNamespace(mark_preempting=fail))
        wandb_run.mark_preempting()


def test_the_start_of_a_run_asks_nobody_for_staged_inputs_unless_somebody_may_have_staged() -> None:
    name = f"{service.LAUNCH}.inputs.internal"
    held = {key: sys.modules.pop(key) for key in [*sys.modules] if key.startswith(service.LAUNCH)}
    try:
        with service.without_launch():
            from wandb.sdk.launch.inputs.internal import StagedLaunchInputs

            StagedLaunchInputs().apply(Run())
            assert service.LAUNCH not in sys.modules
        assert name not in sys.modules
        sys.modules[service.LAUNCH] = ModuleType(service.LAUNCH)
        with service.without_launch():
            assert name not in sys.modules, "somebody has imported the queue: it is asked itself"
        del sys.modules[service.LAUNCH]
    finally:
        sys.modules.update(held)


def test_rows_are_no_data_frames_and_what_others_log_may_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "pandas", raising=False)
    with service.without_pandas():
        assert not wandb.util.is_pandas_data_frame(wandb.Table(columns=["a"], data=[[1]]))
        assert "pandas" not in sys.modules
    assert wandb.util.pd_available
    monkeypatch.setitem(sys.modules, "pandas", ModuleType("pandas"))
    with service.without_pandas():
        assert wandb.util.pd_available


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An entry for each time that the packages are read; none are known yet."""
    times: list[str] = []
    own: Any = wandb.util
    working_set = own.working_set

    def read() -> Any:
        times.append("read")
        return working_set()

    monkeypatch.setattr(service, "_listed", [])
    monkeypatch.setattr(service, "_places", [])
    monkeypatch.setattr(own, "working_set", read)
    return times


def given() -> dict[str, str]:
    """The packages that a run of W&B gets that starts."""
    own: Any = wandb.util
    with service.with_listed_packages():
        return {each.key: each.version for each in own.working_set()}


def test_packages_are_listed_once_for_the_runs_of_a_process_and_its_forks(
    asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own: Any = wandb.util
    before = own.working_set
    listed = {each.key: each.version for each in before()}
    asked.clear()
    with service.with_listed_packages():
        assert asked == [], "a run that is not to have them asks for none"
    assert given() == listed and "torch" in listed
    service.list_packages()
    assert given() == listed and asked == ["read"]
    assert own.working_set is before
    monkeypatch.delattr(own, "working_set")
    with service.with_listed_packages():
        assert not hasattr(own, "working_set"), "a W&B without it has no need"


def test_a_package_that_comes_or_goes_is_seen(
    asked: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In a notebook, a cell installs it between two fits."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(tmp_path / "none"), *sys.path])
    given()
    (tmp_path / "runs").mkdir()
    given()
    assert asked == ["read"], "a run's folder is no package"
    (tmp_path / "new-1.0.dist-info").mkdir()
    given()
    (tmp_path / "new-1.0.dist-info").rename(tmp_path / "new-1.1.dist-info")
    given()
    given()
    assert asked == ["read"] * 3


# Tables


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is bound as a file of the run."""
    bound: list[str] = []
    bind = lambda self, run, key, step: bound.append(key)  # noqa: E731
    monkeypatch.setattr(wandb.Table, "bind_to_run", bind)
    return bound


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Unable to write staging files"), FileNotFoundError(2, "gone")]
)
def test_a_table_that_cannot_be_staged_is_a_file_of_the_run(
    error: OSError, said: list[str], tables: list[str], tmp_path: Path
) -> None:
    run: Any = Run(error)
    logger = logger_of(run, tmp_path)
    log_row(logger, {**ROW, "spectrum": TABLE})
    logger.flush()
    (row,) = run.logged
    assert isinstance(row.pop("spectrum"), wandb.Table)
    assert (row, tables, said) == (ROW, ["spectrum"], [])


def test_a_table_that_cannot_be_a_file_either_is_left_out_and_named(
    said: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """W&B's temporary folder was cleaned; `rows.jsonl` still has the table."""

    def fail(*_: Any) -> None:
        raise FileNotFoundError(2, "No such file or directory", "/tmp/a")

    monkeypatch.setattr(wandb.Table, "bind_to_run", fail)
    run: Any = Run(FileNotFoundError(2, "gone"))
    logger = logger_of(run, tmp_path)
    log_row(logger, {**ROW, "spectrum": TABLE})
    logger.flush()
    assert run.logged == [ROW]
    (line,) = said
    assert line.startswith("W&B: its record lacks spectrum, which cannot be written")


def test_a_logger_of_somebody_else_has_the_same_tables(tables: list[str], said: list[str]) -> None:
    class Logger:
        experiment = Run(PermissionError(13, "no"))

    log_row(Logger(), {**ROW, "spectrum": TABLE})
    assert tables == ["spectrum"]


# W&B's folders


def test_folders_that_can_be_written_are_left_as_they_are(
    said: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("DATA", "CACHE"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / name))
    check_folders()
    assert said == [] and os.environ["WANDB_CACHE_DIR"] == str(tmp_path / "CACHE")


def test_folders_that_cannot_be_written_are_named_or_replaced(
    said: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A file stands where they would be: nobody can write there, not even root."""
    (tmp_path / "file").touch()
    for name in ("DATA", "CACHE"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "file" / name))
    check_folders()
    (line,) = said
    assert line.startswith(f"W&B: {tmp_path / 'file' / 'DATA'} cannot be written (Not a directory)")
    assert Path(os.environ["WANDB_CACHE_DIR"]).is_dir()
    check_folders()
    assert len(said) == 2, "each run says it"


# The start of the service beside what comes before the run


class Starting:
    """`wandb.setup`, which ends when it may."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.may_end = error, threading.Event()
        self.calls: list[str] = []

    def __call__(self) -> None:
        self.calls.append(threading.current_thread().name)
        self.may_end.wait()
        self.calls.append("ended")
        if self.error is not None:
            raise self.error


@pytest.fixture
def starting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Starting]:
    for name in ("DATA", "CACHE"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / name))
    service.wait_for_service()
    setup = Starting()
    monkeypatch.setattr(wandb, "setup", setup)
    yield setup
    setup.may_end.set()
    service.wait_for_service()


def test_the_service_starts_beside_and_the_start_of_the_run_waits_for_it(
    starting: Starting, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    service.begin()
    service.begin()  # a forked run has begun before its program begins

    def start(logger: RunLogger) -> Any:
        starting.calls.append("run")
        return Run()

    def let_end() -> None:
        starting.may_end.set()

    monkeypatch.setattr(RunLogger, "_start", start)
    threading.Timer(0, let_end).start()
    RunLogger(run_dir=tmp_path)._begun()
    assert starting.calls == ["start of W&B's service", "ended", "run"]
    wandb_run.discard()


def test_a_service_that_does_not_start_is_left_to_the_start_of_the_run(starting: Starting) -> None:
    starting.error = wandb.Error("no port")
    starting.may_end.set()
    service.begin()
    service.wait_for_service()
    service.begin()
    service.wait_for_service()
    assert starting.calls == ["start of W&B's service", "ended"] * 2, "and may be tried again"


def test_a_fork_waits_for_it_too(starting: Starting) -> None:
    """Else the locks that W&B holds meanwhile would be held in the fork for ever."""
    starting.may_end.set()
    service.begin()
    if (pid := os.fork()) == 0:
        os._exit(0)
    assert starting.calls == ["start of W&B's service", "ended"]
    os.waitpid(pid, 0)


def test_it_is_not_started_without_a_folder_for_its_log(
    starting: Starting, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "file" / "CACHE"))
    service.begin()
    assert starting.calls == []


def test_other_processes_than_the_first_start_none(
    starting: Starting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    service.begin()
    assert starting.calls == []


ONE = {"devices": 1, "strategy": "auto", "logger": None, "fast_dev_run": False}


@pytest.mark.parametrize(
    ("options", "may"),
    [
        ({}, True),
        ({"devices": "1", "logger": True}, True),
        ({"devices": 2}, False),
        ({"devices": "auto"}, False),
        ({"strategy": "ddp_fork"}, False),
        ({"logger": False}, False),
        ({"logger": [{"class_path": "a.B"}]}, False),
        ({"fast_dev_run": True}, False),
    ],
)
def test_it_may_begin_for_one_process_with_a_run_of_our_own(
    options: dict[str, Any], may: bool
) -> None:
    assert service.may_begin({**ONE, **options}) is may


# Locks


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_locks_a_run_goes_on_and_says_so(
    number: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def flock(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "config.yaml").write_text("a: 1\n")
    with pytest.warns(UserWarning, match=f"has no locks .{os.strerror(number)}.") as caught:
        folder = RunFolder(tmp_path / "a")
    assert len(caught) == 1
    assert not is_held(tmp_path / "a")
    folder.end(143)
    assert exit_code_of(tmp_path / "a") == 143
    assert interrupted(tmp_path) == [tmp_path / "a"]


def test_a_lock_of_somebody_else_is_still_one(tmp_path: Path) -> None:
    """The negative control."""
    first = RunFolder(tmp_path / "a")
    assert is_held(tmp_path / "a")
    first.let_go()
    assert not is_held(tmp_path / "a")


# The outcome and the room


def test_wandb_is_closed_and_the_lock_let_go_where_the_outcome_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []
    monkeypatch.setattr(wandb, "run", Run())
    monkeypatch.setattr(wandb, "finish", lambda exit_code=-1: ended.append(exit_code))

    def refuse(*_: Any) -> None:
        raise StorageError("outcome.json", OSError(28, "No space left on device"))

    wandb_run._hold(tmp_path / "a")
    monkeypatch.setattr(run_folder, "write_atomically", refuse)
    with pytest.raises(StorageError, match="No space left"):
        wandb_run.finish(0)
    assert ended == [0] and not is_held(tmp_path / "a")


def free(size: int, patch: pytest.MonkeyPatch, total: int = 2**40) -> None:
    patch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=total, free=size))


def test_a_disk_without_room_is_named_with_both_numbers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    free(2**20, monkeypatch)
    check_room(tmp_path / "not" / "there", 2**20, "a checkpoint")
    with pytest.raises(StorageError) as caught:
        check_room(tmp_path / "not" / "there", 2**21, "a checkpoint")
    assert str(caught.value) == (
        f"{tmp_path}: cannot be written: No space left on device, 1 MiB is free and a checkpoint"
        " takes at least 2 MiB"
    )
    assert caught.value.exit_code == Exit.STORAGE
    free(0, monkeypatch, total=0)
    check_room(tmp_path, 2**21, "a checkpoint")  # a file system that has no numbers


def test_a_checkpoint_takes_at_least_its_weights(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module: Any = torch.nn.Linear(1000, 100, dtype=torch.float64)
    trainer: Any = SimpleNamespace(checkpoint_callbacks=[1], default_root_dir=str(tmp_path / "a"))
    free(100_100 * 8, monkeypatch)
    check_room_for_checkpoint(trainer, module)
    free(100_100 * 8 - 1, monkeypatch)
    with pytest.raises(StorageError, match="a checkpoint takes at least"):
        check_room_for_checkpoint(trainer, module)
    trainer.checkpoint_callbacks = []
    check_room_for_checkpoint(trainer, module)
