"""An SGD epoch through `fit` with the default callbacks, against a bare loop of its mathematics.

Cheap strides and few samples, where what surrounds the arithmetic shows. Processor time of one
thread, the least of several rounds by turns.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
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

N, EPOCHS, ROUNDS = 2_000, 10, 3
STRIDES = (2, 2, 2, 2)


class Processor(Callback):
    """The processor seconds from the first epoch's start to the end of training."""

    place = 2  # after the callbacks that look

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        if trainer.current_epoch == 0:
            self._start = time.process_time()

    def on_train_end(self, trainer: Any, module: Any) -> None:
        self.seconds = time.process_time() - self._start


def through_fit(callbacks: Callable[[], list[Callback]]) -> Callable[[], float]:
    """Return a function that returns the seconds of an epoch through `fit`."""
    x, y = images(N)
    loader = InMemoryBatches(x, y, B)

    def run() -> float:
        torch.manual_seed(0)
        clock = Processor()
        with TemporaryDirectory() as folder:
            trainer = Trainer(
                max_epochs=EPOCHS,
                accelerator="cpu",
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                default_root_dir=Path(folder),
                callbacks=[*callbacks(), clock],
            )
            trainer.fit(DeepReLUClassifier(strides=STRIDES), loader)
        return clock.seconds / EPOCHS

    return run


def bare() -> float:
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
    for _ in range(EPOCHS):
        for index in torch.randperm(N).split(B):
            h, target = stored.index_select(0, index).permute(0, 3, 1, 2), y[index]
            Ws = [g * v / v.norm() for g, v in zip(gains, vs, strict=True)]
            for W, stride in zip(Ws[:4], STRIDES, strict=True):
                h = F.relu(F.conv2d(h, W, stride=stride))
            f = rho * (F.relu(h.flatten(1) @ Ws[4].T) @ Ws[5].T)
            optimizer.zero_grad()
            (f - torch.stack((-target, target), dim=1)).square().mean().backward()
            optimizer.step()
    return (time.process_time() - start) / EPOCHS


def main() -> None:
    """Print the ratios."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    variants: dict[str, Callable[[], float]] = {
        "bare loop": bare,
        "fit, default callbacks": through_fit(
            lambda: [MarginHistogram(), LayerVelocity(), LayerRank()]
        ),
        "fit, LayerVelocity": through_fit(lambda: [LayerVelocity()]),
        "fit alone": through_fit(list),
    }
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(ROUNDS):
        for name, run in variants.items():
            seconds[name].append(run())
    print(f"SGD epoch, N = {N}, B = {B}, strides {STRIDES}, one thread, processor time")
    for name, values in seconds.items():
        ratio = min(values) / min(seconds["bare loop"])
        told = ", ".join(f"{value:.3f}" for value in values)
        print(f"  {name:<24} {1e3 * min(values):6.0f} ms   {ratio:.3f}   ({told})")


if __name__ == "__main__":
    main()
