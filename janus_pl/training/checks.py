"""Callbacks under which a row's numbers would not be of one set of weights."""

from __future__ import annotations

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging

from janus_pl.errors import UsageError

AVERAGES = StochasticWeightAveraging, WeightAveraging


def check_rows(trainer: Trainer) -> None:
    """Refuse averages of weights.

    An average is in checkpoints and in `val/*` while `margin/*` and ranks are of the weights in
    training.

    Args:
        trainer: The trainer before its fit.

    Raises:
        UsageError: There is such an option.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, AVERAGES):
            allowed = "no average of weights: val/* and checkpoints would be of the average, "
            allowed += "ranks and margins of the weights in training"
            raise UsageError("trainer.callbacks", type(callback).__name__, allowed)
