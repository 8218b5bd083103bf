"""What several runs say together: equal options and seeds, effects with their intervals."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy import stats

from janus_pl.report.records import Run

CONFIDENCE = 0.95

LOSS_AT_ZERO = {
    **{"square": 1.0, "exponential": 1.0},
    **{"logistic": math.log(2), "cross_entropy": math.log(2)},
}

Varied = Literal["lambda", "batch", "seed", "epochs", "loss"]
OPTIONS_OF: dict[Varied, tuple[str, ...]] = {
    "lambda": ("model.weight_decay",),
    "batch": ("data.batch_size", "data.micro_batch_size"),
    "seed": ("seed_everything", "data.seed"),
    "epochs": ("trainer.max_epochs", "trainer.max_steps"),
    "loss": ("model.loss",),
}
# What else of the trainer changes the numbers; the rest is how they are computed and shown.
TRAINER = ("trainer.max_epochs", "trainer.max_steps", "trainer.precision")


class Estimate(NamedTuple):
    """An effect over seeds.

    Attributes:
        name: what it is.
        value: the mean over seeds, of ratios the geometric one.
        low: the lower end of its 95% interval (Student's t over seeds); None for a single seed.
        high: the upper end.
        seeds: how many.
    """

    name: str
    value: float
    low: float | None
    high: float | None
    seeds: int

    def __str__(self) -> str:
        interval = "" if self.low is None else f" [{self.low:.3g}, {self.high:.3g}]"
        return f"{self.value:.3g}{interval}"


def mean(name: str, values: Sequence[float]) -> Estimate:
    """Mean of one value a seed, with its interval.

    >>> mean("fall", [0.25, 0.75]).value, mean("fall", [0.5]).low
    (0.5, None)
    """
    center, n = float(np.mean(values)), len(values)
    if n < 2:
        return Estimate(name, center, None, None, n)
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1))
    half = quantile * float(np.std(values, ddof=1)) / math.sqrt(n)
    return Estimate(name, center, center - half, center + half, n)


def ratio(name: str, values: Sequence[float]) -> Estimate:
    """Geometric mean of one positive value a seed; the interval is that of the logarithms.

    >>> round(ratio("spread", [2.0, 8.0]).value, 12)
    4.0
    """
    logarithms = mean(name, [math.log(value) for value in values])
    ends = [None if end is None else math.exp(end) for end in logarithms[2:4]]
    return Estimate(name, math.exp(logarithms.value), ends[0], ends[1], len(values))


def trend(x: Sequence[float], y: Sequence[float]) -> float:
    """Kendall's tau of y against x, -1 to 1; 0 where one of them does not vary.

    >>> trend([0, 1, 2], [5.0, 6.0, 9.0])
    1.0
    """
    tau = float(stats.kendalltau(x, y).statistic)
    return tau if math.isfinite(tau) else 0.0


def seed_of(run: Run) -> tuple[Any, Any]:
    """The seeds of weights and of samples."""
    return run.options.get("seed_everything"), run.options.get("data.seed")


def lambda_of(run: Run) -> float:
    """The paper's lambda; NaN for a run over several, or none."""
    value = run.options.get("model.weight_decay")
    return float(value) if isinstance(value, int | float) else math.nan


def is_zero_function(run: Run) -> bool:
    """Whether a network's training loss ended at that of f = 0, or within 1% of it, or above.

    Its margins are rounding and its directions those of a network that weight decay has emptied,
    so that it is no evidence for or against what is said of trained networks.
    """
    at_zero = LOSS_AT_ZERO.get(str(run.options.get("model.loss")), math.inf)
    return run.last("train/loss") >= 0.99 * at_zero


def setup(run: Run, *varied: Varied) -> str:
    """All options that matter to a run's numbers but the varied ones: equal for comparable runs."""
    left_out = {option for name in varied for option in OPTIONS_OF[name]}
    kept = {
        key: value
        for key, value in run.options.items()
        if key not in left_out and (not key.startswith("trainer.") or key in TRAINER)
    }
    return json.dumps(kept, sort_keys=True, default=str)


def families(runs: Iterable[Run], *varied: Varied) -> list[list[Run]]:
    """Runs that differ in nothing but seeds and the varied options, together."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(setup(run, "seed", *varied), []).append(run)
    return list(found.values())


def by_seed(runs: Iterable[Run]) -> list[list[Run]]:
    """Runs of the same seeds, together."""
    found: dict[tuple[Any, Any], list[Run]] = {}
    for run in runs:
        found.setdefault(seed_of(run), []).append(run)
    return list(found.values())
