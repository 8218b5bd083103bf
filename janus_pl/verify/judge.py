"""The answers to claims, and the theorems, on some runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from janus_pl.errors import FINAL
from janus_pl.records.families import DIVERGED, is_untrained, is_zero_function, told_apart
from janus_pl.records.late import until
from janus_pl.records.run import Run
from janus_pl.verify.claims import LAMBDA, Claim, Claims
from janus_pl.verify.decide import (
    ALPHA,
    MOST_SEEDS,
    Answer,
    decide,
    interval,
    levels,
    p_value,
    seeds_needed,
    sign_flip,
)
from janus_pl.verify.estimators import Evidence, estimator_of, evidence
from janus_pl.verify.quantities import QUANTITIES, lacking, rank_lost
from janus_pl.verify.settings import DECAY, differences
from janus_pl.verify.subjects import NETWORKS, apart
from janus_pl.verify.theorems import THEOREMS, Checked

SHORT = 26  # characters of a setting that a line has room for
CONFIDENCE = 0.05  # of the interval that is shown and decides nothing


@dataclass(frozen=True)
class Judged:
    """The effects of one setting, and what they say of a claim. All numbers are in its unit.

    Attributes:
        setting: What tells it apart from the claim's other settings, in words.
        estimate: The mean; of a ratio the geometric mean.
        interval: The interval at `level`, which decides; None for a single seed.
        level: Holm's level among the primary claims, or 0.05 for what is only descriptive.
        interval_95: The 95% interval.
        p: The least level that decides.
        sign_flip_p: The exact p of the sign-flip test against no effect.
        effects: One number a seed.
        answer: The answer; None if it is only descriptive.
        seeds_needed: The seeds like these that would decide; None if decided, or more than 1,000.
        power: The chance to support the claim at its stated effect, with so many seeds.
        retrospective: Whether a run is older than the claims file.
        runs: The runs, as `name (id)`.
        beside: What else is known of it, in words.
    """

    setting: str
    estimate: float
    interval: tuple[float, float] | None
    level: float
    interval_95: tuple[float, float] | None
    p: float | None
    sign_flip_p: float | None
    effects: list[float]
    answer: Answer | None
    seeds_needed: int | None
    power: float | None
    retrospective: bool
    runs: list[str]
    beside: str = ""


@dataclass(frozen=True)
class Verdict:
    """The answer to one claim.

    Attributes:
        claim: The claim.
        answer: The answer.
        sentence: The answer in a plain sentence.
        judged: The settings, the one that decides first.
        missing: Why it is not testable; None if it is.
    """

    claim: Claim
    answer: Answer
    sentence: str
    judged: Sequence[Judged]
    missing: str | None

    def to_json(self) -> dict[str, Any]:
        """Return plain values; null stands for a number that is not finite."""
        return {
            **_finite(asdict(self.claim)),
            "answer": str(self.answer),
            "sentence": self.sentence,
            "missing": self.missing,
            "settings": [_finite(asdict(each)) for each in self.judged],
        }


class Verdicts(NamedTuple):
    """All that `verify` says of some runs.

    Attributes:
        claims: The claims file.
        verdicts: The answer to each claim, in the order of the file.
        theorems: What was checked of each theorem.
        collapsed: Networks that ended as f = 0, diverged, or were not trained, with the reason.
        notes: Runs that are not compared, since their data differ.
    """

    claims: Claims
    verdicts: Sequence[Verdict]
    theorems: Sequence[Checked]
    collapsed: Mapping[str, Sequence[Run]]
    notes: Sequence[str]

    @property
    def violated(self) -> list[str]:
        """The names of the theorems that broke."""
        return [each.name for each in self.theorems if each.broken]

    def to_json(self) -> dict[str, Any]:
        """Return everything in plain values."""
        return {
            "claims_file": {"path": self.claims.path.name, "sha256": self.claims.sha256},
            "alpha": ALPHA,
            "claims": [verdict.to_json() for verdict in self.verdicts],
            "theorems": [_finite(each.to_json()) for each in self.theorems],
            "collapsed": {
                why: [_named(run) for run in runs] for why, runs in self.collapsed.items()
            },
            "notes": list(self.notes),
        }


def judge(claims: Claims, runs: Sequence[Run]) -> Verdicts:
    """Answer each claim, and check each theorem, by some runs.

    Claims are about trained networks; the others are counted. Theorems hold in all runs.
    """
    found = [_evidence(claim, _sound(claim, runs)) for claim in claims.claims]
    asked = [k for k, claim in enumerate(claims.claims) if claim.primary]
    ps = [_p(claims.claims[k], found[k][0]) for k in asked]
    level = dict(zip(asked, levels(ps), strict=True))
    verdicts = [
        _verdict(claim, *found[k], level.get(k, ALPHA), claims.sha256)
        for k, claim in enumerate(claims.claims)
    ]
    theorems = [theorem.check(runs) for theorem in THEOREMS]
    return Verdicts(claims, verdicts, theorems, _collapsed(runs), told_apart(runs))


def _sound(claim: Claim, runs: Sequence[Run]) -> list[Run]:
    """Return the runs that are trained networks, or no networks, at the end of a claim's window.

    What becomes of them later is no reason to leave them out: that would choose by the outcome.
    """
    if claim.window is None:
        return [run for run in runs if _outcome(run) is None]
    end = claim.window[1]
    return [run for run in runs if _outcome(until(run, end)) is None]


def _evidence(claim: Claim, runs: Sequence[Run]) -> tuple[list[Evidence], str]:
    """Return the evidence on a claim, the deciding setting first, and why others have none."""
    quantity = QUANTITIES[claim.quantity]
    ended = [r for r in runs if r.finished or (claim.window is not None and r.exit_code in FINAL)]
    networks, strangers = apart(ended, NETWORKS[claim.network])
    about = [run for run in networks if claim.is_about(run)]
    having = [run for run in about if lacking(run, quantity) is None]
    found, reasons = evidence(
        having,
        claim.estimator,
        quantity,
        claim.dynamics,
        claim.clock,
        claim.window,
        claim.over,
        claim.seeds,
    )
    lack = [f"{lacking(run, quantity)} of {run.name}" for run in about if run not in having]
    told = ", ".join(f"{name} {value}" for name, value in claim.setting.items())
    needs = f"needs {estimator_of(claim.estimator, claim.over).needs}"
    why = [*reasons, *lack[:1]] or [f"{needs}; {told}" if told else needs]
    if not networks:
        why += strangers[:1]
    return found, "; ".join(why)


def _p(claim: Claim, found: Sequence[Evidence]) -> float:
    """Return the p value of a claim's deciding setting; 1 if it is not testable."""
    if not found or len(found[0].effects) < claim.seeds:
        return 1.0
    return p_value(found[0].effects, claim.region)


