"""The only file that reaches into Lightning's private names.

Five classes of ours override or read private members of the Lightning class that they extend, and
stand where they are used: `RunCheckpoint`, `ProgressBar`, `Observer`, `RunLogger`, `ConfigReader`.
`PRIVATE` lists the names of both. A test asks each name of the installed Lightning, and the
functions here refuse to replace a name that is gone: a renamed attribute is an error and never a
silent change of behaviour.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch
from lightning.fabric.plugins.environments import LightningEnvironment, SLURMEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import (
    EarlyStopping,
    ModelCheckpoint,
    RichProgressBar,
    lr_finder,
)
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from lightning.pytorch.trainer import trainer as lightning_trainer
from lightning.pytorch.trainer.connectors.accelerator_connector import _AcceleratorConnector
from lightning.pytorch.trainer.connectors.checkpoint_connector import _CheckpointConnector
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector
from lightning.pytorch.utilities.seed import isolate_rng


class Private(NamedTuple):
    """A name that Lightning does not promise to keep.

    Attributes:
        owner: The class of Lightning that has it.
        name: The attribute.
        use: Who uses it, and for what.
    """

    owner: type
    name: str
    use: str


PRIVATE = (
    Private(Trainer, "_signal_connector", "StopBetweenSteps finds the handlers through it."),
    Private(Trainer, "_checkpoint_connector", "A requeue under SLURM finds `hpc_save_path` by it."),
    Private(Trainer, "_accelerator_connector", "StopBetweenSteps asks it for SLURM's signal."),
    Private(Trainer, "_model_registry", "A registry of models, which nobody fills, is refused."),
    Private(Trainer, "_detect_anomaly", "A linear run, which has no backward pass, refuses it."),
    Private(
        _AcceleratorConnector, "_layer_sync", "A module of ours has no layer for it to act on."
    ),
    Private(
        _SignalConnector, "_sigterm_notifier_fn", "It would broadcast SIGTERM before every step."
    ),
    Private(
        _SignalConnector, "_slurm_sigusr_handler_fn", "It saves in the middle of a step: put off."
    ),
    Private(
        _TrainingEpochLoop, "_broadcast_sigterm_tensor", "Every rank would wait in it at a step."
    ),
    Private(
        _CheckpointConnector, "hpc_save_path", "A requeue saves `last.ckpt` and no other file."
    ),
    Private(_FitLoop, "skip", "A resumed run with no step left still ends properly."),
    Private(_FitLoop, "_load_combined_loader_states", "ExactResume hands loaders their position."),
    Private(Trainer, "_results", "EpochMetrics puts Lightning's metrics of an epoch on its row."),
    Private(LightningModule, "_on_before_batch_transfer", "A look sees batches as a step does."),
    Private(Strategy, "_checkpoint_io", "A strategy's own way to store checkpoints is respected."),
    Private(Callback, "_generate_state_key", "Observer tells apart two of a kind in a checkpoint."),
    Private(ModelCheckpoint, "_every_n_epochs", "RunCheckpoint saves every n epochs by it."),
    Private(ModelCheckpoint, "_last_global_step_saved", "RunCheckpoint saves no step twice."),
    Private(ModelCheckpoint, "_should_skip_saving_checkpoint", "RunCheckpoint asks it first."),
    Private(ModelCheckpoint, "_save_topk_checkpoint", "RunCheckpoint keeps the best with it."),
    Private(ModelCheckpoint, "_save_last_checkpoint", "RunCheckpoint keeps the last with it."),
    Private(ModelCheckpoint, "_monitor_candidates", "RunCheckpoint copies one metric, not all."),
    Private(ModelCheckpoint, "_save_on_train_epoch_end", "It saves when its monitor is there."),
    Private(EarlyStopping, "_check_on_train_epoch_end", "It looks when its monitor is there."),
    Private(EarlyStopping, "_validate_condition_metric", "A monitor that is missing is one line."),
    Private(RichProgressBar, "_add_task", "ProgressBar draws one bar over the run."),
    Private(RichProgressBar, "_update", "ProgressBar moves that bar."),
    Private(RichProgressBar, "_stop_progress", "ProgressBar does not wait for a thread there."),
    Private(RichProgressBar, "_progress_stopped", "ProgressBar says so to what comes after a fit."),
    Private(RichProgressBar, "_update_metrics", "ProgressBar draws its line in its place."),
    Private(WandbLogger, "_wandb_init", "RunLogger decides folder, mode and settings of a run."),
    Private(WandbLogger, "_id", "The command line gives a user's logger the id of its folder."),
    Private(WandbLogger, "_experiment", "RunLogger holds its folder before W&B starts the run."),
    Private(LightningCLI, "_get", "ConfigReader reads options of the subcommand."),
    Private(LightningCLI, "_parser", "ConfigReader dumps the config with the subcommand's parser."),
    Private(LightningCLI, "_dump_config", "ConfigReader dumps the subcommand's options alone."),
    Private(LightningCLI, "_set_seed", "ConfigReader checks the seed first."),
    Private(
        LightningCLI, "_run_subcommand", "ConfigReader runs nothing; JanusCLI explains errors."
    ),
    Private(LightningCLI, "_parse_ckpt_path", "A checkpoint's options must not win over a config."),
)


# A profiler whose package is missing fails before it has attributes, for which its end asks.
for _name in ("_stage", "_output_file"):
    if not hasattr(Profiler, _name):
        setattr(Profiler, _name, None)


def isolate_started(include_cuda: bool = True) -> AbstractContextManager[None]:
    """Put random generators back after a block; leave CUDA alone if nothing has started it.

    Lightning's own asks all visible GPUs for theirs, and so starts CUDA in a run on the CPU.
    """
    return isolate_rng(include_cuda and torch.cuda.is_initialized())


def replace(owner: object, name: str, value: object) -> Any:
    """Replace an attribute that Lightning has, and return the old one.

    Raises:
        AttributeError: Lightning has no such attribute, so the new one would be ignored.
    """
    before = getattr(owner, name)
    setattr(owner, name, value)
    return before


for _user in (lr_finder, lightning_trainer):
    replace(_user, isolate_rng.__name__, isolate_started)


def put_off_signals(
    trainer: Trainer, on_requeue: Callable[[int, FrameType | None], None]
) -> Callable[..., None]:
    """Keep Lightning's handlers from acting within a step.

    Lightning offers no other way to leave out its SIGTERM notifier and the broadcast of every rank
    before every step, or to put off the requeue that SLURM asks for by SIGUSR1.

    Args:
        trainer: The trainer before its fit.
        on_requeue: Called in place of the requeue.

    Returns:
        Lightning's requeue, to be called between two steps.
    """
    signals: Any = trainer._signal_connector
    replace(signals, "_sigterm_notifier_fn", _nothing)
    replace(trainer.fit_loop.epoch_loop, "_broadcast_sigterm_tensor", _nothing)
    requeue: Callable[..., None] = replace(signals, "_slurm_sigusr_handler_fn", on_requeue)
    return requeue


def requeue_signal(trainer: Trainer) -> int | None:
    """Return the signal by which SLURM asks Lightning for a requeue; None without requeues."""
    environment = trainer._accelerator_connector.cluster_environment
    if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
        return environment.requeue_signal
    return None


def save_requeue_at(trainer: Trainer, path: Path) -> None:
    """Let the requeue save to a given file."""
    replace(trainer._checkpoint_connector, "hpc_save_path", lambda folder: str(path))


def end_without_steps(trainer: Trainer) -> None:
    """Start and end the fit even if a checkpoint leaves no step to take.

    Lightning would leave the whole fit out, and with it the end of a run that was killed after its
    last checkpoint: a row that early stopping has held back, the files that callbacks write then.
    """
    if type(trainer.fit_loop) is not _FitLoop:
        raise TypeError(f"a fit loop of class {type(trainer.fit_loop).__name__} is not known")
    trainer.fit_loop.__class__ = _EndsToo


def restore_loader_position(trainer: Trainer) -> None:
    """Hand the loaders the position in the epoch that a checkpoint holds.

    A schedule that asks for the length of the run has the loaders made before Lightning has read
    the checkpoint's loops, and Lightning hands the position only to new loaders.
    """
    trainer.fit_loop._load_combined_loader_states()


def epoch_metrics(trainer: Trainer) -> dict[str, Any]:
    """Return the numbers of the epoch under way that Lightning will hand to the loggers.

    It does so after the callbacks of the epoch's end, so a checkpoint of theirs would lack them.
    """
    results = trainer._results
    return {} if results is None else dict(results.metrics(False)["log"])


def at_epoch_end(callback: EarlyStopping | ModelCheckpoint) -> bool | None:
    """Tell whether a callback reads at an epoch's end; None leaves it to Lightning."""
    return getattr(callback, _WHEN[isinstance(callback, EarlyStopping)])


