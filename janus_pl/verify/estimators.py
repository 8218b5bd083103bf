"""The estimators: how the runs of one seed make one number, the effect.

An estimator compares runs within a seed: of SGD and GD, or of several lambdas, its arms. Seeds
alone are independent, so each gives one effect. Nothing is pooled over epochs, or over layers.

A slope is over lambda, or over the batch size or the learning rate at one lambda above 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from janus_pl.records.families import Varied, families, lambda_of, seed_of
from janus_pl.records.late import Window, window
from janus_pl.records.run import STEP, Run
from janus_pl.records.scans import OPTIONS, weight_decay
from janus_pl.verify.quantities import CLOCKS, Quantity, by_layer

Arm = str | float
Seeds = dict[tuple[Any, Any], dict[Arm, Run]]
Settings = list[tuple[str, Seeds]]  # each with its arms in words
Values = Mapping[Arm, float]
WHOLE = "whole"  # in place of B if each batch is the whole training set


class Estimator(NamedTuple):
    """How a claim's effect is made.

    Attributes:
        words: The effect in words; `{}` stands for the quantity.
        needs: The runs that it needs.
        logarithmic: Whether the effect is the logarithm of a ratio.
        varied: What the runs of a family may differ in, besides seeds.
        settings: Returns the comparable seeds of a family, each with the runs of all arms.
        effect: Returns the effect of the values of a seed's arms.
    """

    words: str
    needs: str
    logarithmic: bool
    varied: tuple[Varied, ...]
    settings: Callable[[Sequence[Run], str], Settings]
    effect: Callable[[Values], float]


class Evidence(NamedTuple):
    """The effects of one setting.

    Attributes:
        arms: The arms in words.
        effects: One effect a seed.
        runs: The runs behind them.
    """

    arms: str
    effects: list[float]
    runs: list[Run]


def log_ratio(values: Values) -> float:
    """Return log a - log b of the first two arms.

    >>> log_ratio({"SGD": 4.0, "GD": 2.0}) == math.log(2)
    True
    """
    first, second, *_ = values.values()
    return math.log(first) - math.log(second)


def log_slope(values: Values) -> float:
    """Return the least-squares slope of log q in the log of what the arms are: lambda, B, a rate.

    >>> round(log_slope({0.01: 1.0, 0.1: 10.0, 1.0: 100.0}), 12)
    1.0
    """
    x, y = np.log([*map(float, values)]), np.log([*values.values()])
    x = x - x.mean()
    return float(x @ y / (x @ x))


def log_level(values: Values) -> float:
    """Return the mean of log q over the arms.

    >>> round(math.exp(log_level({0.1: 2.0, 0.2: 8.0})), 12)
    4.0
    """
    return float(np.mean(np.log([*values.values()])))


def layer_tau(values: Mapping[Arm, Sequence[tuple[float, float]]]) -> float:
    """Return Kendall's tau of pairs over the arms, the mean over layers.

    >>> layer_tau({1: [(1.0, 2.0)], 2: [(3.0, 4.0)], 3: [(5.0, 6.0)]})
    1.0
    """
    layers = zip(*values.values(), strict=True)
    return float(np.mean([_tau(np.array(pairs)) for pairs in layers]))


def _tau(pairs: NDArray[np.float64]) -> float:
    """Return Kendall's tau-b, 0 if it has none; to import that of SciPy takes half a second.

    >>> round(_tau(np.array([(1.0, 2.0), (2.0, 2.0), (3.0, 1.0)])), 12)
    -0.816496580928
    """
    x, y = (np.sign(np.subtract.outer(side, side)) for side in pairs.T)
    scale = math.sqrt(float((x * x).sum() * (y * y).sum()))
    tau = float((x * y).sum()) / scale if scale else 0.0
    return tau if math.isfinite(tau) else 0.0


def dynamics_pairs(runs: Sequence[Run], dynamics: str) -> Settings:
    """Return, for each B and lambda above 0, the SGD and GD run of each seed; the longest ones."""
    found: dict[tuple[str, float], Seeds] = {}
    longest = sorted(runs, key=lambda run: run.last(STEP))
    gd = {(seed_of(run), lambda_of(run)): run for run in longest if run.dynamics == "GD"}
    for run in longest:
        if run.dynamics == "SGD" and lambda_of(run) > 0:
            twin = gd.get((seed_of(run), lambda_of(run)))
            if twin is not None:
                key = (str(run.description.batch_size), lambda_of(run))
                arms: dict[Arm, Run] = {"SGD": run, "GD": twin}
                found.setdefault(key, {})[seed_of(run)] = arms
    order = sorted(found, key=lambda key: (-key[1], key[0]))
    return [(f"B {batch}, lambda {lam:g}", found[batch, lam]) for batch, lam in order]


def decay_pairs(runs: Sequence[Run], dynamics: str) -> Settings:
    """Return, for each lambda above 0, the run of each seed and that at lambda = 0."""
    found: dict[float, Seeds] = {}
    zero = {seed_of(run): run for run in runs if lambda_of(run) == 0 and run.dynamics == dynamics}
    for run in runs:
        if run.dynamics == dynamics and lambda_of(run) > 0 and seed_of(run) in zero:
            arms: dict[Arm, Run] = {"decay": run, "none": zero[seed_of(run)]}
            found.setdefault(lambda_of(run), {})[seed_of(run)] = arms
    return [(f"lambda {lam:g}", found[lam]) for lam in sorted(found, reverse=True)]


def sweeps(
    least: int, word: str = "lambda", of: Callable[[Run], Any] = lambda_of
) -> Callable[[Sequence[Run], str], Settings]:
    """Make the function that returns the seeds with the same lambdas above 0, at least so many.

    Of all sets of lambdas it takes the one that the most seeds have, and then the largest.

    Args:
        least: The least number of lambdas.
        word: What the arms are, if not lambdas.
        of: Returns the arm of a run.
    """

    def settings(runs: Sequence[Run], dynamics: str) -> Settings:
        by_seed: dict[tuple[Any, Any], dict[float, Run]] = {}
        for run in runs:
            arm = of(run)
            if run.dynamics == dynamics and arm is not None and arm > 0 and _decays(run):
                arms = by_seed.setdefault(seed_of(run), {})
                arms[arm] = max(run, arms.get(arm, run), key=lambda run: run.last(STEP))
        grids = {frozenset(arms) for arms in by_seed.values()}
        grids |= {a & b for a in grids for b in grids}
        having = {
            grid: [seed for seed, arms in by_seed.items() if grid <= {*arms}]
            for grid in grids
            if len(grid) >= least
        }
        if not having:
            return []
        grid = max(having, key=lambda grid: (len(having[grid]), len(grid), sorted(grid)))
        order = sorted(grid)
        seeds: Seeds = {s: {arm: by_seed[s][arm] for arm in order} for s in having[grid]}
        return [(f"{word} {', '.join(f'{arm:g}' for arm in order)}", seeds)]

    return settings


def _decays(run: Run) -> bool:
    """Tell whether a run's lambda is above 0."""
    lam = weight_decay(run)
    return isinstance(lam, float) and lam > 0


