"""Margins of the training set: mean, spread, minimum, histogram (Figs. 1, 2 and 5)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from janus_pl.callbacks._observer import BINS, Observer
from janus_pl.errors import check_integer
from janus_pl.observables.margins import margin_histogram, margin_statistics
from janus_pl.observables.wide import wide
from janus_pl.run.rows import Histogram, Value
from janus_pl.training.subject import NotOffered, Subject


class MarginHistogram(Observer):
    r"""Logs the margins fbar_n = y_n f_W(x_n)/rho over all N training samples, every sample once.

    Keys: `margin/mean` (mu), `margin/std` (sqrt(M - mu^2)), `margin/min`, and `margin/hist`, whose
    counts sum to N. With unit-norm V_k these are small numbers, 1e-8 for random weights.

    A sample of linear regression with y = 0 has no margin. If there are such samples, the numbers
    are of the others, and `margin/count` is their number.

    A pass over the training set costs about a third of an SGD epoch, hence the cadence. A look
    comes after the step, under full-batch GD too: `measured_step` is `trainer/global_step`. Records
    of before took GD's margins from the training forward, one step earlier.

    Any other LightningModule whose batches are (x, y) is served with the margins of its raw
    outputs: (f_y - max of the others)/2 for class indices y, and y f for a single output. They are
    not divided by a scale and have keys of their own: `margin_raw/mean` and so on.

    If labels are replaced by others (`data.label_noise`), `margin/clean/mean`, `std` and `min` are
    those of the samples with their own label, `margin/noisy/*` those of the others, by the label
    that the network is trained on.

    Args:
        every_n_epochs: The interval n of the looks: epochs 0, 1, 2, 4, 8, ... up to n, the
            multiples of n, and the last epoch. 0 turns the callback off.
        bins: The number of bins of the histogram.
    """

    keys = (
        *("margin/mean", "margin/std", "margin/min", "margin/count"),
        *("margin/clean/mean", "margin/clean/std", "margin/clean/min"),
        *("margin/noisy/mean", "margin/noisy/std", "margin/noisy/min"),
    )

    def __init__(self, every_n_epochs: int = 10, bins: int = 64) -> None:
        super().__init__(every_n_epochs)
        check_integer("callbacks.MarginHistogram.bins", bins, 1, BINS)
        self.bins = bins

    def observe(self, trainer: Trainer, subject: Subject) -> Mapping[str, Value]:
        margins = wide(subject.margins()).cpu()  # the one wait for the device
        if not len(margins):
            raise NotOffered("no sample has a margin, for every y is 0")
        if not np.isfinite(margins.numpy()).all():
            return {}
        kind = "margin" if subject.margin == "normalized" else "margin_raw"
        count = {f"{kind}/count": len(margins)} if subject.without_margin else {}
        return {
            **count,
            **_statistics(kind, margins),
            **_of_noisy(kind, margins, subject.noisy()),
            f"{kind}/hist": Histogram(*margin_histogram(margins, self.bins)),
        }


def _statistics(kind: str, margins: Tensor) -> dict[str, Value]:
    mean, std, least, _ = torch.stack(margin_statistics(margins)).tolist()
    return {f"{kind}/mean": mean, f"{kind}/std": std, f"{kind}/min": least}


def _of_noisy(kind: str, margins: Tensor, noisy: Tensor | None) -> dict[str, Value]:
    """Return the numbers of samples with their own label, and of those with another."""
    if noisy is None or len(noisy) != len(margins):
        return {}
    noisy = noisy.cpu()
    parts = {"clean": margins[~noisy], "noisy": margins[noisy]}
    found: dict[str, Value] = {}
    for name, part in parts.items():
        if len(part):
            found |= _statistics(f"{kind}/{name}", part)
    return found
