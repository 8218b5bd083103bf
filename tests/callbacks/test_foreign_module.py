"""The callbacks on a LightningModule that knows nothing of the contract: torchvision's resnet18."""

from __future__ import annotations

from collections.abc import Iterator
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
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from torchvision.models import resnet18

from janus_pl.callbacks import LayerRank, LayerVelocity, MarginHistogram, NeuralCollapse
from janus_pl.errors import UsageError
from janus_pl.run.logger import RunLogger
from janus_pl.training.weights import told_of


class Foreign(LightningModule):
    """Cross entropy, automatic optimization, its own logging."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.losses: list[float] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        x, y = batch
        loss = nn.functional.cross_entropy(self(x), y)
        self.log("loss", loss, on_step=False, on_epoch=True)
        self.losses.append(float(loss.detach()))
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


def said_of(callback: str, caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if callback in r.getMessage()]


def margins_by_hand(module: LightningModule, loader: Any) -> list[float]:
    """Half the lead of each sample's class over the best of the others, in evaluation."""
    module.eval()
    x, y = loader.dataset.tensors
    with torch.no_grad():
        outputs = module(x).double()
    return [
        (f[label] - max(f[:label] + f[label + 1 :])) / 2
        for f, label in zip(outputs.tolist(), y.tolist(), strict=True)
    ]


def test_resnet18_every_layer_named_and_ranks_right(tmp_path: Path, fit: Any) -> None:
    torch.manual_seed(0)
    module = Foreign(resnet18(num_classes=4))
    callbacks = [MarginHistogram(1), LayerVelocity(), LayerRank(1)]
    loader, rows = observed(tmp_path, fit, module, callbacks, epochs=1)
    start, row = rows
    axes = [(r["epoch"], r["trainer/global_step"], r["eta_t"]) for r in rows]
    assert axes == [(0, 0, 0), (1, 2, pytest.approx(2 * 0.01))]
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
    assert {k.partition("/")[2] for k in start if k.startswith("rank/")} == set(layers)
    assert not [k for k in start if k.startswith(("velocity/", "loss"))], "no step, no gradient"
    assert row["loss"] == pytest.approx(np.mean(module.losses), rel=1e-6)
    for each in rows:
        assert sum(each["margin_raw/hist.values"]) == len(loader.dataset)
        assert not [k for k in each if k.startswith("margin/")], "those are normalized"
    expected = margins_by_hand(module, loader)
    assert row["margin_raw/mean"] == pytest.approx(np.mean(expected), rel=1e-4)


def test_layers_are_named_once_for_all_callbacks_in_the_order_of_the_forward_pass(
    fit: Any, caplog: pytest.LogCaptureFixture
) -> None:
    module = Foreign(resnet18(num_classes=4))
    for fits in (1, 2):
        fit(module, data(), 1, [LayerVelocity(), LayerRank(1)], limit_train_batches=1)
        said = said_of("that callbacks read", caplog)
        assert len(said) == fits
    read, skipped = said[0].removeprefix("Layers of Foreign that callbacks read: ").split("; ")
    order: list[str] = []
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            own = name.replace(".", "_")
            layer.register_forward_hook(lambda *_, name=own: order.append(name))
    module(torch.zeros(2, 3, 32, 32))
    assert len(order) == 21
    assert read.split(", ") == order
    # The batch norms' parameters and the last bias: 2 * 20 + 1, the others are counted.
    assert skipped == "skipped: network_bn1 and 40 more (a vector)"


def test_few_parameters_that_are_skipped_are_named_each() -> None:
    few = {"a": "a vector", "b": "a vector", "c": "a scalar"}
    said = told_of("Mine", ["x"], few)
    assert said.endswith("read: x; skipped: a (a vector), b (a vector), c (a scalar)")
    assert told_of("Mine", [], {}).endswith("read: no layer; skipped: none")


