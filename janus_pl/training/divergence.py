"""A run that diverged: its outcome in the record, and the error that ends the run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from lightning.pytorch import Trainer

from janus_pl.errors import DivergenceError, UsageError
from janus_pl.training.row import write_whole

OnDivergence = Literal["stop", "record"]


def check_on_divergence(value: object) -> None:
    """Raise a UsageError unless the value is "stop" or "record"."""
    if value not in get_args(OnDivergence):
        raise UsageError("model.on_divergence", value, ", ".join(get_args(OnDivergence)))


def diverged(
    trainer: Trainer,
    message: str,
    step: int,
    axes: Mapping[str, float],
    on_divergence: OnDivergence,
    count: int = 1,
) -> DivergenceError:
    """Write the outcome as the last row, which becomes W&B's summary, and return the error.

    Args:
        trainer: The trainer of the run.
        message: The error in one line.
        step: The first step that was not sound.
        axes: The `epoch`, `trainer/global_step` and `eta_t`. The epoch is also written as
            `diverged/epoch`, which no later row changes.
        on_divergence: The option: `record` if the config asked for this outcome, else `stop`.
        count: The number of replicas that diverged.
    """
    outcome: dict[str, float] = {"diverged": True if count == 1 else count}
    outcome |= {"diverged/epoch": axes["epoch"], "diverged/step": step}
    write_whole(trainer, {**outcome, **axes})
    return DivergenceError(message, recorded=on_divergence == "record")