def _verdict(
    claim: Claim, found: Sequence[Evidence], why: str, level: float, sha256: str
) -> Verdict:
    leave = (DECAY,) if claim.over == LAMBDA else ()
    settings = differences([each.runs for each in found], leave)
    judged = [
        _judged(claim, each, setting, level if place == 0 else None, sha256)
        for place, (each, setting) in enumerate(zip(found, settings, strict=True))
    ]
    if not judged:
        return Verdict(claim, Answer.UNTESTABLE, f"{claim.name}: {why}", judged, why)
    first = judged[0]
    if first.answer is None:
        why = f"{len(first.effects)} of {claim.seeds} seeds"
        return Verdict(claim, Answer.UNTESTABLE, told(claim, first, why), judged, why)
    sentence = told(claim, first)
    if len(judged) > 1:  # one number stands for the setting that decides
        short = 0 < len(settings[0]) <= SHORT
        where = f" at {settings[0]} (1 of {{}})" if short else " in 1 of {} settings"
        sentence += where.format(len(judged))
    return Verdict(claim, first.answer, sentence, judged, None)


def _judged(
    claim: Claim, found: Evidence, setting: str, level: float | None, sha256: str
) -> Judged:
    """Return what the effects of a setting say; without a level, and of few seeds, no answer."""
    effects, region, many = found.effects, claim.region, len(found.effects) > 1
    decides = level is not None and len(effects) >= claim.seeds
    at = level if level is not None and decides else CONFIDENCE
    answer = decide(effects, region, at) if decides else None
    return Judged(
        setting=", ".join(filter(None, (found.arms, setting))),
        estimate=claim.from_effect(sum(effects) / len(effects)),
        interval=_ends(claim, effects, at) if many else None,
        level=at,
        interval_95=_ends(claim, effects, CONFIDENCE) if many else None,
        p=p_value(effects, region) if many else None,
        sign_flip_p=sign_flip(effects, region) if many else None,
        effects=[claim.from_effect(effect) for effect in effects],
        answer=answer,
        seeds_needed=seeds_needed(effects, region, at) if answer is Answer.UNDECIDED else None,
        power=claim.power(at, len(effects)) if many else None,
        retrospective=any(sha256 not in run.description.claims.values() for run in found.runs),
        runs=[*dict.fromkeys(_named(run) for run in found.runs)],
        beside=_lost(found.runs) if claim.quantity == "rank" else "",
    )


def told(claim: Claim, judged: Judged, instead: str = "") -> str:
    """Return the claim's sentence with the numbers of a setting.

    Args:
        claim: The claim.
        judged: The setting.
        instead: What is said of the seeds, if these do not decide.
    """
    number = f"{judged.estimate:.2g}"
    if judged.interval is not None:
        low, high = judged.interval
        number += f" [{low:.2g}, {high:.2g}]"
    seeds = instead or f"{len(judged.effects)} seeds"
    if judged.answer is Answer.UNDECIDED:
        seeds += f", {judged.seeds_needed or f'over {MOST_SEEDS}'} needed"
    return f"{claim.says.format(number)}; {seeds}"


def _lost(runs: Sequence[Run]) -> str:
    """Say how much rank was lost within spikes of the loss and between them, by dynamics."""
    found: dict[str, list[tuple[float, float]]] = {}
    for run in runs:
        if (lost := rank_lost(run)) is not None:
            found.setdefault(run.dynamics, []).append(lost)
    told = []
    for dynamics, some in found.items():
        within, between = (sum(each) / len(some) for each in zip(*some, strict=True))
        told.append(f"{dynamics} {within:.3g} / {between:.3g}")
    return f"rank lost within / between spikes: {', '.join(told)}" if told else ""


def _ends(claim: Claim, effects: Sequence[float], level: float) -> tuple[float, float]:
    low, high = interval(effects, level)
    return claim.from_effect(low), claim.from_effect(high)


def _collapsed(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Return the networks that claims leave out, by their outcome."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        if (outcome := _outcome(run)) is not None:
            found.setdefault(outcome, []).append(run)
    return found


def _outcome(run: Run) -> str | None:
    """Return why a network is left out; None if it is trained, or the run is of no network."""
    if not run.description.is_network:
        return None
    if run.has(DIVERGED):
        return "diverged"
    if is_zero_function(run):
        return "collapsed to f = 0"
    return "not trained" if is_untrained(run) else None


def _named(run: Run) -> str:
    return f"{run.name} ({run.id})"


def _finite(value: Any) -> Any:
    """Return plain values in which null stands for a number that is not finite."""
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
