"""The epoch's row: collected, completed, written once, kept in a checkpoint.

This module alone writes rows; `janus_pl.run.record` hands them to the folder and the loggers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Trainer

from janus_pl.errors import UsageError
from janus_pl.run.record import write_row
from janus_pl.run.rows import Value, plain_row, row_of

LOG = "self.log"  # the writer of Lightning's own metrics, and what a message calls it


class Row:
    """The row of the epoch under way.

    Attributes:
        values: What the row holds so far, by key.
        numbers: The numbers of the last row that was completed, by key.
    """

    def __init__(self) -> None:
        self.values: dict[str, Value] = {}
        self.numbers: dict[str, float] = {}
        self._axes: dict[str, float] | None = None
        self._completed: dict[str, Value] = {}
        self._writers: dict[str, object] = {}

    @property
    def waits(self) -> bool:
        """Whether the row is complete and not written yet."""
        return self._axes is not None

    def put(self, values: Mapping[str, Value], by: object = None) -> None:
        """Add values; a key that is there already takes the new value of the same writer.

        Args:
            values: The values by key.
            by: The writer; None is the module itself.

        Raises:
            UsageError: Another writer has written one of these keys.
        """
        for key in values:
            other = self._writers.setdefault(key, by)
            # The module completes what a callback of ours has begun: one number for both.
            ours = None in (other, by) and LOG not in (other, by)
            if other is not by and not ours:
                first, second = _called(other), _called(by)
                both = f"{first} twice" if first == second else f"{first} and {second}"
                raise UsageError("trainer.callbacks", both, f"one writer of each key; both: {key}")
        self.values.update(values)

    def leave_out(self, prefix: str) -> list[str]:
        """Drop the values whose keys begin so, and return these keys."""
        keys = [key for key in self.values if key.startswith(prefix)]
        for key in keys:
            del self.values[key]
        return keys

    def back(self) -> None:
        """Drop what was added after the row was completed, for it is of other weights."""
        self.values = dict(self._completed)

    def complete(self, trainer: Trainer, axes: Mapping[str, float]) -> None:
        """Close the row, except for callbacks that still run after it.

        Its numbers become metrics of the trainer, so that checkpoints and early stopping can
        monitor them. A number that is not recorded in every epoch keeps its last value between two
        looks, as Lightning's own metrics do: monitor one of every epoch, such as
        `train/loss_running`.

        Args:
            trainer: The trainer of the run.
            axes: The `epoch`, `trainer/global_step` and `eta_t`.
        """
        self._axes, self._completed = dict(axes), dict(self.values)
        row = {**self.values, **axes}
        self.numbers = {k: float(v) for k, v in row.items() if isinstance(v, int | float)}
        tensors = torch.tensor([*self.numbers.values()], dtype=torch.float64)
        trainer.callback_metrics.update(zip(self.numbers, tensors.unbind(), strict=True))

    def write(self, trainer: Trainer) -> None:
        """Write the row if it is complete, and start the next."""
        if self._axes is not None:
            row = {**self.values, **self._axes}
            self.forget()
            write_row(trainer, row)

    def forget(self) -> None:
        """Drop what has been collected, such as the rest of an earlier fit."""
        self.values, self._axes, self._writers = {}, None, {}

    def state(self) -> dict[str, Any]:
        """Return the row's part of a checkpoint, in plain values."""
        return {"row": plain_row(self.values), "axes": self._axes and dict(self._axes)}

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore the row from a checkpoint."""
        self.values, self._axes = row_of(state["row"]), state["axes"] and dict(state["axes"])


def _called(writer: object) -> str:
    """Return a writer's name: its class, or what it is called."""
    if writer is None:
        return "the module"
    return writer if isinstance(writer, str) else type(writer).__name__


def write_whole(trainer: Trainer, row: Mapping[str, Value]) -> None:
    """Write a row that was never the epoch's, such as an earlier record or an outcome."""
    write_row(trainer, row)
