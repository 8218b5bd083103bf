"""A project of somebody else's: a package, a config and a LightningCLI, written into a folder."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

FILES = {
    "clusters/__init__.py": "",
    "clusters/net.py": """
import torch
from lightning.pytorch import LightningModule
from torch import nn


class Net(LightningModule):
    def __init__(self, lr: float = 0.2, weight_decay: float = 1e-3, gamma: float = 1.0):
        super().__init__()
        self.save_hyperparameters()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU())
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.body(x))

    def focal(self, outputs, y):
        log_p = torch.log_softmax(outputs, 1).gather(1, y[:, None])[:, 0]
        return -((1 - log_p.exp()) ** self.hparams.gamma * log_p).mean()

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = self.focal(self(x), y)
        self.log("focal", loss, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self):
        decay = self.hparams.weight_decay
        return torch.optim.SGD(self.parameters(), self.hparams.lr, weight_decay=decay)


class ByHand(Net):
    def __init__(self, gamma: float = 1.0):
        super().__init__(gamma=gamma)
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        for optimizer in self.optimizers():
            optimizer.zero_grad()
        self.manual_backward(self.focal(self(batch[0]), batch[1]))
        for optimizer in self.optimizers():
            optimizer.step()

    def configure_optimizers(self):
        head = torch.optim.Adam(self.head.parameters(), 0.01)
        return [torch.optim.SGD(self.body.parameters(), 0.1), head]
""",
    "clusters/data.py": """
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, TensorDataset


class Clusters(LightningDataModule):
    def __init__(self, batch_size: int = 8):
        super().__init__()
        self.save_hyperparameters()

    def setup(self, stage):
        generator = torch.Generator().manual_seed(0)
        means = 2 * torch.randn(4, 6, generator=generator)
        y = torch.arange(32) % 4
        x = means[y] + torch.randn(32, 6, generator=generator)
        self.noisy = torch.arange(32) % 5 == 0
        self.train = TensorDataset(x, torch.where(self.noisy, (y + 1) % 4, y))

    def train_dataloader(self):
        return DataLoader(self.train, self.hparams.batch_size, shuffle=True)
""",
    "main.py": """
import sys

from lightning.pytorch.cli import LightningCLI

from clusters import net
from clusters.data import Clusters

if __name__ == "__main__":
    LightningCLI(net.ByHand if "by_hand.yaml" in sys.argv else net.Net, Clusters)
""",
    "sgd.yaml": """
trainer:
  max_epochs: 6
  accelerator: cpu
  enable_progress_bar: false
  enable_model_summary: false
  logger:
    class_path: janus_pl.run.logger.RunLogger
  callbacks:
    - class_path: janus_pl.callbacks.MarginHistogram
    - class_path: janus_pl.callbacks.LayerRank
    - class_path: janus_pl.callbacks.LayerVelocity
    - class_path: janus_pl.callbacks.NeuralCollapse
    - class_path: janus_pl.callbacks.RunCheckpoint
""",
    "by_hand.yaml": """
trainer:
  max_epochs: 2
  accelerator: cpu
  enable_progress_bar: false
  enable_model_summary: false
  logger:
    class_path: janus_pl.run.logger.RunLogger
  callbacks:
    - class_path: janus_pl.callbacks.GradientNoise
    - class_path: janus_pl.callbacks.LayerVelocity
    - class_path: janus_pl.callbacks.LayerRank
""",
}


def write(folder: Path) -> None:
    """Write the project into a folder."""
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text.lstrip())


def run_each(folder: Path, lines: Sequence[Sequence[str]]) -> None:
    """Run `python main.py LINE` of the project in this process, one line after the other."""
    import wandb

    os.chdir(folder)
    sys.path.insert(0, str(folder))
    os.environ.pop("WANDB_SERVICE", None)  # of the tests' own process
    os.environ |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    with open(folder / "said.txt", "w", buffering=1) as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
        for line in lines:
            sys.argv = ["main.py", *line]
            runpy.run_path("main.py", run_name="__main__")
            wandb.finish()
