"""The steps of a window of `NoiseTime` against those outside of it, in the same fit."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import torch
from lightning.pytorch import Callback

from benchmarks.common import N, classifier, fit_seconds, images, memory_loader
from janus_pl import DeepReLUClassifier
from janus_pl.callbacks import NoiseTime
from janus_pl.data import DigitsPair

EVERY = 100  # epochs, as by default
WINDOW = 64


class Steps(Callback):
    """The processor seconds of every step, the callbacks' hooks at its end included."""

    place = 2  # after the callbacks that look

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_batch_start(self, *_: Any) -> None:
        self._start = time.process_time()

    def on_train_batch_end(self, *_: Any) -> None:
        self.seconds.append(time.process_time() - self._start)


def look(name: str, task: Any, loader: Any, epochs: int, samples: int = 256) -> None:
    """A window at the end of a short fit; as many steps before it."""
    steps = Steps()
    window = NoiseTime(epochs, WINDOW, samples)
    fit_seconds(task, loader, epochs, [window, steps])
    outside, inside = (median(part) for part in (steps.seconds[3:-WINDOW], steps.seconds[-WINDOW:]))
    of_epoch = WINDOW * (inside - outside) / (len(loader) * outside)
    print(
        f"  {name:<42} {1e3 * outside:7.1f} ms a step, {1e3 * inside:7.1f} ms in a window;"
        f" a look {of_epoch:5.2f} epochs, at default cadence {of_epoch / EVERY:+.4f}"
    )


def main() -> None:
    x, y = images(N)
    print(f"NoiseTime, {torch.get_num_threads()} threads, processor time")
    look("paper's network, N = 10,000, B = 128", classifier(), memory_loader(x, y), 1)
    look("the same, one sample", classifier(), memory_loader(x, y), 1, samples=1)
    digits = DigitsPair(batch_size=8)
    digits.setup("fit")
    small = DeepReLUClassifier(strides=(2, 2, 2, 2), image_size=digits.image_size)
    look("quickstart, N = 285, B = 8", small, digits.train_dataloader(), 4)


if __name__ == "__main__":
    main()
