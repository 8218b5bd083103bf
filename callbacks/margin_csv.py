"""Each sample's margin as a CSV file, written by `predict`."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from janus_pl.errors import UsageError
from janus_pl.run.files import write_atomically
from janus_pl.run.folder import CHECKPOINTS, check_outside
from janus_pl.training.subjects import subject_of

SPLITS = ("train", "test")


class MarginCSV(Callback):
    """Writes `split,index,margin` for every sample that `predict` passes, in data order.

    Of several processes the first one writes; every one has all margins of a module of ours.
    Lightning divides the samples of another module among them, so there one process is asked for.

    Args:
        path: the file to write; an existing one is replaced. Not set: `margins-ID.csv` in the
            working directory, ID being the run whose checkpoint was given, or else `margins.csv`.
            It is not in the run's folder, for a run that has ended does not change.
    """

    def __init__(self, path: str | None = None) -> None:
        self.path = path
        self._margins: list[tuple[str, Tensor]] = []

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.world_size > 1 and not subject_of(trainer, pl_module).shares_samples:
            allowed = "1 process in all, for callbacks.MarginCSV of somebody else's module"
            raise UsageError("trainer.devices", trainer.world_size, allowed)
        check_outside("callbacks.MarginCSV.path", self._path(trainer))
        self._margins = []

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if trainer.is_global_zero:
            self._margins.append((SPLITS[dataloader_idx], outputs))

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        path = self._path(trainer)
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(("split", "index", "margin"))
        for split in SPLITS:
            margins = [m for name, part in self._margins if name == split for m in part.tolist()]
            writer.writerows((split, i, margin) for i, margin in enumerate(margins))
        write_atomically(path, lambda file: file.write(text.getvalue().encode()))
        rank_zero_info(f"Margins written to {path}")

    def _path(self, trainer: Trainer) -> Path:
        if self.path is not None:
            return Path(self.path).expanduser()
        folder = Path(trainer.ckpt_path or "").resolve().parent
        if folder.name == CHECKPOINTS:  # RUN/checkpoints/last.ckpt
            return Path(f"margins-{folder.parent.name}.csv")
        return Path("margins.csv")
