"""Host time: a step of a ten-parameter model, and a checkpoint."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO, TorchCheckpointIO
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks import common
from benchmarks.common import fit_seconds, seconds_of, side_by_side
from janus_pl import DeepReLUClassifier
from janus_pl.callbacks import LayerRank, LayerVelocity, MarginHistogram
from janus_pl.data import InMemoryBatches
from janus_pl.deep.losses import square
from janus_pl.deep.normalizations import WeightNorm
from janus_pl.training.checkpoints import VerifiedCheckpointIO

STEPS, B, D = 500, 4, 4


class TinyNet(nn.Module):
    """Eight weights, one gain, one rho."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(D, 2, bias=False)
        self.rho = nn.Parameter(torch.ones(()))

    def weight_layers(self) -> dict[str, nn.Module]:
        return {"fc1": self.layer}

    def forward(self, x: Tensor) -> Tensor:
        return self.rho * self.layer(x)


class TinyTask(DeepReLUClassifier):
    """The project's own task around it."""

    def __init__(self) -> None:
        super().__init__(strides=(1, 1, 1, 1), channels=(1, 1, 1, 1), hidden=1, image_size=9)
        self.network = TinyNet()  # type: ignore[assignment]
        self.parametrization = WeightNorm(self.network)
        assert sum(p.numel() for p in self.parameters()) == 10


class TinyData(LightningDataModule):
    """Batches that are on the device already, as in the project's own data modules."""

    def __init__(self, loader: InMemoryBatches) -> None:
        super().__init__()
        self.loader = loader

    def train_dataloader(self) -> InMemoryBatches:
        return self.loader

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        return batch


class DefaultTask(LightningModule):
    """The same model as a tutorial would write it."""

    def __init__(self) -> None:
        super().__init__()
        self.network = TinyNet()
        WeightNorm(self.network)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        loss = square(self.network(x), y).mean()
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        trained = [p for p in self.parameters() if p.requires_grad]
        return torch.optim.SGD(trained, 0.03, momentum=0.9, weight_decay=1e-3)


def main(rounds: int = 5) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    x, y = torch.randn(STEPS * B, D), torch.sign(torch.randn(STEPS * B))
    ours = TinyData(InMemoryBatches(x, y, B))
    usual = DataLoader(TensorDataset(x, y), batch_size=B, shuffle=True)

    def fit_ours() -> float:
        observers = [MarginHistogram(), LayerVelocity(), LayerRank()]
        return fit_seconds(TinyTask(), ours, 3, observers)

    def fit_default() -> float:
        with TemporaryDirectory() as folder:
            return fit_seconds(
                DefaultTask(),
                usual,
                3,
                logger=CSVLogger(folder),
                enable_checkpointing=True,
                enable_progress_bar=True,
                log_every_n_steps=1,
                default_root_dir=folder,
            )

    seconds = side_by_side({"fit": fit_ours, "default Trainer": fit_default}, rounds)
    print(f"Ten parameters, {STEPS} steps an epoch, one thread")
    for name, value in seconds.items():
        print(f"  {name:<16} {1e6 * value / STEPS:6.0f} us a step")
    print(f"  ratio {seconds['fit'] / seconds['default Trainer']:.3f}  (at most 0.50)")
    checkpoint_time(2 * rounds + 1)


def checkpoint_time(rounds: int) -> None:
    """Saving and loading the default classifier with its momentum, 28 MB."""
    with TemporaryDirectory() as folder:
        trainer = Trainer(
            max_epochs=1,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        trainer.fit(common.classifier(), common.memory_loader(*common.images(common.B)))
        stores = {"ours": VerifiedCheckpointIO(), "Lightning's": TorchCheckpointIO()}

        def save(store: CheckpointIO) -> float:
            trainer.strategy.checkpoint_io = store
            path = Path(folder) / type(store).__name__ / "last.ckpt"
            return seconds_of(lambda: trainer.save_checkpoint(path))

        def load(store: CheckpointIO) -> float:
            path = Path(folder) / type(store).__name__ / "last.ckpt"
            return seconds_of(lambda: store.load_checkpoint(path))

        for name, action in {"saved": save, "loaded": load}.items():
            runs = {k: partial(action, store) for k, store in stores.items()}
            seconds = side_by_side(runs, rounds)
            ratio = seconds["ours"] / seconds["Lightning's"]
            times = ", ".join(f"{k} {1e3 * v:.0f} ms" for k, v in seconds.items())
            print(f"A checkpoint {name}: {times}, ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
