"""The record of a run: one row an epoch, written to every logger in one call.

W&B starts a new row at every `run.log`. Lightning logs metrics, validation results and objects in
separate calls, at steps that differ by one. So a row is collected first and then written once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray

from janus_pl.run.compared import is_detail, means
from janus_pl.run.lines import SIGMA
from janus_pl.run.service import without_pandas

AXES = ("epoch", "trainer/global_step", "eta_t")
OF_HISTOGRAM = ("", "._type", ".bins", ".values")  # W&B asks for each part by itself


class Histogram(NamedTuple):
    """A histogram: counts (bins,) and edges (bins + 1,)."""

    counts: NDArray[np.int64]
    edges: NDArray[np.float64]


class Table(NamedTuple):
    """A table: column names, and rows of plain values."""

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]


class Spectra(NamedTuple):
    """The singular values of every layer, largest first; the folder alone records them."""

    sigma: Mapping[str, Sequence[float]]


Value = float | Histogram | Table | Spectra


def split_row(row: Mapping[str, Value]) -> tuple[dict[str, float], dict[str, Histogram | Table]]:
    """Return the finite numbers of a row, and its histograms and tables."""
    numbers = {k: v for k, v in row.items() if isinstance(v, int | float) and math.isfinite(v)}
    return numbers, {k: v for k, v in row.items() if isinstance(v, Histogram | Table)}


def spectra_line(row: Mapping[str, Value]) -> dict[str, Any] | None:
    """Return the line of `spectra.jsonl` for a row; None if the row has no singular values."""
    held = [value.sigma for value in row.values() if isinstance(value, Spectra)]
    sigma = {layer: list(values) for each in held for layer, values in each.items()}
    return {**{axis: row[axis] for axis in AXES}, SIGMA: sigma} if sigma else None


def log_to(
    loggers: Sequence[Logger],
    numbers: Mapping[str, float],
    objects: Mapping[str, Histogram | Table],
) -> None:
    """Log the two parts of a row to each logger that takes them."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            log_row(logger, {**numbers, **objects})
        else:
            logger.log_metrics(dict(numbers), step=int(numbers["trainer/global_step"]))


def log_row(logger: WandbLogger, row: Mapping[str, Value]) -> None:
    """Log one row of finite values to W&B, unless a resumed online run has it already.

    A logger of ours takes it beside the training.
    """
    new = row.keys() - _defined_keys(logger)
    _defined_keys(logger).update(new)
    is_sent = row["trainer/global_step"] <= getattr(logger, "sent_steps", -1)  # type: ignore[operator]
    send = partial(_send, row=row, new=new, is_sent=is_sent)
    if (take := getattr(logger, "send", None)) is not None:
        take(send)
    else:
        send(logger.experiment)


def _send(run: Any, row: Mapping[str, Value], new: Set[str], is_sent: bool) -> None:
    """Define the keys that are new, log the row, and put the means over layers in the summary."""
    for key in new:
        # Exact names: a glob beside WandbLogger's own "*" would resolve at random.
        if key not in AXES:
            _define(run, key, row[key])
    if is_sent:
        return
    _log(run, row)
    if of_layers := means(row):
        run.summary.update(of_layers)


def _define(run: Any, key: str, value: Value) -> None:
    """Tell W&B the x axis of a key, and whether its newest value goes into the summary."""
    if isinstance(value, Table) or not is_detail(key):  # panels find a table in the summary
        run.define_metric(key, step_metric="epoch")
        return
    leaves = OF_HISTOGRAM if isinstance(value, Histogram) else ("",)
    for leaf in leaves:
        run.define_metric(key + leaf, step_metric="epoch", summary="none")


def plain_row(row: Mapping[str, Value]) -> dict[str, Any]:
    """Return a row in plain containers, for checkpoints, which hold nothing else.

    >>> plain_row({"loss": 0.5, "hist": Histogram(np.array([1, 2]), np.array([0.0, 1.0, 2.0]))})
    {'loss': 0.5, 'hist': ['histogram', [1, 2], [0.0, 1.0, 2.0]]}
    """
    plain: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, Histogram):
            plain[key] = ["histogram", value.counts.tolist(), value.edges.tolist()]
        elif isinstance(value, Table):
            plain[key] = ["table", list(value.columns), [list(line) for line in value.rows]]
        elif isinstance(value, Spectra):
            plain[key] = ["spectra", {k: list(values) for k, values in value.sigma.items()}]
        else:
            plain[key] = value
    return plain


def row_of(plain: Mapping[str, Any]) -> dict[str, Value]:
    """Return the row that `plain_row` made plain."""
    row: dict[str, Value] = {}
    for key, value in plain.items():
        if not isinstance(value, list):
            row[key] = value
        elif value[0] == "histogram":
            row[key] = Histogram(np.array(value[1]), np.array(value[2]))
        elif value[0] == "spectra":
            row[key] = Spectra(value[1])
        else:
            row[key] = Table(value[1], value[2])
    return row


def _defined_keys(logger: WandbLogger) -> set[str]:
    return logger.__dict__.setdefault("_janus_defined_keys", set())


def _log(run: Any, values: Mapping[str, Value], **options: Any) -> None:
    """Log numbers, histograms and tables, with a network or without."""
    import wandb

    try:
        with without_pandas():
            run.log({**values, **_wandb_objects(values)}, **options)
    except ConnectionError:  # W&B's service has died
        raise
    except (wandb.errors.CommError, OSError):
        # Online, W&B asks the server about a table before it records the row. If the server is
        # gone, or the folder where W&B stages tables, the table is recorded as a file of the run,
        # and not as an artifact beside it.
        numbers = {k: v for k, v in values.items() if not isinstance(v, Histogram | Table)}
        run.log({**numbers, **_as_files(run, values)}, **options)


def _as_files(run: Any, values: Mapping[str, Value]) -> dict[str, Any]:
    """Return histograms and tables, each table as a file of the run; leave out what has no file."""
    import wandb

    objects = _wandb_objects(values)
    for key, value in [*objects.items()]:
        try:
            if isinstance(value, wandb.Table):
                value.bind_to_run(run, key, run.step)
        except OSError as error:
            rank_zero_warn(f"W&B: its record lacks {key}, which cannot be written ({error})")
            del objects[key]
    return objects


def _wandb_objects(values: Mapping[str, Value]) -> dict[str, Any]:
    return {k: _wandb_object(v) for k, v in values.items() if isinstance(v, Histogram | Table)}


def _wandb_object(value: Histogram | Table) -> Any:
    import wandb

    if isinstance(value, Histogram):
        # Binned before: wandb.Histogram of the values themselves raises on a NaN.
        return wandb.Histogram(np_histogram=(value.counts.tolist(), value.edges.tolist()))
    return wandb.Table(columns=list(value.columns), data=[list(row) for row in value.rows])
