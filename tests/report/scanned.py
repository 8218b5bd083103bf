"""Runs of scans whose ranks follow a law that a test chooses; clocks are those of N = 512."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from report.generic import LAYERS, measured, network

from janus_pl.records.archive import write_archive
from janus_pl.records.parts import Part
from janus_pl.records.run import Run

N = 512
EPOCHS = tuple(range(41))
MIDDLE = ("conv3", "conv4", "fc1")


def scanned(
    batch: int | str = 32,
    rate: float = 0.1,
    lam: float = 1e-3,
    seed: int = 0,
    *,
    law: Mapping[str, float] | None = None,
    epochs: Sequence[float] = EPOCHS,
    model: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    columns: Mapping[str, Any] | None = None,
    **options: Any,
) -> Run:
    """A network's record; ranks are 20 (B/32)^b (rate/0.1)^r (lam/1e-3)^l, to 2% by run and row.

    Args:
        batch: B.
        rate: The learning rate.
        lam: The weight decay.
        seed: Of everything.
        law: The exponents b, r and l, by these names; one that is not there is 0.
        epochs: Of the rows.
        model: Further options of the model.
        data: Further options of the data.
        columns: Further columns of the record.
        options: Of `network`.
    """
    law = law or {}
    size = N if batch == "full" else int(batch)
    at = np.asarray(epochs, float)
    steps = np.round(at * math.ceil(N / size))
    name = f"{batch}-{rate:g}-{lam:g}-{seed}"
    draw = np.random.default_rng(sum(map(ord, name)))
    center = 20.0 * (size / 32) ** law.get("b", 0) * (rate / 0.1) ** law.get("r", 0)
    center *= ((lam or 1e-3) / 1e-3) ** law.get("l", 0)
    own = np.exp(0.02 * draw.normal(size=(len(at), len(MIDDLE))))
    ranks = {f"effective_rank/{k}": center * own[:, i] for i, k in enumerate(MIDDLE)}
    clocks = {"trainer/global_step": steps, "eta_t": rate * steps}
    made = network(
        lam,
        batch,
        seed,
        epochs=epochs,
        model={"learning_rate": rate, "schedule": "constant", **(model or {})},
        data={"num_train": N, **(data or {})},
        columns={**clocks, **ranks, **(columns or {})},
        **options,
    )
    told = f"{made.name}-eta{rate:g}"
    run = measured(made, batch_size=size, num_train=N, layers=LAYERS)
    return replace(run, name=told, id=f"id-{told}")


def classified(run: Run) -> Run:
    """The same run of a classifier of ours that is not the paper's network."""
    return measured(run, kind="classifier", task="janus_pl.deep.any_classifier.Classifier")


def archived(runs: Sequence[Run], path: Path) -> Path:
    """Write the rows and configs of some runs to a file that the tools read."""
    parts = []
    for run in runs:
        items = [
            {k: v for k, v in row.items() if math.isfinite(v)}
            for row in run.rows.to_dict(orient="records")
        ]
        parts.append(Part(path, run.id, run.name, None, "", {**run.config}, items, run.exit_code))
    write_archive(path, parts)
    return path
