"""The newest and the best state of a run, in `checkpoints/` of its folder."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, tensor

from janus_pl.errors import UsageError, check_integer
from janus_pl.run.record import is_in
from janus_pl.training.clock import is_last_epoch

PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")
LOSSES = ("train/loss_running", "train/loss")


class RunCheckpoint(ModelCheckpoint):
    """Keeps `last.ckpt` and `best.ckpt`: every n epochs and at the end of the run.

    Linear regression counts the looks of callbacks instead of epochs. Under the command line the
    file that `last.ckpt` replaces stays as `previous.ckpt` (`janus_pl.training.checkpoints`).

    Args:
        every_n_epochs: The interval n.
        monitor: The key of the record whose smallest value among the saved epochs is the best.
            Not set: `train/loss_running`, or `train/loss` where the former is not recorded, as in
            linear regression. Both are of every epoch; of a number that is not, take care that n
            meets its epochs, for it keeps its last value in between.
        mode: `max` if the largest value is the best.
    """

    def __init__(
        self,
        every_n_epochs: int = 10,
        monitor: str | None = None,
        mode: Literal["min", "max"] = "min",
    ) -> None:
        check_integer("callbacks.RunCheckpoint.every_n_epochs", every_n_epochs, 1)
        if mode not in ("min", "max"):
            raise UsageError("callbacks.RunCheckpoint.mode", mode, "min, max")
        self.monitors = (monitor,) if monitor else LOSSES
        super().__init__(
            filename="best",
            monitor=self.monitors[0],
            mode=mode,
            save_last=True,
            every_n_epochs=every_n_epochs,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )
        self._said = False
        self._starts_saved = False
        self._is_own = False

    @property
    def state_key(self) -> str:
        return type(self).__qualname__  # a run may go on with another n

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._starts_saved = self._is_own = False
        with warnings.catch_warnings():
            # A run that is resumed has a folder with a checkpoint, and no other run comes there.
            warnings.filterwarnings("ignore", message="Checkpoint directory .* is not empty")
            super().setup(trainer, pl_module, stage)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        # `predict` and `test` read a checkpoint of a folder that is not theirs to write to. A
        # folder has many spellings and may be renamed: the file read tells whose folder it is.
        self._is_own = self.dirpath is not None and is_in(trainer.ckpt_path, Path(self.dirpath))

    def state_dict(self) -> dict[str, Any]:
        return _in_folder(super().state_dict(), None)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self._is_own and state_dict["monitor"] == self.monitor:
            state = _in_folder(state_dict, self.dirpath)
            if state["best_model_path"] and not Path(state["best_model_path"]).is_file():
                return  # the next one saved is the best there is
            super().load_state_dict(state)
            self.current_score = state["current_score"]  # ModelCheckpoint leaves it out
            self._starts_saved = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        # A run that goes on after its last step has that one saved; another fit has saved none.
        self._last_global_step_saved = trainer.global_step if self._starts_saved else 0

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # ModelCheckpoint would save the last only where it is the best. The last epoch is saved
        # here and not in `on_train_end`: a callback may change the weights of its row there.
        if (trainer.current_epoch + 1) % self._every_n_epochs == 0 or is_last_epoch(trainer):
            self.save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # ModelCheckpoint would leave out the last epochs of a run that n does not divide.
        self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Save now, unless this step has been saved: the best, where it is, and then the last."""
        if self._should_skip_saving_checkpoint(trainer):
            return
        candidates = self._monitor_candidates(trainer)
        if self.monitor in candidates:
            self._save_topk_checkpoint(trainer, candidates)
        self._save_last_checkpoint(trainer, candidates)

    def _monitor_candidates(self, trainer: Trainer) -> dict[str, Tensor]:
        # ModelCheckpoint copies every metric every epoch, for a file name that has none in it.
        candidates = {"epoch": tensor(trainer.current_epoch), "step": tensor(trainer.global_step)}
        metrics = trainer.callback_metrics
        name = next((name for name in self.monitors if name in metrics), None)
        if name is not None:
            candidates[self.monitors[0]] = metrics[name].clone()
        elif not self._said:
            self._said = True
            names = " or ".join(self.monitors)
            rank_zero_info(f"RunCheckpoint: no {names} is recorded, so no best.ckpt is kept")
        return candidates


def _in_folder(state: dict[str, Any], folder: Any) -> dict[str, Any]:
    """Return a state whose files lie in a folder; None leaves their names alone."""

    def placed(path: str) -> str:
        name = Path(path).name
        return name if folder is None or not name else os.path.join(folder, name)

    named = {key: placed(state[key]) for key in PATHS}
    models = {placed(path): score for path, score in state["best_k_models"].items()}
    return state | named | {"best_k_models": models, "dirpath": folder}
