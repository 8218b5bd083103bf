"""UpdateSplit under momentum and adaptive steps: against a split by hand, and the step taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from janus_pl.callbacks import UpdateSplit
from janus_pl.training.subjects import subject_of

RATE, DECAY, EPOCHS = 0.01, 0.1, 4
LAYERS = ("network_0", "network_2")
Array = NDArray[np.float64]


class Foreign(LightningModule):
    """An MLP of somebody else, in float64."""

    def __init__(self, make: Callable[..., torch.optim.Optimizer]) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.network = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
        self.make = make

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.make(self.parameters(), lr=RATE)


def data() -> DataLoader:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(9, 6, generator=generator, dtype=torch.float64)
    return DataLoader(TensorDataset(x, torch.arange(9) % 3), 9)


class Path(Callback):
    """Weights and gradients before each step, and the weights at the end."""

    def __init__(self) -> None:
        self.weights: list[dict[str, Array]] = []
        self.gradients: list[dict[str, Array]] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.weights.append(self.read(pl_module, lambda weight: weight))
        self.gradients.append(self.read(pl_module, lambda weight: weight.grad))

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.weights.append(self.read(pl_module, lambda weight: weight))

    def read(self, module: Any, of: Callable[[Any], Tensor]) -> dict[str, Array]:
        return {
            f"network_{k}": of(module.network[k].weight).detach().numpy().copy() for k in (0, 2)
        }


# By hand: the moves of gradient and decay at each step, from the formulas of PyTorch's documents.


def sgd(g: list[Array], p: list[Array], momentum: float, nesterov: bool) -> Any:
    buffers = [np.zeros_like(g[0]), np.zeros_like(g[0])]
    for gradient, weight in zip(g, p, strict=False):
        given = [gradient, DECAY * weight]
        buffers = [momentum * b + x for b, x in zip(buffers, given, strict=True)]
        moved = [x + momentum * b if nesterov else b for x, b in zip(given, buffers, strict=True)]
        yield [-RATE * m for m in moved]


def adam(g: list[Array], p: list[Array], decoupled: bool) -> Any:
    first = [np.zeros_like(g[0]), np.zeros_like(g[0])]
    second = np.zeros_like(g[0])
    for t, (gradient, weight) in enumerate(zip(g, p, strict=False), start=1):
        given = [gradient, 0 * weight if decoupled else DECAY * weight]
        second = 0.999 * second + 0.001 * (given[0] + given[1]) ** 2
        below = np.sqrt(second / (1 - 0.999**t)) + 1e-8
        first = [0.9 * m + 0.1 * x for m, x in zip(first, given, strict=True)]
        moves = [-RATE * m / (1 - 0.9**t) / below for m in first]
        if decoupled:
            moves[1] = -RATE * DECAY * weight
        yield moves


def rmsprop(g: list[Array], p: list[Array], momentum: float) -> Any:
    buffers = [np.zeros_like(g[0]), np.zeros_like(g[0])]
    square = np.zeros_like(g[0])
    for gradient, weight in zip(g, p, strict=False):
        given = [gradient, DECAY * weight]
        square = 0.99 * square + 0.01 * (given[0] + given[1]) ** 2
        below = np.sqrt(square) + 1e-8
        buffers = [momentum * b + x / below for b, x in zip(buffers, given, strict=True)]
        yield [-RATE * b for b in buffers]


CASES: dict[str, tuple[Any, dict[str, Any], Any]] = {
    "SGD": (torch.optim.SGD, {}, lambda g, p: sgd(g, p, 0.0, False)),
    "SGD with momentum": (
        torch.optim.SGD,
        {"momentum": 0.9},
        lambda g, p: sgd(g, p, 0.9, False),
    ),
    "Nesterov": (
        torch.optim.SGD,
        {"momentum": 0.8, "nesterov": True},
        lambda g, p: sgd(g, p, 0.8, True),
    ),
    "Adam": (torch.optim.Adam, {}, lambda g, p: adam(g, p, decoupled=False)),
    "AdamW": (torch.optim.AdamW, {}, lambda g, p: adam(g, p, decoupled=True)),
    "RMSprop": (torch.optim.RMSprop, {}, lambda g, p: rmsprop(g, p, 0.0)),
    "RMSprop with momentum": (
        torch.optim.RMSprop,
        {"momentum": 0.7},
        lambda g, p: rmsprop(g, p, 0.7),
    ),
}


def maker(kind: Any, options: dict[str, Any]) -> Callable[..., torch.optim.Optimizer]:
    return lambda parameters, lr: kind(parameters, lr=lr, weight_decay=DECAY, **options)


@pytest.mark.parametrize("case", CASES)
def test_shares_are_those_of_a_split_by_hand_whose_parts_are_the_step(
    case: str, fit: Any, rows: Any
) -> None:
    kind, options, by_hand = CASES[case]
    path = Path()
    fit(Foreign(maker(kind, options)), data(), EPOCHS, [UpdateSplit(), path])
    assert len(path.gradients) == EPOCHS == len(rows) - 1
    for layer in LAYERS:
        p = [weights[layer] for weights in path.weights]
        g = [gradients[layer] for gradients in path.gradients]
        for t, (gradient, decay) in enumerate(by_hand(g, p)):
            taken = p[t + 1] - p[t]
            np.testing.assert_allclose(gradient + decay, taken, rtol=0, atol=1e-14)
            sizes = np.array([np.linalg.norm(gradient), np.linalg.norm(decay), 0.0])
            shares = [rows[t + 1][f"update/{part}/{layer}"] for part in PARTS]
            assert shares == pytest.approx(list(sizes / sizes.sum()), rel=1e-10, abs=1e-15)


PARTS = ("gradient", "decay", "projection")


class Sum(Callback):
    """The sum of the subject's parts of each step, by layer."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Array]] = []
        self.buffers: dict[str, dict[str, Tensor]] = {}

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        parts = subject_of(trainer, pl_module).step(optimizer, self.buffers)
        summed = {layer: torch.stack([*own.values()]).sum(0) for layer, own in parts.items()}
        self.steps.append({layer: total.numpy().copy() for layer, total in summed.items()})


@pytest.mark.parametrize("case", CASES)
def test_parts_of_a_subject_sum_to_the_step_that_is_taken(case: str, fit: Any) -> None:
    kind, options, _ = CASES[case]
    path, summed = Path(), Sum()
    fit(Foreign(maker(kind, options)), data(), EPOCHS, [UpdateSplit(), summed, path])
    assert len(summed.steps) == EPOCHS
    for t, step in enumerate(summed.steps):
        assert set(step) == set(LAYERS)
        for layer, total in step.items():
            taken = path.weights[t + 1][layer] - path.weights[t][layer]
            assert np.linalg.norm(taken) > 1e-4
            np.testing.assert_allclose(total, taken, rtol=0, atol=1e-14)


def test_the_decay_share_of_adamw_is_not_that_of_gradients_beside_decays(
    fit: Any, rows: Any
) -> None:
    """Without the optimizer, the decay of AdamW would seem to be most of a step."""
    path = Path()
    fit(Foreign(maker(torch.optim.AdamW, {})), data(), EPOCHS, [UpdateSplit(), path])
    g, p = path.gradients[-1]["network_0"], path.weights[-2]["network_0"]
    sizes = np.linalg.norm(g), DECAY * np.linalg.norm(p)
    share = rows[-1]["update/decay/network_0"]
    assert share < 0.1
    assert sizes[1] / sum(sizes) > 5 * share
