"""The callbacks on a LightningModule that knows nothing of the contract: torchvision's resnet18."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import wandb
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import EarlyStopping
from record_reader import read_rows
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import resnet18

from callbacks import LayerRank, LayerVelocity, MarginHistogram
from janus_pl.errors import UsageError
from janus_pl.run.logger import RunLogger


class Foreign(LightningModule):
    """Cross entropy, automatic optimization, its own logging."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        x, y = batch
        loss = nn.functional.cross_entropy(self(x), y)
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def data(n: int = 12, classes: int = 4, size: int = 32) -> DataLoader:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 3, size, size, generator=generator)
    y = torch.randint(classes, (n,), generator=generator)
    # drop_last and shuffle: the margins still see every sample once.
    return DataLoader(TensorDataset(x, y), batch_size=5, shuffle=True, drop_last=True)


def observed(tmp_path: Path, fit: Any, module: Any, callbacks: Any, epochs: int = 2) -> Any:
    loader = data()
    fit(module, loader, epochs, callbacks, logger=RunLogger(run_dir=tmp_path))
    wandb.finish()
    return loader, read_rows(tmp_path)


def test_resnet18_every_layer_named_and_ranks_right(
    tmp_path: Path, fit: Any, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    module = Foreign(resnet18(num_classes=4))
    callbacks = [MarginHistogram(1), LayerVelocity(), LayerRank(1)]
    loader, rows = observed(tmp_path, fit, module, callbacks, epochs=1)
    (row,) = rows
    layers = {
        name.replace(".", "_"): layer
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    }
    assert len(layers) == 21
    for name, layer in layers.items():
        matrix = layer.weight.detach().flatten(1).double().numpy()
        sigma = np.linalg.svd(matrix / np.linalg.norm(matrix), compute_uv=False)
        assert row[f"rank/{name}"] == (sigma > 1e-3).sum()
        assert row[f"stable_rank/{name}"] == pytest.approx(1 / sigma[0] ** 2, rel=1e-5)
        assert row[f"velocity/{name}"] > 0
    assert {k.removeprefix("rank/") for k in row if k.startswith("rank/")} == set(layers)
    assert "loss" in row, "the module's own metrics share the row"
    assert sum(row["margin/hist.values"]) == len(loader.dataset)

    module.eval()
    x, y = loader.dataset.tensors
    with torch.no_grad():
        outputs = module(x).double()
    margins = []
    for f, label in zip(outputs.tolist(), y.tolist(), strict=True):
        margins.append((f[label] - max(f[:label] + f[label + 1 :])) / 2)
    assert row["margin/mean"] == pytest.approx(np.mean(margins), rel=1e-4)

    said = [r.getMessage() for r in caplog.records if "LayerRank reads" in r.getMessage()]
    assert len(said) == 1
    assert "network_layer1_0_conv1" in said[0]
    assert "skips" in said[0]
    assert "network_bn1" in said[0].split("skips")[1]


class Spy(LayerVelocity):
    """Works the velocity of the last layer out by hand, minibatch by minibatch."""

    def __init__(self) -> None:
        super().__init__()
        self.expected: list[float] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        layer = pl_module.network[1]
        weight, gradient = layer.weight.detach().double(), layer.weight.grad.double()
        direction = weight / weight.norm()
        tangent = gradient - (gradient * direction).sum() * direction
        self.expected.append(float(weight.norm() * tangent.norm()))
        super().on_before_optimizer_step(trainer, pl_module, optimizer)


def test_the_velocity_of_a_plain_layer(tmp_path: Path, fit: Any) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3072, 4, bias=False))
    spy = Spy()
    _, rows = observed(tmp_path, fit, Foreign(network), [spy], epochs=1)
    assert len(spy.expected) == 2
    assert rows[-1]["velocity/network_1"] == pytest.approx(np.mean(spy.expected), rel=1e-5)


def test_looking_leaves_a_foreign_trajectory_unchanged(tmp_path: Path, fit: Any) -> None:
    """Shuffled loader, dropout and batch norm: all draw on state that a look could disturb."""
    ends = []
    for callbacks in ([], [MarginHistogram(1), LayerVelocity(), LayerRank(1)]):
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, 4, 3),
            nn.BatchNorm2d(4),
            nn.Flatten(),
            nn.Dropout(),
            nn.Linear(4 * 900, 4),
        )
        module = Foreign(network)
        fit(module, data(), 3, callbacks)
        ends.append([*module.state_dict().values(), torch.random.get_rng_state()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_what_cannot_be_served_is_said(tmp_path: Path, fit: Any) -> None:
    class Reconstruct(Foreign):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            (x,) = batch
            return self(x).square().mean()

    loader = DataLoader(TensorDataset(torch.randn(6, 3, 4, 4)), batch_size=3)
    module = Reconstruct(nn.Sequential(nn.Flatten(), nn.Linear(48, 2)))
    with pytest.warns(UserWarning, match="MarginHistogram logs nothing for Reconstruct"):
        fit(module, loader, 1, [MarginHistogram(1)])
    with pytest.raises(UsageError, match="full_every_n_epochs"):
        fit(module, loader, 1, [LayerVelocity(full_every_n_epochs=1)])


def test_labels_that_are_no_classes_are_declined(fit: Any) -> None:
    class Regression(Foreign):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            x, y = batch
            return (self(x)[:, 0] - y).square().mean()

    data = TensorDataset(torch.randn(6, 5), 7 * torch.randn(6))
    module = Regression(nn.Linear(5, 1))
    with pytest.warns(UserWarning, match="neither 0 and 1 nor -1"):
        fit(module, DataLoader(data, batch_size=3), 1, [MarginHistogram(1)])


def test_a_module_without_layers_is_left_alone(fit: Any) -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Parameter(torch.ones(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.a * x.flatten(1)[:, :4]

    trainer = fit(Foreign(Scale()), data(), 1, [LayerVelocity(), LayerRank(1)])
    assert trainer.global_step == 2


def test_the_epoch_of_early_stopping_is_recorded(tmp_path: Path, fit: Any) -> None:
    stop = EarlyStopping("loss", patience=2, min_delta=1e9)
    module = Foreign(nn.Sequential(nn.Flatten(), nn.Linear(3072, 4)))
    _, rows = observed(tmp_path, fit, module, [LayerRank(100), stop], epochs=50)
    assert module.trainer.current_epoch == 3
    assert rows[-1]["rank/network_1"] == 4
