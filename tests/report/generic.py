"""Runs that were never trained and in which no two numbers are equal.

Every row, layer, seed, lambda and histogram has numbers of its own, and the three clocks are not
proportional: what is drawn or judged from the wrong place is another number.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from janus_pl.records.run import Histogram, Run
from janus_pl.run.description import Description
from janus_pl.run.name import run_name

NETWORK, LINEAR = "janus_pl.DeepReLUClassifier", "janus_pl.LinearRegressor"
LAYERS = ("conv1", "conv2", "conv3", "conv4", "fc1", "fc2")
TEN_LAYERS = ("stem", *(f"net_{k}" for k in range(1, 12)), "head")  # in the order of the forward
EPOCHS = (0, 1, 3, 4, 9)
STEP = "trainer/global_step"


def network(
    lam: float = 1e-3,
    batch: int | str = 32,
    seed: int = 0,
    loss: str = "square",
    *,
    data_seed: int | None = None,
    layers: Sequence[str] = LAYERS,
    epochs: Sequence[float] = EPOCHS,
    columns: Mapping[str, Any] | None = None,
    model: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    trainer: Mapping[str, Any] | None = None,
    exit_code: int | None = 0,
    task: str = NETWORK,
) -> Run:
    """A classifier's record; `columns` replaces some columns, None takes one away."""
    name = f"{loss}-B{batch}-lam{lam:g}-seed{seed}" + ("" if data_seed is None else f"-{data_seed}")
    draw = np.random.default_rng(zlib.crc32(name.encode()))
    clocks = _clocks(epochs, 7 if batch != "full" else 1)
    size = len(epochs)
    rows: dict[str, Any] = {
        **clocks,
        "margin/mean": 1e-8 * draw.uniform(1, 3, size),
        "margin/std": 1e-9 * draw.uniform(0.1, 3, size),
        "rho": draw.uniform(1, 5, size),
        "rho_learned": -draw.uniform(1, 5, size),
        "train/error": draw.uniform(0.001, 0.009, size),
        "train/loss": draw.uniform(0.1, 0.5, size),
        "equilibrium/residual": 1e-3 * draw.normal(size=size),
        "equilibrium/common_mode": 1e-3 * draw.normal(size=size),
    }
    for layer in layers:
        rows[f"velocity/{layer}"] = 10.0 ** draw.uniform(-2, 1, size)
        rows[f"effective_rank/{layer}"] = draw.uniform(2, 60, size)
        for kind in ("rank", "rank_relative_1e-02", "rank_relative_1e-04", "rank_absolute_1e-01"):
            rows[f"{kind}/{layer}"] = draw.integers(1, 99, size).astype(float)
    shown = [_histogram(draw, epoch) for epoch in epochs[1:]]
    return _run(
        name,
        {"loss": loss, "weight_decay": lam, "learning_rate": 0.1, **(model or {})},
        {"batch_size": batch, "seed": seed if data_seed is None else data_seed, **(data or {})},
        {"max_epochs": int(epochs[-1]) if len(epochs) else 0, **(trainer or {})},
        seed,
        _with(rows, columns),
        exit_code,
        {"margin/hist": shown},
        task,
    )


def regression(
    batch: int | str = 1,
    seed: int = 0,
    lam: float = 0.02,
    *,
    values: int = 3,
    epochs: Sequence[float] = EPOCHS,
    columns: Mapping[str, Any] | None = None,
    model: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    trainer: Mapping[str, Any] | None = None,
    exit_code: int | None = 0,
    task: str = LINEAR,
) -> Run:
    """Linear regression's record with every key that the linear figures show."""
    name = f"linear-B{batch}-seed{seed}"
    draw = np.random.default_rng(zlib.crc32(name.encode()))
    size = len(epochs)
    keys = ["train/mse_per_sample", "null/norm", "null/predicted", "gradient_norm"]
    keys += ["solution/distance", "noise/weights", "noise/predictions"]
    keys += [f"{kind}/{i + 1}" for kind in KINDS for i in range(values)]
    rows: dict[str, Any] = _clocks(epochs, 10 if batch != "full" else 1)
    rows |= {key: 10.0 ** draw.uniform(-3, 1, size) for key in keys}
    for name_ in ("weights", "predictions"):
        for tenth in ("last_tenth", "tenth_before"):
            rows[f"noise/{name_}_{tenth}"] = draw.uniform(0.1, 1, size)
    return _run(
        name,
        {"weight_decay": lam, "learning_rate": 0.25, "schedule": "constant", **(model or {})},
        {"batch_size": batch, "seed": seed, **(data or {})},
        {"max_epochs": int(epochs[-1]), **(trainer or {})},
        seed,
        _with(rows, columns),
        exit_code,
        task=task,
    )