def read_at_epoch_end(callback: EarlyStopping | ModelCheckpoint) -> None:
    """Let a callback read its monitor at an epoch's end, and not after a validation."""
    replace(callback, _WHEN[isinstance(callback, EarlyStopping)], True)


def before_reading(
    callback: EarlyStopping | ModelCheckpoint, check: Callable[[Any, Mapping[str, Any]], None]
) -> None:
    """Call a check with the metrics whenever a callback is about to read its monitor.

    Lightning's own complaint is a list of all metrics, or a warning and nothing saved.
    """
    stops = isinstance(callback, EarlyStopping)
    name = "_validate_condition_metric" if stops else "_save_topk_checkpoint"
    wrapper: Callable[..., Any] = _checked_condition if stops else _checked_save
    if name not in vars(callback):  # else of an earlier fit
        replace(callback, name, partial(wrapper, callback, check, getattr(callback, name)))


def batch_on_device(trainer: Trainer, batch: Any) -> Any:
    """Return a batch of a loader as a training step gets it, with all hooks for its transfer."""
    batch = trainer.precision_plugin.convert_input(batch)
    batch = trainer.lightning_module._on_before_batch_transfer(batch)
    return trainer.strategy.batch_to_device(batch)


def set_run_id(logger: WandbLogger, run_id: str) -> None:
    """Let the run of a W&B logger that has not started have an id, by which its folder is named."""
    logger._wandb_init["id"] = run_id
    replace(logger, "_id", run_id)


