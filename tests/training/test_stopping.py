"""What is kept of signals, and what is done when: without a signal, a process or a fit."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from janus_pl.errors import STOPPING
from janus_pl.training.signals import NOTICE, Interrupted, StopBetweenSteps, StopSignals
from janus_pl.training.task import JanusTask

TERM, INT, HUP = signal.SIGTERM, signal.SIGINT, signal.SIGHUP


class Ended(BaseException):
    """In place of the end of the process."""


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What would be written, and the code that the process would end with."""
    said: list[Any] = []

    def end(code: int) -> None:
        said.append(code)
        raise Ended

    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(os, "write", lambda descriptor, text: said.append((descriptor, text)))
    return said


# The signals


@pytest.mark.parametrize(("first", "code"), [(TERM, 143), (INT, 130), (HUP, 129)])
def test_a_signal_that_nobody_looks_for_is_raised_once(
    first: int, code: int, said: list[Any]
) -> None:
    signals = StopSignals()
    with pytest.raises(Interrupted, match="before training had begun") as caught:
        signals._handle(first, None)
    assert (caught.value.exit_code, signals.received) == (code, first)
    signals._handle(TERM, None)  # what cleans up after the first is not interrupted
    assert (signals.received, said) == (first, [])


@pytest.mark.parametrize("first", [TERM, INT])
@pytest.mark.parametrize("others", [[], [TERM], [TERM, TERM]])
def test_the_first_one_stays_whatever_follows(
    first: int, others: list[int], said: list[Any]
) -> None:
    signals = StopSignals()
    signals.deferred = True
    for signum in [first, *others]:
        signals._handle(signum, None)
    assert signals.received == first
    assert said == ([(2, NOTICE)] if first == INT else [])


@pytest.mark.parametrize("first", [TERM, INT])
@pytest.mark.parametrize("deferred", [True, False])
def test_a_sigint_after_another_signal_ends_on_the_spot(
    deferred: bool, first: int, said: list[Any]
) -> None:
    signals = StopSignals()
    signals.deferred = deferred
    signals.received = first
    with pytest.raises(Ended):
        signals._handle(INT, None)
    assert said == [130]


def test_handlers_are_ours_within_the_block_and_as_before_after_it() -> None:
    """Also where somebody has put handlers of their own in front, and after an exception."""
    before = [signal.getsignal(signum) for signum in STOPPING]
    signals = StopSignals()
    with pytest.raises(ZeroDivisionError), signals:
        assert [signal.getsignal(signum) for signum in STOPPING] == [signals._handle] * 6
        for signum in STOPPING:
            signal.signal(signum, signal.SIG_IGN)
        signals.install()
        assert [signal.getsignal(signum) for signum in STOPPING] == [signals._handle] * 6
        raise ZeroDivisionError
    assert [signal.getsignal(signum) for signum in STOPPING] == before


@pytest.mark.parametrize("ignored", [HUP, INT])
def test_a_signal_that_is_ignored_stays_ignored(ignored: int) -> None:
    """As SIGHUP under `nohup`; the others are handled."""
    before = signal.signal(ignored, signal.SIG_IGN)
    try:
        with StopSignals() as signals:
            signals.install()
            os.kill(os.getpid(), ignored)
            assert signal.getsignal(ignored) == signal.SIG_IGN
            assert signal.getsignal(TERM) == signals._handle
        assert signals.received == 0
        assert signal.getsignal(ignored) == signal.SIG_IGN
    finally:
        signal.signal(ignored, before)


# The fit


class Signals(StopSignals):
    """Counts how often it has become the handler."""

    def __init__(self, received: int = 0) -> None:
        super().__init__()
        self.received = received
        self.installed = 0

    def install(self) -> None:
        self.installed += 1