def zero_function(run: Run) -> Run:
    """The same, but weight decay has emptied it."""
    rows = run.rows.assign(**{"train/loss": 1.0})
    rows.loc[rows.index[-1], "rho"] = 1e-9
    return replace(run, rows=rows, id=f"emptied-{run.id}")


KINDS = ("singular_value", "eigenvalue_modulus")


def _clocks(epochs: Sequence[float], steps: int) -> dict[str, Any]:
    passed = np.asarray(epochs, float)
    return {"epoch": passed, STEP: steps * passed, "eta_t": 0.1 * steps * passed**0.8}


def _histogram(draw: np.random.Generator, epoch: float) -> Histogram:
    """Uneven bins and counts that no other histogram has."""
    edges = np.cumsum(draw.uniform(0.1, 1, 8)) * 1e-8
    return Histogram(epoch, draw.integers(1, 400, 7).astype(float), edges)


def _with(rows: dict[str, Any], columns: Mapping[str, Any] | None) -> pd.DataFrame:
    frame = pd.DataFrame(rows)
    for key, values in (columns or {}).items():
        if values is None:
            del frame[key]
        else:
            frame[key] = np.asarray(values, float)
    return frame


def _run(
    name: str,
    model: Mapping[str, Any],
    data: Mapping[str, Any],
    trainer: Mapping[str, Any],
    seed: int,
    rows: pd.DataFrame,
    exit_code: int | None,
    histograms: Mapping[str, Sequence[Histogram]] | None = None,
    task: str = NETWORK,
) -> Run:
    config = {
        "seed_everything": seed,
        "model": {"class_path": task, "init_args": dict(model)},
        "data": {"class_path": "package.Data", "init_args": dict(data)},
        "trainer": dict(trainer),
    }
    path = Path(name)
    return Run(f"id-{name}", name, None, path, config, exit_code, rows, histograms or {})


def measured(run: Run, **facts: Any) -> Run:
    """The same run with a description in its config, some facts of it changed."""
    seen = replace(run.description, **facts)
    return replace(run, config={**run.config, "description": seen.to_plain()})


def by_adam(run: Run) -> Run:
    """The same run as AdamW would have made it, with the name that it would have."""
    made = measured(run, optimizer="AdamW")
    name = run_name(made.description)
    return replace(made, name=name, id=f"id-{name}")


def ten_classes(lam: float = 1e-3, seed: int = 0, **facts: Any) -> Run:
    """A record of somebody else's ten-class network, whose options have the names of ours.

    Its margins are raw, and its layers are not in the order of their names.
    """
    run = network(lam, seed=seed, layers=TEN_LAYERS, task="somebody.TenClassMLP")
    rows = run.rows.rename(columns=lambda key: key.replace("margin/", "margin_raw/"))
    seen = Description(
        *("somebody.TenClassMLP", "module", "raw", "AdamW", False, TEN_LAYERS),
        decays={layer: {"acts": "decoupled", "value": 0.01} for layer in TEN_LAYERS},
        batch_size=32,
        seed=seed,
    )
    seen = replace(seen, **facts)
    name = f"{run_name(seen)}-{lam:g}"
    config = {**run.config, "description": seen.to_plain()}
    shown = {key.replace("margin/", "margin_raw/"): held for key, held in run.histograms.items()}
    return replace(run, id=f"id-{name}", name=name, config=config, rows=rows, histograms=shown)
