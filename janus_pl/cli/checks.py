"""Refusals of a command line, before a run is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from pydoc import locate
from typing import Any, NamedTuple

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.model_helpers import is_overridden

from janus_pl.data import Images, LinearProblem
from janus_pl.errors import UsageError, is_integer
from janus_pl.observables.wide import has_float64
from janus_pl.run.files import check_folder
from janus_pl.run.folder import CONFIG, checkpoint_of
from janus_pl.training.callback_checks import check_callbacks, refuse_class
from janus_pl.training.checkpoints import (
    VerifiedCheckpointIO,
    check_fits,
    check_weights_only,
    load_sound,
)
from janus_pl.training.lightning import starts_processes_by_fork, waits_for_nobody
from janus_pl.training.options import check_least, check_precision, check_trainer_options
from janus_pl.training.precision import Numerics, check_numerics
from janus_pl.training.restoring import check_options, check_steps_left
from janus_pl.training.task import JanusTask

WIDE = "64-true"
ALLOW_CONFIG, ALLOW_DATA = "--allow_config_change", "--allow_data_change"
SEEDS = "an integer from 0 to 4294967295"


def is_ours(class_path: str | None) -> bool:
    """Tell whether a class path names one of our data modules or a subclass.

    >>> is_ours("janus_pl.data.DigitsPair"), is_ours("lightning.LightningDataModule")
    (True, False)
    """
    named = locate(str(class_path))
    return isinstance(named, type) and issubclass(named, Images | LinearProblem)


def check_seed(seed: object) -> None:
    """Refuse a seed that the generators do not take.

    Raises:
        UsageError: It is not an integer from 0 to 4294967295.
    """
    if not is_integer(seed, 0, 2**32 - 1):
        raise UsageError("seed_everything", seed, SEEDS)


def check_trainer(options: Mapping[str, object]) -> None:
    """Refuse `barebones`, and numbers that Lightning accepts and then fails on or misreads.

    Raises:
        UsageError: A number is below the least one that makes sense, or `barebones` is set.
    """
    if options.get("barebones"):
        raise UsageError(
            "trainer.barebones", True, "false, for a run without a record shows nothing"
        )
    check_least(options.get)
    check_precision(options.get("precision"))  # on a CPU Lightning trains in another one


def check_classes(callbacks: object) -> None:
    """Refuse callbacks by their class paths, for the parser cannot make each of them.

    Args:
        callbacks: The option `trainer.callbacks` of a config.

    Raises:
        UsageError: No run can have such a callback.
    """
    for given in callbacks if isinstance(callbacks, list) else [callbacks]:
        named = locate(str(getattr(given, "class_path", None)))
        if isinstance(named, type):
            refuse_class(named)


def check_once(callbacks: Sequence[Callback]) -> None:
    """Refuse two callbacks of a kind with equal options: they would share a checkpoint's state.

    Raises:
        UsageError: Two have the same state key.
    """
    stateful = [c for c in callbacks if is_overridden("state_dict", c, parent=Callback)]
    keys = [callback.state_key for callback in stateful]
    for callback, key in zip(stateful, keys, strict=True):
        if keys.count(key) > 1:
            twice = f"{type(callback).__name__} twice"
            raise UsageError("trainer.callbacks", twice, "each once, or with other options")


def check_checkpoint(path: str | None) -> None:
    """Refuse a checkpoint that does not exist, and Lightning's words "best" and "last".

    Raises:
        UsageError: There is no such file, or the path is one of the words.
    """
    if path in ("best", "last"):  # Lightning's words for those of a fit in this same process
        folder = f"RUN_DIR/PROJECT/ID/checkpoints/{path}.ckpt"
        raise UsageError("--ckpt_path", path, f"an existing checkpoint file, as {folder}")
    if path is not None and not Path(path).is_file():
        raise UsageError("--ckpt_path", path, "an existing checkpoint file")


def check_flags(args: Sequence[str], subcommand: str, path: str | None) -> None:
    """Refuse flags of a command line that say what a checkpoint may be, where none is asked for.

    Args:
        args: The command line. A config that an earlier run has written may have the flags.
        subcommand: The trainer's task.
        path: The option `ckpt_path`.

    Raises:
        UsageError: A flag would change nothing.
    """
    if ALLOW_DATA in args and path is None:
        raise UsageError(ALLOW_DATA, True, "beside --ckpt_path alone, which is not given")
    if ALLOW_CONFIG in args and (subcommand, path) != ("fit", "last"):
        raise UsageError(ALLOW_CONFIG, True, "beside --ckpt_path last of fit alone")


class Sound(NamedTuple):
    """A checkpoint to use: its file and, if it was read for the checks, its content."""

    path: str | None
    content: dict[str, Any] | None = None


def sound_checkpoint(
    trainer: Trainer,
    model: LightningModule,
    path: str | None,
    weights_only: bool | None,
    training: bool,
    goes_on: bool = False,
) -> Sound:
    """Return the checkpoint to use: the one that was named, or the sound one beside it.

    Args:
        trainer: The trainer before it has started.
        model: The model that is to take the weights.
        path: The checkpoint's file, or None.
        weights_only: The option of that name; False is refused.
        training: Whether the state of the training is needed, too.
        goes_on: Whether the path was found in the folder of a run to go on with.

    Raises:
        UsageError: The file does not exist, is not sound or belongs to another model, or
            `weights_only` is False.
    """
    if not goes_on:  # else a sound one beside it may be taken
        check_checkpoint(path)
    if not isinstance(trainer.strategy.checkpoint_io, VerifiedCheckpointIO):
        return Sound(path)
    check_weights_only(weights_only)
    if path is None:
        return Sound(path)
    found, checkpoint = load_sound(Path(path))
    weights = {}
    if isinstance(model, JanusTask):
        model.check_fixed(checkpoint, training)
        weights = model.state_dict()
    check_fits(found, checkpoint, weights, training)
    return Sound(str(found), checkpoint)


def check_restored(
    trainer: Trainer,
    model: LightningModule,
    data: LightningDataModule | None,
    checkpoint: dict[str, Any],
    seed: object,
    resumes: bool,
) -> None:
    """Refuse a checkpoint that training cannot go on from; after the data's `setup`.

    Args:
        trainer: The trainer before its fit.
        model: The model.
        data: The data module, or None.
        checkpoint: The content of the checkpoint.
        seed: The option `seed_everything`. A checkpoint brings weights and generators of its own.
        resumes: Whether the run itself is resumed.

    Raises:
        UsageError: Something cannot be carried over, or no step is left.
    """
    then = (checkpoint.get("description") or {}).get("seed")
    check_options({"seed_everything": seed}, {} if then is None else {"seed_everything": then})
    if isinstance(model, JanusTask):
        model.check_restored(checkpoint, trainer, data, resumes)
    else:
        check_steps_left(checkpoint, trainer.max_epochs, trainer.max_steps, resumes)


def file_of(path: str, root: Path) -> str:
    """Return the newest checkpoint of a run that is given by folder or id; else the path itself.

    Args:
        path: The option `ckpt_path`.
        root: The folder of the project's runs.

    Raises:
        UsageError: The run has no checkpoint.
    """
    places = (Path(path), root / path)
    folder = next((each for each in places if (each / CONFIG).is_file()), None)
    if folder is None or path in ("last", "best"):
        return path
    if (file := checkpoint_of(folder)) is None:
        raise UsageError("--ckpt_path", path, f"a run with a checkpoint; {folder} has none")
    return str(file)


def check_run_dir(path: str) -> None:
    """Refuse a folder of runs that is not a folder, or that cannot be made.

    Raises:
        UsageError: It is not a folder to write to.
    """
    check_folder("--run_dir", path)


def check_device(trainer: Trainer, model: LightningModule, numerics: Numerics) -> None:
    """Refuse a precision that the device of the run does not have.

    Args:
        trainer: The trainer before it has started.
        model: The model.
        numerics: The option.

    Raises:
        UsageError: The device has no float64, or numerics would change nothing.
    """
    device = trainer.strategy.root_device
    wide = trainer.precision == WIDE
    always = isinstance(model, JanusTask) and model.in_float64
    if wide and not has_float64(device.type):
        raise UsageError("trainer.precision", WIDE, f"32-true: {device.type} has no float64")
    check_numerics(numerics, device, wide or always)


def check_parts(
    trainer: Trainer,
    model: LightningModule,
    data: LightningDataModule | None,
    strategy: object,
    subcommand: str,
) -> None:
    """Refuse parts that do not go together, and prepare the data.

    Args:
        trainer: The trainer before it has started.
        model: The model.
        data: The data module, or None.
        strategy: The option `trainer.strategy` as it was given.
        subcommand: The trainer's task: fit, validate, test or predict.

    Raises:
        UsageError: The parts do not go together.
    """
    training = subcommand == "fit"
    if training and not is_overridden("train_dataloader", data or model, LightningDataModule):
        given = f"{type(data).__module__}.{type(data).__name__}"
        raise UsageError("data", given, "a data module with a train_dataloader")
    if training:
        check_callbacks(trainer, model)
    if starts_processes_by_fork(trainer):
        allowed = "auto or ddp: the record is of a process that was started as a command"
        raise UsageError("trainer.strategy", strategy, allowed)
    if trainer.num_nodes > 1 and waits_for_nobody(trainer):
        allowed = "1, or torchrun or SLURM, or MASTER_ADDR and NODE_RANK on each machine"
        raise UsageError("trainer.num_nodes", trainer.num_nodes, allowed)
    check_trainer_options(trainer, model, subcommand)
    # As in Lightning, only the first process of a node fetches and checks the data.
    if data is not None and trainer.local_rank == 0:
        data.prepare_data()
        data.setup(subcommand)
    if isinstance(model, JanusTask):
        model.check_run(trainer, data)
