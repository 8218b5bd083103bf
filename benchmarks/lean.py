"""An SGD epoch through `fit` with the default callbacks, against a bare loop of its mathematics.

Cheap strides and few samples, where what surrounds the arithmetic shows. Processor time of one
thread, the least of several rounds by turns. The first ten epochs have five looks of the margins
and ranks, the next ten have one, as any ten later have; a look passes all samples forward. The
last epoch of a run, which always has such a pass, is not counted. With `model.compile` the first
window has the compilation as well.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, Trainer

from benchmarks.common import B, images
from janus_pl import DeepReLUClassifier
from janus_pl.callbacks import LayerRank, LayerVelocity, MarginHistogram
from janus_pl.data import InMemoryBatches
from janus_pl.deep import DeepReLU

N, WINDOW, ROUNDS = 2_000, 10, 3
STRIDES = (2, 2, 2, 2)
Seconds = tuple[float, ...]  # of an epoch in the first window and in the next one


class Processor(Callback):
    """The processor seconds at the first epoch's start and after each window."""

    place = 2  # after the callbacks that look

    def __init__(self) -> None:
        self._at: list[float] = []

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        if trainer.current_epoch % WINDOW == 0:
            self._at.append(time.process_time())

    def seconds(self) -> Seconds:
        """Return the seconds of an epoch in each window."""
        return tuple((after - before) / WINDOW for before, after in pairwise(self._at))


def through_fit(
    callbacks: Callable[[], list[Callback]], compile: bool = False
) -> Callable[[], Seconds]:
    """Return a function that returns the seconds of an epoch through `fit`, by window."""
    x, y = images(N)
    loader = InMemoryBatches(x, y, B)

    def run() -> Seconds:
        torch.manual_seed(0)
        clock = Processor()
        with TemporaryDirectory() as folder:
            trainer = Trainer(
                max_epochs=2 * WINDOW + 1,
                accelerator="cpu",
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                default_root_dir=Path(folder),
                callbacks=[*callbacks(), clock],
            )
            trainer.fit(DeepReLUClassifier(strides=STRIDES, compile=compile), loader)
        return clock.seconds()

    return run


def bare() -> Seconds:
    """Return the seconds of an epoch of a bare loop: all by autograd, and fused SGD."""
    torch.manual_seed(0)
    x, y = images(N)
    stored = x.permute(0, 2, 3, 1).contiguous()
    layers = DeepReLU(strides=STRIDES).weight_layers().values()
    vs = [layer.get_parameter("weight").detach().clone().requires_grad_() for layer in layers]
    gains = [v.detach().norm() for v in vs]
    rho = torch.ones((), requires_grad=True)
    optimizer = torch.optim.SGD([*vs, rho], 0.03, momentum=0.9, weight_decay=1e-3, fused=True)
    start = time.process_time()
    for _ in range(WINDOW):
        for index in torch.randperm(N).split(B):
            h, target = stored.index_select(0, index).permute(0, 3, 1, 2), y[index]
            Ws = [g * v / v.norm() for g, v in zip(gains, vs, strict=True)]
            for W, stride in zip(Ws[:4], STRIDES, strict=True):
                h = F.relu(F.conv2d(h, W, stride=stride))
            f = rho * (F.relu(h.flatten(1) @ Ws[4].T) @ Ws[5].T)
            optimizer.zero_grad()
            (f - torch.stack((-target, target), dim=1)).square().mean().backward()
            optimizer.step()
    return ((time.process_time() - start) / WINDOW,) * 2


def main() -> None:
    """Print the ratios."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    variants: dict[str, Callable[[], Seconds]] = {
        "bare loop": bare,
        "fit, default callbacks": through_fit(
            lambda: [MarginHistogram(), LayerVelocity(), LayerRank()]
        ),
        "fit, LayerVelocity": through_fit(lambda: [LayerVelocity()]),
        "fit alone": through_fit(list),
        "fit alone, compiled": through_fit(list, compile=True),
    }
    seconds: dict[str, list[Seconds]] = {name: [] for name in variants}
    for _ in range(ROUNDS):
        for name, run in variants.items():
            seconds[name].append(run())
    print(f"SGD epoch, N = {N}, B = {B}, strides {STRIDES}, one thread, processor time")
    for window, epochs in enumerate((f"1 to {WINDOW}", f"{WINDOW + 1} to {2 * WINDOW}")):
        print(f"epochs {epochs}")
        least = min(values[window] for values in seconds["bare loop"])
        for name, each in seconds.items():
            values = [value[window] for value in each]
            told = ", ".join(f"{value:.3f}" for value in values)
            best = min(values)
            print(f"  {name:<24} {1e3 * best:6.0f} ms   {best / least:.3f}   ({told})")


if __name__ == "__main__":
    main()
