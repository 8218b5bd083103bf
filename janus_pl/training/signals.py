"""Signals that stop a run: it finishes its step, saves a checkpoint, and exits with 128 + signal.

They are those of `janus_pl.errors.STOPPING`. A signal that was ignored when the program started
stays ignored, as SIGHUP under `nohup`.

Lightning's own handling falls short. SIGINT ends the process from within `fit` with exit code 1.
SIGTERM raises between two steps without a checkpoint. Under DDP its handler joins a collective that
the other ranks do not, and before every step every rank waits for a broadcast of the first. SLURM
announces the end of a job by SIGUSR1. Lightning answers with a requeue, but would save in the
middle of a step, to a file from which any run in the same working directory would go on.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from janus_pl.errors import STOPPING, Exit
from janus_pl.run.folder import LAST
from janus_pl.training.clock import is_last_epoch
from janus_pl.training.lightning import put_off_signals, requeue_signal, save_requeue_at
from janus_pl.training.task import JanusTask

NOTICE = b"SIGINT: finishing; another one ends at once\n"


class Interrupted(BaseException):
    """The end of a run by a signal. It is no Exception, so that nothing takes it for a defect.

    Attributes:
        exit_code: The exit code, 128 plus the signal's number.
    """

    def __init__(self, signum: int, where: str = "before training had begun") -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name} {where}")
        self.exit_code = Exit(128 + signum)


class StopSignals:
    """The handler of signals that stop a run, within a `with` block, in the main thread.

    The first signal is noted for `StopBetweenSteps`; if nobody reads the note, it raises at once.
    A SIGINT after another signal ends the process at once.

    Attributes:
        received: The number of the first signal, 0 if none came.
        deferred: Whether somebody reads `received`.
    """

    def __init__(self) -> None:
        self.received = 0
        self.deferred = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        before = {signum: signal.getsignal(signum) for signum in STOPPING}
        self._before = {k: v for k, v in before.items() if v not in (signal.SIG_IGN, None)}
        self.install()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _install(self._before)

    def install(self) -> None:
        """Become the handler, also again after Lightning has installed its own."""
        _install(dict.fromkeys(self._before, self._handle))

    def leave(self, signum: int) -> None:
        """Handle a signal no longer: somebody else will."""
        if signum in self._before:
            _install({signum: self._before.pop(signum)})

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.received and signum == signal.SIGINT:
            os._exit(128 + signum)
        first, self.received = not self.received, self.received or signum
        if first and not self.deferred:
            raise Interrupted(signum)
        if first and signum == signal.SIGINT:
            with suppress(OSError):  # the terminal may be gone
                os.write(2, NOTICE)  # print is not safe here


class StopBetweenSteps(Checkpoint):
    """A callback that stops a fit between two steps of an epoch, or at the epoch's end.

    It is a Checkpoint, so it runs after all other callbacks: the checkpoint holds what they noted
    of the step. All ranks stop at the same step, no matter which rank got the signal.
    """

    def __init__(self, signals: StopSignals) -> None:
        self.signals = signals
        self._requeue: Callable[..., None] | None = None
        self._requeue_asked = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._requeue = put_off_signals(trainer, self._ask)
        if (signum := requeue_signal(trainer)) is not None:
            self.signals.leave(signum)  # Lightning takes it only if nobody else handles it
        # If one rank stopped now by itself, the others would wait forever.
        self.signals.deferred = self.signals.deferred or trainer.world_size > 1

    def _ask(self, signum: int, frame: FrameType | None) -> None:
        self._requeue_asked = True

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.signals.install()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.signals.install()
        self.signals.deferred = True

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        # After an epoch's last step, stop at its end: a checkpoint there leaves nothing pending.
        here = getattr(pl_module, "splits_epochs", True) and not trainer.is_last_batch
        if here:
            self._heed(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._heed(trainer, pl_module, ends=is_last_epoch(trainer))

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        launcher = trainer.strategy.launcher
        if isinstance(exception, Interrupted) and launcher is not None:
            launcher.kill(signal.SIGTERM)  # the processes that it started may have got no signal

    def _heed(self, trainer: Trainer, module: LightningModule, ends: bool = False) -> None:
        """Act on a signal that any process received; let a run that is ending finish."""
        signum, requeue = self.signals.received, int(self._requeue_asked)
        if trainer.world_size > 1:
            mine = torch.tensor([signum, requeue], device=trainer.strategy.root_device)
            signum, requeue = trainer.strategy.reduce(mine, reduce_op="max").tolist()
        if requeue and not ends:
            self._requeue_asked = False
            path = last_path(trainer)
            if self._requeue is not None and path is not None:
                save_requeue_at(trainer, path)
                self._requeue(signal.SIGUSR1, None)
        if signum and not ends:
            self._stop(trainer, module, signum)

    def _stop(self, trainer: Trainer, module: LightningModule, signum: int) -> None:
        if isinstance(module, JanusTask):
            module.row.write(trainer)  # early stopping holds it back until the next epoch
        where = f"after step {trainer.global_step}"
        if (path := save_last(trainer)) is not None:
            where += f"; the checkpoint is {path}"
        raise Interrupted(signum, where)


def save_last(trainer: Trainer) -> Path | None:
    """Save `last.ckpt` beside the run's checkpoints, if it keeps any, and return its path."""
    if (path := last_path(trainer)) is not None:
        trainer.save_checkpoint(path, weights_only=False)  # unset, Lightning says so in a line
    return path


def last_path(trainer: Trainer) -> Path | None:
    """Return `last.ckpt` beside the run's checkpoints; None if the run keeps none."""
    folder = getattr(trainer.checkpoint_callback, "dirpath", None)
    return None if folder is None else Path(folder) / LAST


def _install(handlers: dict[int, Any]) -> None:
    if threading.current_thread() is threading.main_thread():  # Python allows it nowhere else
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
