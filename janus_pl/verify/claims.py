"""Claims files: what is claimed, about which runs, and what would support or contradict it.

    claims:
      noise:
        says: "SGD's velocity is {} x GD's"         {} is the estimate with its interval
        source: Sections 1 and 2
        estimator: sgd_over_gd                      janus_pl.verify.estimators
        quantity: velocity                          janus_pl.verify.quantities
        setting: {loss: square, schedule: constant} the runs that it is about
        bound: {above: 3}                           or {below: X}, or {within: [X, Y]}
        effect: 20                                  what power is computed for, in the bound's unit
        deviation: 0.8                              between seeds, of the log ratio or the slope
        seeds: 5                                    fewer decide nothing
        primary: true                               one of the table; at most 15
        dynamics: SGD                               or GD; estimators that compare lambdas
        clock: epochs                               or steps, eta_t: at equal times of all arms
        over: weight_decay                          or batch_size, learning_rate; of a slope
        network: paper                              or any network that SGD trains
        window: [100, 200]                          epochs; if not there, the last fifth

Those from `seeds` to `network` have these values if they are not there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from janus_pl.errors import UsageError, is_integer, is_number, nearest, nearest_file
from janus_pl.records.families import CONVERGED_ERROR
from janus_pl.records.run import Run
from janus_pl.run.claims import CLAIMS, ENDING, SHIPPED, digest
from janus_pl.run.nested import read_mapping
from janus_pl.verify.decide import Region, power
from janus_pl.verify.estimators import ESTIMATORS, LAMBDA, SLOPES
from janus_pl.verify.quantities import CLOCKS, QUANTITIES
from janus_pl.verify.subjects import NETWORKS

PAPER = SHIPPED / "paper.yaml"
LEAST_SEEDS = 5  # fewer are no test, whatever a file says
MOST_PRIMARY = 15
NEEDED = ("says", "source", "estimator", "quantity", "bound", "effect", "deviation")
ALLOWED = (*NEEDED, "setting", "seeds", "primary", "dynamics", "clock", "over", "network", "window")
BOUNDS = ("above", "below", "within")

Plain = str | int | float | bool | list[Any]

# The facts of a run that a setting may name.
SETTINGS: Mapping[str, Callable[[Run], Any]] = {
    "loss": lambda run: run.description.loss,
    "normalization": lambda run: run.description.normalization,
    "decay": lambda run: run.description.decay,
    "momentum": lambda run: run.description.momentum,
    "num_train": lambda run: run.description.num_train,
    "schedule": lambda run: run.description.schedule or run.options.get("model.schedule"),
    "hold_norms": lambda run: run.description.hold_norms,
    "strides": lambda run: run.options.get("model.strides"),
    "learning_rate": lambda run: run.options.get("model.learning_rate"),
    "epochs": lambda run: run.options.get("trainer.max_epochs"),
    "lambda": lambda run: run.description.lam,
    "converged": lambda run: run.last("train/error") < CONVERGED_ERROR,
}


@dataclass(frozen=True)
class Claim:
    """One claim; the fields are those of the file."""

    name: str
    says: str
    source: str
    estimator: str
    quantity: str
    bound: Mapping[str, Any]
    effect: float
    deviation: float
    setting: Mapping[str, Plain] = field(default_factory=dict)
    seeds: int = LEAST_SEEDS
    primary: bool = True
    dynamics: str = "SGD"
    clock: str = "epochs"
    over: str = LAMBDA
    network: str = "paper"
    window: Sequence[float] | None = None

    @property
    def logarithmic(self) -> bool:
        """Whether the effect is a log ratio, so that the bound's numbers are ratios."""
        return ESTIMATORS[self.estimator].logarithmic

    @property
    def region(self) -> Region:
        """Where the mean effect lies if the claim is true."""
        ((kind, given),) = self.bound.items()
        low, high = given if kind == "within" else (given, given)
        to = self.to_effect
        return Region(
            -math.inf if kind == "below" else to(low), math.inf if kind == "above" else to(high)
        )

    def to_effect(self, number: float) -> float:
        """Return a number of the file as an effect: the logarithm of a ratio, or as it is."""
        return math.log(number) if self.logarithmic else float(number)

    def from_effect(self, effect: float) -> float:
        """Return an effect as a number of the file."""
        if not self.logarithmic:
            return effect
        return math.exp(effect) if effect < 700 else math.inf

    def power(self, level: float, seeds: int) -> float:
        """Return the chance to support the claim at its stated effect and deviation."""
        return power(self.to_effect(self.effect), self.deviation, self.region, level, seeds)

    def is_about(self, run: Run) -> bool:
        """Tell whether a run is of the claim's setting; it is no control unless that says so."""
        controls = all(name in self.setting for name in run.description.controls)
        named = all(_equal(SETTINGS[name](run), value) for name, value in self.setting.items())
        return controls and named


@dataclass(frozen=True)
class Claims:
    """The claims of a file.

    Attributes:
        claims: The claims, in the order of the file.
        sha256: The digest of the file.
        path: The file.
    """

    claims: Sequence[Claim]
    sha256: str
    path: Path


def read_claims(path: Path = PAPER) -> Claims:
    """Read a claims file.

    Raises:
        UsageError: The file cannot be used.
    """
    wanted = "a claims file: claims: {NAME: {says: ..., ...}}"
    plain = read_mapping("--claims", str(path), path, wanted)
    given = plain.get("claims")
    if not isinstance(given, dict) or not given or {*plain} != {"claims"}:
        raise UsageError("--claims", str(path), wanted)
    claims = [_claim(str(name), fields) for name, fields in given.items()]
    if (count := sum(claim.primary for claim in claims)) > MOST_PRIMARY:
        raise UsageError("claims", f"{count} primary ones", f"at most {MOST_PRIMARY}")
    return Claims(claims, digest(path.read_bytes()), path)


