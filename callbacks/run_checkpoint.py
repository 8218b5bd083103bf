"""The newest state of a run, as `checkpoints/last.ckpt` in its folder."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from callbacks._observer import check_count


class RunCheckpoint(ModelCheckpoint):
    """Keeps one checkpoint, `last.ckpt`: every n epochs and at the end of the run.

    Args:
        every_n_epochs: n.
    """

    def __init__(self, every_n_epochs: int = 10) -> None:
        check_count("RunCheckpoint.every_n_epochs", every_n_epochs, 1)
        super().__init__(
            filename="last",
            every_n_epochs=every_n_epochs,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        with warnings.catch_warnings():
            # A run that is resumed has a folder with a checkpoint, and no other run comes there.
            warnings.filterwarnings("ignore", message="Checkpoint directory .* is not empty")
            super().setup(trainer, pl_module, stage)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # `predict` and `test` read a checkpoint of a folder that is not theirs to write to.
        if state_dict.get("dirpath") == self.dirpath:
            super().load_state_dict(state_dict)

    def _monitor_candidates(self, trainer: Trainer) -> dict[str, Tensor]:
        # ModelCheckpoint copies every metric every epoch, for a file name that has none in it.
        counts = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        return {name: torch.tensor(count) for name, count in counts.items()}

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # ModelCheckpoint would leave out the last epochs of a run that n does not divide.
        if not self._should_skip_saving_checkpoint(trainer):
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))