def loss_pairs(runs: Sequence[Run], dynamics: str) -> Settings:
    """Return, for each other loss, its run and that of the square loss at lambda = 0, by seed."""
    still = [run for run in runs if lambda_of(run) == 0 and run.dynamics == dynamics]
    square = {seed_of(run): run for run in still if run.description.loss == "square"}
    found: dict[str, Seeds] = {}
    for run in still:
        loss = str(run.description.loss)
        if loss != "square" and seed_of(run) in square:
            arms: dict[Arm, Run] = {loss: run, "square": square[seed_of(run)]}
            found.setdefault(loss, {})[seed_of(run)] = arms
    return [(loss, found[loss]) for loss in sorted(found)]


def _slope(word: str, words: str, option: str) -> Estimator:
    return Estimator(
        f"slope of log {{}} in log {word}",
        f"two {words} or more by seed",
        False,
        (OPTIONS[option].varied,),
        sweeps(2, word, OPTIONS[option].of),
        log_slope,
    )


# The options that a slope may be over.
SLOPES = {
    "weight_decay": _slope("lambda", "lambdas above 0", "weight_decay"),
    "batch_size": _slope("B", "batch sizes at a lambda above 0", "batch_size"),
    "learning_rate": _slope("eta", "learning rates at a lambda above 0", "learning_rate"),
}
LAMBDA = "weight_decay"
ESTIMATORS = {
    "sgd_over_gd": Estimator(
        "{} of SGD over that of GD",
        "SGD and GD at lambda > 0 by seed",
        True,
        ("lambda", "batch"),
        dynamics_pairs,
        log_ratio,
    ),
    "decay_over_none": Estimator(
        "{} with weight decay over that without",
        "runs at lambda > 0 and at 0 by seed",
        True,
        ("lambda",),
        decay_pairs,
        log_ratio,
    ),
    "slope": SLOPES[LAMBDA],
    "level": Estimator(
        "{}, geometric mean over lambdas above 0",
        "runs at lambda > 0",
        True,
        ("lambda",),
        sweeps(1),
        log_level,
    ),
    "loss_over_square": Estimator(
        "{} at lambda = 0 over that of the square loss",
        "square and cross_entropy at lambda = 0 by seed",
        True,
        ("lambda", "loss"),
        loss_pairs,
        log_ratio,
    ),
    "tau_of_velocity": Estimator(
        "Kendall's tau of {} and ||V_k dot|| over lambdas, mean over layers",
        "three lambdas above 0 or more by seed, with velocities",
        False,
        ("lambda",),
        sweeps(3),
        layer_tau,  # type: ignore[arg-type]
    ),
}


