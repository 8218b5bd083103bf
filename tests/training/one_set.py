"""What the tests of one set of weights share: changes of weights, and an oracle of a row.

The oracle evaluates given weights: numpy for the ranks, a network of its own for the outputs, both
in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from torch.nn import functional as F

from janus_pl.callbacks import EquilibriumResidual, LayerRank, MarginHistogram
from janus_pl.data import InMemoryBatches

STRIDES = (2, 1, 1, 1)
HOOKS: tuple[str, ...] = (
    "on_train_start",
    "on_train_epoch_start",
    "on_train_batch_end",
    "on_validation_end",
)
HOOKS += ("on_train_epoch_end", "on_train_end")


class Changes(Callback):
    """Multiplies weights by 1.5 in a hook, by one of the ways in which PyTorch lets one do it."""

    def __init__(self, hook: str, way: str) -> None:
        self.way = way
        setattr(self, hook, self.change)

    @torch.no_grad()
    def change(self, trainer: Any, module: Any, *_: Any) -> None:
        if trainer.state.fn != "fit":
            return
        weight = module.network.weight_layers()["conv2"].parametrizations.weight.original1
        if self.way == "data":
            weight.data[0] *= 1.5
        elif self.way == "assigned":
            weight.data = weight.data.clone()
            weight.data[0] *= 1.5
        elif self.way == "in place":
            weight[0] *= 1.5
        else:
            state = {key: value.clone() for key, value in module.state_dict().items()}
            state["network.rho"] *= 1.25
            state[next(k for k in state if k.endswith("original1"))][0] *= 1.5
            module.load_state_dict(state)


class Tries(Callback):
    """Tries other weights within an epoch and puts the old ones back, as a tuner does."""

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        before = {key: value.clone() for key, value in module.state_dict().items()}
        for parameter in module.parameters():
            parameter.mul_(1.25)
        module.margins()  # a pass over the training set, at the step of the row
        module.load_state_dict(before)


def weights_of(task: Any) -> tuple[list[Any], float]:
    """The weights W_k and the scalar in front, float64, read from the state alone."""
    layers = task.network.weight_layers().values()
    return [layer.weight.detach().double().clone() for layer in layers], float(
        task.network.rho.detach()
    )


def truth(weights: Any, x: torch.Tensor, y: torch.Tensor) -> dict[str, float]:
    """The numbers of a row at these weights."""
    (*convolutions, dense, last), front = weights
    h = x.double()
    for weight, stride in zip(convolutions, STRIDES, strict=True):
        h = F.relu(F.conv2d(h, weight, stride=stride))
    f = front * F.relu(h.flatten(1) @ dense.T) @ last.T
    rho = abs(front) * np.prod([float(w.norm()) for w in weights[0]])
    margins = (y.double() * (f[:, 1] - f[:, 0]) / 2).numpy() / rho
    codes = torch.stack((-y, y), 1).double()
    numbers = {
        "rho": rho,
        "margin/mean": margins.mean(),
        "margin/std": margins.std(),
        "margin/min": margins.min(),
        "train/loss": float((f - codes).square().mean()),
        "train/error": (margins <= 0).mean(),
    }
    names = ("conv1", "conv2", "conv3", "conv4", "fc1", "fc2")
    for name, weight in zip(names, weights[0], strict=True):
        sigma = np.linalg.svd(weight.flatten(1).numpy(), compute_uv=False)
        numbers[f"stable_rank/{name}"] = (sigma**2).sum() / sigma[0] ** 2
    # d rho/dt = 2 nu/rho - lambda rho with nu = mean((1 - y f) y f) less the common mode.
    yf, common = margins * rho, float(f.mean(1).square().mean())
    learned = abs(front)
    numbers["equilibrium/rho_dot"] = 2 * (np.mean((1 - yf) * yf) - common) / learned
    numbers["equilibrium/rho_dot"] -= 0.01 * learned
    return numbers


def loaders(small_loader: Any, size: Any) -> tuple[InMemoryBatches, InMemoryBatches]:
    train = small_loader(batch_size=size, dtype=torch.float64)
    other = small_loader(n=12, batch_size=5, dtype=torch.float64, order="sequential")
    return train, InMemoryBatches(-other.x, other.y, 5, order="sequential")


def wrong(rows: Any, train: Any, val: Any) -> list[str]:
    """The numbers of rows that are not those of their weights, to 1e-6."""
    found = []
    for row, weights in rows:
        expected = truth(weights, train.x, train.y)
        if "val/loss" in row:
            held_out = truth(weights, val.x, val.y)
            expected |= {f"val/{k}": held_out[f"train/{k}"] for k in ("loss", "error")}
        for key, value in expected.items():
            if key in row and row[key] != pytest.approx(value, rel=1e-6, abs=1e-12):
                found.append(f"epoch {row['epoch']}: {key} is {row[key]}, not {value}")
    return found


def looks() -> list[Callback]:
    return [MarginHistogram(1), LayerRank(1), EquilibriumResidual(1)]
