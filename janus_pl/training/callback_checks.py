"""The callbacks of Lightning that a run cannot have, and why; all others are supported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    BaseFinetuning,
    BatchSizeFinder,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelPruning,
    SpikeDetection,
    StochasticWeightAveraging,
    WeightAveraging,
)
from torch import nn

from janus_pl.errors import UsageError
from janus_pl.training.subject import Subject

_AVERAGE = (
    "no average of weights: val/* and checkpoints would be of the average, ranks and margins of the"
    " weights in training"
)
# What is allowed instead, for every module.
REFUSED: dict[type, str] = {
    StochasticWeightAveraging: _AVERAGE,
    WeightAveraging: _AVERAGE,
    ModelPruning: (
        "no pruning: a pruned weight is a product with a mask and no parameter, so its rank and"
        " velocity would not be those of what is trained"
    ),
    GradientAccumulationScheduler: (
        "one batch size for the whole run, which the record names: trainer.accumulate_grad_batches,"
        " or data.micro_batch_size of a classifier of this package"
    ),
}
# The same, for the tasks of this package alone.
REFUSED_OURS: dict[type, str] = {
    LearningRateFinder: (
        "model.learning_rate: the config is what runs, and a tuner's trial needs automatic"
        " optimization; try several rates by `python -m janus_pl sweep`"
    ),
    BatchSizeFinder: (
        "data.batch_size: the config is what runs; data.micro_batch_size bounds the memory"
    ),
    BaseFinetuning: (
        "no frozen layer: margins, velocities and equilibrium are of a network of which every"
        " layer is trained"
    ),
    SpikeDetection: (
        "model.on_divergence, for a loss that is not finite; a step that is left out would not be"
        " one of SGD"
    ),
}


def check_callbacks(trainer: Trainer, module: LightningModule) -> None:
    """Refuse callbacks with which the record would not be what it says, or that would do nothing.

    Args:
        trainer: The trainer before its fit.
        module: The module that it will train.

    Raises:
        UsageError: There is such a callback.
    """
    refuse(trainer, REFUSED)
    if isinstance(module, Subject):
        refuse(trainer, REFUSED_OURS)
    given: Sequence[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    if any(isinstance(callback, BackboneFinetuning) for callback in given):
        _check_backbone(module)


def refuse(trainer: Trainer, table: Mapping[type, str]) -> None:
    """Refuse callbacks of the classes in a table, which says what is allowed instead.

    Raises:
        UsageError: There is such a callback.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        refuse_class(type(callback), table)


def refuse_class(given: type, table: Mapping[type, str] = REFUSED) -> None:
    """Refuse a class of callbacks, or a subclass, that is in a table.

    Raises:
        UsageError: It is there.
    """
    for kind, allowed in table.items():
        if issubclass(given, kind):
            raise UsageError("trainer.callbacks", given.__name__, allowed)


def _check_backbone(module: LightningModule) -> None:
    if not isinstance(getattr(module, "backbone", None), nn.Module):
        allowed = f"a module with a part `backbone`, which {type(module).__name__} has not"
        raise UsageError("trainer.callbacks", "BackboneFinetuning", allowed)
