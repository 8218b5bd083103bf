"""The rows of somebody else's module: row 0, then one row an epoch, as those of our own tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from torch.optim import Optimizer

from janus_pl.run.logger import RunLogger
from janus_pl.run.record import record_of
from janus_pl.run.rows import AXES
from janus_pl.training.any_module import AnyModule
from janus_pl.training.clock import epochs_reached
from janus_pl.training.lightning import epoch_metrics


class EpochRows(Callback):
    """Completes the rows of an `AnyModule`, and writes each of them once.

    Lightning's own metrics of an epoch, those of its validation among them, are on the epoch's
    row. Metrics of single steps (`on_step`) stay rows of W&B's own without an epoch.

    Attributes:
        subject: The answers for the module of this fit; None between two fits.
    """

    place = 2  # after the callbacks that look

    def __init__(self) -> None:
        self.subject: AnyModule | None = None
        self._in_step = False

    @property
    def row_subject(self) -> AnyModule:
        """The subject of this fit."""
        assert self.subject is not None
        return self.subject

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.row_subject.start()
        own = _own_loggers(trainer)
        for logger in own:
            logger.epoch_end = self._take
        if not own and record_of(trainer) is not None:
            trainer.loggers = [*trainer.loggers, _Hearer(self._take)]
        if trainer.global_step == 0:
            self._complete(trainer)
            self.row_subject.row.write(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.row_subject.row.write(trainer)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._in_step = True
        self.row_subject.count(True)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        if optimizer is trainer.optimizers[0]:
            self.row_subject.eta_t += float(optimizer.param_groups[0]["lr"])

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.row_subject.count(False)  # other callbacks' looks are no part of a step

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # A validation within an epoch is of other weights than the epoch's row.
        self._in_step = not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._in_step = False
        self._complete(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.row_subject.row.waits:
            self._complete(trainer)
            self.row_subject.row.write(trainer)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        if self.subject is not None:
            self.subject.row.write(trainer)
        self._end(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._end(trainer)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self.subject is not None:
            row = self.subject.row
            if row.waits:  # Lightning hands its metrics of the epoch over after the checkpoint
                row.put(_numbers(epoch_metrics(trainer)))
            checkpoint["epoch_rows"] = {"row": row.state(), "eta_t": self.subject.eta_t}

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self.subject is not None and (state := checkpoint.get("epoch_rows")) is not None:
            self.subject.row.load(state["row"])
            self.subject.eta_t = state["eta_t"]

    def _complete(self, trainer: Trainer) -> None:
        subject = self.row_subject
        times = (epochs_reached(trainer), trainer.global_step, subject.eta_t)
        subject.row.complete(trainer, dict(zip(AXES, times, strict=True)))

    def _take(self, metrics: Mapping[str, float]) -> bool:
        """Put Lightning's metrics on the epoch's row, unless they are of a single step."""
        if self._in_step or self.subject is None:
            return False
        self.subject.row.put(_numbers(metrics))
        return True

    def _end(self, trainer: Trainer) -> None:
        for logger in _own_loggers(trainer):
            logger.epoch_end = None
        trainer.loggers = [each for each in trainer.loggers if not isinstance(each, _Hearer)]
        if self.subject is not None:
            self.subject.stop()
        self.subject = None


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


def _own_loggers(trainer: Trainer) -> list[RunLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, RunLogger)]


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {key: float(value) for key, value in metrics.items() if key not in AXES}
