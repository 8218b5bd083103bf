"""The page's spectra: in finer bins where the record has the singular values themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from report.pages import with_histograms
from report.synthetic import deep_run

from janus_pl.records.parts import Look
from janus_pl.records.run import Run
from janus_pl.report.page.series import histograms

LAYER, KEY = "conv3", "spectrum/conv3"
SIGMA = np.geomspace(0.15, 0.05, 128)  # less than half a decade, as random matrices have


def run(*epochs: float, sigma: Any = SIGMA) -> Run:
    """A run of eleven rows with histograms, and with looks at some of them."""
    recorded = with_histograms(deep_run(), [LAYER, "conv4"])
    looks = [Look(epoch, 8 * epoch, 0.1 * epoch, {LAYER: sigma}) for epoch in epochs]
    return replace(recorded, spectra=tuple(looks))


def edges_and_counts(packed: list[Any]) -> tuple[Any, Any]:
    _, (low, high), bins, first, counts = packed
    edges = np.linspace(low, high, bins + 1)
    return edges[first : first + len(counts) + 1], counts


def test_values_that_are_recorded_are_in_bins_of_a_thirty_second_of_a_decade() -> None:
    found = histograms(run(*range(11)), 60)
    assert [at[0] for at in found[KEY]] == list(range(11))
    edges, counts = edges_and_counts(found[KEY][-1])
    assert np.diff(edges) == pytest.approx(1 / 32)
    assert len(counts) >= 15  # it was four bins of an eighth of a decade
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        assert count == sum(low <= at < high for at in np.log10(SIGMA))
    assert sum(counts) == 128


def test_without_a_look_the_bins_are_those_of_the_record() -> None:
    plain, some = histograms(run(), 60), histograms(run(3.0, 4.0), 60)
    assert [k for k in range(11) if some[KEY][k] != plain[KEY][k]] == [3, 4]
    assert some["spectrum/conv4"] == plain["spectrum/conv4"]  # no look has this layer
    assert some["margin/hist"] == plain["margin/hist"]


def test_values_outside_are_in_the_outer_bins() -> None:
    found = histograms(run(0.0, sigma=np.array([1 + 1e-12, 1e-9, 0.0])), 60)
    edges, counts = edges_and_counts(found[KEY][0])
    assert (edges[0], edges[-1], counts[0], counts[-1], sum(counts)) == (-8, 0, 2, 1, 3)
