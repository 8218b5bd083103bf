"""A module and data of somebody else, as a command line names them."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


class Classifier(LightningModule):
    """Three classes, dropout, AdamW, its own metrics of an epoch."""

    def __init__(self, lr: float = 0.02, weight_decay: float = 0.1) -> None:
        super().__init__()
        self.lr, self.weight_decay = lr, weight_decay
        self.network = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Dropout(0.2), nn.Linear(5, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log("own/loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("own/val", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), self.lr, weight_decay=self.weight_decay)


class Samples(LightningDataModule):
    """Twenty samples in batches of four, shuffled."""

    def __init__(self, batch_size: int = 4) -> None:
        super().__init__()
        self.batch_size = batch_size
        x = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
        self.samples = TensorDataset(x, torch.arange(20) % 3)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.samples, self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.samples, 10)
