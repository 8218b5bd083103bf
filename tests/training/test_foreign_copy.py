"""A copy of the paper's network that knows nothing of it: the same numbers from outside."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import SMALL
from lightning.pytorch import Callback, LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from training.test_subjects import plain_sgd

from janus_pl.callbacks import LayerRank, LayerVelocity, MarginHistogram
from janus_pl.deep import PARAMETRIZATIONS

LAYERS = ["conv1", "conv2", "conv3", "conv4", "fc1", "fc2"]
EPOCHS = 3
STRIDES: Any = SMALL["strides"]


class Copy(LightningModule):
    """Two classes, plain weights and the square loss over the two outputs (Eq. 12)."""

    def __init__(self, weights: dict[str, Tensor], rate: float) -> None:
        super().__init__()
        self.rate = rate
        for name, weight in weights.items():
            layer: nn.Module
            if weight.ndim == 4:
                stride = STRIDES[int(name[-1]) - 1]
                layer = nn.Conv2d(weight.shape[1], weight.shape[0], 3, stride, bias=False)
            else:
                layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
            layer.weight = nn.Parameter(weight.clone())
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        for name in LAYERS[:4]:
            x = self.get_submodule(name)(x).relu()
        x = self.get_submodule("fc1")(x.flatten(1)).relu()
        return self.get_submodule("fc2")(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        targets = 2.0 * nn.functional.one_hot(y, 2) - 1
        return nn.functional.mse_loss(self(x), targets.to(x.dtype))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), self.rate)


def effective(task: Any) -> dict[str, Tensor]:
    """The weights W_k of the plain network that is the same function."""
    layers = task.network.weight_layers()
    weights = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    weights["fc2"] = task.network.rho.detach() * weights["fc2"]
    return weights


def observers() -> list[Callback]:
    return [MarginHistogram(1), LayerVelocity(1), LayerRank(1)]


def numbers(row: dict[str, Any], *kinds: str) -> dict[str, float]:
    """The numbers of a row, by key; raw margins by the keys of normalized ones."""
    return {
        key.replace("margin_raw/", "margin/"): value
        for key, value in row.items()
        if key.startswith(kinds) and isinstance(value, int | float)
    }


def same(ours: dict[str, Any], theirs: dict[str, Any], scale: float) -> None:
    """The rows are of one network; of the copy's margins, those divided by rho."""
    layers = ("rank", "stable_rank", "velocity/")
    assert numbers(theirs, *layers) == pytest.approx(numbers(ours, *layers), rel=1e-12)
    keys = ("margin/mean", "margin/std", "margin/min")
    raw = numbers(theirs, "margin_raw/")
    assert {key: raw[key] / scale for key in keys} == pytest.approx(
        {key: ours[key] for key in keys}, rel=1e-12
    )
    assert not numbers(theirs, "margin/"), "nothing divides them"
    if scale != pytest.approx(1, rel=1e-3):
        assert raw["margin/mean"] != pytest.approx(ours["margin/mean"], rel=1e-6)


def loaders(small_loader: Any, batch_size: int) -> tuple[Any, Any]:
    """The same samples in the same batches, with labels -1 and +1, and 0 and 1."""
    ours = small_loader(batch_size=batch_size, dtype=torch.float64, order="sequential")
    dataset = TensorDataset(ours.x, (ours.y > 0).long())
    return ours, DataLoader(dataset, batch_size)


@pytest.mark.parametrize("normalization", list(PARAMETRIZATIONS))
def test_a_copy_has_the_velocities_ranks_and_margins_of_the_network(
    normalization: str, fit: Any, rows: Any, small_task: Any, small_loader: Any
) -> None:
    options = {"normalization": normalization, "optimizer": plain_sgd, "weight_decay": 0.0}
    task = small_task(learning_rate=1e-4, init_scale=0.7, **options).double()
    task.parametrization.after_step()  # of unit norm in float64, too
    copy = Copy(effective(task), 1e-4)
    scale = float(task.scale())
    ours, theirs = loaders(small_loader, 20)
    fit(task, ours, 1, observers())
    fit(copy, theirs, 1, observers())
    first, step, of_copy, step_of_copy = rows
    same(first, of_copy, scale)
    # The step's velocities are of the weights before it, whatever the coordinates of the step.
    assert set(numbers(step, "velocity/")) == {f"velocity/{layer}" for layer in LAYERS}
    assert numbers(step_of_copy, "velocity/") == pytest.approx(
        numbers(step, "velocity/"), rel=1e-12
    )


def test_a_copy_trains_as_the_network_with_plain_weights(
    fit: Any, rows: Any, small_task: Any, small_loader: Any
) -> None:
    options = {"normalization": "none", "optimizer": plain_sgd, "weight_decay": 0.0}
    task = small_task(learning_rate=1e-3, init_scale=0.3, **options).double()
    copy = Copy(effective(task), 1e-3)
    start = [weight.detach().clone() for weight in copy.parameters()]
    ours, theirs = loaders(small_loader, 8)
    fit(task, ours, EPOCHS, observers())
    fit(copy, theirs, EPOCHS, observers())
    assert len(rows) == 2 * (EPOCHS + 1)
    for row, of_copy in zip(rows[: EPOCHS + 1], rows[EPOCHS + 1 :], strict=True):
        same(row, of_copy, row["rho"])
        axes = ("epoch", "trainer/global_step", "eta_t")
        assert [row[axis] for axis in axes] == pytest.approx([of_copy[axis] for axis in axes])
    assert all((w != before).any() for w, before in zip(copy.parameters(), start, strict=True))
