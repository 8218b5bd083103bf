"""A progress bar with the numbers of this experiment."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar

SHOWN = {
    "loss": ("train/loss_running", "train/loss"),
    "error": ("train/error_running", "train/error"),
    "rho": ("rho",),
    "margin": ("margin/mean",),
}


class ProgressBar(RichProgressBar):
    """Rich progress bar with loss, error, rho and the margins' mean, as of the last epoch.

    Args:
        refresh_rate: batches between two refreshes.
    """

    def __init__(self, refresh_rate: int = 1) -> None:
        super().__init__(refresh_rate=refresh_rate)
        self._shown: dict[str, float | str] = {}

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        progress = getattr(pl_module, "progress", {})
        for name, keys in SHOWN.items():
            value = next((progress[k] for k in keys if k in progress), None)
            if value is not None:  # the margins stay on show between two looks
                self._shown[name] = f"{value:.3e}" if name in ("rho", "margin") else value
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return {**metrics, **self._shown}
