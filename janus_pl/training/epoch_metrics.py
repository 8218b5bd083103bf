"""Lightning's own metrics of an epoch, on the epoch's row: what a module or a callback logs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger

from janus_pl.errors import UsageError
from janus_pl.run.logger import RunLogger
from janus_pl.run.record import record_of
from janus_pl.run.rows import AXES
from janus_pl.training.lightning import epoch_metrics
from janus_pl.training.row import LOG
from janus_pl.training.subject import Subject


class EpochMetrics:
    """Puts the numbers of `self.log` onto the row of their epoch, those of a validation too.

    Lightning would hand them to the loggers at another step than the row's, and not to the record.
    Metrics of single steps (`on_step`) stay rows of W&B's own without an epoch.
    """

    def __init__(self) -> None:
        self._trainer: Trainer | None = None
        self._subject: Subject | None = None
        self._at: Literal["start", "steps", "validation", "end"] = "start"
        self._taken: set[str] = set()

    def start(self, trainer: Trainer, subject: Subject) -> None:
        """Listen to what Lightning hands to the loggers from now on."""
        self._trainer, self._subject, self._at = trainer, subject, "start"
        own = _own_loggers(trainer)
        for logger in own:
            logger.epoch_end = self._take
        if not own and record_of(trainer) is not None:
            trainer.loggers = [*trainer.loggers, _Hearer(self._take)]

    def begin_steps(self) -> None:
        """Note that steps begin: what is logged from now on is of a single step."""
        self._at = "steps"

    def begin_validation(self) -> None:
        """Note that a validation begins: what is logged from now on is of the epoch."""
        self._at = "validation"

    def end_epoch(self) -> None:
        """Put the metrics so far onto the row before it is written."""
        if self._trainer is not None and self._subject is not None:
            self._at = "end"
            numbers = numbers_of(epoch_metrics(self._trainer))
            self._taken = set(numbers)
            self._subject.row.put(numbers, LOG)

    def stop(self) -> None:
        """Leave the loggers as they were."""
        if (trainer := self._trainer) is None:
            return
        for logger in _own_loggers(trainer):
            logger.epoch_end = None
        trainer.loggers = [each for each in trainer.loggers if not isinstance(each, _Hearer)]
        self._trainer = self._subject = None

    def _take(self, metrics: Mapping[str, float]) -> bool:
        """Put metrics on the epoch's row, unless they are of a single step."""
        if self._trainer is None or self._subject is None or self._at == "steps":
            return False
        row, numbers = self._subject.row, numbers_of(metrics)
        if self._at == "validation" and "epoch" not in metrics:
            return False  # a callback's own, of a single batch
        progress: Any = self._trainer.fit_loop.epoch_progress.current
        if self._at == "end" and progress.ready > progress.processed:
            self._at = "start"  # of the next epoch, before the row of the last one was written
            row.write(self._trainer)
        if self._at != "end" or row.waits:
            row.put(numbers, LOG)
        elif late := sorted(numbers.keys() - self._taken):
            allowed = "a call before `super().on_train_epoch_end()`, which writes the epoch's row"
            raise UsageError(LOG, ", ".join(late), allowed)
        return True


class _Hearer(Logger):
    """A logger that hears Lightning's metrics of an epoch, for a record without a `RunLogger`.

    Args:
        take: Takes metrics.
    """

    def __init__(self, take: Callable[[Mapping[str, float]], bool]) -> None:
        self._take = take

    name = version = None  # it has no place

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if AXES[-1] not in metrics:  # else it is a row that is being written
            self._take(metrics)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the record has the config."""


def numbers_of(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return metrics as plain numbers, without the axes."""
    return {key: float(value) for key, value in metrics.items() if key not in AXES}


def _own_loggers(trainer: Trainer) -> list[RunLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, RunLogger)]
