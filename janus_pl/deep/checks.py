"""The checks of options that a classifier cannot run with, made before a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch.optim import Optimizer

from janus_pl.data.images import ImagePair, Images
from janus_pl.data.loader import InMemoryBatches
from janus_pl.data.regression import LinearProblem
from janus_pl.errors import UsageError
from janus_pl.training.restoring import check_optimizers, check_options, take_schedulers
from janus_pl.training.schedules import Schedule, check_end

# Options of a network, which decide what its weights mean; then those of its training, of which a
# checkpoint holds the result.
NETWORK = (
    *("normalization", "strides", "channels", "hidden", "image_size"),
    *("depth", "kernel_size"),
)
TRAINING = ("loss", "init_scale", "schedule_interval", "hold_norms")


def check_run(
    trainer: Trainer, data: object, schedule: Schedule, image_size: int | None = None
) -> None:
    """Refuse options of the trainer and of the data that a classifier cannot run with.

    Args:
        trainer: The trainer before its fit.
        data: The data module, or None.
        schedule: The schedule of the learning rate.
        image_size: Height and width of the network's images; None if it takes any.

    Raises:
        UsageError: The options do not go together.
    """
    check_end(schedule, trainer)
    if isinstance(data, LinearProblem):
        allowed = "a data module of images, for a classifier"
        raise UsageError("data", "janus_pl.data.LinearProblem", allowed)
    if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
        allowed = "auto or ddp: every process holds the whole network"
        raise UsageError("trainer.strategy", type(trainer.strategy).__name__, allowed)
    if image_size is None:
        return
    if isinstance(data, Images) and not isinstance(data, ImagePair):
        allowed = "two classes labelled -1 and +1 (an ImagePair), or model janus_pl.Classifier"
        raise UsageError("data", f"janus_pl.data.{type(data).__name__}", allowed)
    if (size := getattr(data, "image_size", image_size)) != image_size:
        raise UsageError("model.image_size", image_size, f"{size}, as the data")


def fixed_options(options: Mapping[str, Any], training: bool) -> dict[str, Any]:
    """Return the options of a model, by field, that a checkpoint of other ones does not go with."""
    names = (*NETWORK, *TRAINING) if training else NETWORK
    return {f"model.{name}": options[name] for name in names}


def check_restored(
    checkpoint: Mapping[str, Any], data: object, optimizer: Optimizer, schedule: Schedule
) -> None:
    """Refuse a checkpoint that training cannot go on from.

    Args:
        checkpoint: Its content.
        data: The data module after its `setup`, or None.
        optimizer: A fresh optimizer of the config.
        schedule: The schedule of the config.

    Raises:
        UsageError: Classes, optimizer, schedule or, within an epoch, the minibatches differ.
    """
    if isinstance(data, Images):
        described = checkpoint.get("description") or {}
        signs = described.get("classes") or {}
        then = {"data.classes": sorted(signs, key=lambda name: signs[name])} if signs else {}
        check_options({"data.classes": data.class_names}, then)
        check_options(batches_in(data), checkpoint.get("batches") or {})
    check_optimizers([optimizer], checkpoint)
    if not isinstance(schedule, str):
        take_schedulers([schedule(optimizer)], checkpoint)


def batches_of(loader: object) -> dict[str, Any]:
    """Return what decides the minibatches of an epoch, by field; empty if it is not known."""
    if not isinstance(loader, InMemoryBatches):
        return {}
    return {
        "data.batch_size": loader.batch_size,
        "data.order": loader.order,
        "data.seed": loader.seed,
        "data.num_train": loader.num_samples,
    }


def batches_in(data: Images) -> dict[str, Any]:
    """Return the same of a data module, whose loader is not made yet."""
    count = data.num_train_samples
    return {
        "data.batch_size": count if data.batch_size == "full" else data.batch_size,
        "data.order": data.order,
        "data.seed": data.seed,
        "data.num_train": count,
    }
