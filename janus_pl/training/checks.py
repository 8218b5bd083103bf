"""Options under which a row's numbers would not be of one set of weights in float32 or better."""

from __future__ import annotations

from lightning.pytorch import Trainer

from janus_pl.errors import UsageError
from janus_pl.training.callback_checks import check_callbacks


def check_rows(trainer: Trainer) -> None:
    """Refuse callbacks that a record cannot have, and weights of half precision.

    Weights of half precision have margins of 0.

    Args:
        trainer: The trainer before its fit.

    Raises:
        UsageError: There is such an option.
    """
    check_callbacks(trainer, trainer.lightning_module)
    precision = str(trainer.precision)
    if precision.startswith("transformer-engine") or precision in ("16-true", "bf16-true"):
        allowed = "32-true, 64-true or bf16-mixed, for ranks and margins need float32 weights"
        raise UsageError("trainer.precision", precision, allowed)
