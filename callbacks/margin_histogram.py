"""Margins of the training set: mean, spread, minimum, histogram (Figs. 1, 2 and 5)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from callbacks._observer import BINS, Observer
from janus_pl.errors import check_integer
from janus_pl.observables.margins import margin_histogram, margin_statistics
from janus_pl.run.rows import Histogram, Value
from janus_pl.training.samples import training_samples
from janus_pl.training.task import JanusTask


class MarginHistogram(Observer):
    r"""Logs the margins fbar_n = y_n f_W(x_n)/rho over all N training samples, every sample once.

    Keys: `margin/mean` (mu), `margin/std` (sqrt(M - mu^2)), `margin/min`, and `margin/hist`, whose
    counts sum to N. With unit-norm V_k these are small numbers, 1e-8 for random weights.

    A pass over the training set costs about a third of an SGD epoch, hence the cadence. Full-batch
    GD takes its margins from the training forward, at no cost, so before the update:
    `measured_step` in the record is the number of steps behind the weights that were measured.

    Any other LightningModule whose batches are (x, y) is served with the margins of its raw
    outputs: f_y - max of the others, halved, for class indices y, and y f for labels +1/-1; not
    divided by a scale, for which only a JanusTask answers.

    Args:
        every_n_epochs: look at epochs 0, 1, 2, 4, 8, ... up to this number, at its multiples, and
            at the last one; 0 is off.
        bins: the bins of the histogram.
    """

    def __init__(self, every_n_epochs: int = 10, bins: int = 64) -> None:
        super().__init__(every_n_epochs)
        check_integer("callbacks.MarginHistogram.bins", bins, 1, BINS)
        self.bins = bins
        self._refused = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._refused = False  # of another module

    def observe(self, trainer: Trainer, module: LightningModule) -> Mapping[str, Value]:
        margins = self._margins(trainer, module)
        if margins is None:
            return {}
        margins = margins.double().cpu()  # the one wait for the device
        if not np.isfinite(margins.numpy()).all():
            return {}
        mean, std, least, _ = torch.stack(margin_statistics(margins)).tolist()
        return {
            "margin/mean": mean,
            "margin/std": std,
            "margin/min": least,
            "margin/hist": Histogram(*margin_histogram(margins, self.bins)),
        }

    def _margins(self, trainer: Trainer, module: LightningModule) -> Tensor | None:
        if isinstance(module, JanusTask):
            return module.training_margins()
        if self._refused:
            return None
        try:
            return raw_margins(trainer, module)
        except ValueError as error:
            self._refused = True
            rank_zero_warn(f"MarginHistogram logs nothing for {type(module).__name__}: {error}")
            return None


@torch.no_grad()
def raw_margins(trainer: Trainer, module: LightningModule) -> Tensor:
    """Margins of any classifier's outputs over its training set; shape (N,).

    Raises:
        ValueError: batches that are not pairs (x, y), or labels that are no class indices.
    """
    modes = {m: m.training for m in module.modules()}
    module.eval()
    try:
        pieces: list[tuple[Tensor, Tensor]] = []
        for batch in training_samples(trainer):
            if not isinstance(batch, tuple | list) or len(batch) != 2:
                raise ValueError("its batches are not pairs (x, y)")
            x, y = batch
            outputs = module(x)
            if not isinstance(outputs, Tensor) or not isinstance(y, Tensor):
                raise ValueError("its outputs or labels are no tensors")
            pieces.append((outputs, y))
        outputs, y = (torch.cat(parts) for parts in zip(*pieces, strict=True))
        return _output_margins(outputs, y)
    finally:
        for child, mode in modes.items():
            child.training = mode


def _output_margins(outputs: Tensor, y: Tensor) -> Tensor:
    outputs = outputs.flatten(1) if outputs.dim() > 1 else outputs[:, None]
    if outputs.shape[1] == 1:
        sign = y.to(outputs).flatten()
        values = set(sign.unique().tolist())
        if values <= {0.0, 1.0}:
            sign = 2 * sign - 1
        elif not values <= {-1.0, 1.0}:
            raise ValueError("its labels are neither 0 and 1 nor -1 and +1")
        return sign * outputs[:, 0]
    if y.dim() != 1 or y.is_floating_point() or y.min() < 0 or y.max() >= outputs.shape[1]:
        raise ValueError("its labels are not class indices")
    own = outputs.gather(1, y[:, None])[:, 0]
    others = outputs.scatter(1, y[:, None], -torch.inf).amax(dim=1)
    return (own - others) / 2
