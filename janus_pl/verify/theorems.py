"""The theorems, checked against records; a failure is a defect of the program or the run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from janus_pl.errors import Exit
from janus_pl.records.families import by_seed, families
from janus_pl.records.run import Run
from janus_pl.verify.subjects import ANY, LINEAR, Subjects, apart

CLOSED_FORM = 1e-9  # of the start; float64 rounding over 500,000 steps leaves 5e-13
SLOPE = 1e-6  # relative; measured while both norms are above 1e-10 of their start
EMPTY = 1e-12


class Finding(NamedTuple):
    """What one run, or one set of comparable runs, says of a theorem.

    Attributes:
        holds: Whether the criterion is met.
        size: The number that the criterion is about.
        measured: The measurement in one line.
        runs: The runs that were measured.
        beside: What the size is to be compared with, in words.
    """

    holds: bool
    size: float
    measured: str
    runs: Sequence[Run]
    beside: str = ""


@dataclass(frozen=True)
class Missing:
    """The reason, in words, why runs cannot be checked, and the run that could."""

    run: str


@dataclass(frozen=True)
class Checked:
    """A theorem, and the findings on it.

    Attributes:
        theorem: The theorem.
        findings: One for each run or set of runs that it is about.
        missing: What is missing if there is none.
    """

    theorem: Theorem
    findings: Sequence[Finding]
    missing: str

    @property
    def name(self) -> str:
        """The theorem's name."""
        return self.theorem.name

    @property
    def broken(self) -> bool:
        """Whether it does not hold in some runs."""
        return not all(finding.holds for finding in self.findings)

    @property
    def answer(self) -> str:
        """`holds`, `broken` or `not testable`."""
        if not self.findings:
            return "not testable"
        return "broken" if self.broken else "holds"

    @property
    def sentence(self) -> str:
        """The answer in a plain sentence."""
        if not self.findings:
            return f"{self.name}: needs {self.missing}"
        # NaN counts as the largest: it is no number that a theorem allows.
        worst = max(self.findings, key=lambda found: (math.isnan(found.size), found.size))
        runs = {run.id for finding in self.findings for run in finding.runs}
        count = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
        broken = [finding.runs[0].name for finding in self.findings if not finding.holds]
        said = f"{self.theorem.says.format(f'{worst.size:.2g}{worst.beside}')}; {count}"
        return f"{said}, broken in {broken[0]}" if broken else said

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            **{"name": self.name, "says": self.theorem.says, "source": self.theorem.source},
            **{"criterion": self.theorem.criterion, "answer": self.answer},
            **{"sentence": self.sentence, "missing": None if self.findings else self.missing},
            "findings": [
                {
                    **{"holds": finding.holds, "size": finding.size, "measured": finding.measured},
                    "runs": [f"{run.name} ({run.id})" for run in finding.runs],
                }
                for finding in self.findings
            ],
        }


Rule = Callable[[Sequence[Run]], list[Finding | Missing]]


class Theorem(NamedTuple):
    """A statement that is proved, so that a failure is a defect.

    Attributes:
        name: Its short name.
        says: The statement in a sentence; `{}` is the place of the largest `size`.
        source: Its place in the paper.
        criterion: The condition for `holds`.
        about: The runs that it is about.
        rule: The function that returns the findings in some of these runs.
        needs: The runs that the rule needs.
    """

    name: str
    says: str
    source: str
    criterion: str
    about: Subjects
    rule: Rule
    needs: str

    def check(self, runs: Sequence[Run]) -> Checked:
        """Check the theorem in some runs."""
        subjects, _ = apart(runs, self.about)
        results = self.rule(subjects)
        found = [result for result in results if isinstance(result, Finding)]
        reasons = dict.fromkeys(r.run for r in results if isinstance(r, Missing))
        return Checked(self, found, next(iter(reasons), self.needs))


