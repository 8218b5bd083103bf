"""Runs that were never trained: a record with the numbers that a test wants to be judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from janus_pl.records.run import Histogram, Run

NETWORK, LINEAR = "janus_pl.DeepReLUClassifier", "janus_pl.LinearRegressor"
LAYERS = ("conv1", "conv2", "conv3", "conv4", "fc1", "fc2")


def deep_run(
    lam: float = 1e-3,
    batch: int | str = 32,
    seed: int = 0,
    loss: str = "square",
    mean: float = 1.0,
    std: float = 0.1,
    ranks: Sequence[float] = (20, 60, 100, 100, 100, 2),
    velocities: Sequence[float] = (3, 4, 5, 6, 7, 1),
    residual: float = 0.0,
    error: float = 0.0,
    train_loss: float = 0.1,
    epochs: int = 10,
    fall_at: int = 5,
    layers: Sequence[str] = LAYERS,
    every: int = 1,
    rho: float = 10.0,
) -> Run:
    """A classifier's record: ranks start at 20, 60, 100, 100, 100, 2 and change at one epoch.

    rho, 10 at the start, changes with them. There is a row at the start and `every` so many epochs.
    Its margins are normal, with the same histogram every other epoch; another seed, other margins.
    """
    start = (20, 60, 100, 100, 100, 2)
    steps = 1 if batch == "full" else 8
    rows: list[dict[str, float]] = []
    for epoch in range(0, epochs + 1, every):
        now = start if epoch < fall_at else ranks
        rows.append(
            {
                "epoch": epoch,
                "trainer/global_step": epoch * steps,
                "eta_t": 0.1 * epoch * steps,
                "margin/mean": mean,
                "margin/std": std,
                "rho": 10.0 if epoch < fall_at else rho,
                "rho_learned": -2.0,
                "train/error": error,
                "train/loss": train_loss,
                "equilibrium/residual": residual,
                "equilibrium/common_mode": 0.0,
                **{f"effective_rank/{k}": r for k, r in zip(layers, now, strict=True)},
                **{f"velocity/{k}": v for k, v in zip(layers, velocities, strict=True)},
            }
        )
    options = {"loss": loss, "weight_decay": lam, "learning_rate": 0.1}
    data = {"batch_size": batch, "seed": seed}
    name = f"{loss}-B{batch}-lam{lam:g}-seed{seed}"
    margins = np.random.default_rng(seed).normal(mean, std, 500)
    counts, edges = np.histogram(margins, 64)
    shown = [Histogram(e, counts.astype(float), edges) for e in range(0, epochs + 1, 2)]
    return _run(name, seed, options, data, rows, epochs, histograms={"margin/hist": shown})


def linear_run(
    batch: int | str = 1,
    seed: int = 0,
    steps: int = 10,
    start: float = 2.0,
    factor: float = 0.99,
    off: float = 0.0,
    epochs: int = 20,
    problem: Mapping[str, Any] | None = None,
    **options: Any,
) -> Run:
    """Linear regression's record: W_perp shrinks by a factor a step, `off` of the start too large.

    With `start=0` it is `off` at every epoch. `problem` holds options of the data.
    """
    rows: list[dict[str, float]] = []
    for epoch in range(epochs + 1):
        predicted = start * factor ** (epoch * (1 if batch == "full" else steps))
        norm = predicted + off * (start or 1.0) * (epoch > 0)
        count = epoch * (1 if batch == "full" else steps)
        axes = {"epoch": epoch, "trainer/global_step": count, "eta_t": 0.1 * count}
        spectrum = {"singular_value/1": 3.0 - 1 / (1 + epoch), "singular_value/2": norm}
        shown = {"train/mse_per_sample": 4.0 / (1 + epoch), "gradient_norm": 2.0 / (1 + count)}
        rows.append({**axes, "null/norm": norm, "null/predicted": predicted, **spectrum, **shown})
    options = {"weight_decay": 0.01, "gd_schedule": None, **options}
    data = {"batch_size": batch, "seed": seed, **(problem or {})}
    name = f"linear-B{batch}-seed{seed}"
    return _run(name, seed, options, data, rows, epochs, task=LINEAR)


def bounded_run(ratio: float | None = 0.5, exit_code: int = 0) -> Run:
    """A record of RankBound: the largest ratio in fc1, or a bound that is vacuous everywhere."""
    rows = [{"epoch": e, "trainer/global_step": e, "eta_t": 0.1 * e} for e in range(3)]
    for row in rows[1:]:
        row["tail_bound/vacuous/conv1"] = 1
        row["tail_bound/vacuous/fc1"] = float(ratio is None)
        if ratio is not None:
            row["tail_bound/ratio/fc1"] = ratio if row["epoch"] == 1 else 0.1
    return _run("bounded", 0, {"loss": "square"}, {"batch_size": 1}, rows, 2, exit_code)


def _run(
    name: str,
    seed: int,
    model: dict[str, Any],
    data: dict[str, Any],
    rows: list[dict[str, float]],
    epochs: int,
    exit_code: int = 0,
    histograms: Mapping[str, Sequence[Histogram]] | None = None,
    task: str = NETWORK,
) -> Run:
    config = {
        "seed_everything": seed,
        "model": {"class_path": task, "init_args": model},
        "data": {"class_path": "Data", "init_args": data},
        "trainer": {"max_epochs": epochs},
    }
    return Run(
        name, name, None, Path(name), config, exit_code, pd.DataFrame(rows), histograms or {}
    )
