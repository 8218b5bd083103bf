"""A progress bar with the numbers of this experiment."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.trainer.states import TrainerFn

from janus_pl.training.subjects import subject_of

SHOWN = {
    "loss": ("train/loss_running", "train/loss"),
    "error": ("train/error_running", "train/error"),
    "rho": ("rho",),
    "margin": ("margin/mean", "margin_raw/mean"),
    "null": ("null/norm",),
}
SCIENTIFIC = ("rho", "margin", "null")
PERIOD = 0.1  # seconds between two refreshes of a bar over the whole run


class ProgressBar(RichProgressBar):
    """Rich progress bar with loss, error, rho and the margins' mean, as of the last epoch.

    One bar an epoch; where the epochs are short, as in linear regression, one over the whole run.

    Args:
        refresh_rate: batches between two refreshes.
    """

    def __init__(self, refresh_rate: int = 1) -> None:
        super().__init__(refresh_rate=refresh_rate)
        self._shown: dict[str, float | str] = {}
        self._drawn = 0.0

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        training = trainer.state.fn == TrainerFn.FITTING
        progress = subject_of(trainer, pl_module).row.numbers if training else {}
        for name, keys in SHOWN.items():
            value = next((progress[k] for k in keys if k in progress), None)
            if value is not None:  # the margins stay on show between two looks
                self._shown[name] = f"{value:.3e}" if name in SCIENTIFIC else value
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return {**metrics, **self._shown}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if (planned := self._planned(trainer, pl_module)) is None:
            super().on_train_epoch_start(trainer, pl_module)
        elif self.progress is not None and self.train_progress_bar_id is None:
            self.train_progress_bar_id = self._add_task(planned, "Training")

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if self._planned(trainer, pl_module) is None:
            super().on_train_batch_end(trainer, pl_module, *args)
        else:
            self._draw(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._planned(trainer, pl_module) is None:
            super().on_train_epoch_end(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._planned(trainer, pl_module) is not None:
            self._draw(trainer, pl_module, last=True)
        super().on_train_end(trainer, pl_module)

    def _planned(self, trainer: Trainer, module: LightningModule) -> int | None:
        """The length of the run that one bar shows; None for a bar an epoch."""
        return subject_of(trainer, module).planned

    def _draw(self, trainer: Trainer, module: LightningModule, last: bool = False) -> None:
        if last or time.monotonic() - self._drawn > PERIOD:
            self._drawn = time.monotonic()
            completed = subject_of(trainer, module).completed()
            self._update(self.train_progress_bar_id, completed, hard=last)
            self._update_metrics(trainer, module)