def find_claims(name: str) -> Path:
    """Return the file of a name: as it is, in the working directory's configs/claims, or shipped.

    >>> find_claims("scale").name, find_claims("scale") == find_claims("scale.yaml")
    ('scale.yaml', True)

    Raises:
        UsageError: There is no such file.
    """
    places = (Path(), CLAIMS, SHIPPED)
    tried = [place / file for place in places for file in (name, f"{name}{ENDING}")]
    if name.strip():
        for file in tried:
            if file.is_file():
                return file
    known = [file.relative_to(place) for place in places for file in place.glob(f"*{ENDING}")]
    allowed = f"an existing file, or the name of one in {CLAIMS.as_posix()}"
    raise UsageError("--claims", name, allowed + nearest_file(name, reversed(known)))


def _claim(name: str, fields: Any) -> Claim:
    at = f"claims.{name}"
    if not isinstance(fields, dict):
        raise UsageError(at, fields, f"a mapping with {', '.join(NEEDED)}")
    for key in fields:
        if key not in ALLOWED:
            raise UsageError(f"{at}.{key}", fields[key], nearest(str(key), ALLOWED))
    for key in NEEDED:
        if key not in fields:
            raise UsageError(f"{at}.{key}", None, "a value, for each claim needs one")
    if not isinstance(fields["source"], str):
        raise UsageError(f"{at}.source", fields["source"], "a text")
    says = fields["says"]
    if (
        not isinstance(says, str)
        or says.count("{}") != 1
        or re.search(r"[{}]", says.replace("{}", ""))
    ):
        raise UsageError(f"{at}.says", says, "a sentence with one {}, the estimate's place")
    _check_names(at, fields)
    claim = Claim(name, **fields)
    _check_numbers(at, claim)
    return claim


def _check_names(at: str, fields: Mapping[str, Any]) -> None:
    known: Mapping[str, Sequence[str]] = {
        "estimator": [*ESTIMATORS],
        "quantity": [*QUANTITIES],
        "dynamics": ["SGD", "GD"],
        "clock": [*CLOCKS],
        "over": [*SLOPES],
        "network": [*NETWORKS],
    }
    for key, names in known.items():
        if key in fields and fields[key] not in names:
            raise UsageError(f"{at}.{key}", fields[key], nearest(str(fields[key]), names))
    setting = fields.get("setting", {})
    if not isinstance(setting, dict):
        raise UsageError(f"{at}.setting", setting, f"a mapping of {', '.join(SETTINGS)}")
    for key, value in setting.items():
        if key not in SETTINGS:
            raise UsageError(f"{at}.setting.{key}", value, nearest(str(key), SETTINGS))
    if fields.get("over", LAMBDA) != LAMBDA and fields.get("estimator") != "slope":
        raise UsageError(f"{at}.over", fields["over"], "none, for an estimator that is no slope")
    if fields.get("estimator") == "tau_of_velocity" and fields.get("quantity") != "rank":
        raise UsageError(f"{at}.quantity", fields.get("quantity"), "rank, for tau_of_velocity")


def _check_numbers(at: str, claim: Claim) -> None:
    above = 0 if claim.logarithmic else None
    bound = claim.bound
    if not isinstance(bound, dict) or len(bound) != 1 or not {*bound} <= {*BOUNDS}:
        raise UsageError(f"{at}.bound", bound, "{above: X}, {below: X} or {within: [X, Y]}")
    ((kind, given),) = bound.items()
    numbers = given if kind == "within" and isinstance(given, list) else [given]
    if not all(_is_in_unit(number, above) for number in numbers) or (
        kind == "within" and not (len(numbers) == 2 and numbers[0] < numbers[1])
    ):
        unit = "a ratio above 0" if claim.logarithmic else "a finite number"
        allowed = f"[X, Y] with X < Y, each {unit}" if kind == "within" else unit
        raise UsageError(f"{at}.bound.{kind}", given, allowed)
    if not _is_in_unit(claim.effect, above):
        raise UsageError(f"{at}.effect", claim.effect, "a number in the unit of the bound")
    low, high = claim.region
    if not low < claim.to_effect(claim.effect) < high:
        raise UsageError(f"{at}.effect", claim.effect, "a number within the bound")
    if not (is_number(claim.deviation) and claim.deviation > 0):
        raise UsageError(f"{at}.deviation", claim.deviation, "a finite number above 0")
    if not is_integer(claim.seeds, LEAST_SEEDS):
        raise UsageError(f"{at}.seeds", claim.seeds, f"an integer from {LEAST_SEEDS} up")
    _check_window(at, claim)
    if not isinstance(claim.primary, bool):
        raise UsageError(f"{at}.primary", claim.primary, "true or false")


def _check_window(at: str, claim: Claim) -> None:
    window = claim.window
    if window is None:
        return
    pair = isinstance(window, list) and len(window) == 2 and all(map(is_number, window))
    if not pair or not 0 <= window[0] < window[1]:
        raise UsageError(f"{at}.window", window, "two epochs [E, F] with 0 <= E < F")
    if claim.clock != "epochs":
        raise UsageError(f"{at}.window", window, "none, at a clock other than epochs")


def _is_in_unit(number: object, above: float | None) -> bool:
    return is_number(number) and (above is None or number > above)  # type: ignore[operator]


def _equal(seen: Any, wanted: Any) -> bool:
    """Tell whether a fact of a run is the one that a setting names; one of a list will do."""
    if isinstance(wanted, list) and not isinstance(seen, list | tuple):
        return seen in wanted
    return (list(seen) if isinstance(seen, tuple) else seen) == wanted
