"""Each sample's margin as a CSV file, written by `predict`."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import rank_zero_info

SPLITS = ("train", "test")


class MarginCSV(BasePredictionWriter):
    """Writes `split,index,margin` for every sample that `predict` passed, in data order.

    Args:
        path: the file to write; an existing one is replaced.
    """

    def __init__(self, path: str = "margins.csv") -> None:
        super().__init__(write_interval="epoch")
        self.path = Path(path)

    def write_on_epoch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        predictions: Sequence[Any],
        batch_indices: Sequence[Any],
    ) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("split", "index", "margin"))
            for split, batches in zip(SPLITS, predictions, strict=False):
                margins = [m for batch in batches for m in batch.tolist()]
                writer.writerows((split, i, m) for i, m in enumerate(margins))
        rank_zero_info(f"Margins written to {self.path}")
