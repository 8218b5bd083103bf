"""The words of `verify`: a line for each claim and each theorem, with its details."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from janus_pl.verify.estimators import estimator_of
from janus_pl.verify.judge import Judged, Verdict, Verdicts
from janus_pl.verify.quantities import QUANTITIES
from janus_pl.verify.theorems import Checked

WIDTH = 100  # columns
ANSWER = 14
STAR = "*"
LEGEND = f"{STAR} retrospective: runs are older than the claims file"


@dataclass(frozen=True)
class Line:
    """One line of the table, with what stands behind it.

    Attributes:
        name: The name of the claim or theorem.
        answer: The answer in a word or two.
        retrospective: Whether the runs that decide are older than the claims file.
        sentence: The answer in a plain sentence, with the numbers.
        source: Its place in the paper.
        criterion: The condition for `supported` or `holds`.
        primary: Whether it is one of the table.
        details: A line for each setting, or each finding of a theorem.
        runs: The runs that decide, as `name (id)`.
    """

    name: str
    answer: str
    retrospective: bool
    sentence: str
    source: str
    criterion: str
    primary: bool
    details: Sequence[str]
    runs: Sequence[str]


def lines(found: Verdicts) -> list[Line]:
    """Return a line for each claim, in the order of the file, and each theorem."""
    return [*map(_of_claim, found.verdicts), *map(_of_theorem, found.theorems)]


def left_out(found: Verdicts) -> str:
    """Return how many networks claims are not about, and why; empty if there are none."""
    return ", ".join(f"{len(runs)} {why}" for why, runs in found.collapsed.items())


def table(found: Verdicts) -> list[str]:
    """Return the table: a line of at most 100 columns for each primary claim and each theorem.

    The last line counts the networks that claims leave out, and explains the star.
    """
    shown = [line for line in lines(found) if line.primary]
    rows = [(f"{line.answer}{STAR * line.retrospective}", line.sentence) for line in shown]
    notes = [left_out(found)] if found.collapsed else []
    notes += [LEGEND] if any(line.retrospective for line in shown) else []
    if notes:
        rows.append(("left out" if found.collapsed else "", "; ".join(notes)))
    return [f"{answer:<{ANSWER}}{_short(sentence)}" for answer, sentence in rows]


def details(found: Verdicts) -> Iterator[str]:
    """Yield every claim and theorem with all its settings, and the networks that are left out."""
    for line in lines(found):
        answer = f"{line.answer}{STAR * line.retrospective}"
        yield f"{answer:<{ANSWER}}{line.name} ({line.source}): {line.sentence}"
        yield f"{'':{ANSWER}}{line.criterion}"
        yield from (f"{'':{ANSWER}}- {detail}" for detail in line.details)
        yield ""
    for why, runs in found.collapsed.items():
        yield f"{'left out':<{ANSWER}}{len(runs)} {why}"
        yield from (f"{'':{ANSWER}}- {run.name} ({run.id})" for run in runs)


def to_json(found: Verdicts) -> dict[str, Any]:
    """Return everything in plain values, with the lines in words."""
    return found.to_json() | {
        "lines": [asdict(line) for line in lines(found)],
        "left_out": left_out(found),
    }


def _of_claim(verdict: Verdict) -> Line:
    claim, judged = verdict.claim, verdict.judged
    ((kind, number),) = claim.bound.items()
    estimator = estimator_of(claim.estimator, claim.over)
    effect = estimator.words.format(QUANTITIES[claim.quantity].words)
    rank = "primary" if claim.primary else "secondary, at a level of its own"
    criterion = f"{effect} is {kind} {number}; {claim.seeds} seeds or more; {rank}"
    decides = bool(judged) and judged[0].answer is not None
    return Line(
        claim.name,
        str(verdict.answer),
        decides and judged[0].retrospective,
        verdict.sentence,
        claim.source,
        criterion,
        claim.primary,
        [_of_setting(each) + (f"; {each.beside}" if each.beside else "") for each in judged],
        judged[0].runs if judged else [],
    )


def _of_theorem(checked: Checked) -> Line:
    theorem = checked.theorem
    return Line(
        theorem.name,
        checked.answer,
        False,
        checked.sentence,
        theorem.source,
        theorem.criterion,
        True,
        [f"{'' if f.holds else 'BROKEN: '}{f.measured}" for f in checked.findings],
        [*dict.fromkeys(f"{run.name} ({run.id})" for f in checked.findings for run in f.runs)],
    )


def _of_setting(judged: Judged) -> str:
    count = len(judged.effects)
    said = (
        f"{judged.setting}: {judged.estimate:.3g}, {'1 seed' if count == 1 else f'{count} seeds'}"
    )
    if judged.interval is None or judged.interval_95 is None:
        return f"{said}, descriptive"
    low, high = judged.interval_95
    said += f", 95% [{low:.3g}, {high:.3g}], p {judged.p:.2g}, sign flips {judged.sign_flip_p:.2g}"
    if judged.answer is None:
        return f"{said}, descriptive"
    low, high = judged.interval
    said += f"; decided at {1 - judged.level:.2%} [{low:.3g}, {high:.3g}]: {judged.answer}"
    return f"{said}; power at the stated effect {judged.power:.0%}"


def _short(sentence: str, width: int = WIDTH - ANSWER) -> str:
    """Return a sentence that fits the line; `--all` has the whole one."""
    return sentence if len(sentence) <= width else f"{sentence[: width - 3].rstrip()}..."
