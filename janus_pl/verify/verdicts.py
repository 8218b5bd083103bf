"""Predictions, the findings of their rules, and the verdicts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from janus_pl.records.families import digest_of
from janus_pl.records.families import told_apart as other_data
from janus_pl.records.run import Run
from janus_pl.verify.effects import Estimate
from janus_pl.verify.subjects import Subjects, apart


class Outcome(StrEnum):
    """The three verdicts."""

    HOLDS = "holds"
    FAILS = "fails"
    UNTESTABLE = "not testable"


class Finding(NamedTuple):
    """The evidence of one set of comparable runs on a prediction.

    Attributes:
        holds: Whether the criterion is met.
        measured: The measurement in one line, with the numbers.
        effects: The numbers of the measurement.
        runs: The runs that were measured.
    """

    holds: bool
    measured: str
    effects: Sequence[Estimate]
    runs: Sequence[Run]


@dataclass(frozen=True)
class Missing:
    """The reason, in words, why a set of runs cannot decide, and the run that would."""

    run: str


TOLD_OF_TRAINER = ("trainer.max_epochs", "trainer.precision")
NOT_TOLD = ("", "seed", "root", "download", "micro_batch_size", "on_divergence")

Rule = Callable[[Sequence[Run]], list[Finding | Missing]]


class Prediction(NamedTuple):
    """One statement of the paper, and the rule by which records decide on it.

    Attributes:
        key: Its short name.
        claim: The statement in one sentence.
        source: Its place in the paper.
        criterion: The condition for `holds`.
        about: The runs that the statement is about; no other run decides.
        rule: The function that returns the findings in some of these runs; none if no run is of
            the kind.
        missing: The runs that the rule needs.
        theorem: Whether the statement is proved, so that a failure is a defect.
    """

    key: str
    claim: str
    source: str
    criterion: str
    about: Subjects
    rule: Rule
    missing: str
    theorem: bool = False


@dataclass(frozen=True)
class Verdict:
    """A line of the table, and its JSON form."""

    prediction: str
    claim: str
    source: str
    criterion: str
    about: str
    theorem: bool
    verdict: Outcome
    measured: str
    effects: Sequence[Estimate]
    runs: Sequence[str]
    missing: str | None

    @property
    def violated(self) -> bool:
        """Whether a theorem does not hold in these runs."""
        return self.theorem and self.verdict is Outcome.FAILS

    def to_json(self) -> dict[str, Any]:
        """Return every field as plain values, effects as objects, runs as `name (id)`.

        JSON has no NaN and no infinity: null stands for a number of an effect that is not finite.
        """
        effects = [
            {key: _finite(value) for key, value in effect._asdict().items()}
            for effect in self.effects
        ]
        return asdict(self) | {"effects": effects}


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def judge(prediction: Prediction, runs: Sequence[Run]) -> list[Verdict]:
    """Return a verdict for each set of runs that decides; else one that names what is missing.

    Only runs that the prediction is about can decide. If none does, the reasons why the other runs
    are not among them are told too, one for each reason.
    """
    subjects, strangers = apart(runs, prediction.about)
    results = prediction.rule(subjects)
    findings = [result for result in results if isinstance(result, Finding)]
    # A theorem's findings name their runs themselves.
    told_apart = [""] * len(findings) if prediction.theorem else _apart(findings)
    decided = [
        Verdict(
            *_fixed(prediction),
            verdict=Outcome.HOLDS if result.holds else Outcome.FAILS,
            measured=f"{told}: {result.measured}" if told else result.measured,
            effects=list(result.effects),
            runs=[f"{run.name} ({run.id})" for run in result.runs],
            missing=None,
        )
        for result, told in zip(findings, told_apart, strict=True)
    ]
    if decided:
        return decided
    reasons = [result.run for result in results if isinstance(result, Missing)]
    told = [*(dict.fromkeys(reasons) or [prediction.missing]), *strangers, *other_data(subjects)]
    missing = "; ".join(told)
    return [
        Verdict(*_fixed(prediction), Outcome.UNTESTABLE, "", effects=[], runs=[], missing=missing)
    ]


def _apart(findings: Sequence[Finding]) -> list[str]:
    """Name the options in which the runs of a finding differ from the others', for each finding.

    Seeds are left out, and so are options that differ within a finding.
    """
    shared = []
    for finding in findings:
        first, *others = ({**run.options, **_of_data(run)} for run in finding.runs)
        kept = {k: v for k, v in first.items() if all(o.get(k) == v for o in others)}
        shared.append({k: v for k, v in kept.items() if _tells(k)})
    keys = dict.fromkeys(key for options in shared for key in options)
    apart = [k for k in keys if len({repr(options.get(k)) for options in shared}) > 1]
    return [", ".join(f"{_short(k)} {o[k]}" for k in apart if k in o) for o in shared]


def _of_data(run: Run) -> dict[str, Any]:
    digest = digest_of(run)
    return {} if digest is None else {"data.sha256": digest}


def _short(key: str) -> str:
    return "lambda" if key == "model.weight_decay" else key.rpartition(".")[2]


def _tells(key: str) -> bool:
    part, _, name = key.partition(".")
    return key in TOLD_OF_TRAINER or (part in ("model", "data") and name not in NOT_TOLD)


def _fixed(prediction: Prediction) -> tuple[str, str, str, str, str, bool]:
    return (
        prediction.key,
        prediction.claim,
        prediction.source,
        prediction.criterion,
        prediction.about.words,
        prediction.theorem,
    )
