"""The rows of somebody else's module: row 0, then one row an epoch, as those of our own tasks."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import Optimizer

from janus_pl.run.rows import AXES
from janus_pl.training.any_module import AnyModule
from janus_pl.training.clock import epochs_reached
from janus_pl.training.epoch_metrics import numbers_of
from janus_pl.training.lightning import epoch_metrics
from janus_pl.training.row import LOG


class EpochRows(Callback):
    """Completes the rows of an `AnyModule`, and writes each of them once.

    Attributes:
        subject: The answers for the module of this fit; None between two fits.
    """

    place = 2  # after the callbacks that look

    def __init__(self) -> None:
        self.subject: AnyModule | None = None

    @property
    def row_subject(self) -> AnyModule:
        """The subject of this fit."""
        assert self.subject is not None
        return self.subject

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.row_subject.start()
        if trainer.global_step == 0:
            self._complete(trainer)
            self.row_subject.row.write(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.row_subject.row.write(trainer)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
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

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
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
        self._end()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._end()

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self.subject is not None:
            row = self.subject.row
            if row.waits:  # Lightning hands its metrics of the epoch over after the checkpoint
                row.put(numbers_of(epoch_metrics(trainer)), LOG)
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

    def _end(self) -> None:
        if self.subject is not None:
            self.subject.stop()
        self.subject = None
