"""The table of runs: what each of them was given, and where it ended."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from janus_pl.errors import Exit
from janus_pl.records.families import lambda_of, seed_of
from janus_pl.records.run import STEP, Run, ordered
from janus_pl.report.page.numbers import rounded
from janus_pl.report.page.series import NORMALIZED, RAW, margins_of

MOST_LAYERS = 8  # more columns than that nobody reads
ENDS: dict[int | None, str] = {Exit.DONE: "done", Exit.BROKEN_THEOREM: "theorem broke"}


class Column(NamedTuple):
    """A heading, what it means in a few words, and its value in a run: text, number or None."""

    label: str
    title: str
    value: Callable[[Run], Any]


def table(runs: Sequence[Run]) -> tuple[list[dict[str, str]], list[list[Any]]]:
    """Return the columns with a value in some run, and the values, one list a run."""
    columns = [*_given(), *_measured(runs), *_ranks(runs), *_linear()]
    filled = [[_plain(column.value(run)) for column in columns] for run in runs]
    kept = [k for k in range(len(columns)) if any(row[k] is not None for row in filled)]
    heads = [{"label": columns[k].label, "title": columns[k].title} for k in kept]
    return heads, [[row[k] for k in kept] for row in filled]


def family_of(run: Run) -> str:
    """Return the group of an experiment's runs; where they have none, their model."""
    return run.group or model_of(run)


def model_of(run: Run) -> str:
    """Return the class of the model, without its package."""
    return (run.description.task or "model").rpartition(".")[2]


def batch_of(run: Run) -> Any:
    """Return B, or `full`."""
    return "full" if run.description.whole else _plain(run.description.batch_size)


def seed(run: Run) -> Any:
    """Return the seed of the weights, or else that of the samples."""
    weights, samples = seed_of(run)
    return _plain(samples if weights is None else weights)


def _given() -> list[Column]:
    return [
        Column("family", "W&B's group, or the model", family_of),
        Column("model", "class of the model", model_of),
        Column(
            "dynamics",
            "as measured; GD: every step takes the whole training set",
            lambda r: r.dynamics,
        ),
        Column("B", "batch size; full: the whole training set", batch_of),
        Column("λ", "weight decay", lambda_of),
        Column("loss", "loss function", lambda run: run.description.loss),
        Column("normalization", "of the weights", lambda run: run.description.normalization),
        Column("control", "a control of the rate of V_k that is on", _control),
        Column("seed", "seed of the weights", seed),
        Column("epochs", "epochs recorded", lambda run: run.last("epoch")),
        Column("steps", "optimizer steps recorded", lambda run: run.last(STEP)),
        Column("end", "how the run ended", lambda run: ENDS.get(run.exit_code, "unfinished")),
    ]


def _control(run: Run) -> str | None:
    said = [f"{name} {value}" for name, value in run.description.controls.items()]
    return ", ".join(said) or None


def _measured(runs: Sequence[Run]) -> list[Column]:
    scaled = all(margins_of(run) == NORMALIZED for run in runs if run.has("margin/mean"))
    which = NORMALIZED.words if scaled else "margins, in the units of each run"
    return [
        _last("train/loss", "loss over the training set, last row"),
        _last("train/error", "share of the training set that is wrong, last row"),
        _last("val/error", "share of the test split that is wrong, last row"),
        _last("margin/mean", f"mean μ of the {which}, last row"),
        _last("margin/std", f"standard deviation of the {which}, last row"),
        _last("margin_raw/mean", f"mean of the {RAW.words}, last row"),
        _last("margin_raw/std", f"standard deviation of the {RAW.words}, last row"),
        Column("std/mean", "the margins' relative spread, last row", _spread),
    ]


def _ranks(runs: Sequence[Run]) -> list[Column]:
    layers = ordered([layer for run in runs for layer in run.layers("effective_rank")], runs)
    return [
        Column(f"eff. rank {k}", f"effective rank of {k}, last row", _value(f"effective_rank/{k}"))
        for k in layers[:MOST_LAYERS]
    ]


def _linear() -> list[Column]:
    return [
        _last("null/norm", "‖W(I - π)‖, the part of W outside the data's span, last row"),
        _last("null/predicted", "its closed form, last row"),
        _last("sigma_min", "smallest singular value of W, last row"),
    ]


def _last(key: str, title: str) -> Column:
    return Column(key, title, _value(key))


def _value(key: str) -> Callable[[Run], float]:
    return lambda run: run.last(key)


def _spread(run: Run) -> float:
    prefix = margins_of(run).prefix
    mean = run.last(f"{prefix}/mean")
    return run.last(f"{prefix}/std") / abs(mean) if mean else math.nan


def _plain(value: Any) -> Any:
    """Return text, a rounded number or None, whatever an option holds."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int | float):
        return rounded(float(value))
    return json.dumps(value, default=str)
