"""`python -m benchmarks.any_network`: an epoch of `janus_pl.Classifier` against a bare loop.

The loop does the same mathematics with the same kernels: forward, cross entropy, backward, a fused
step of SGD with weight decay, from tensors in memory. It has no guard against numbers that are not
finite, no row and no callbacks.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.common import fit_seconds, seconds_of, side_by_side
from janus_pl import Classifier
from janus_pl.callbacks import LayerRank, LayerVelocity, MarginHistogram
from janus_pl.data import InMemoryBatches
from janus_pl.deep import MLP, ResNet18


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return MLP(3072, 10, depth=5, width=100, init_scale=0.14)


def resnet() -> nn.Module:
    torch.manual_seed(0)
    return ResNet18(10)


def sgd(params: object, lr: float) -> torch.optim.SGD:
    return torch.optim.SGD(params, lr, momentum=0.9, fused=True)  # type: ignore[arg-type]


def loader(n: int, batch_size: int) -> InMemoryBatches:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 3, 32, 32, generator=generator)
    x /= x.flatten(1).norm(dim=1)[:, None, None, None]
    return InMemoryBatches(x, torch.arange(n) % 10, batch_size, batch_size)


def bare(make: Callable[[], nn.Module], batches: InMemoryBatches, epochs: int) -> float:
    """Return the seconds of an epoch of the loop."""
    network = make().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        network.parameters(), 0.1, momentum=0.9, weight_decay=5e-4, fused=True
    )

    def all_epochs() -> None:
        for epoch in range(epochs):
            batches.set_epoch(epoch)
            for batch in batches:
                optimizer.zero_grad()
                nn.functional.cross_entropy(network(batch.x), batch.y).backward()
                optimizer.step()

    return seconds_of(all_epochs) / epochs


CASES = {
    "MLP 5 x 100, N = 10,000, B = 128": (mlp, 10_000, 128, 5),
    "MLP 5 x 100, N = 10,000, B = 16": (mlp, 10_000, 16, 3),
    "ResNet-18, N = 256, B = 128": (resnet, 256, 128, 3),
}
LOOKS = (LayerVelocity, LayerRank, MarginHistogram)


def of_fit(
    make: Callable[[], nn.Module], batches: InMemoryBatches, epochs: int, looks: Sequence[Any] = ()
) -> float:
    """Return the median seconds of an epoch; the last one is not counted."""
    task = Classifier(make(), optimizer=sgd)
    return fit_seconds(task, batches, epochs, [look() for look in looks])


def main(rounds: int = 3) -> None:
    warnings.simplefilter("ignore")
    for name, (make, n, batch_size, epochs) in CASES.items():
        given = make, loader(n, batch_size), epochs
        variants = {
            "bare": partial(bare, *given),
            "fit": partial(of_fit, *given),
            "fit, callbacks": partial(of_fit, *given, LOOKS),
        }
        seconds = side_by_side(variants, rounds)
        print(f"{name}: bare {seconds['bare']:.3f} s an epoch")
        print(f"  fit / bare                {seconds['fit'] / seconds['bare']:.3f}")
        print(f"  with callbacks / without  {seconds['fit, callbacks'] / seconds['fit']:.3f}")


if __name__ == "__main__":
    main()
