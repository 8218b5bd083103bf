"""NeuralCollapse on tiny real fits, against features and means worked out in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from janus_pl import LinearRegressor
from janus_pl.callbacks.neural_collapse import NeuralCollapse
from janus_pl.data import InMemoryBatches, LinearProblem
from janus_pl.errors import UsageError

KEYS = {"collapse/nc1", "collapse/nc3", "collapse/nc4", "collapse/cdnv"}


def collapse(row: Any) -> dict[str, float]:
    return {key: float(value) for key, value in row.items() if key.startswith("collapse/")}


def expected(h: Any, positive: Any, weight: Any, decided: Any) -> dict[str, float]:
    """From the definitions, with all matrices written out."""
    means = np.stack([h[~positive].mean(0), h[positive].mean(0)])
    centred = h - means[positive.astype(int)]
    between = means[positive.astype(int)] - h.mean(0)
    s_w, s_b = centred.T @ centred / len(h), between.T @ between / len(h)
    w, m = weight - weight.mean(0), (means - means.mean(0)).T
    distances = np.linalg.norm(h[:, None] - means, axis=2)
    variances = [(centred[own] ** 2).sum(1).mean() for own in (~positive, positive)]
    return {
        "collapse/nc1": np.trace(s_w @ np.linalg.pinv(s_b, rcond=1e-10)) / 2,
        "collapse/nc3": np.linalg.norm(w.T / np.linalg.norm(w) - m / np.linalg.norm(m)),
        "collapse/nc4": np.mean((distances[:, 1] < distances[:, 0]) != decided),
        "collapse/cdnv": sum(variances) / (2 * ((means[1] - means[0]) ** 2).sum()),
    }


def classifier_numbers(task: Any, loader: Any) -> dict[str, float]:
    """Through the layers one by one, with the rho that multiplies the last one."""
    with torch.no_grad():
        h = loader.x
        for layer in list(task.network.layers)[:-1]:
            h = layer(h)
        weight = (task.network.rho * task.network.layers.fc2.weight).numpy()
    h = h.numpy()
    outputs = h @ weight.T
    return expected(h, loader.y.numpy() > 0, weight, outputs[:, 1] > outputs[:, 0])


def test_exactly_these_keys_at_its_epochs(
    rows: Any, fit: Any, small_task: Any, small_loader: Any
) -> None:
    fit(small_task(), small_loader(), 5, [NeuralCollapse(3)])
    assert [set(collapse(row)) for row in rows] == [
        KEYS if epoch in (0, 1, 2, 3, 5) else set() for epoch in range(6)
    ]


@pytest.mark.parametrize("normalization", ["weight_norm", "per_layer", "lagrange", "none"])
@pytest.mark.parametrize("rho", [1, -1])
def test_numbers_are_the_definitions(
    rows: Any, fit: Any, small_task: Any, small_loader: Any, normalization: str, rho: int
) -> None:
    task = small_task(normalization=normalization, learning_rate=1e-3).double()
    with torch.no_grad():
        task.network.rho.mul_(rho)
    loader = small_loader(n=30, dtype=torch.float64)
    assert 0 < int((loader.y > 0).sum()) != 15
    fit(task, loader, 3, [NeuralCollapse(1)])
    found, exact = collapse(rows[-1]), classifier_numbers(task, loader)
    assert found == pytest.approx(exact, rel=1e-10)
    assert set(found) == KEYS
    # Control: with the sign of rho left out the last layer points the other way.
    opposite = np.sqrt(4 - exact["collapse/nc3"] ** 2)
    assert abs(found["collapse/nc3"] - opposite) > 1e-3


def test_more_samples_than_a_chunk(rows: Any, fit: Any, small_task: Any, small_loader: Any) -> None:
    task, loader = small_task().double(), small_loader(n=520, dtype=torch.float64, batch_size=260)
    fit(task, loader, 1, [NeuralCollapse(1)])
    assert collapse(rows[-1]) == pytest.approx(classifier_numbers(task, loader), rel=1e-10)


def test_looking_leaves_training_bitwise_unchanged(
    fit: Any, small_task: Any, small_loader: Any
) -> None:
    ends = []
    for callbacks in ([], [NeuralCollapse(1)]):
        task = small_task()
        fit(task, small_loader(), 4, callbacks)
        ends.append([*task.state_dict().values(), torch.random.get_rng_state()])
        assert not task.network.layers.fc2._forward_hooks
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_what_is_not_defined_is_missing(
    rows: Any, fit: Any, small_task: Any, small_loader: Any
) -> None:
    loader = small_loader()
    one_class = InMemoryBatches(loader.x, torch.ones(20), 8)
    fit(small_task(), one_class, 1, [NeuralCollapse(1)])
    dead = small_task(normalization="none")
    with torch.no_grad():
        dead.network.layers.fc1.weight.zero_()
    fit(dead, loader, 1, [NeuralCollapse(1)], limit_train_batches=1)
    assert len(rows) == 4
    assert not any(collapse(row) for row in rows)


class Foreign(LightningModule):
    def __init__(self, network: nn.Sequential, classes: int) -> None:
        super().__init__()
        self.network = network
        self.classes = classes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        x, y = batch
        outputs = self(x)
        if self.classes == 1:
            return nn.functional.soft_margin_loss(outputs[:, 0], y)
        return nn.functional.cross_entropy(outputs, y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def foreign(outputs: int) -> tuple[Foreign, DataLoader]:
    torch.manual_seed(0)
    layers = [nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(), nn.Linear(8, outputs)]
    generator = torch.Generator().manual_seed(1)
    y = torch.randint(max(outputs, 2), (22,), generator=generator)
    x = torch.randn(22, 6, generator=generator)
    loader = DataLoader(TensorDataset(x, 2.0 * y - 1 if outputs == 1 else y), 5, shuffle=True)
    return Foreign(nn.Sequential(*layers), outputs), loader


@pytest.mark.parametrize("outputs", [1, 2])
def test_a_module_of_somebody_else(fit: Any, outputs: int, caplog: Any) -> None:
    """Batch norm and dropout as in evaluation; the bias counts in the network's decision."""
    module, loader = foreign(outputs)
    trainer = fit(module, loader, 3, [NeuralCollapse(1)])
    module.eval()
    assert isinstance(loader.dataset, TensorDataset)
    x, y = loader.dataset.tensors
    with torch.no_grad():
        h, f = module.network[:-1](x).double().numpy(), module(x).double().numpy()
    last: Any = module.network[-1]
    weight = last.weight.detach().double().numpy()
    if outputs == 1:
        f, weight = np.concatenate((-f, f), axis=1), np.concatenate((-weight, weight))
    exact = expected(h, y.numpy() > 0, weight, f[:, 1] > f[:, 0])
    assert collapse(trainer.callback_metrics) == pytest.approx(exact, rel=1e-5)
    said = [r.getMessage() for r in caplog.records]
    (layers,) = [text for text in said if text.startswith("Layers of Foreign that callbacks read:")]
    assert "read: network_0, network_4; skipped: network_0_bias (a vector), network_1 (" in layers
    assert not [text for text in said if "records nothing" in text]


