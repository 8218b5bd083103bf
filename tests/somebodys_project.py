"""A project of somebody else's: three callbacks, and no package but torch, lightning and numpy.

Run as a script it trains in the working directory, and prints the names of all modules.
"""

import sys
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader, TensorDataset

from janus_pl.callbacks import LayerRank, LayerVelocity, MarginHistogram


class Net(LightningModule):
    """Two layers that know nothing of `janus_pl`."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = torch.nn.Linear(6, 5), torch.nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(torch.relu(self.one(x)))

    def training_step(self, batch: Any, number: int) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def main() -> None:
    seed_everything(0)
    data = TensorDataset(torch.randn(24, 6), torch.randint(0, 3, (24,)))
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=CSVLogger("logs", version="one"),
        callbacks=[MarginHistogram(), LayerVelocity(), LayerRank()],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Net(), DataLoader(data, batch_size=8))
    print("done", *sys.modules)


if __name__ == "__main__":
    main()