def null_space_decays(runs: Sequence[Run]) -> list[Finding | Missing]:
    """Measure the largest difference of null/norm and null/predicted, relative to the start."""
    results: list[Finding | Missing] = []
    for run in _with_null_space(runs):
        norm, predicted = run.rows["null/norm"], run.rows["null/predicted"]
        start = norm.dropna().iloc[0]
        if start <= EMPTY:
            continue
        worst = float((norm - predicted).abs().max() / start)
        kept = f"{float(norm.dropna().iloc[-1] / start):.3g}"
        results.append(
            Finding(
                worst <= CLOSED_FORM,
                worst,
                f"{run.name}: at most {worst:.1e} of the start off the closed form in"
                f" {norm.notna().sum()} rows; {kept} of the start is left",
                [run],
            )
        )
    return results


def rate_is_steps_per_epoch(runs: Sequence[Run]) -> list[Finding | Missing]:
    """Compare the log-slopes per epoch of two batch sizes with their steps per epoch.

    Only runs of a single replica count: a median over many may end in another replica than it
    starts in.
    """
    results: list[Finding | Missing] = []
    one_rate = [
        run
        for run in _with_null_space(runs)
        if run.first("null/norm") > EMPTY
        and not run.has("null/norm/q05")
        and run.options.get("model.gd_schedule") is None
        and run.options.get("model.gd_learning_rate") is None
    ]
    for family in families(one_rate, "batch"):
        for same in by_seed(family):
            for a, b in combinations(sorted(same, key=lambda run: run.steps_per_epoch), 2):
                if a.steps_per_epoch == b.steps_per_epoch:
                    continue
                expected = b.steps_per_epoch / a.steps_per_epoch
                seen = _slope_ratio(a, b)
                if seen is None:
                    results.append(Missing(f"rows of {b.name} before its null space is rounding"))
                    continue
                results.append(
                    Finding(
                        abs(seen / expected - 1) <= SLOPE,
                        abs(seen / expected - 1),
                        f"{b.name} falls {seen:.7g} times as fast per epoch as {a.name}; it takes"
                        f" {expected:g} times the steps",
                        [a, b],
                    )
                )
    return results


def empty_null_space_stays_empty(runs: Sequence[Run]) -> list[Finding | Missing]:
    """Measure the largest null/norm of SGD and of GD from W0 = 0."""
    results: list[Finding | Missing] = []
    empty = [run for run in _with_null_space(runs) if run.first("null/norm") <= EMPTY]
    for family in families(empty, "batch"):
        kinds = {run.dynamics for run in family}
        if kinds != {"SGD", "GD"}:
            other = "data.batch_size: full" if kinds == {"SGD"} else "data.batch_size: 1"
            results.append(Missing(f"{family[0].name} with {other}"))
            continue
        norms = {run.name: float(run.rows["null/norm"].max()) for run in family}
        measured = "; ".join(f"{name}: ||W_perp|| at most {v:.1e}" for name, v in norms.items())
        largest = max(norms.values())
        results.append(Finding(largest <= EMPTY, largest, measured, family))
    return results


def tails_are_bounded(runs: Sequence[Run]) -> list[Finding | Missing]:
    """Measure the largest ratio of a spectrum's tail to its bound, over layers and rows."""
    results: list[Finding | Missing] = []
    for run in runs:
        watched = run.layers("tail_bound/vacuous")
        largest = {k: _largest_ratio(run, k) for k in watched if _bounded(run, k).any()}
        if not largest:
            if watched:
                results.append(
                    Missing(f"a smaller batch than that of {run.name}: its bound is vacuous")
                )
            continue
        top = max(largest, key=lambda k: largest[k])
        rows = np.any([_bounded(run, k) for k in largest], axis=0).sum()
        vacuous = sorted(set(watched) - set(largest))
        said = ", ".join(f"{layer} {value:.3g}" for layer, value in largest.items())
        said += f"; vacuous for {', '.join(vacuous)}" if vacuous else ""
        results.append(
            Finding(
                # RankBound's own judgement: its ratio allows for rounding. NaN is not below 1.
                run.exit_code != Exit.BROKEN_THEOREM
                and all(value <= 1 for value in largest.values()),
                max(largest.values()),
                f"{run.name}: tail/bound at most {said} ({rows} rows)",
                [run],
                f" ({_first_ratio(run, top):.2g} at first)",
            )
        )
    return results