def test_looking_leaves_a_foreign_module_unchanged(fit: Any) -> None:
    ends = []
    for callbacks in ([], [NeuralCollapse(1)]):
        module, loader = foreign(2)
        fit(module, loader, 3, callbacks)
        assert module.training
        ends.append([*module.state_dict().values(), torch.random.get_rng_state()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


@pytest.mark.parametrize(
    ("outputs", "reason"), [(3, "not classes from 0 to 2"), (2, "not those of two")]
)
def test_labels_that_are_no_classes_of_the_outputs_are_declined_once(
    fit: Any, rows: Any, caplog: Any, outputs: int, reason: str
) -> None:
    module, loader = foreign(outputs)
    assert isinstance(loader.dataset, TensorDataset)
    x, y = loader.dataset.tensors
    loader = DataLoader(TensorDataset(x, y * 5.0), 5)
    module.classes = 1
    trainer = fit(module, loader, 3, [NeuralCollapse(1)])
    said = [r.getMessage() for r in caplog.records if "NeuralCollapse" in r.getMessage()]
    assert len(said) == 1
    assert said[0].startswith("NeuralCollapse records nothing of Foreign: ")
    assert reason in said[0]
    assert not collapse(trainer.callback_metrics)
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3]
    assert not any(collapse(row) for row in rows)
    assert not module.network[-1]._forward_hooks
    assert module.training


def test_linear_regression_has_no_features(rows: Any, fit: Any, caplog: Any) -> None:
    linear = LinearRegressor(learning_rate=0.05)
    fit(linear, LinearProblem(num_train=7, dim=9, outputs=3), 2, [NeuralCollapse(1)])
    assert rows
    assert not any(collapse(row) for row in rows)
    said = [r.getMessage() for r in caplog.records if "NeuralCollapse" in r.getMessage()]
    assert said == ["NeuralCollapse records nothing of LinearRegressor: it has no nn.Linear"]


def test_bad_options() -> None:
    with pytest.raises(UsageError, match=r"callbacks\.NeuralCollapse\.every_n_epochs"):
        NeuralCollapse(-1)
