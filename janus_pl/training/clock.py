"""The progress of a fit: the epochs completed, and whether the last one has ended."""

from __future__ import annotations

import math

from lightning.pytorch import Trainer


def epochs_of(trainer: Trainer) -> int:
    """Return the epochs that the trainer has completed, in every hook from an epoch's end on."""
    return trainer.fit_loop.epoch_progress.current.processed  # type: ignore[attr-defined]


def epochs_reached(trainer: Trainer) -> float:
    """Return the epochs behind the weights, at an epoch's end.

    It is `epochs_of`, unless the trainer broke the epoch off (`max_steps`, `max_time`): 14 steps of
    9 an epoch are 1.556 epochs.
    """
    epochs, batches = epochs_of(trainer), trainer.num_training_batches
    done = trainer.fit_loop.epoch_loop.batch_progress.current.completed
    if math.isfinite(batches) and 0 < done < batches:
        return epochs - 1 + done / batches
    return epochs


def steps_of(trainer: Trainer) -> int | None:
    """Return the optimizer steps in an epoch; None for a stream without an end."""
    batches = trainer.num_training_batches
    if not math.isfinite(batches):
        return None
    return math.ceil(batches / trainer.accumulate_grad_batches)


def is_last_epoch(trainer: Trainer) -> bool:
    """Tell whether the epoch that just ended is the last one, as far as can be known now."""
    epochs, steps = trainer.max_epochs or -1, trainer.max_steps
    ended = 0 < epochs <= trainer.current_epoch + 1 or 0 < steps <= trainer.global_step
    return ended or trainer.should_stop
