"""How often the rules of `verify` are wrong, and how often they find an effect, by simulation.

Each claim's rule (estimator and decision) is given seeds whose true effect lies on the bound, where
a wrong `supported` is most likely, and seeds with the effect that the claim names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from janus_pl.verify.claims import Claim
from janus_pl.verify.decide import ALPHA, Answer, decide
from janus_pl.verify.estimators import ESTIMATORS, log_ratio

SEEDS = 8
TRIALS = 1000
LAMBDAS = (3e-4, 1e-3, 2e-3, 5e-3)
LAYERS = 3
EXPLODED = 1e4  # the factor by which one seed's run is off


class Calibrated(NamedTuple):
    """How often a claim's rule says `supported`.

    Attributes:
        claim: The claim's name.
        normal: With no effect beyond the bound, normal deviations.
        heavy: The same with Student's t of two degrees of freedom.
        exploding: The same with normal deviations and one seed whose run exploded.
        power: With the effect that the claim names, at the level of the first of its file's claims.
        stated: The same by the formula.
    """

    claim: str
    normal: float
    heavy: float
    exploding: float
    power: float
    stated: float


def calibrate(claims: Iterable[Claim], trials: int = TRIALS, seed: int = 0) -> list[Calibrated]:
    """Return how often each rule says `supported`, over some trials of eight seeds.

    Nulls are decided at 5%, as if the claim stood alone: among others its level is lower.
    """
    claims = list(claims)
    level = ALPHA / max(1, sum(claim.primary for claim in claims))
    found = []
    for number, claim in enumerate(claims):
        nulls = []
        for kind, draw in enumerate((_normal, _heavy, _exploding)):
            rng = np.random.default_rng((seed, number, kind))
            nulls.append(_supported(claim, _null(claim), draw, ALPHA, rng, trials))
        at = level if claim.primary else ALPHA
        rng = np.random.default_rng((seed, number, 3))
        power = _supported(claim, claim.to_effect(claim.effect), _normal, at, rng, trials)
        normal, heavy, exploding = nulls
        stated = claim.power(at, SEEDS)
        found.append(Calibrated(claim.name, normal, heavy, exploding, power, stated))
    return found


def _supported(
    claim: Claim,
    truth: float,
    draw: Callable[[Generator, tuple[int, ...]], NDArray[np.float64]],
    level: float,
    rng: Generator,
    trials: int,
) -> float:
    count = 0
    for _ in range(trials):
        effects = [*map(float, effects_of(claim, truth, draw, rng))]
        count += decide(effects, claim.region, level) is Answer.SUPPORTED
    return count / trials


def effects_of(
    claim: Claim,
    truth: float,
    draw: Callable[[Generator, tuple[int, ...]], NDArray[np.float64]],
    rng: Generator,
) -> list[float]:
    """Return the effects of eight seeds by the claim's estimator, from the values of their runs."""
    if claim.estimator == "tau_of_velocity":
        return _taus(claim, truth, draw, rng)
    effect = ESTIMATORS[claim.estimator].effect
    arms: tuple[str | float, ...] = ("one", "other") if effect is log_ratio else LAMBDAS
    x = _design(effect, arms)
    deviations = draw(rng, (SEEDS, len(arms)))
    # The effect is linear in the logarithms, with x as its coefficients.
    scale = claim.deviation / np.sqrt(x @ x)
    logs = truth * x / (x @ x) + scale * deviations
    return [effect(dict(zip(arms, np.exp(row), strict=True))) for row in logs]


def _design(effect: Callable[..., float], arms: tuple[str | float, ...]) -> NDArray[np.float64]:
    """Return the coefficients of an effect that is linear in the logarithms of the values."""
    return np.array([effect({a: np.e if a == b else 1.0 for a in arms}) for b in arms])


def _taus(
    claim: Claim,
    truth: float,
    draw: Callable[[Generator, tuple[int, ...]], NDArray[np.float64]],
    rng: Generator,
) -> list[float]:
    """Return Kendall's taus: pairs whose correlation gives this tau on average (normal: exact)."""
    correlation = np.sin(np.pi / 2 * truth)
    found = []
    for _ in range(SEEDS):
        a, b = draw(rng, (2, len(LAMBDAS), LAYERS))
        b = correlation * a + np.sqrt(1 - correlation**2) * b
        pairs = {lam: [*zip(a[k], b[k], strict=True)] for k, lam in enumerate(LAMBDAS)}
        found.append(ESTIMATORS[claim.estimator].effect(pairs))  # type: ignore[arg-type]
    return found


def _null(claim: Claim) -> float:
    """Return an effect on the bound."""
    low, high = claim.region
    return high if np.isfinite(high) else low


def _normal(rng: Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    return rng.normal(size=shape)


def _heavy(rng: Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    return rng.standard_t(2, size=shape)


def _exploding(rng: Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Draw normal deviations, with one run of one seed off by a large factor, up or down."""
    drawn = rng.normal(size=shape)
    drawn[0, 0] += rng.choice((-1, 1)) * np.log(EXPLODED)
    return drawn
