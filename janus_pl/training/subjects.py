"""The subject of a trainer and a module: the module itself, or one `AnyModule` a fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import rank_zero_info

from janus_pl.data.fingerprint import SHOWN
from janus_pl.run.description import CHANGES, KEY
from janus_pl.run.logger import RunLogger
from janus_pl.run.loggers import known_as, record_description
from janus_pl.run.record import RunRecord, record_of
from janus_pl.training.any_module import AnyModule
from janus_pl.training.callback_checks import check_callbacks
from janus_pl.training.describe import data_of, measure
from janus_pl.training.epoch_metrics import EpochMetrics
from janus_pl.training.epoch_rows import EpochRows
from janus_pl.training.monitors import settle_monitors
from janus_pl.training.options import check_loaders, check_trainer_options
from janus_pl.training.restoring import Restoring
from janus_pl.training.resume import ExactResume
from janus_pl.training.same_data import changes_in, changes_since, facts_of
from janus_pl.training.subject import Subject


def subject_of(trainer: Trainer, module: LightningModule) -> Subject:
    """Return the module if it is a `Subject`, else the `AnyModule` of this fit.

    There is one in a fit; outside of a fit each call makes a new one.
    """
    if isinstance(module, Subject):
        return module
    rows = _first(trainer, EpochRows)
    if rows is not None and rows.subject is not None and rows.subject.module is module:
        return rows.subject
    return AnyModule(trainer, module)


def prepare(trainer: Trainer, module: LightningModule) -> None:
    """Add the callbacks that a fit needs besides those that look; call it in `setup`.

    They measure the run and write its record. For somebody else's module they write its rows, too.
    A resumed run goes on with its record. Callbacks that look come after those that may change the
    weights, so that a row is of one set of weights.

    Raises:
        UsageError: The run cannot keep an option of the trainer.
    """
    check_callbacks(trainer, module)
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    if _first(trainer, Describes) is None:
        callbacks.append(Describes())
    recorded = bool(trainer.loggers) or _first(trainer, RunRecord) is not None
    foreign = not isinstance(module, Subject)
    if foreign and _first(trainer, Restoring) is None:
        callbacks.append(Restoring(always=False))
    if _first(trainer, ExactResume) is None and (foreign or recorded):
        own = [logger for logger in trainer.loggers if isinstance(logger, RunLogger)]
        callbacks.append(ExactResume(goes_on=any(logger.resumed for logger in own)))
    if foreign:
        _prepare_rows(trainer, module)
    if recorded and _first(trainer, RunRecord) is None:
        check_trainer_options(trainer, module)  # before a folder is made
        record = RunRecord()
        record.prepare(trainer)  # before callbacks that save checkpoints get ready
        callbacks.append(record)
    # A new list: Lightning is iterating over the old one.
    trainer.callbacks = sorted(callbacks, key=_place)  # type: ignore[attr-defined]


def _place(callback: Callback) -> int:
    """Return the place of a callback: those that change weights, look, write rows, and save."""
    return 3 if isinstance(callback, Checkpoint) else getattr(callback, "place", 0)


def _prepare_rows(trainer: Trainer, module: LightningModule) -> None:
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    rows = _first(trainer, EpochRows)
    if rows is None:
        rows = EpochRows()
        callbacks.append(rows)
    if rows.subject is None or rows.subject.module is not module:
        rows.subject = AnyModule(trainer, module)


class Describes(Callback):
    """Measures the description of a run; puts it into the record and into each checkpoint.

    Lightning's own metrics of an epoch go onto the epoch's row.

    A checkpoint of other data is refused, by `fit` as by `validate`, `test` and `predict`.

    Args:
        allow_data_change: Whether the data of a checkpoint may be others. The record of a fit then
            says from which step on.

    Attributes:
        changes: The changes of its data that the run has seen, up to this fit.
        changed: Whether the checkpoint is of other data than those of now.
    """

    place = 2

    def __init__(self, allow_data_change: bool = False) -> None:
        self.allow_data_change = allow_data_change
        self.changes: list[dict[str, Any]] = []
        self.changed = False
        self._metrics = EpochMetrics()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.changes, self.changed = [], False
        if stage == "fit":
            check_trainer_options(trainer, pl_module)
            if not isinstance(pl_module, Subject):
                settle_monitors(trainer, pl_module)
            prepare(trainer, pl_module)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        data = facts_of(getattr(trainer, "datamodule", None))
        described, step, where = checkpoint.get(KEY), checkpoint["global_step"], trainer.ckpt_path
        self.changes = changes_since(
            described, data, step, self.allow_data_change, str(where), trainer.training
        )
        self.changed = len(self.changes) > len(changes_in(described))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        check_loaders(trainer)
        subject = subject_of(trainer, pl_module)
        subject.start()
        self._metrics.start(trainer, subject)
        described = measure(trainer, subject, pl_module)
        if self.changes:
            described = replace(described, data={**described.data, CHANGES: self.changes})
        subject.description = described
        rank_zero_info(f"Data: {data_of(trainer).line()}")
        if trainer.is_global_zero:
            if (record := record_of(trainer)) is not None:
                record.describe(described, **known_as(trainer.loggers, described))
            record_description(trainer.loggers, described)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._metrics.begin_steps()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # A validation within an epoch is of other weights than the epoch's row.
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._metrics.begin_validation()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._metrics.end_epoch()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._metrics.stop()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._metrics.stop()

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        described = getattr(subject_of(trainer, pl_module), KEY, None)
        if described is not None:
            checkpoint[KEY] = described.to_plain()


def changed_data(trainer: Trainer) -> str | None:
    """Return the first digits of the data's fingerprint if the checkpoint is of other data."""
    describes = _first(trainer, Describes)
    data = facts_of(getattr(trainer, "datamodule", None))
    changed = describes is not None and describes.changed
    return data.sha256[:SHOWN] if changed else None


def _first(trainer: Trainer, kind: type[Any]) -> Any:
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return next((callback for callback in callbacks if isinstance(callback, kind)), None)