class Trainer:
    """What of a trainer is used, and what was asked of it."""

    def __init__(self, folder: Path | None, world: int = 1, others: tuple[int, int] = (0, 0)):
        self.saved: list[str] = []
        self.asked: list[str] = []
        self.requeued: list[tuple[int, list[str]]] = []
        self.world_size, self.global_step, self.current_epoch = world, 7, 0
        self.max_epochs, self.max_steps, self.should_stop = 9, -1, False
        self.is_last_batch = False
        self.checkpoint_callback = SimpleNamespace(dirpath=folder)
        self.strategy = SimpleNamespace(
            root_device="cpu", reduce=self._reduce, launcher=SimpleNamespace(kill=self._kill)
        )
        self.killed: list[int] = []
        self._others = others
        steps = SimpleNamespace(_broadcast_sigterm_tensor=lambda: 1)
        self.fit_loop = SimpleNamespace(epoch_loop=steps)
        self._accelerator_connector = SimpleNamespace(cluster_environment=None)
        self._signal_connector = SimpleNamespace(
            _slurm_sigusr_handler_fn=self._requeue, _sigterm_notifier_fn=lambda *_: 1
        )
        self._checkpoint_connector = SimpleNamespace(hpc_save_path=None)

    def _reduce(self, mine: Any, reduce_op: str) -> Any:
        assert reduce_op == "max"
        self.asked.append(mine.tolist())
        return mine.new_tensor(
            [max(a, b) for a, b in zip(mine.tolist(), self._others, strict=True)]
        )

    def _requeue(self, signum: int, frame: Any) -> None:
        self.requeued.append((signum, self._checkpoint_connector.hpc_save_path("anywhere")))

    def _kill(self, signum: int) -> None:
        self.killed.append(signum)

    def save_checkpoint(self, path: Path, weights_only: bool) -> None:
        assert not weights_only
        self.saved.append(str(path))


class Task(JanusTask):
    """A task that writes down when a row is written."""

    directions = scale = velocities = velocity_norms = full_velocity_norms = None  # type: ignore
    output_margins = margins = completed = None  # type: ignore[assignment]

    def __init__(self, trainer: Trainer) -> None:
        super().__init__()
        row: Any = self.row
        row.write = lambda _: trainer.saved.append("row")


def stopper(trainer: Trainer, signals: Signals) -> StopBetweenSteps:
    stop = StopBetweenSteps(signals)
    stop.setup(trainer, None, "fit")
    return stop


def test_a_stop_writes_the_row_that_waits_and_then_saves(tmp_path: Path) -> None:
    trainer = Trainer(tmp_path)
    task = Task(trainer)
    last = str(tmp_path / "last.ckpt")
    said = f"stopped by SIGTERM after step 7; the checkpoint is {last}"
    with pytest.raises(Interrupted, match=said) as caught:
        stopper(trainer, Signals(TERM)).on_train_batch_end(trainer, task)
    assert caught.value.exit_code == 143
    assert trainer.saved == ["row", last]
    trainer = Trainer(None)
    with pytest.raises(Interrupted, match=r"stopped by SIGINT after step 7$"):
        stopper(trainer, Signals(INT)).on_train_batch_end(trainer, Task(trainer))
    assert trainer.saved == ["row"]


@pytest.mark.parametrize("splits", [True, False])
@pytest.mark.parametrize("last_batch", [True, False])
def test_within_an_epoch_only_where_its_state_can_be_saved(
    last_batch: bool, splits: bool, tmp_path: Path
) -> None:
    trainer = Trainer(tmp_path)
    trainer.is_last_batch = last_batch
    module: Any = SimpleNamespace(splits_epochs=splits)
    stop = stopper(trainer, Signals(TERM))
    if splits and not last_batch:
        with pytest.raises(Interrupted):
            stop.on_train_batch_end(trainer, module)
    else:
        stop.on_train_batch_end(trainer, module)
        assert trainer.saved == []
        with pytest.raises(Interrupted):
            stop.on_train_epoch_end(trainer, module)


