"""The distributions of a sweep file's parameters, with W&B's names and meanings.

Each draw puts one uniform number through the inverse of the distribution function. So a longer
random sweep begins with the runs of a shorter one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from janus_pl.errors import UsageError, is_integer, is_number

Spec = Mapping[str, Any]


@dataclass(frozen=True)
class Distribution:
    """One of W&B's distributions.

    Attributes:
        required: The keys that a parameter must have.
        optional: The keys that it may have, with their defaults.
        draw: Returns the value at a quantile in [0, 1).
    """

    required: tuple[str, ...]
    optional: Mapping[str, Any]
    draw: Callable[[float, Spec], Any]


def _categorical(u: float, spec: Spec) -> Any:
    values, weights = spec["values"], spec["probabilities"]
    if weights is None:
        return values[int(u * len(values))]
    return values[min(int(np.searchsorted(np.cumsum(weights), u, "right")), len(values) - 1)]


def _uniform(u: float, spec: Spec) -> float:
    return spec["min"] + u * (spec["max"] - spec["min"])


def _log_uniform_values(u: float, spec: Spec) -> float:
    low, high = math.log(spec["min"]), math.log(spec["max"])
    return math.exp(low + u * (high - low))


def _normal(u: float, spec: Spec) -> float:
    return float(stats.norm.ppf(u, loc=spec["mu"], scale=spec["sigma"]))


def _rounded(draw: Callable[[float, Spec], float]) -> Callable[[float, Spec], float]:
    def call(u: float, spec: Spec) -> float:
        return round(draw(u, spec) / spec["q"]) * spec["q"]

    return call


RANGE, BELL = ("min", "max"), {"mu": 0.0, "sigma": 1.0}
_BASIC = {
    "uniform": Distribution(RANGE, {}, _uniform),
    "log_uniform": Distribution(RANGE, {}, lambda u, spec: math.exp(_uniform(u, spec))),
    "log_uniform_values": Distribution(RANGE, {}, _log_uniform_values),
    "normal": Distribution((), BELL, _normal),
    "log_normal": Distribution((), BELL, lambda u, spec: math.exp(_normal(u, spec))),
}
DISTRIBUTIONS = {
    "constant": Distribution(("value",), {}, lambda u, spec: spec["value"]),
    "categorical": Distribution(("values",), {"probabilities": None}, _categorical),
    "int_uniform": Distribution(
        RANGE, {}, lambda u, spec: spec["min"] + int(u * (spec["max"] - spec["min"] + 1))
    ),
    **_BASIC,
    **{
        f"q_{name}": Distribution(kind.required, {**kind.optional, "q": 1}, _rounded(kind.draw))
        for name, kind in _BASIC.items()
    },
}
NUMBERS = ("min", "max", "mu", "sigma", "q")


@dataclass(frozen=True)
class Parameter:
    """One parameter of a sweep file: its name, its distribution and all its keys."""

    name: str
    kind: str
    spec: Spec

    @property
    def single(self) -> bool:
        """Whether the parameter has one value in all runs."""
        values = self.spec.get("values", [None])
        return self.kind == "constant" or (self.kind == "categorical" and len(values) == 1)

    def draw(self, u: float) -> Any:
        """Return the value at a quantile."""
        return DISTRIBUTIONS[self.kind].draw(u, self.spec)

    def grid(self) -> list[Any]:
        """Return all values, each once.

        Raises:
            UsageError: The distribution has no grid of values, or they have probabilities.
        """
        spec = self.spec
        if self.kind == "constant":
            return [spec["value"]]
        if self.kind == "categorical" and spec["probabilities"] is None:
            unique: dict[str, Any] = {}
            for value in spec["values"]:
                unique.setdefault(repr(value), value)
            return list(unique.values())
        if self.kind == "int_uniform":
            return list(range(spec["min"], spec["max"] + 1))
        if self.kind == "q_uniform":
            return list(np.arange(spec["min"], spec["max"], spec["q"]).tolist())
        given = "probabilities" if self.kind == "categorical" else self.kind
        allowed = "value, values, int_uniform or q_uniform in a grid; method: random takes others"
        raise UsageError(f"parameters.{self.name}", given, allowed)


def parameter(name: str, given: Any) -> Parameter:
    """Check one entry of `parameters`, and return it.

    Raises:
        UsageError: A key is missing or unknown, or a value is wrong.
    """
    field = f"parameters.{name}"
    if not isinstance(given, dict):
        raise UsageError(field, given, "value: V, values: [V, ...] or distribution: NAME")
    if "parameters" in given:
        raise UsageError(
            f"{field}.parameters", given["parameters"], "no nesting; dotted names as model.loss"
        )
    kind = given.get("distribution", _inferred(given))
    if kind not in DISTRIBUTIONS:
        raise UsageError(f"{field}.distribution", kind, ", ".join(DISTRIBUTIONS))
    known = DISTRIBUTIONS[kind]
    spec = {**known.optional, **{k: v for k, v in given.items() if k != "distribution"}}
    keys = (*known.required, *known.optional)
    if missing := [key for key in known.required if key not in spec]:
        raise UsageError(field, given, f"{' and '.join(missing)} with {kind}")
    if unknown := [key for key in spec if key not in keys]:
        raise UsageError(f"{field}.{unknown[0]}", spec[unknown[0]], f"{', '.join(keys)} ({kind})")
    _check_values(field, spec)
    _check_numbers(field, kind, spec)
    return Parameter(name, kind, spec)


def _inferred(given: Spec) -> str | None:
    """Return the distribution that W&B takes if none is named."""
    if "values" in given:
        return "categorical"
    if "value" in given:
        return "constant"
    ends = [given[key] for key in RANGE if key in given]
    if len(ends) < 2:
        return None
    return "int_uniform" if all(isinstance(end, int) for end in ends) else "uniform"


def _check_values(field: str, spec: Spec) -> None:
    values = spec.get("values", [spec.get("value")])
    if not isinstance(values, list) or not values:
        raise UsageError(f"{field}.values", values, "a list of one value or more")
    for value in values:
        if isinstance(value, str) and _is_number(value):
            raise UsageError(field, value, "numbers as 0.001, which YAML does not read as text")
    weights = spec.get("probabilities")
    if weights is not None and not (
        isinstance(weights, list)
        and len(weights) == len(values)
        and all(isinstance(weight, int | float) and weight >= 0 for weight in weights)
        and math.isclose(sum(weights), 1)
    ):
        raise UsageError(
            f"{field}.probabilities", weights, "one for each of the values, with the sum 1"
        )


def _check_numbers(field: str, kind: str, spec: Spec) -> None:
    whole = kind == "int_uniform"
    for key in NUMBERS:
        value = spec.get(key, 1)
        if not (is_integer(value) if whole else is_number(value)):
            allowed = "an integer" if whole else "a number, as 0.001 and not 1e-3"
            raise UsageError(f"{field}.{key}", value, allowed)
    for key in ("sigma", "q"):
        if spec.get(key, 1) <= 0:
            raise UsageError(f"{field}.{key}", spec[key], "a number above 0")
    if "min" in spec and not spec["min"] <= spec["max"]:
        raise UsageError(f"{field}.min", spec["min"], f"a number up to max, {spec['max']}")
    if kind.endswith("log_uniform_values") and spec["min"] <= 0:
        raise UsageError(f"{field}.min", spec["min"], "a number above 0")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