def estimator_of(name: str, over: str = LAMBDA) -> Estimator:
    """Return the estimator of a name; a slope over an option."""
    return SLOPES[over] if name == "slope" else ESTIMATORS[name]


def evidence(
    runs: Sequence[Run],
    name: str,
    quantity: Quantity,
    dynamics: str,
    clock: str,
    epochs: Sequence[float] | None = None,
    over: str = LAMBDA,
    enough: int = 1,
) -> tuple[list[Evidence], list[str]]:
    """Return the evidence of each setting, the deciding one first, and why others have none.

    Of the settings with enough seeds the one with the most training samples is first, then the one
    with the most seeds, the most runs, the longest run. Settings with fewer seeds come last.

    Args:
        runs: The runs that the claim is about.
        name: The estimator's name.
        quantity: The quantity.
        dynamics: `SGD` or `GD`, if the estimator compares runs of one.
        clock: A name in `CLOCKS`, at whose equal times SGD and GD are compared.
        epochs: The epoch that the window begins after, and its last one; None is the last fifth.
        over: The option that a slope is over.
        enough: The seeds that decide.
    """
    estimator = estimator_of(name, over)
    varied = estimator.varied + (("epochs",) if clock != "epochs" else ())
    found, reasons = [], []
    for family in families(sorted(runs, key=lambda run: (run.name, run.id)), *varied):
        for arms_in_words, seeds in estimator.settings(family, dynamics):
            effects: list[float] = []
            used: list[Run] = []
            for arms in seeds.values():
                windows = _windows(arms, clock, epochs)
                if isinstance(windows, str):
                    reasons.append(windows)
                    continue
                values = _values(name, windows, quantity, _where(clock, epochs))
                if isinstance(values, str):
                    reasons.append(values)
                    break
                effects.append(estimator.effect(values))
                used += arms.values()
            else:
                if effects:
                    found.append(Evidence(arms_in_words, effects, used))
    found.sort(key=lambda each: _weight(each, enough), reverse=True)
    return found, [*dict.fromkeys(reasons)]


def _weight(found: Evidence, enough: int) -> tuple[float, ...]:
    """Return what the settings of a claim are ordered by."""
    count = len(found.effects)
    samples = max(run.description.num_train or 0 for run in found.runs) if count >= enough else -1
    return samples, count, len(found.runs), max(run.last(STEP) for run in found.runs)


def _windows(
    arms: Mapping[Arm, Run], clock: str, epochs: Sequence[float] | None
) -> dict[Arm, Window] | str:
    """Return the windows of a seed's runs, or why they have none in common."""
    column = CLOCKS[clock]
    end = min(run.last(column) for run in arms.values()) if clock != "epochs" else None
    start, end = epochs if epochs is not None else (None, end)
    found = {arm: window(run, column, end, start) for arm, run in arms.items()}
    for at in found.values():
        if at.rows.empty or (epochs is not None and at.run.last(column) < epochs[1]):
            equal = f"; a sweep with clock: {clock} has runs of equal {clock}"
            hint = equal if clock != "epochs" else ""
            return f"{at.run.name} has no row in {_where(clock, epochs)}{hint}"
    return found


def _where(clock: str, epochs: Sequence[float] | None) -> str:
    """Name a window in words."""
    if epochs is not None:
        return f"{epochs}"
    return f"the last fifth of {'its' if clock == 'epochs' else 'the common'} {clock}"


def _values(name: str, windows: Mapping[Arm, Window], quantity: Quantity, where: str) -> Any:
    """Return the quantity of each arm, or why there is none that has a logarithm."""
    if name == "tau_of_velocity":
        kinds = ("effective_rank", "velocity")
        pairs = {
            arm: [*zip(*(by_layer(at, kind) for kind in kinds), strict=True)]
            for arm, at in windows.items()
        }
        lost = next((a for a, p in pairs.items() if not _finite(v for ab in p for v in ab)), None)
        return pairs if lost is None else f"{windows[lost].run.name} lacks a rank or a velocity"
    values = {arm: quantity.of(at) for arm, at in windows.items()}
    for arm, value in values.items():
        run = windows[arm].run
        if math.isnan(value):
            missing = f"{run.name} has no {quantity.words} in {where}"
            return f"{missing}: callbacks have to look more often (every_n_epochs)"
        if not (math.isfinite(value) and value > 0):
            return f"{quantity.words} is {value:.3g} in {run.name}, and has no logarithm"
    return values


def _finite(values: Iterable[float]) -> bool:
    return all(map(math.isfinite, values))
