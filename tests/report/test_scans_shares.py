"""Errors of a scan: bars stay within [0, 1]; errors that nobody recorded have no row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report.drawn import Picture, pictures
from report.scanned import EPOCHS, scanned

from janus_pl.records.effects import mean
from janus_pl.records.run import Run
from janus_pl.report.figures import scans

ENDS = {"train/error": (0.0, 0.02), "val/error": (0.9, 1.0)}  # of two seeds, by B


def made(errors: bool = True) -> list[Run]:
    """Two seeds a batch size, one error near 0 and one near 1."""
    return [
        scanned(batch, seed=seed, columns=columns_of(seed) if errors else {"train/error": None})
        for batch in (16, 64, 256)
        for seed in range(2)
    ]


def columns_of(seed: int) -> dict[str, Any]:
    return {key: np.full(len(EPOCHS), at[seed]) for key, at in ENDS.items()}


def drawn(runs: Sequence[Run], folder: Path) -> Picture:
    return pictures(runs, folder, ["janus"], by=["batch_size"])["scan_rank"]


def beyond(figure: Picture) -> list[float]:
    """The ends of bars and of written intervals that are no shares."""
    bars = [bar for panel in figure.panels[3:] for bar in panel.bars]
    ends = [float(end) for bar in bars for end in (*bar.low, *bar.high)]
    for key in ENDS:
        for row in figure.written(key=key, kind="mean"):
            ends += [float(row["low"]), float(row["high"])]
    assert ends
    return [end for end in ends if not 0 <= end <= 1]


def test_bars_of_errors_stay_within_0_and_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = drawn(made(), tmp_path / "cut")
    assert beyond(figure) == []
    assert "its bars are cut off at 0 and 1" in figure.caption
    for key, (low, high) in ENDS.items():
        over = mean(key, [low, high])
        assert over.low is not None and over.high is not None
        assert over.low < 0 or over.high > 1, "else nothing is cut off"
        (row, *_) = figure.written(key=key, kind="mean")
        assert float(row["low"]) == max(over.low, 0)
        assert float(row["high"]) == min(over.high, 1)
    whole = tuple(quantity._replace(share=False) for quantity in scans.ERRORS)
    monkeypatch.setattr(scans, "ERRORS", whole)
    assert beyond(drawn(made(), tmp_path / "whole")), "the negative control"


def test_without_errors_there_is_no_row_of_them(tmp_path: Path) -> None:
    figure = drawn(made(errors=False), tmp_path)
    assert len(figure.panels) == 3 < len(drawn(made(), tmp_path / "errors").panels)
    assert "recorded no train/error and no val/error" in figure.caption
    assert "test set" not in figure.caption