def starts_processes_by_fork(trainer: Trainer) -> bool:
    """Tell whether a strategy starts its processes from within this one (spawn, fork)."""
    return isinstance(trainer.strategy.launcher, _MultiProcessingLauncher)


def waits_for_nobody(trainer: Trainer) -> bool:
    """Tell whether the processes of other nodes have no address to find this one by."""
    by_hand = type(getattr(trainer.strategy, "cluster_environment", None)) is LightningEnvironment
    return by_hand and "MASTER_ADDR" not in os.environ


def model_registry(trainer: Trainer) -> str | None:
    """Return the option of that name."""
    return trainer._model_registry


def detects_anomalies(trainer: Trainer) -> bool:
    """Tell whether the option `detect_anomaly` is set."""
    return trainer._detect_anomaly


def syncs_batch_norm(trainer: Trainer) -> bool:
    """Tell whether layers are to be synchronized, by `sync_batchnorm` or a plugin."""
    return trainer._accelerator_connector._layer_sync is not None


def stores_checkpoints_itself(strategy: object) -> bool:
    """Tell whether a strategy object was given a checkpoint plugin of its own."""
    return isinstance(strategy, Strategy) and strategy._checkpoint_io is not None


_WHEN = {True: "_check_on_train_epoch_end", False: "_save_on_train_epoch_end"}


def _checked_condition(
    stopper: EarlyStopping, check: Callable[..., None], read: Callable[..., bool], logs: Any
) -> bool:
    if stopper.strict:
        check(stopper, logs)
    return read(logs)


def _checked_save(
    keeper: ModelCheckpoint, check: Callable[..., None], save: Callable[..., None], *args: Any
) -> None:
    if keeper.save_top_k != 0:
        check(keeper, args[1])
    save(*args)


class _EndsToo(_FitLoop):
    """A fit loop that starts and ends with no step left."""

    @property
    def skip(self) -> bool:
        return bool(self.trainer.limit_train_batches == 0)


def _nothing(*args: Any) -> None:
    """Do nothing in place of what Lightning would do."""
