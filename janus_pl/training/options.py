"""The trainer's options: those that a run cannot keep are refused before it starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from janus_pl.data.images import Images
from janus_pl.data.regression import LinearProblem
from janus_pl.errors import UsageError
from janus_pl.training.lightning import model_registry, starts_processes_by_fork, syncs_batch_norm
from janus_pl.training.subject import Subject

# The least number of an option that makes sense; Lightning accepts less and fails or misreads it.
LEAST = {
    "accumulate_grad_batches": 1,
    "check_val_every_n_epoch": 1,
    "gradient_clip_val": 0,
    "log_every_n_steps": 0,
    "min_epochs": 0,
    "min_steps": 0,
    "num_nodes": 1,
    "num_sanity_val_steps": -1,  # the whole split
}
PRECISIONS = ("32-true", "64-true", "bf16-mixed", "32", "64", "bf16", "None")
A_ROW = "1.0: a row is an epoch, and so are its val/loss and val/error"
SPLIT = "1.0: a loss and an error over a part of a split are not those of the split"
SAME = "0.0; data.num_train takes a part of the samples, the same in each epoch"

# An option, its value, whether it can be kept, and what is allowed.
Answer = tuple[str, Any, bool, str]


def check_trainer_options(trainer: Trainer, module: LightningModule, stage: str = "fit") -> None:
    """Refuse options of the trainer under which a run would not be what its record says.

    Args:
        trainer: The trainer before it has started.
        module: The module, one of ours or somebody else's.
        stage: The trainer's task: fit, validate, test or predict.

    Raises:
        UsageError: An option cannot be kept, or would be ignored.
    """
    answers = [_of_fit(trainer, module)] if stage == "fit" else []
    if isinstance(module, Subject) and not trainer.fast_dev_run:  # type: ignore[attr-defined]
        answers.append(_of_splits(trainer))
    for each in answers:
        for option, value, kept, allowed in each:
            if not kept:
                raise UsageError(f"trainer.{option}", value, allowed)


def check_loaders(trainer: Trainer) -> None:
    """Refuse `overfit_batches` with a loader that Lightning cannot keep from shuffling.

    Raises:
        UsageError: There is such a loader.
    """
    value = trainer.overfit_batches  # type: ignore[attr-defined]
    if value and not all(map(_in_order, CombinedLoader(trainer.train_dataloader).flattened)):
        allowed = "0.0: the loader, no DataLoader in data order, decides its batches by itself"
        raise UsageError("trainer.overfit_batches", value, allowed)


def check_least(options: Callable[[str], object]) -> None:
    """Refuse numbers that Lightning accepts and then fails on or misreads.

    Args:
        options: Returns the value of an option, by its name; None if it is not set.

    Raises:
        UsageError: A number is below the least one that makes sense.
    """
    for name, least in LEAST.items():
        value = options(name)
        if isinstance(value, int | float) and value < least:
            raise UsageError(f"trainer.{name}", value, f"a number from {least} up, or null")


def _of_fit(trainer: Any, module: LightningModule) -> Iterator[Answer]:
    """Yield the answers about a fit of any module."""
    check_least(lambda name: getattr(trainer, name))
    plugin = trainer.precision_plugin
    check_precision(trainer.precision, getattr(plugin, "scaler", None) is not None)
    ours = isinstance(module, Subject)
    yield "barebones", True, not trainer.barebones, "false: a run without a record shows nothing"
    registry = model_registry(trainer)
    yield "model_registry", registry, registry is None, "null: checkpoints are files of the run"
    forked = starts_processes_by_fork(trainer)
    allowed = "auto or ddp: the record is of a process that was started as a command"
    yield "strategy", type(trainer.strategy).__name__, not forked, allowed
    algorithm, clips = trainer.gradient_clip_algorithm, trainer.gradient_clip_val
    allowed = "null without a gradient_clip_val, for nothing is clipped"
    yield (
        "gradient_clip_algorithm",
        algorithm and algorithm.value,
        bool(clips or not algorithm),
        allowed,
    )
    norms = ours and syncs_batch_norm(trainer)
    yield "sync_batchnorm", True, not norms, "false: the module has no batch normalization"
    own_data = isinstance(getattr(trainer, "datamodule", None), Images | LinearProblem)
    overfit = trainer.overfit_batches
    yield "overfit_batches", overfit, not (overfit and (ours or own_data)), SAME
    if not trainer.fast_dev_run:
        yield from _of_length(trainer)


def check_precision(precision: object, scaled: bool = False) -> None:
    """Refuse all precisions but those with weights of float32 or better and unscaled gradients.

    Weights of half precision have margins of 0. A gradient scaler multiplies the gradients that
    velocities are taken of, and its ordinary overflow looks like a divergence.

    Args:
        precision: The option; None stands for 32-true.
        scaled: Whether a gradient scaler is in use.

    Raises:
        UsageError: The precision is another one.
    """
    if scaled or str(precision) not in PRECISIONS:
        given = f"{precision} with a gradient scaler" if scaled else precision
        allowed = "32-true, 64-true or bf16-mixed: ranks and margins need float32 weights"
        raise UsageError("trainer.precision", given, f"{allowed}, velocities unscaled gradients")


def _of_length(trainer: Any) -> Iterator[Answer]:
    """Yield the answers about options that end a fit before its first step, or contradict."""
    most, steps = trainer.max_epochs, trainer.max_steps
    yield "max_epochs", most, most != 0, "an integer from 1 up, or -1 for no limit"
    yield "max_steps", steps, steps != 0, "an integer from 1 up, or -1 for no limit"
    batches = trainer.limit_train_batches
    yield "limit_train_batches", batches, batches != 0, "a number above 0: a fit takes steps"
    for timer in (each for each in trainer.callbacks if isinstance(each, Timer)):
        left = timer.time_remaining()
        yield (
            "max_time",
            str(timedelta(seconds=left or 0)),
            left is None or left > 0,
            "a time above 0",
        )
    least = trainer.min_epochs or 0
    yield "min_epochs", least, most in (None, -1) or least <= most, f"at most max_epochs: {most}"
    least = trainer.min_steps or 0
    yield "min_steps", least, steps == -1 or least <= steps, f"at most max_steps: {steps}"


def _of_splits(trainer: Any) -> Iterator[Answer]:
    """Yield the answers about held-out splits of a module of ours."""
    interval = getattr(trainer, "val_check_interval", "a time")  # it has none if it is a time
    yield "val_check_interval", interval, _is_one(interval), A_ROW
    part = trainer.limit_val_batches
    yield "limit_val_batches", part, part == 0 or _is_one(part), f"{SPLIT}; or 0 for no validation"
    part = trainer.limit_test_batches
    yield "limit_test_batches", part, _is_one(part), SPLIT


def _is_one(share: object) -> bool:
    """Tell whether a share is the whole; the integer 1 is one batch."""
    return isinstance(share, float) and share == 1


def _in_order(loader: Any) -> bool:
    """Tell whether a loader's batches are the same in each epoch, those of the data's order."""
    if not isinstance(loader, DataLoader) or not isinstance(loader.sampler, SequentialSampler):
        return False
    batches = loader.batch_sampler
    if batches is None:
        return True
    return type(batches) is BatchSampler and isinstance(batches.sampler, SequentialSampler)