class Backwards(nn.Module):
    """The layers that come last are registered first."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(5, 4)
        self.first = nn.Linear(3072, 6)
        self.between = nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.tanh(self.between(torch.tanh(self.first(x.flatten(1))))))


def test_layers_are_in_the_order_of_the_forward_pass_and_not_of_registration(
    fit: Any, rows: Any, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    network = Backwards()
    module = Foreign(network)
    fit(module, data(), 1, [LayerRank(1), LayerVelocity()])
    names = ["network_first", "network_between", "network_last"]
    (said,) = said_of("that callbacks read", caplog)
    assert f"read: {', '.join(names)}; skipped" in said
    columns, lines = rows[-1]["spectrum_table"]
    assert columns == ("layer", "index", "sigma")
    assert [layer for layer, index, _ in lines if index == 0] == names
    # Each number is of the layer that it is named after.
    for name, layer in zip(names, (network.first, network.between, network.last), strict=True):
        weight = layer.weight.detach().double().numpy()
        sigma = np.linalg.svd(weight / np.linalg.norm(weight), compute_uv=False)
        assert rows[-1][f"stable_rank/{name}"] == pytest.approx(1 / sigma[0] ** 2, rel=1e-5)


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


def test_what_cannot_be_served_is_said(
    tmp_path: Path, fit: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Reconstruct(Foreign):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            (x,) = batch
            return self(x).square().mean()

    loader = DataLoader(TensorDataset(torch.randn(6, 3, 4, 4)), batch_size=3)
    module = Reconstruct(nn.Sequential(nn.Flatten(), nn.Linear(48, 2)))
    fit(module, loader, 3, [MarginHistogram(1)])
    reason = "its batches are not pairs (x, y)"
    assert said_of("MarginHistogram", caplog) == [
        f"MarginHistogram records nothing of Reconstruct: {reason}"
    ]
    with pytest.raises(UsageError, match="full_every_n_epochs"):
        fit(module, loader, 1, [LayerVelocity(full_every_n_epochs=1)])


class Generator(LightningModule):
    """Its forward takes no samples."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Linear(3, 5)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.network(z)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return (self(torch.randn(len(batch[0]), 3)) - batch[0]).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Endless(IterableDataset):
    """A stream: a pass over it does not end."""

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield torch.randn(5), torch.tensor(0)


def test_a_forward_that_takes_no_samples_has_no_margins(
    fit: Any, rows: Any, caplog: pytest.LogCaptureFixture
) -> None:
    samples = DataLoader(TensorDataset(torch.randn(6, 5), torch.arange(6) % 2), batch_size=3)
    fit(Generator(), samples, 2, [MarginHistogram(1), NeuralCollapse(1), LayerRank(1)])
    for name in ("MarginHistogram", "NeuralCollapse"):
        (said,) = said_of(f"{name} records", caplog)
        assert "its forward does not take its samples (mat1 and mat2 shapes" in said
        assert "\n" not in said
    assert all("rank/network" in row for row in rows)


def test_a_stream_is_not_passed_over(fit: Any, rows: Any, caplog: pytest.LogCaptureFixture) -> None:
    stream = DataLoader(Endless(), batch_size=3)
    looks = [MarginHistogram(1), NeuralCollapse(1), LayerRank(1)]
    fit(Foreign(nn.Linear(5, 2)), stream, 2, looks, limit_train_batches=2)
    for name in ("MarginHistogram", "NeuralCollapse"):
        (said,) = said_of(f"{name} records", caplog)
        assert "its training set is a stream" in said
    assert [row["trainer/global_step"] for row in rows] == [0, 2, 4]


def test_labels_that_are_no_classes_are_declined(
    fit: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Regression(Foreign):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            x, y = batch
            return (self(x)[:, 0] - y).square().mean()

    data = TensorDataset(torch.randn(6, 5), 7 * torch.randn(6))
    module = Regression(nn.Linear(5, 1))
    fit(module, DataLoader(data, batch_size=3), 2, [MarginHistogram(1)])
    (said,) = said_of("MarginHistogram", caplog)
    assert said.startswith("MarginHistogram records nothing of Regression: ")
    assert "neither 0 and 1 nor -1" in said


def test_a_module_without_layers_is_refused_by_callbacks_of_layers_alone(
    fit: Any, rows: Any
) -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Parameter(torch.ones(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.a * x.flatten(1)[:, :4]

    for look in (LayerVelocity(), LayerRank(1)):
        allowed = "a module with a readable weight; here network_a a vector"
        name = type(look).__name__
        with pytest.raises(UsageError, match=f"{name}: got 'no layer', allowed: {allowed}"):
            fit(Foreign(Scale()), data(), 1, [look])
        assert rows == []
    looks = [MarginHistogram(1), LayerVelocity(0), LayerRank(0)]
    trainer = fit(Foreign(Scale()), data(), 1, looks)
    assert trainer.global_step == 2
    assert ["margin_raw/mean" in row for row in rows] == [True, True]


def test_the_epoch_of_early_stopping_is_recorded(tmp_path: Path, fit: Any) -> None:
    stop = EarlyStopping("loss", patience=2, min_delta=1e9)
    module = Foreign(nn.Sequential(nn.Flatten(), nn.Linear(3072, 4)))
    _, rows = observed(tmp_path, fit, module, [LayerRank(100), stop], epochs=50)
    assert module.trainer.current_epoch == 3
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3], "one row an epoch, the last one too"
    assert ["rank/network_1" in row for row in rows] == [True, True, True, True]
    assert rows[-1]["rank/network_1"] == 4
    # What was seen at the start is on its own row, and the losses are on those of their epochs.
    assert ["loss" in row for row in rows] == [False, True, True, True]
    losses = np.reshape(module.losses, (3, 2)).mean(axis=1)
    assert [row["loss"] for row in rows[1:]] == pytest.approx(losses.tolist(), rel=1e-6)
