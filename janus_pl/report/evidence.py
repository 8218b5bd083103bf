"""What several runs say together: equal options and seeds, effects with their intervals."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy import stats

from janus_pl.report.records import Run

CONFIDENCE = 0.95
UNTRAINED = 0.99  # of the loss of f = 0
EMPTIED = 0.01  # of the outputs at the start; those of an emptied network are 1e-7 and less

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

    Raises:
        ValueError: a value that has no logarithm. Rules ask `is_positive` first.
    """
    if not all(map(is_positive, values)):
        raise ValueError(f"{name}: got {[*values]}, allowed: finite ratios above 0")
    logarithms = mean(name, [math.log(value) for value in values])
    ends = [None if end is None else _exp(end) for end in logarithms[2:4]]
    return Estimate(name, math.exp(logarithms.value), ends[0], ends[1], len(values))


def mean_by_seed(name: str, runs: Sequence[Run], values: Sequence[float]) -> Estimate:
    """Mean of one value a run: within each seed first, for only seeds are independent."""
    found: dict[tuple[Any, Any], list[float]] = {}
    for run, value in zip(runs, values, strict=True):
        found.setdefault(seed_of(run), []).append(value)
    return mean(name, [float(np.mean(same)) for same in found.values()])


def ratio_by_seed(name: str, runs: Sequence[Run], values: Sequence[float]) -> Estimate:
    """Geometric mean of one positive value a run: within each seed first."""
    found: dict[tuple[Any, Any], list[float]] = {}
    for run, value in zip(runs, values, strict=True):
        found.setdefault(seed_of(run), []).append(value)
    return ratio(name, [ratio(name, same).value for same in found.values()])


def is_positive(value: float) -> bool:
    """Whether a ratio can be taken of it and to it."""
    return math.isfinite(value) and value > 0


def _exp(exponent: float) -> float:
    """Infinity where two seeds are so far apart that the interval has no end."""
    return math.exp(exponent) if exponent < math.log(sys.float_info.max) else math.inf


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


def is_untrained(run: Run) -> bool:
    """Whether a network's training loss ended at that of f = 0, within 1% of it, or above.

    It is no evidence for or against what is said of trained networks.
    """
    at_zero = LOSS_AT_ZERO.get(str(run.options.get("model.loss")), math.inf)
    return run.last("train/loss") >= UNTRAINED * at_zero


def is_zero_function(run: Run) -> bool:
    """Whether a network ended as f = 0: untrained, and its outputs next to none of what they were.

    Its margins are rounding and its directions those of a network that weight decay has emptied.
    Outputs start near 0 too, so that the loss alone does not tell it from one that is hardly
    trained.
    """
    return is_untrained(run) and outputs_left(run) < EMPTIED


def outputs_left(run: Run) -> float:
    """Root mean square of y_n f_W(x_n), at the end over that at the start; NaN if not recorded."""
    end, start = (
        abs(at("rho")) * math.hypot(at("margin/mean"), at("margin/std"))
        for at in (run.last, run.first)
    )
    return end / start if start > 0 else math.nan


def why_untrained(run: Run) -> str:
    """What shows that a network is untrained, with the numbers."""
    loss, left = run.last("train/loss"), outputs_left(run)
    if is_zero_function(run):
        return f"its training loss is {loss:.3g} and its outputs {left:.1e} of the first: f = 0"
    kept = "" if math.isnan(left) else f" (and its outputs are {left:.2g} of the first, not 0)"
    return f"it is not trained: its loss, {loss:.3g}, is not 1% below that of f = 0{kept}"


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