def _bounded(run: Run, layer: str) -> pd.Series[bool]:
    """Tell in which rows the bound of a layer is not vacuous, so that there is a ratio."""
    return run.rows[f"tail_bound/vacuous/{layer}"] == 0


def _first_ratio(run: Run, layer: str) -> float:
    """Return the ratio at the first look: that of weights that have hardly been trained."""
    ratios = run.rows.reindex(columns=[f"tail_bound/ratio/{layer}"]).squeeze(axis=1)
    return float(ratios[_bounded(run, layer)].iloc[0])


def _largest_ratio(run: Run, layer: str) -> float:
    """Return the largest ratio of a layer; NaN if a row that should have a ratio has none.

    Records keep the row of a ratio that is NaN or infinite, but not the ratio: W&B writes such
    numbers as text.
    """
    ratios = run.rows.reindex(columns=[f"tail_bound/ratio/{layer}"]).squeeze(axis=1)
    due = ratios[_bounded(run, layer)]
    return math.nan if due.isna().any() else float(ratios.max())


def _with_null_space(runs: Sequence[Run]) -> list[Run]:
    return [run for run in runs if run.has("null/norm", "null/predicted")]


def _slope_ratio(a: Run, b: Run) -> float | None:
    """Return log(kept by b)/log(kept by a) at the last common epoch above rounding, or None."""
    parts = []
    for run in (a, b):
        norm = run.rows.set_index("epoch")["null/norm"].dropna()
        parts.append(norm / norm.iloc[0])
    common = parts[0].index.intersection(parts[1].index)
    kept = np.array([[part[epoch] for part in parts] for epoch in common])
    usable = kept[((kept > 1e-10) & (kept < 1)).all(axis=1)]
    if not len(usable):
        return None
    return math.log(usable[-1, 1]) / math.log(usable[-1, 0])


RANDOM = "linear regression from a random W0 (configs/linear/a2.yaml)"

THEOREMS = (
    Theorem(
        "Theorem 1",
        "W_perp shrinks by the factor 1 - 2 eta lambda at every step, off by {} of its start",
        "Theorem 1, Eq. 9",
        f"||W_perp|| is the closed form to {CLOSED_FORM:g} of its start at every recorded epoch",
        LINEAR,
        null_space_decays,
        RANDOM,
    ),
    Theorem(
        "law over B",
        "W_perp shrinks N/B times as fast per epoch as under GD, to {}",
        "Remark after Theorem 1, as corrected",
        f"the log-slopes per epoch are as the steps per epoch, to {SLOPE:g}",
        LINEAR,
        rate_is_steps_per_epoch,
        f"{RANDOM} at two batch sizes and the same seed",
    ),
    Theorem(
        "A.1",
        "from W0 = 0 the null space stays empty, ||W_perp|| at most {}",
        "Theorem 1, Fig. A.1",
        f"||W_perp|| stays below {EMPTY:g}",
        LINEAR,
        empty_null_space_stays_empty,
        "configs/linear/a1.yaml and the same with data.batch_size: full",
    ),
    Theorem(
        "tail bound",
        "every spectrum's tail is below its bound: at most {} of it",
        "arXiv 2206.05794; Lemma 1's mechanism",
        "tail_bound/ratio is at most 1 in every layer and row",
        ANY,
        tails_are_bounded,
        "a run without momentum with RankBound (configs/theory.yaml)",
    ),
)
