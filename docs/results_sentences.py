"""The sentences with numbers of the pages of results, each with the records that it comes from.

A sentence stands in the page as it is read. Here it stands once more, with a place for each number
and the function that computes them, or with a condition where it has none. `check` fails if a
record says something else, and shows the sentence as it has to be.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from results_judged import judged
from results_tables import MIDDLE, of_sweeps

from janus_pl.records.families import lambda_of, seed_of
from janus_pl.records.late import geometric_mean
from janus_pl.records.run import Run
from janus_pl.verify.judge import Verdicts


class Recorded:
    """The recorded runs, by sweep, lambda and dynamics."""

    def __init__(self, runs: Iterable[Run]) -> None:
        self.runs = list(runs)
        self._verdicts: dict[str, Verdicts] = {}  # by claims file, once they were asked

    def of(self, *sweeps: str, lam: float | None = None, dynamics: str | None = None) -> list[Run]:
        """The runs of some sweeps, by seed and lambda.

        Raises:
            LookupError: There are none.
        """
        found = [
            run
            for run in of_sweeps(self.runs, *sweeps)
            if lam in (None, lambda_of(run)) and dynamics in (None, run.dynamics)
        ]
        if not found:
            raise LookupError(f"no runs of {', '.join(sweeps)}, lambda {lam}, {dynamics}")
        return sorted(found, key=lambda run: (str(seed_of(run)), lambda_of(run)))

    def verdicts(self, claims: str = "") -> Verdicts:
        """What `verify` says by a claims file; see results_judged."""
        if claims not in self._verdicts:
            self._verdicts[claims] = judged(self.runs, claims)
        return self._verdicts[claims]


class Sentence(NamedTuple):
    """What the page says.

    Attributes:
        text: A part of the page, with a place such as `{:.0f}` for each number.
        numbers: Returns the numbers, in order.
        so: Whether the words around them are so. Several sentences that share words share this.
    """

    text: str
    numbers: Callable[[Recorded], Sequence[Any]] = lambda recorded: ()
    so: Callable[[Recorded], Any] = lambda recorded: True


def check(page: str, runs: Iterable[Run], sentences: Sequence[Sentence]) -> list[str]:
    """What the page says and the records do not; empty if it is all so."""
    recorded, said = Recorded(runs), plain(page)
    wrong = []
    for sentence in sentences:
        try:
            text = sentence.text.format(*sentence.numbers(recorded))
            if text not in said:
                wrong.append(f"the records say: {text}")
            elif not sentence.so(recorded):
                wrong.append(f"no longer so: {text}")
        except (LookupError, ArithmeticError, ValueError) as error:
            wrong.append(f"cannot be computed ({error}): {sentence.text}")
    return wrong


def unchecked(page: str, runs: Iterable[Run], sentences: Sequence[Sentence]) -> list[str]:
    """Numbers in what was seen that no sentence has; those of settings and names do not count."""
    recorded, said = Recorded(runs), plain(page)
    for sentence in sentences:
        said = said.replace(sentence.text.format(*sentence.numbers(recorded)), " ")
    found = []
    for paragraph in said.splitlines():
        if not TOLD.match(paragraph):
            left = NAMES.sub("", paragraph)
            found += [left[max(0, m.start() - 40) : m.end() + 20] for m in NUMBER.finditer(left)]
    return found


# Paragraphs that say what a run was told, and what is not of the records.
TOLD = re.compile(
    r"#|\||!\[|\*[^*]|\*\*(Claim|Command|Scale|Reading)|- The paper's|What is true|.*:$"
)
NUMBER = re.compile(r"(?<![\w.])\d[\d.,e-]*")
NAMES = re.compile(
    r"(Fig(ure|ures|\.)|Eqs?\.|Sections?|Theorem|Lemma|Prediction|Appendix) [A-C]?[\d.]+\w*"
    r"( and \d+\w*)?|arXiv [\d.]+|`[^`]*`|\]\([^)]*\)"
    # What a run was told: its images, lambda, batch size and rate.
    r"|[\d,]+ images|200 seeds|with momentum 0.9|(at|and) [1-9]e-[2-6]|f = 0|a rate of [\d.]+"
    r"|([Ll]ambda|lambda of|N|B|rate|[Rr]ate of|eta t) =? ?[\d.,e-]*\d( (and|or) [\d.e-]*\d)?"
    r"|l_n > 0"
)


def plain(page: str) -> str:
    """The page without what is computed into its places, and without code."""
    without = re.sub(r"<!-- \w+ -->.*?<!-- end -->", "", page, flags=re.DOTALL)
    return re.sub(r"```.*?```", "", without, flags=re.DOTALL)


# What sentences are computed from


def power(value: float, digits: int = 0) -> str:
    """A number as the page has small ones.

    >>> power(0.00038), power(1.23e-5, 1)
    ('4e-4', '1.2e-5')
    """
    mantissa, _, exponent = f"{value:.{digits}e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def rank(layer: str) -> Callable[[Run], float]:
    """The effective rank of a layer in the last row."""
    return partial(Run.last, key=f"effective_rank/{layer}")


def middle(run: Run) -> float:
    """The mean effective rank of conv3, conv4 and fc1 in the last row."""
    return float(np.mean([rank(layer)(run) for layer in MIDDLE]))


def kept(layer: str) -> Callable[[Run], float]:
    """What is left of the effective rank that a layer has in the first row."""
    key = f"effective_rank/{layer}"
    return lambda run: run.last(key) / run.first(key)


def each(runs: Sequence[Run], quantity: Callable[[Run], float]) -> list[float]:
    """A quantity by seed."""
    return [quantity(run) for run in runs]


def mean(runs: Sequence[Run], quantity: Callable[[Run], float]) -> float:
    """The mean of a quantity over seeds."""
    return float(np.mean(each(runs, quantity)))


def gmean(runs: Sequence[Run], quantity: Callable[[Run], float]) -> float:
    """The geometric mean of a quantity over seeds."""
    return geometric_mean(each(runs, quantity))


def ends(values: Iterable[float]) -> tuple[float, float]:
    """The least and the largest."""
    some = list(values)
    return min(some), max(some)


def times(
    runs: Sequence[Run], others: Sequence[Run], quantity: Callable[[Run], float]
) -> list[float]:
    """The ratio of a quantity by seed."""
    assert [seed_of(run) for run in runs] == [seed_of(run) for run in others]
    return [quantity(one) / quantity(other) for one, other in zip(runs, others, strict=True)]


def over(run: Run, key: str, clock: str = "epoch") -> pd.Series:
    """A number of the rows over a clock."""
    return run.rows.set_index(clock)[key].dropna()
