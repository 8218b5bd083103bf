"""What `LayerRotation` and `LossEvents` cost at a look, against an epoch without them."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import torch
from lightning.pytorch import Callback

from benchmarks.common import N, classifier, fit_seconds, images, memory_loader
from janus_pl.callbacks import LayerRotation, LossEvents

EVERY = 10  # epochs, as by default
EPOCHS = 3
TURNS = 3


class Epochs(Callback):
    """The processor seconds of every epoch, with all that callbacks do at its end."""

    place = 2  # after the callbacks that look

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_epoch_start(self, *_: Any) -> None:
        self._start = time.process_time()

    def on_train_epoch_end(self, *_: Any) -> None:
        self.seconds.append(time.process_time() - self._start)


def epoch_of(callbacks: list[Callback], loader: Any) -> list[float]:
    """The seconds of each epoch of a short fit in which every epoch is looked at."""
    clock = Epochs()
    fit_seconds(classifier(), loader, EPOCHS, [*callbacks, clock])
    return clock.seconds


def main() -> None:
    x, y = images(N)
    loader = memory_loader(x, y)
    makes = {"LayerRotation": LayerRotation, "LossEvents": LossEvents}
    seconds: dict[str, list[float]] = {name: [] for name in ("without", *makes)}
    for _ in range(TURNS):
        seconds["without"] += epoch_of([], loader)
        for name, make in makes.items():
            seconds[name] += epoch_of([make(every_n_epochs=1)], loader)
    print(f"paper's network, N = 10,000, B = 128, {torch.get_num_threads()} threads")
    plain = median(seconds["without"])
    print(f"  an epoch {plain:6.2f} s of processor time")
    for name in makes:
        share = median(seconds[name]) / plain - 1
        print(f"  {name:<14} a look {share:+.4f} epochs, at default cadence {share / EVERY:+.4f}")


if __name__ == "__main__":
    main()
