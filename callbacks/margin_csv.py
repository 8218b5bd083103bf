"""Each sample's margin as a CSV file, written by `predict`."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from janus_pl.errors import UsageError
from janus_pl.run.files import write_atomically
from janus_pl.run.folder import CHECKPOINTS, check_outside
from janus_pl.run.text import cell, printable
from janus_pl.training.subjects import changed_data, subject_of

SPLITS = ("train", "test")
Labels = list[int | float | str]


class MarginCSV(Callback):
    """Writes `split,index,margin,label,file` of every sample that `predict` passes, in data order.

    The label is that of the sample's class, -1 or +1, or an index; a target of several numbers
    leaves it empty. The file is relative to the data's folder, and empty if there are no files.

    Of several processes the first one writes; every one has all margins of a module of ours.
    Lightning divides the samples of another module among them, so there one process is asked for.

    Args:
        path: The file to write; an existing one is replaced. Not set: `margins-ID.csv` in the
            working directory, ID being the run whose checkpoint was given, or else `margins.csv`.
            It is not in the run's folder, for a run that has ended does not change. If the
            checkpoint is of other data (`--allow_data_change`), their fingerprint is in the name.
    """

    def __init__(self, path: str | None = None) -> None:
        self.path = path
        self._margins: list[tuple[str, Tensor, Labels]] = []

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
            labels = _labels(batch, len(outputs))
            self._margins.append((SPLITS[dataloader_idx], outputs, labels))

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        path = self._path(trainer)
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(("split", "index", "margin", "label", "file"))
        files = getattr(getattr(trainer, "datamodule", None), "files", {})
        for split in SPLITS:
            writer.writerows(self._rows(split, files.get(split, ())))
        write_atomically(path, lambda file: file.write(text.getvalue().encode()))
        rank_zero_info(f"Margins written to {path}")

    def _rows(self, split: str, files: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a split; without as many files as samples the column is empty."""
        parts = [(part.tolist(), labels) for name, part, labels in self._margins if name == split]
        samples = [pair for part, labels in parts for pair in zip(part, labels, strict=True)]
        named = files if len(files) == len(samples) else [""] * len(samples)
        for i, ((margin, label), file) in enumerate(zip(samples, named, strict=True)):
            yield split, i, margin, label, cell(printable(file))

    def _path(self, trainer: Trainer) -> Path:
        if self.path is not None:
            return Path(self.path).expanduser()
        folder, names = Path(trainer.ckpt_path or "").resolve().parent, ["margins"]
        if folder.name == CHECKPOINTS:  # RUN/checkpoints/last.ckpt
            names.append(folder.parent.name)
        if other := changed_data(trainer):
            names.append(other)
        return Path("-".join(names) + ".csv")


def _labels(batch: Any, count: int) -> Labels:
    """Return the labels of a batch's samples; empty texts if it has no label of one number each."""
    given = batch[1] if isinstance(batch, tuple | list) and len(batch) > 1 else None
    if not isinstance(given, Tensor) or given.shape != (count,):
        return [""] * count
    return [int(label) if float(label).is_integer() else label for label in given.tolist()]
