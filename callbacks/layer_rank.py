r"""The low-rank bias, layer by layer: ranks and spectra of V_k (Fig. 4b)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from lightning.pytorch import Trainer
from numpy.typing import NDArray
from torch import Tensor

from janus_pl.callbacks._observer import BINS, LayerObserver
from janus_pl.errors import UsageError, check_integer
from janus_pl.observables.rank import (
    effective_rank,
    numerical_rank,
    singular_values,
    stable_rank,
)
from janus_pl.run.rows import Histogram, Spectra, Table, Value
from janus_pl.training.clock import is_last_epoch
from janus_pl.training.subject import Subject

DECADES = 8


class LayerRank(LayerObserver):
    r"""Logs the ranks of V_k (unit Frobenius norm, convolutions as (out, in * kh * kw)).

    Keys: `rank/<layer>` = #{sigma_i > tolerance}; at every further tolerance t
    `rank_absolute_<t>/<layer>` = #{sigma_i > t} and `rank_relative_<t>/<layer>` =
    #{sigma_i > t sigma_1}; `stable_rank/<layer>` = 1/sigma_1^2, `effective_rank/<layer>` =
    exp(entropy of sigma_i/sum sigma), and `spectrum/<layer>`, a histogram of log10 sigma_i from
    -8 to 0 (smaller values in its first bin). The last epoch adds `spectrum_table`, every singular
    value, so that any other threshold can be applied later. Every look writes them to
    `spectra.jsonl` in the run's folder: in the digits of float32 if the weights are float32.

    Any LightningModule is served, for all its weights (`janus_pl.training.weights`).

    Args:
        every_n_epochs: The interval n of the looks: epochs 0, 1, 2, 4, 8, ... up to n, the
            multiples of n, and the last epoch. 0 turns the callback off.
        tolerance: The tolerance of `rank/<layer>`. The paper gives none; its group's public
            code counts sigma_i > 1e-3.
        tolerances: Further tolerances, absolute and relative.
        bins: The number of bins of the spectrum.
        layers: Globs of layers' names, such as `conv*`. Not set: all layers.
    """

    keys = (
        *("rank/LAYER", "stable_rank/LAYER", "effective_rank/LAYER"),
        *("rank_absolute_*/LAYER", "rank_relative_*/LAYER"),
    )
    tables: tuple[str, ...] = ("spectrum_table", "spectra")

    def __init__(
        self,
        every_n_epochs: int = 10,
        tolerance: float = 1e-3,
        tolerances: Sequence[float] = (1e-1, 1e-2, 1e-3),
        bins: int = 64,
        layers: Sequence[str | int] | None = None,
    ) -> None:
        super().__init__(every_n_epochs, layers)
        check_integer("callbacks.LayerRank.bins", bins, 1, BINS)
        for value in (tolerance, *tolerances):
            if not 0 <= value < 1:
                raise UsageError("callbacks.LayerRank.tolerance(s)", value, "0 up to below 1")
        self.tolerance = tolerance
        self.tolerances = tuple(tolerances)
        self.bins = bins

    def observe(self, trainer: Trainer, subject: Subject) -> Mapping[str, Value]:
        directions = subject.directions()
        spectra = {k: singular_values(V) for k, V in directions.items() if self.takes(k)}
        # One transfer for all layers; the ranks are then counted on the host.
        sizes = [len(sigma) for sigma in spectra.values()]
        parts = torch.cat(list(spectra.values())).cpu().split(sizes)
        spectra = dict(zip(spectra, parts, strict=True))
        ranks = {
            f"{name}/{layer}": rank
            for layer, sigma in spectra.items()
            for name, rank in self._ranks(sigma).items()
        }
        values: dict[str, Value] = dict(
            zip(ranks, torch.stack([*ranks.values()]).tolist(), strict=True)
        )
        finite = {k: s.numpy() for k, s in spectra.items() if np.isfinite(s.numpy()).all()}
        for layer, sigma in finite.items():
            values[f"spectrum/{layer}"] = self._histogram(sigma)
        if finite:
            values["spectra"] = Spectra({k: _digits(s, directions[k]) for k, s in finite.items()})
        if is_last_epoch(trainer):
            rows = [(k, i, s) for k, sigma in spectra.items() for i, s in enumerate(sigma.tolist())]
            values["spectrum_table"] = Table(("layer", "index", "sigma"), rows)
        return values

    def _ranks(self, sigma: Tensor) -> dict[str, Tensor]:
        ranks = {
            "rank": numerical_rank(sigma, self.tolerance, relative=False),
            "stable_rank": stable_rank(sigma),
            "effective_rank": effective_rank(sigma),
        }
        for t in self.tolerances:
            ranks[f"rank_absolute_{t:.0e}"] = numerical_rank(sigma, t, relative=False)
            ranks[f"rank_relative_{t:.0e}"] = numerical_rank(sigma, t, relative=True)
        return ranks

    def _histogram(self, sigma: NDArray[np.float64]) -> Histogram:
        logarithms = np.log10(sigma.clip(10.0**-DECADES, 1.0))
        return Histogram(*np.histogram(logarithms, bins=self.bins, range=(-DECADES, 0)))


def _digits(sigma: NDArray[np.float64], matrix: Tensor) -> list[float]:
    """Round singular values to the digits that the entries of their matrix have."""
    if matrix.dtype == torch.float64:
        return sigma.tolist()
    return [float(str(value)) for value in sigma.astype(np.float32)]