@pytest.mark.parametrize(
    "end", [{"max_epochs": 1}, {"max_steps": 7}, {"max_steps": 6}, {"should_stop": True}]
)
def test_a_run_at_its_end_is_neither_stopped_nor_requeued(end: Any, tmp_path: Path) -> None:
    trainer = Trainer(tmp_path)
    vars(trainer).update(end)
    stop = stopper(trainer, Signals(TERM))
    stop._ask(signal.SIGUSR1, None)
    stop.on_train_epoch_end(trainer, None)
    assert (trainer.saved, trainer.requeued) == ([], [])


def test_a_requeue_is_done_once_for_each_time_it_was_asked(tmp_path: Path) -> None:
    """It saves the run's own last checkpoint, and the run goes on."""
    trainer = Trainer(tmp_path)
    stop = stopper(trainer, Signals())
    done = (signal.SIGUSR1, str(tmp_path / "last.ckpt"))
    for asked, times in [(False, 0), (True, 1), (False, 1), (False, 1), (True, 2), (False, 2)]:
        if asked:
            trainer._signal_connector._slurm_sigusr_handler_fn(signal.SIGUSR1, None)
        stop.on_train_batch_end(trainer, None)
        assert trainer.requeued == [done] * times


def test_without_a_folder_of_checkpoints_nothing_is_requeued() -> None:
    trainer = Trainer(None)
    stop = stopper(trainer, Signals())
    stop._ask(signal.SIGUSR1, None)
    stop.on_train_batch_end(trainer, None)
    assert trainer.requeued == []


@pytest.mark.parametrize("mine", [0, TERM])
@pytest.mark.parametrize("others", [(0, 0), (int(INT), 0), (0, 1)])
def test_what_any_rank_got_counts_and_all_are_asked_alike(
    others: tuple[int, int], mine: int, tmp_path: Path
) -> None:
    trainer = Trainer(tmp_path, world=2, others=others)
    stop = stopper(trainer, Signals(mine))
    signum = max(mine, others[0])
    if signum:
        with pytest.raises(Interrupted, match=signal.Signals(signum).name):
            stop.on_train_batch_end(trainer, None)
    else:
        stop.on_train_batch_end(trainer, None)
    assert trainer.asked == [[mine, 0]]
    assert len(trainer.requeued) == others[1]
    alone = Trainer(tmp_path, world=1, others=others)
    stopper(alone, Signals()).on_train_batch_end(alone, None)
    assert alone.asked == [] and alone.requeued == []


@pytest.mark.parametrize("world", [1, 2])
def test_signals_wait_for_a_step_from_the_start_of_training_on(world: int, tmp_path: Path) -> None:
    """Of several ranks none stops by itself before that either."""
    trainer, signals = Trainer(tmp_path, world), Signals()
    stop = stopper(trainer, signals)
    assert signals.deferred == (world > 1)
    stop.on_sanity_check_start(trainer, None)
    assert (signals.installed, signals.deferred) == (1, world > 1)
    stop.on_train_start(trainer, None)
    assert (signals.installed, signals.deferred) == (2, True)
    stop.setup(trainer, None, "fit")
    assert signals.deferred, "a second fit does not take that back"


def test_processes_that_were_started_are_told(tmp_path: Path) -> None:
    trainer = Trainer(tmp_path)
    stop = stopper(trainer, Signals())
    stop.on_exception(trainer, None, ValueError())
    assert trainer.killed == []
    stop.on_exception(trainer, None, Interrupted(TERM))
    assert trainer.killed == [TERM]
    trainer.strategy.launcher = None
    stop.on_exception(trainer, None, Interrupted(TERM))


def test_lightnings_own_ways_are_off(tmp_path: Path) -> None:
    trainer = Trainer(tmp_path)
    own = trainer._signal_connector._slurm_sigusr_handler_fn
    stopper(trainer, Signals())
    connector: Any = trainer._signal_connector
    assert connector._sigterm_notifier_fn() is None
    assert trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor() is None
    assert connector._slurm_sigusr_handler_fn is not own
