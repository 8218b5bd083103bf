"""The subject of a trainer and a module: the module itself, or one `AnyModule` a fit."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from janus_pl.run.description import KEY
from janus_pl.run.logger import RunLogger, record_description
from janus_pl.training.any_module import AnyModule
from janus_pl.training.checks import check_rows
from janus_pl.training.describe import measure
from janus_pl.training.epoch_rows import EpochRows
from janus_pl.training.resume import ExactResume
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

    They measure the run, and for somebody else's module they write its rows and let a resumed run
    go on with its record. Callbacks that look come after those that may change the weights, so that
    a row is of one set of weights.
    """
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    if _first(trainer, Describes) is None:
        callbacks.append(Describes())
    if not isinstance(module, Subject):
        _prepare_rows(trainer, module)
    # A new list: Lightning is iterating over the old one.
    trainer.callbacks = sorted(callbacks, key=_place)  # type: ignore[attr-defined]


def _place(callback: Callback) -> int:
    """Return the place of a callback: those that change weights, look, write rows, and save."""
    return 3 if isinstance(callback, Checkpoint) else getattr(callback, "place", 0)


def _prepare_rows(trainer: Trainer, module: LightningModule) -> None:
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    if _first(trainer, ExactResume) is None:
        own = [logger for logger in trainer.loggers if isinstance(logger, RunLogger)]
        callbacks.append(ExactResume(goes_on=any(logger.resumed for logger in own)))
    rows = _first(trainer, EpochRows)
    if rows is None:
        rows = EpochRows()
        callbacks.append(rows)
    if rows.subject is None or rows.subject.module is not module:
        rows.subject = AnyModule(trainer, module)


class Describes(Callback):
    """Measures the description of a run; puts it into the record and into each checkpoint."""

    place = 2

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            check_rows(trainer)
            prepare(trainer, pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        subject = subject_of(trainer, pl_module)
        subject.start()
        subject.description = measure(trainer, subject, pl_module)
        if trainer.is_global_zero:
            record_description(trainer.loggers, subject.description)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        described = getattr(subject_of(trainer, pl_module), KEY, None)
        if described is not None:
            checkpoint[KEY] = described.to_plain()


def _first(trainer: Trainer, kind: type[Any]) -> Any:
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return next((callback for callback in callbacks if isinstance(callback, kind)), None)
