"""What EarlyStopping and ModelCheckpoint monitor: a number of this epoch, or one line."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, LambdaCallback, ModelCheckpoint

from janus_pl.errors import UsageError, nearest
from janus_pl.run.rows import AXES
from janus_pl.training.lightning import at_epoch_end, before_reading, read_at_epoch_end
from janus_pl.training.subject import Subject

OURS = ("janus_pl",)
OF_VALIDATION = ("val/loss", "val/error")


def settle_monitors(trainer: Trainer, module: LightningModule) -> None:
    """Let monitors read when their number is there, and refuse those whose number cannot come.

    Lightning reads after a validation wherever validations are rarer than epochs. A number of the
    row comes at the epoch's end, and a run without validation would never be read.

    Args:
        trainer: The trainer before its fit.
        module: The module that it will train.

    Raises:
        UsageError: A number is not known at the time that was chosen, or is not recorded.
    """
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    known = known_keys(trainer, module)
    for callback in callbacks:
        if not isinstance(callback, EarlyStopping | ModelCheckpoint):
            continue
        if known is not None and callback.monitor is not None:
            _check_known(callback, known)
        if not trainer.enable_validation:
            read_at_epoch_end(callback)
        elif isinstance(module, Subject):
            _settle_one(trainer, callback)
        before_reading(callback, _check_there)


def known_keys(trainer: Trainer, module: LightningModule) -> list[str] | None:
    """Return all keys that a row may have, some with a `*`; None if somebody else may add others.

    Args:
        trainer: The trainer before its fit.
        module: The module that it will train.
    """
    if not (isinstance(module, Subject) and _is_from(module, OURS)):
        return None
    found = [*module.keys, *AXES]
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, LambdaCallback) or not _is_from(callback, (*OURS, "lightning")):
            return None
        if (own := getattr(callback, "keys", ())) is None:
            return None
        found += own
    every, last = trainer.check_val_every_n_epoch or 1, trainer.max_epochs or -1
    if trainer.enable_validation and not 0 < last < every:
        found += OF_VALIDATION
    plain = [key for key in found if "LAYER" not in key]
    of_layers = [key for key in found if "LAYER" in key]
    return plain + [k.replace("LAYER", layer) for k in of_layers for layer in module.layers()]


def _settle_one(trainer: Trainer, callback: EarlyStopping | ModelCheckpoint) -> None:
    chosen = at_epoch_end(callback)
    does = "check" if isinstance(callback, EarlyStopping) else "save"
    field = f"{type(callback).__name__}.{does}_on_train_epoch_end"
    if callback.monitor in OF_VALIDATION:
        if chosen and trainer.check_val_every_n_epoch != 1 and isinstance(callback, EarlyStopping):
            allowed = f"false or null: {callback.monitor} comes with a validation alone"
            raise UsageError(field, True, allowed)
    elif chosen is None:
        read_at_epoch_end(callback)
    elif not chosen and callback.monitor is not None:
        allowed = f"true or null: {callback.monitor} comes at the end of an epoch"
        raise UsageError(field, False, allowed)


def _check_there(callback: Any, metrics: Mapping[str, Any]) -> None:
    """Refuse a monitor that is not among the metrics at the time when it is read."""
    if callback.monitor is not None and callback.monitor not in metrics:
        raise UsageError(_field(callback), callback.monitor, nearest(callback.monitor, metrics))


def _check_known(callback: Any, known: list[str]) -> None:
    """Refuse a callback if none of the numbers that it would take is among the known keys."""
    monitors = getattr(callback, "monitors", (callback.monitor,))
    if not any(fnmatchcase(monitor, key) for monitor in monitors for key in known):
        names = [key for key in known if "*" not in key]
        raise UsageError(_field(callback), callback.monitor, nearest(callback.monitor, names))


def _field(callback: Callback) -> str:
    return f"{type(callback).__name__}.monitor"


def _is_from(part: object, packages: tuple[str, ...]) -> bool:
    return type(part).__module__.partition(".")[0] in packages
