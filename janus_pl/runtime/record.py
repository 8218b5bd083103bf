"""The record of a run: one row an epoch, written to every logger in one call.

W&B starts a new row at every `run.log`, and Lightning logs metrics, validation results and objects
in calls of their own, at steps that differ by one. So a row is collected here and written once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import WandbLogger
from numpy.typing import NDArray

AXES = ("epoch", "trainer/global_step", "eta_t")


class Histogram(NamedTuple):
    """Counts (bins,) and edges (bins + 1,)."""

    counts: NDArray[np.int64]
    edges: NDArray[np.float64]


class Table(NamedTuple):
    """Column names and rows of plain values."""

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]


Value = float | Histogram | Table


def write_row(trainer: Trainer, row: Mapping[str, Value]) -> None:
    """Write one row to every logger of the trainer, on the first process alone.

    A number that is not finite is left out: it reads as missing, never as a measurement. Loggers
    other than W&B's get the numbers; W&B gets the histograms and tables too, with the epoch as
    the x axis.
    """
    if not trainer.is_global_zero:
        return
    numbers = {k: v for k, v in row.items() if isinstance(v, int | float) and math.isfinite(v)}
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            run = logger.experiment
            for key in row.keys() - _defined_keys(logger):
                # Exact names: a glob beside WandbLogger's own "*" would resolve at random.
                if key not in AXES:
                    run.define_metric(key, step_metric="epoch")
                _defined_keys(logger).add(key)
            _log(run, numbers, row)
        else:
            logger.log_metrics(numbers, step=int(row["trainer/global_step"]))  # type: ignore[arg-type]


def _defined_keys(logger: WandbLogger) -> set[str]:
    return logger.__dict__.setdefault("_janus_defined_keys", set())


def pend_objects(trainer: Trainer, values: Mapping[str, Value]) -> None:
    """Add histograms and tables to W&B's row to come; Lightning's own logging completes it."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger) and trainer.is_global_zero:
            _log(logger.experiment, {}, values, commit=False)


def _log(
    run: Any, numbers: Mapping[str, float], values: Mapping[str, Value], **options: Any
) -> None:
    """Log numbers, and the histograms and tables among the values, with a network or without."""
    import wandb

    try:
        run.log({**numbers, **_wandb_objects(values)}, **options)
    except wandb.errors.CommError:
        # Online, W&B asks the server about a table before it records the row. Where that is gone,
        # the table is recorded as a file of the run, and not as an artifact beside it.
        objects = _wandb_objects(values)
        for key, value in objects.items():
            if isinstance(value, wandb.Table):
                value.bind_to_run(run, key, run.step)
        run.log({**numbers, **objects}, **options)


def _wandb_objects(values: Mapping[str, Value]) -> dict[str, Any]:
    return {k: _wandb_object(v) for k, v in values.items() if isinstance(v, Histogram | Table)}


def _wandb_object(value: Histogram | Table) -> Any:
    import wandb

    if isinstance(value, Histogram):
        # Binned before: wandb.Histogram of the values themselves raises on a NaN.
        return wandb.Histogram(np_histogram=(value.counts.tolist(), value.edges.tolist()))
    return wandb.Table(columns=list(value.columns), data=[list(row) for row in value.rows])
