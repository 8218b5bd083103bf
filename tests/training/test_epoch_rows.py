"""The rows of somebody else's module: those of a run in parts are those of the whole run."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import wandb
from lightning.pytorch import Callback, LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from training.test_going_on import SaveAt, Stop

from janus_pl.callbacks import LayerRank, LayerVelocity, MarginHistogram, UpdateSplit
from janus_pl.data import InMemoryBatches
from janus_pl.run.logger import RunLogger

SAMPLES, BATCH = 10, 4  # three steps an epoch
CUTS = [(True, 2), (True, 3), (True, 5), (True, 6), (False, 3), (False, 6)]


class Other(LightningModule):
    """Two layers and dropout, Adam, its own metrics of an epoch and of each step."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.network = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Dropout(0.2), nn.Linear(5, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch[:2]
        loss = nn.functional.cross_entropy(self(x), (y > 0).long())
        self.log("own/loss", loss, on_step=False, on_epoch=True, batch_size=len(y))
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch[:2]
        loss = nn.functional.cross_entropy(self(x), (y > 0).long())
        self.log("own/val", loss, batch_size=len(y))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 0.02)


def loader(goes_on: bool, shuffle: bool = True) -> Any:
    """PyTorch's, which begins an epoch anew, or one that goes on within it."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(SAMPLES, 6, generator=generator), 2.0 * (torch.arange(SAMPLES) % 2) - 1
    if goes_on:
        return InMemoryBatches(x, y, BATCH, order="shuffle" if shuffle else "sequential", seed=3)
    return DataLoader(TensorDataset(x, y), BATCH, shuffle=shuffle)


def looks() -> list[Callback]:
    return [MarginHistogram(1), LayerVelocity(), LayerRank(2), UpdateSplit()]


def rows_of(folder: Path) -> list[dict[str, Any]]:
    (path,) = folder.rglob("rows.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "_seal"} for row in rows]


@pytest.mark.parametrize(("goes_on", "cut"), CUTS)
def test_in_parts_it_is_the_same_record(goes_on: bool, cut: int, fit: Any, tmp_path: Path) -> None:
    """Cut within an epoch, or at its end."""
    records = []
    for parts in (False, True):
        folder, checkpoint = tmp_path / str(parts), tmp_path / "a.ckpt"
        torch.manual_seed(7)
        logger = RunLogger(run_dir=folder)
        options = {"val_loader": loader(goes_on, shuffle=False), "enable_checkpointing": True}
        if parts:
            with pytest.raises(Stop):
                used = [*looks(), SaveAt(cut, checkpoint)]
                fit(Other(), loader(goes_on), 3, used, logger=logger, **options)
            wandb.finish()
            torch.manual_seed(99)
            logger = RunLogger(run_dir=folder, resumed=logger.folder)
            options["ckpt_path"] = checkpoint
        fit(Other(), loader(goes_on), 3, looks(), logger=logger, **options)
        wandb.finish()
        records.append(rows_of(folder))
    whole, parts_of_it = records
    assert [row["epoch"] for row in whole] == [0, 1, 2, 3]
    assert [row["trainer/global_step"] for row in whole] == [0, 3, 6, 9]
    assert [row["eta_t"] for row in whole] == pytest.approx([0, 0.06, 0.12, 0.18])
    assert all({"own/loss", "own/val", "velocity/network_0"} <= row.keys() for row in whole[1:])
    assert any(key.startswith("margin_raw/") for key in whole[0])
    # Lightning's checkpoints lack its mean over an epoch: cut within, it is that of the rest.
    broken = math.ceil(cut / 3) if cut % 3 else None
    for one, other in zip(parts_of_it, whole, strict=True):
        assert one.keys() == other.keys()
        unlike = [key for key in one if one[key] != other[key]]
        assert unlike == (["own/loss"] if one["epoch"] == broken else [])
