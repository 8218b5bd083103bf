"""The way of rows to W&B beside the training: order, room, errors, and no thread left over."""

from __future__ import annotations

import copy
import os
import threading
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from environments import LIMIT

from janus_pl.run import logger as wandb_run
from janus_pl.run.logger import RunLogger
from janus_pl.run.rows import log_row
from janus_pl.run.sender import Sender, flush_all


class Gate:
    """An action that waits until it is let through."""

    def __init__(self) -> None:
        self.reached, self.open = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.reached.set()
        assert self.open.wait(LIMIT)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "rows to W&B"]


def test_all_arrive_in_their_order_and_no_thread_is_left() -> None:
    sender, arrived = Sender(room=3), list[int]()
    for number in range(500):
        sender.put(partial(arrived.append, number))
        if number % 100 == 7:
            sender.flush()
            assert arrived == [*range(number + 1)]
            assert threads() == []
    sender.flush()
    assert arrived == [*range(500)] and threads() == []


def test_whoever_puts_does_not_wait_until_there_is_no_room() -> None:
    sender, gate, arrived = Sender(room=2), Gate(), list[int]()
    sender.put(gate)
    assert gate.reached.wait(LIMIT)
    sender.put(lambda: arrived.append(1))  # the second of two places
    full = threading.Thread(target=sender.put, args=(lambda: arrived.append(2),))
    full.start()
    assert arrived == [] and full.is_alive(), "the third waits, as the first has not arrived"
    gate.open.set()
    full.join(LIMIT)
    sender.flush()
    assert arrived == [1, 2]


def test_errors_are_kept_and_what_comes_after_them_arrives() -> None:
    sender, arrived = Sender(), list[int]()
    sender.put(lambda: 1 / 0)
    sender.put(lambda: arrived.append(1))
    sender.flush()
    assert [type(error) for error in sender.errors()] == [ZeroDivisionError]
    assert sender.errors() == [] and arrived == [1]


def test_no_thread_lives_over_a_fork() -> None:
    """Nor does a fork hold up, in the child, what the parent has put."""
    sender, gate, arrived = Sender(), Gate(), list[int]()
    sender.put(gate)
    sender.put(lambda: arrived.append(1))
    threading.Timer(0.05, gate.open.set).start()
    while not gate.reached.is_set():
        time.sleep(0.001)
    if (child := os.fork()) == 0:
        before = arrived == [1] and threads() == []
        sender.put(lambda: arrived.append(2))
        sender.flush()
        os._exit(0 if before and arrived == [1, 2] else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert arrived == [1]


def test_a_copy_has_a_queue_of_its_own() -> None:
    sender, gate = Sender(room=5), Gate()
    sender.put(gate)
    other = copy.deepcopy(sender)
    other.flush()
    gate.open.set()
    flush_all()
    assert threads() == []


class Run:
    """W&B's run, which holds up its first row until it is let go."""

    def __init__(self) -> None:
        self.gate, self.got = Gate(), list[Any]()
        self.settings, self.disabled, self.step = SimpleNamespace(sync_dir="record"), False, 1

    def define_metric(self, key: str, **_: Any) -> None:
        self.got.append(key)

    def log(self, row: dict[str, Any], **_: Any) -> None:
        if not self.gate.open.is_set():
            self.gate()
        self.got.append(row["epoch"])

    def mark_preempting(self) -> None:
        self.got.append("preempting")


def row(epoch: int) -> dict[str, Any]:
    return {"epoch": epoch, "trainer/global_step": epoch, "eta_t": 0.1, "loss": 1.0}


@pytest.fixture
def busy(tmp_path: Path) -> tuple[RunLogger, Run]:
    """A logger with three rows on their way, the first of which is held up."""
    logger, run = RunLogger(run_dir=tmp_path), Run()
    into: Any = logger
    into._experiment = run
    for epoch in range(3):
        log_row(logger, row(epoch))
    assert run.gate.reached.wait(LIMIT)
    assert run.got == ["loss"], "the training has gone on meanwhile"
    return logger, run


ASK = {
    "the run": lambda logger: logger.experiment,
    "something to send now": lambda logger: logger.log_metrics({"epoch": 3, "loss": 1.0}, 3),
    "its end": lambda logger: logger.finalize("success"),
    "the end of the process": lambda logger: wandb_run.finish(0),
    "the mark of a stopped run": lambda logger: wandb_run.mark_preempting(),
    "its removal": lambda logger: wandb_run.discard(),
}


@pytest.mark.parametrize("name", ASK)
def test_rows_on_their_way_arrive_before_anything_else_happens(
    name: str, busy: tuple[RunLogger, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    logger, run = busy
    monkeypatch.setattr(wandb, "run", run)
    monkeypatch.setattr(wandb, "finish", lambda exit_code=0: run.got.append("finish"))
    threading.Timer(0.05, run.gate.open.set).start()
    ASK[name](logger)
    assert run.got[:4] == ["loss", 0, 1, 2]
    assert threads() == []
