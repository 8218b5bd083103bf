"""A run's numbers and histograms over its epochs, thinned."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from janus_pl.records.run import STEP, Histogram, Run
from janus_pl.report.page.numbers import all_rounded, rounded, thinned


class Margins(NamedTuple):
    """A sort of margins: the prefix of their keys, their name, and the label of their axis."""

    prefix: str
    words: str
    axis: str


NORMALIZED = Margins("margin", "normalized margins", "normalized margin f̄")
RAW = Margins(
    "margin_raw", "raw margins (units of the outputs)", "raw margin (units of the outputs)"
)
# In old records of somebody else's module, which do not say whether there was a scale.
UNSCALED = Margins("margin", "margins", "margin (units not recorded)")

AXES = {"epoch": "epoch", "step": STEP, "eta": "eta_t"}
HISTOGRAMS = ("margin/hist", "margin_raw/hist", "spectrum/")
Sigma = Mapping[str, NDArray[np.float64]]  # singular values by layer
LOWEST, FINE = -8, 32  # spectra: log10 of the lowest edge, bins a decade; the record has 8
EDGE_DIGITS = 12  # margins of equal size differ in the fifth digit or later

# Numbers of a layer, or of one of many values, each with a chart of its own.
OF_LAYERS = re.compile(
    r"(velocity|velocity_full|rank|stable_rank|effective_rank|rank_(absolute|relative)_[^/]+)/."
)
OF_VALUES = re.compile(r"singular_value/.")
# Numbers of the whole run; those of other callbacks stay in the record.
OF_RUN = re.compile(
    r"[^/]+|(train|val|margin|margin_raw|null|equilibrium|noise|collapse|solution)/[^/]+"
)
LEFT_OUT = {*AXES.values(), "measured_step"}


class Limits(NamedTuple):
    """How much of a run the page holds: points a curve, epochs with a histogram."""

    points: int
    epochs: int


def limits(runs: int) -> Limits:
    """Return the limits: 400 and 60 up to 20 runs, then fewer, so that a page of 200 still opens.

    >>> limits(20), limits(200)
    (Limits(points=400, epochs=60), Limits(points=60, epochs=12))
    """
    more = max(1, runs / 20)
    return Limits(max(60, int(400 / more)), max(12, int(60 / more)))


def smaller(most: Limits, share: float) -> Limits:
    """Return a share of the limits, for a page that would be too large."""
    return Limits(max(2, int(most.points * share)), max(2, int(most.epochs * share)))


def series(run: Run, most: int) -> list[dict[str, Any]]:
    """Return curves in groups that share their epochs: the axes once, then a list of numbers a key.

    Args:
        run: its rows; a number that is missing or not finite is no point of the curve.
        most: points a curve.
    """
    frame = _with_spread(run.rows)
    groups: dict[bytes, dict[str, Any]] = {}
    for key in sorted(str(key) for key in frame):
        if key in LEFT_OUT or not _shown(key):
            continue
        values = np.asarray(frame[key], dtype=float)
        places = np.flatnonzero(np.isfinite(values))
        if not len(places):
            continue
        places = places[thinned(len(places), most)]
        same = places.tobytes()
        if same not in groups:
            groups[same] = {"x": _axes(frame, places), "y": {}}
        groups[same]["y"][key] = all_rounded(values[places])
    return list(groups.values())


def histograms(run: Run, most: int) -> dict[str, list[list[Any]]]:
    """Return lists of [epoch, edges, bins, first bin that is not empty, counts from there] by key.

    The edges are the outer two where bins are equally wide, otherwise all of them.
    """
    found = {
        key: [histogram for histogram in all_of_it if _whole(histogram)]
        for key, all_of_it in sorted(run.histograms.items())
        if key.startswith(HISTOGRAMS)
    }
    looks = {look.epoch: look.sigma for look in run.spectra}
    return {
        key: [_packed(_finer(key, whole[k], looks)) for k in thinned(len(whole), most)]
        for key, whole in found.items()
        if whole
    }


def _finer(key: str, recorded: Histogram, looks: Mapping[float, Sigma]) -> Histogram:
    """Return the spectrum in finer bins than the record's, if it has the singular values."""
    sigma = looks.get(recorded.epoch, {}).get(key.removeprefix("spectrum/"))
    if sigma is None:
        return recorded
    # Values outside are in the outer bins, as they are in the record's histograms.
    at = np.log10(np.clip(sigma, 10.0**LOWEST, 1.0))
    return Histogram(recorded.epoch, *np.histogram(at, -LOWEST * FINE, (LOWEST, 0)))


def margins_of(run: Run) -> Margins:
    """Return the sort of margins that a run has recorded."""
    if run.description.margin == "normalized":
        return NORMALIZED
    keys = [str(key) for key in [*run.rows, *run.histograms]]
    old = any(key.startswith(f"{UNSCALED.prefix}/") for key in keys)
    return UNSCALED if old else RAW


def _shown(key: str) -> bool:
    return any(pattern.match(key) for pattern in (OF_LAYERS, OF_VALUES)) or bool(
        OF_RUN.fullmatch(key)
    )


def _with_spread(rows: pd.DataFrame) -> pd.DataFrame:
    for prefix in (NORMALIZED.prefix, RAW.prefix):
        if {f"{prefix}/mean", f"{prefix}/std"} <= set(rows):
            # A mean of zero has no relative spread.
            mean = rows[f"{prefix}/mean"].where(rows[f"{prefix}/mean"] != 0)
            spread = rows[f"{prefix}/std"] / mean.abs()
            rows = rows.assign(**{f"{prefix}/std over mean": spread})
    return rows


def _axes(frame: pd.DataFrame, places: NDArray[np.int64]) -> dict[str, list[Any]]:
    return {
        axis: all_rounded(np.asarray(frame[key], dtype=float)[places])
        for axis, key in AXES.items()
        if key in frame
    }


def _whole(histogram: Histogram) -> bool:
    edges = np.asarray(histogram.edges, dtype=float)
    return len(edges) == len(histogram.counts) + 1 > 1 and bool(np.isfinite(edges).all())


def _packed(histogram: Histogram) -> list[Any]:
    counts = np.asarray(histogram.counts)
    edges = np.asarray(histogram.edges, dtype=float)
    bins = len(counts)
    off = np.abs(edges - np.linspace(edges[0], edges[-1], bins + 1)).max()
    even = off <= _width(edges)
    filled = np.flatnonzero(counts)
    first, end = (int(filled[0]), int(filled[-1]) + 1) if len(filled) else (0, 0)
    kept = edges[[0, -1]] if even else edges
    return [
        rounded(histogram.epoch),
        all_rounded(kept, EDGE_DIGITS),
        bins,
        first,
        all_rounded(counts[first:end]),
    ]


def _width(edges: NDArray[np.float64]) -> float:
    """Return a hundredth of a bin."""
    return float(edges[-1] - edges[0]) / (100 * max(1, len(edges) - 1))
