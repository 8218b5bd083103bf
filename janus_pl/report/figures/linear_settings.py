"""The settings of the paper's linear figures, and the runs of each setting."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from janus_pl.records.families import families, lambda_of
from janus_pl.records.run import Run, natural
from janus_pl.report.figures.series import Unavailable, has, layers


class Panel(NamedTuple):
    """One panel: its keys (`key`, or `key/1`, `key/2`, ...), its title, its y axis."""

    key: str
    title: str
    label: str


class Setting(NamedTuple):
    """The setting of a figure of the paper.

    Attributes:
        what: The setting in words, for the caption.
        wanted: The function that tells whether a run's options are of this setting.
        size: The paper's (d, N), preferred if there are runs of several sizes.
        config: The file that trains its SGD run.
        panels: The panels of the figure.
    """

    what: str
    wanted: Callable[[Mapping[str, Any]], bool]
    size: tuple[int, int]
    config: str
    panels: Sequence[Panel]


class Pair(NamedTuple):
    """Runs of one setting that differ in seeds alone, by dynamics."""

    runs: dict[str, list[Run]]
    left_out: list[Run]


MSE = Panel("train/mse_per_sample", "Mean squared error", r"$\frac{1}{N}\sum\|Wx_i-y_i\|^2$")
EIGENVALUES = Panel("eigenvalue_modulus", "Eigenvalues of W, moduli", r"$|\lambda_i(W)|$")
SINGULAR = Panel("singular_value", "Singular values of W", r"$\sigma_i(W)$")
NULL = Panel("null/norm", "Component in the null space", r"$\|W_\perp\|$")
GRADIENT = Panel("gradient_norm", "Velocity, mean over steps", r"$\|\dot W\|$")
DISTANCE = Panel("solution/distance", "Distance from the regularized solution", r"$\|W-W^*\|$")
NOISE_W = Panel("noise/weights", "Noise of the weights", "std of W over steps")
NOISE_Y = Panel("noise/predictions", "Noise of the predictions", "std of Wx over steps")
PREDICTED = "null/predicted"


def _kind(online: bool, informative: bool, empty: bool) -> Callable[[Mapping[str, Any]], bool]:
    def wanted(options: Mapping[str, Any]) -> bool:
        return (
            (options.get("data.order") == "online") is online
            and bool(options.get("data.informative")) is informative
            and bool(options.get("data.empty")) is empty
            and options.get("data.source") != "toy"
        )

    return wanted


def _and(
    kind: Callable[[Mapping[str, Any]], bool], more: Callable[[Mapping[str, Any]], bool]
) -> Callable[[Mapping[str, Any]], bool]:
    return lambda options: kind(options) and more(options)


def _wide(options: Mapping[str, Any]) -> bool:
    """Tell whether N < d, the overparametrized case; if the record has neither, say yes."""
    return (options.get("data.num_train") or 0) < (options.get("data.dim") or 1)


def _dim(options: Mapping[str, Any]) -> int:
    return options.get("data.dim") or 0


DENSE = _kind(online=False, informative=False, empty=False)
EMPTY = _kind(online=False, informative=False, empty=True)
SETTINGS = {
    "a1": Setting(
        "W x = y from W0 = 0",
        _and(DENSE, lambda o: o.get("data.init") == "zero"),
        (11, 10),
        "linear/a1.yaml",
        (MSE, EIGENVALUES, NULL, GRADIENT),
    ),
    "a2": Setting(
        "W x = y from a random W0, N < d",
        _and(DENSE, lambda o: o.get("data.init") != "zero" and _wide(o)),
        (11, 10),
        "linear/a2.yaml",
        (MSE, EIGENVALUES, NULL, GRADIENT),
    ),
    "a3": Setting(
        "W x = y where few components of x matter",
        _kind(online=False, informative=True, empty=False),
        (10, 5),
        "linear/a3.yaml",
        (MSE, SINGULAR, NULL, GRADIENT),
    ),
    "a4": Setting(
        "W x = y where few components of x matter, online, each sample once",
        _kind(online=True, informative=True, empty=False),
        (10, 200),
        "linear/a4.yaml",
        (MSE, SINGULAR, DISTANCE, GRADIENT),
    ),
    "a5": Setting(
        "W x = y online, each sample once, SGD at a constant rate",
        _kind(online=True, informative=False, empty=False),
        (10, 100_000),
        "linear/a5.yaml",
        (MSE, DISTANCE, NOISE_W, NOISE_Y),
    ),
    "a6": Setting(
        "W x = y in two dimensions, one of them without data",
        _and(EMPTY, lambda o: _dim(o) == 2),
        (2, 10),
        "linear/a6.yaml",
        (MSE, SINGULAR, NULL, GRADIENT),
    ),
    "a7": Setting(
        "W x = y with a component of x without data",
        _and(EMPTY, lambda o: _dim(o) != 2),
        (6, 6),
        "linear/a7.yaml",
        (SINGULAR,),
    ),
}


def pair_of(runs: Sequence[Run], setting: Setting, needed: Sequence[str]) -> Pair:
    """Return the runs to draw, from the family with all dynamics that is most like the paper's.

    Raises:
        Unavailable: No run is of the setting, or some dynamics of it has no run.
    """
    found = [
        run
        for run in runs
        if run.description.kind == "linear"
        and (has(run, "null/norm") or layers([run], "singular_value"))
        and not math.isnan(lambda_of(run))
        and not isinstance(run.options.get("model.learning_rate"), list)
        and setting.wanted(run.options)
        and (run.dynamics in needed)
    ]
    if not found:
        raise Unavailable(f"no run of {setting.what} (configs/{setting.config})")

    def rank(some: list[Run]) -> tuple[bool, bool, bool, int, float]:
        options = some[0].options
        size = (options.get("data.dim"), options.get("data.num_train"))
        rates = ("model.gd_schedule", "model.gd_learning_rate")
        one_rate = all(options.get(name) is None for name in rates)
        return (
            {run.dynamics for run in some} == set(needed),
            one_rate,
            size == setting.size,
            len(_drawn(some)),
            max(run.last("epoch") for run in some),
        )

    best = max(families(found, "batch"), key=rank)
    by_dynamics = {name: [run for run in best if run.dynamics == name] for name in needed}
    for name, some in by_dynamics.items():
        if not some:
            size = "full" if name == "GD" else "1"
            other = f"--data.batch_size {size}"
            raise Unavailable(f"no {name} run beside {best[0].name} ({setting.config}, {other})")
    by_dynamics = {name: _drawn(some) for name, some in by_dynamics.items()}
    chosen = {id(run) for some in by_dynamics.values() for run in some}
    return Pair(by_dynamics, [run for run in found if id(run) not in chosen])


def _drawn(runs: list[Run]) -> list[Run]:
    """Return the runs that are drawn: of SGD those of the smallest batch, and all of GD."""
    sgd = [_batch(run) for run in runs if run.dynamics == "SGD"]
    return [run for run in runs if run.dynamics != "SGD" or _batch(run) == min(sgd)]


def _batch(run: Run) -> float:
    size = run.description.batch_size
    return math.inf if size is None else float(size)


def keys_of(runs: Sequence[Run], panel: Panel) -> list[str]:
    if any(has(run, panel.key) for run in runs):
        return [panel.key]
    values = sorted(layers(runs, panel.key), key=natural)  # numbered by size, and no layers
    return [f"{panel.key}/{name}" for name in values]
