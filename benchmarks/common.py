"""What the benchmarks share: the data, the plain loop, and timing side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from janus_pl import DeepReLUClassifier
from janus_pl.data import InMemoryBatches
from janus_pl.deep import DeepReLU
from janus_pl.deep.losses import square

N, B = 10_000, 128


def images(n: int = N) -> tuple[Tensor, Tensor]:
    """Random images of unit norm and random labels: the arithmetic does not look at them."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 3, 32, 32, generator=generator)
    x /= x.flatten(1).norm(dim=1)[:, None, None, None]
    return x, torch.randint(0, 2, (n,), generator=generator) * 2.0 - 1


def side_by_side(variants: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """The median seconds of each variant; they take turns, so that a busy machine hits all."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, run in variants.items():
            seconds[name].append(run())
    return {name: median(values) for name, values in seconds.items()}


def seconds_of(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


class EpochClock:
    """Seconds of the epochs of a fit, from the first batch asked for to the row written."""

    def __init__(self) -> None:
        self.marks: list[float] = []

    def mark(self) -> None:
        self.marks.append(time.perf_counter())

    def epochs(self) -> list[float]:
        return [b - a for a, b in zip(self.marks, self.marks[1:], strict=False)]


def fit_seconds(task: Any, loader: Any, epochs: int, callbacks: Any = (), **options: Any) -> float:
    """Seconds an epoch of a fit through the Trainer, its start excluded: the median epoch.

    The last of several epochs is not counted: a fit ends with a pass over all samples.
    """
    from lightning.pytorch import Callback

    clock = EpochClock()

    class Clock(Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            clock.mark()

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            clock.mark()

    with TemporaryDirectory() as folder:
        trainer = Trainer(
            **{
                "max_epochs": epochs,
                "accelerator": "cpu",
                "logger": False,
                "enable_checkpointing": False,
                "enable_progress_bar": False,
                "enable_model_summary": False,
                "limit_val_batches": 0,
                "default_root_dir": Path(folder),
                **options,
                "callbacks": [*callbacks, Clock()],
            }
        )
        trainer.fit(task, loader)
    seconds = clock.epochs()
    return median(seconds[:-1] or seconds)


def classifier() -> DeepReLUClassifier:
    torch.manual_seed(0)
    return DeepReLUClassifier()


def memory_loader(x: Tensor, y: Tensor) -> InMemoryBatches:
    return InMemoryBatches(x, y, B)


def plain_epoch(x: Tensor, y: Tensor, layout: torch.memory_format) -> Callable[[], float]:
    """The same mathematics with no framework: weight-normalized network, square loss, SGD."""
    torch.manual_seed(0)
    network = DeepReLU()
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, 0.03, momentum=0.9, weight_decay=1e-3, fused=True)
    stored = x.permute(0, 2, 3, 1).contiguous() if layout == torch.channels_last else x

    def batch(index: Tensor) -> Tensor:
        rows = stored.index_select(0, index)
        return rows.permute(0, 3, 1, 2) if layout == torch.channels_last else rows

    def epoch() -> None:
        for index in torch.randperm(len(y)).split(B):
            optimizer.zero_grad()
            square(network(batch(index)), y[index]).mean().backward()
            optimizer.step()

    return lambda: seconds_of(epoch)
