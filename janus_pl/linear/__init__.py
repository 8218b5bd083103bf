"""Linear regression W x = y by SGD and GD in float64, exact and fast."""

from janus_pl.linear.batched import run_epochs_torch
from janus_pl.linear.epochs import full_batch_equivalent, reference_epoch, run_epochs
from janus_pl.linear.plan import Piece, Plan, log_spaced
from janus_pl.linear.watch import Watch

__all__ = [
    "Piece",
    "Plan",
    "Watch",
    "full_batch_equivalent",
    "log_spaced",
    "reference_epoch",
    "run_epochs",
    "run_epochs_torch",
]
