"""An SGD epoch through `fit` against plain loops, against the machine, and with the callbacks."""

from __future__ import annotations

import time
import warnings
from itertools import islice
from statistics import median
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback
from torch import Tensor
from torch.nn.utils import parametrize
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms
from torchvision.datasets import CIFAR10

from benchmarks.common import (
    B,
    N,
    classifier,
    fit_seconds,
    images,
    memory_loader,
    plain_epoch,
    seconds_of,
    side_by_side,
)
from janus_pl.callbacks import LayerRank, LayerVelocity, MarginHistogram
from janus_pl.deep import DeepReLU
from janus_pl.deep.losses import square

STEPS = -(-N // B)


def usual_pipeline() -> DataLoader:
    """torchvision's CIFAR-10 class with PIL, ToTensor, Normalize, two workers; random bytes."""
    data = CIFAR10.__new__(CIFAR10)
    data.data = np.random.default_rng(0).integers(0, 256, (N, 32, 32, 3), dtype=np.uint8)
    data.targets = np.random.default_rng(1).integers(0, 2, N).tolist()
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    data.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])
    data.target_transform = None
    return DataLoader(data, batch_size=B, shuffle=True, num_workers=2)


def usual_epoch() -> float:
    """A plain loop over that pipeline, images in PyTorch's default layout."""
    torch.manual_seed(0)
    network = DeepReLU().to(memory_format=torch.contiguous_format)
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, 0.03, momentum=0.9, weight_decay=1e-3)
    loader = usual_pipeline()

    def epoch() -> None:
        for x, target in loader:
            x = x / x.flatten(1).norm(dim=1)[:, None, None, None]
            optimizer.zero_grad()
            square(network(x), target * 2.0 - 1).mean().backward()
            optimizer.step()

    return seconds_of(epoch)


def flops_of_a_step() -> int:
    """Operations of a step's convolutions and matrix products, forward and backward."""
    network, (x, y) = DeepReLU(), images(B)
    with FlopCounterMode(display=False) as counter:
        square(network(x), y).mean().backward()
    return counter.get_total_flops()


class MatmulBetweenSteps(Callback):
    """Times a large matrix product after every step, so that both meet the same machine."""

    def __init__(self, size: int = 2048) -> None:
        self.a, self.b = torch.randn(size, size), torch.randn(size, size)
        self.flops = 2 * size**3
        self.matmul: list[float] = []
        self.steps: list[float] = []
        self._last: float | None = None

    def on_train_batch_end(self, *args: Any) -> None:
        if self._last is not None:  # forward, backward, update, and the next batch
            self.steps.append(time.perf_counter() - self._last)
        self.matmul.append(seconds_of(lambda: self.a @ self.b))
        self._last = time.perf_counter()


def share_of_the_machine() -> None:
    """The float32 rate of a step through `fit`, as a share of that of large matrix products.

    Beside it the bare loop, without weight normalization: what PyTorch's kernels reach here.
    """
    x, y = images()
    clock = MatmulBetweenSteps()
    fit_seconds(classifier(), memory_loader(x, y), 1, [clock])
    flops = flops_of_a_step()
    matmul = clock.flops / median(clock.matmul[3:])
    for name, seconds in (("fit", median(clock.steps[3:])), ("bare loop", bare_step(x, y))):
        print(
            f"  share of the matmul rate, {name:<9}  {flops / seconds / matmul:.3f}  "
            f"({flops / seconds / 1e9:.0f} of {matmul / 1e9:.0f} GFLOP/s)"
        )


def bare_step(x: Tensor, y: Tensor, steps: int = 30) -> float:
    """Seconds of a step of the network without weight normalization, channels-last."""
    network = DeepReLU().layers
    for layer in network:
        if parametrize.is_parametrized(layer):
            parametrize.remove_parametrizations(layer, "weight")
    network.to(memory_format=torch.channels_last).requires_grad_(True)
    optimizer = torch.optim.SGD(network.parameters(), 1e-3, momentum=0.9, fused=True)
    loader = memory_loader(x, y)
    seconds, last = [], time.perf_counter()
    for batch in islice(loader, steps):
        optimizer.zero_grad()
        square(network(batch.x), batch.y).mean().backward()
        optimizer.step()
        seconds.append(time.perf_counter() - last)
        last = time.perf_counter()
    return median(seconds[3:])


def main(rounds: int = 3) -> None:
    warnings.simplefilter("ignore")
    x, y = images()
    loader = memory_loader(x, y)
    seconds = side_by_side(
        {
            "fit": lambda: fit_seconds(classifier(), loader, 2),
            "plain": plain_epoch(x, y, torch.channels_last),
            "plain, NCHW": plain_epoch(x, y, torch.contiguous_format),
            "usual pipeline": usual_epoch,
            "fit, velocities": lambda: fit_seconds(classifier(), loader, 2, [LayerVelocity()]),
        },
        rounds,
    )
    fit = seconds["fit"]
    print(f"SGD epoch, N = {N}, B = {B}, default strides, {torch.get_num_threads()} threads")
    for name, value in seconds.items():
        print(f"  {name:<16} {value:6.2f} s an epoch, {1e3 * value / STEPS:6.1f} ms a step")
    print(f"  fit / plain loop          {fit / seconds['plain']:.3f}  (at most 1.05)")
    print(f"  fit / usual pipeline      {fit / seconds['usual pipeline']:.3f}  (at most 0.80)")
    share_of_the_machine()
    velocity = seconds["fit, velocities"] - fit
    callbacks_cost(fit, velocity)


def callbacks_cost(fit: float, velocity: float) -> None:
    """The three callbacks at default cadence: velocities each epoch, the others each tenth."""
    x, y = images()
    looks: dict[str, float] = {}

    def timed(callback: object) -> object:
        observe = callback.observe  # type: ignore[attr-defined]

        def timed_observe(trainer: object, module: object) -> object:
            result: list[object] = []
            looks[type(callback).__name__] = seconds_of(
                lambda: result.append(observe(trainer, module))
            )
            return result[0]

        callback.observe = timed_observe  # type: ignore[attr-defined]
        return callback

    observers = [timed(MarginHistogram(1)), timed(LayerRank(1))]
    fit_seconds(classifier(), memory_loader(x, y), 2, observers)
    total = velocity + sum(looks.values()) / 10
    print("  callbacks at their default cadence, on top of an epoch without")
    print(f"    LayerVelocity, every epoch         {velocity / fit:+.4f}")
    for name, value in looks.items():
        print(f"    {name}, every tenth epoch {value / 10 / fit:+.4f}  ({value / fit:.3f} a look)")
    print(f"    all three                          {total / fit:+.4f}  (at most +0.05)")


if __name__ == "__main__":
    main()
