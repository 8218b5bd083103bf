"""Pages of runs that were never trained, and what a page holds."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from report.synthetic import LAYERS, deep_run, linear_run

from janus_pl.records.run import Histogram, Run
from janus_pl.report.page import write

HOSTILE = "</script><img src=x onerror=alert(1)><b>bold</b><!--"


def deep(**options: Any) -> Run:
    """A classifier's run with histograms of margins and spectra that change every epoch."""
    run = deep_run(**options)
    return with_histograms(run, LAYERS)


def linear(**options: Any) -> Run:
    """Linear regression's run with its singular values."""
    run = linear_run(**options)
    rows = run.rows.assign(**{"sigma_min": 0.5, "singular_value/01": 2.0, "singular_value/02": 0.5})
    return replace(run, rows=rows)


def with_histograms(run: Run, layers: Sequence[str]) -> Run:
    found = {"margin/hist": [_histogram(e, 1e-8 * (1 + e), 1e-9) for e in run.rows["epoch"]]}
    for layer in layers:
        found[f"spectrum/{layer}"] = [_histogram(e, -2 + 0.1 * e, 0.1) for e in run.rows["epoch"]]
    return replace(run, histograms=found)


def renamed(run: Run, name: str, group: str | None = None) -> Run:
    return replace(run, name=name, id=name, group=group)


def several() -> list[Run]:
    """SGD and GD at three lambda and two seeds, and a linear pair."""
    lambdas, batches = (0.0, 1e-4, 1e-3), (32, "full")
    runs = [
        deep(lam=lam, batch=batch, seed=seed, mean=1e-8)
        for lam in lambdas
        for batch in batches
        for seed in (0, 1)
    ]
    return [*runs, linear(batch=1), linear(batch="full")]


def verdict(sentence: str = "it is 2", answer: str = "supported") -> dict[str, Any]:
    """A line of the JSON of `verify`."""
    return {
        **{"name": "1: mean", "answer": answer, "retrospective": False, "sentence": sentence},
        **{"source": "Fig. 1", "criterion": "a slope is above 0", "primary": True},
        **{"details": ["lambda 0, 1: 2, 5 seeds"], "runs": ["a (b)"]},
    }


def of_lines(*lines: dict[str, Any]) -> dict[str, Any]:
    """The JSON of `verify` with these lines."""
    return {"lines": list(lines), "left_out": "1 not trained"}


def long_run(seed: int, epochs: int = 800) -> Run:
    """As many numbers as a real run of 800 epochs has, none of them round."""
    draw = np.random.default_rng(seed)
    run = deep_run(seed=seed, epochs=epochs)
    kinds = ["effective_rank", "stable_rank", "rank", "velocity", "velocity_full"]
    kinds += [f"rank_{kind}_1e-0{k}" for kind in ("absolute", "relative") for k in (1, 2, 3)]
    keys = [f"{kind}/{layer}" for kind in kinds for layer in LAYERS] + [
        f"number{k}" for k in range(20)
    ]
    extra = pd.DataFrame({key: draw.lognormal(size=epochs + 1) for key in keys})
    rows = pd.concat([run.rows.drop(columns=[k for k in keys if k in run.rows]), extra], axis=1)
    counts = draw.integers(1, 999, (epochs + 1, 64)).astype(float)
    edges = np.linspace(1e-8 / 3, 1e-7 / 3, 65)
    found = [Histogram(e, counts[e], edges) for e in range(epochs + 1)]
    names = ["margin/hist", *(f"spectrum/{layer}" for layer in LAYERS)]
    return replace(run, rows=rows, histograms=dict.fromkeys(names, found))


def data_of(file: Path) -> dict[str, Any]:
    """The JSON in a page."""
    found = re.search(
        r'<script type="application/json" id="data">(.*?)</script>', file.read_text(), re.S
    )
    assert found
    return json.loads(found[1])


def data(runs: Sequence[Run], folder: Path, **options: Any) -> dict[str, Any]:
    return data_of(write(runs, folder / "page.html", **options))


def series_of(run: Mapping[str, Any], key: str) -> tuple[dict[str, list[float]], list[float]]:
    """Axes and values of a key in a run of a page."""
    (group,) = [group for group in run["series"] if key in group["y"]]
    return group["x"], group["y"][key]


def _histogram(epoch: float, low: float, width: float) -> Histogram:
    counts = np.array([0, 1, 3, 2, 0], dtype=float)
    return Histogram(epoch, counts, np.linspace(low, low + 5 * width, 6))
