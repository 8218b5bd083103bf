"""The words of a scan: what is shown, what is left out, and where a bound says nothing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from janus_pl.records.effects import CONFIDENCE
from janus_pl.records.families import DIVERGED, is_zero_function
from janus_pl.records.late import WINDOW, middle
from janus_pl.records.run import Run
from janus_pl.records.scans import OPTIONS, Scan, batch_size, in_order, varying, weight_decay
from janus_pl.records.scans import option_of as number_of
from janus_pl.report.figures.scan_axes import labels_of
from janus_pl.report.figures.study import names_of

EPSILON = 0.01  # the relative distance of the bound below
AT = (
    f"Each number is a run's mean over the last {WINDOW:.0%} before the common end of the runs that"
    " are compared, by epochs, by steps, and by the accumulated learning rate ηt; the ends are in"
    f" the titles. Points are means over seeds (of ranks and noise geometric ones), bars their"
    f" {CONFIDENCE:.0%} intervals (Student's t), small dots the seeds. Axes follow the seeds and"
    " bars."
)
CLOCK = {"epochs": "epochs", "steps": "steps", "eta_t": "eta t"}


class Told(NamedTuple):
    """The sentences on a scan's runs, and the runs that are left out for another reason."""

    sentences: list[str]
    left_out: list[Run]


def shown_by(by: Sequence[str], instead: str = "") -> str:
    """Say against what is drawn, and what a line is."""
    words = instead or OPTIONS[by[0]].words
    more = f", a line for each {OPTIONS[by[1]].words}" if len(by) > 1 else ""
    return f"Against {words}{more}."


def notes_of(
    shown: Sequence[Run],
    left: Sequence[Run],
    found: Mapping[str, Scan | None],
    by: Sequence[str],
) -> Told:
    """Say which runs are not shown and why, and what else a reader has to know."""
    said = [f"{key} {_values(shown, key)}." for key in by]
    diverged = [run for run in left if run.has(DIVERGED)]
    early = [run for run in left if not run.finished and run not in diverged]
    rest = [run for run in left if run not in diverged and run not in early]
    said += [f"Left out, since they diverged: {names_of(diverged)}."] if diverged else []
    said += [f"Left out, since they have not ended: {names_of(early)}."] if early else []
    for clock, each in found.items():
        if each is not None and each.silent:
            said.append(
                f"No row in the last {WINDOW:.0%} of the common {CLOCK[clock]}, so not there:"
                f" {by[0]} {_values(each.silent, by[0])}."
            )
    said += [*_lengths(found), *_schedules(shown), *_bound(shown), *_hint(shown, rest, by)]
    return Told(said, rest)


def _values(runs: Sequence[Run], key: str) -> str:
    """Count the seeds of each value."""
    found = Counter(OPTIONS[key].of(run) for run in runs)
    names = labels_of(in_order(found), key)
    return ", ".join(
        f"{name} ({found[value]} run{'s' * (found[value] > 1)})".replace("\n", " ")
        for value, name in names.items()
    )


def _lengths(found: Mapping[str, Scan | None]) -> list[str]:
    at = found.get("epochs")
    if at is None or not at.lengths:
        return []
    return ["No two values have runs of equal length: equal epochs are those of the shortest run."]


def _schedules(runs: Sequence[Run]) -> list[str]:
    """Say so if rates decay over a run's own length, since a part of it is no shorter run."""
    decaying = [
        run
        for run in runs
        if str(run.description.schedule or run.options.get("model.schedule")) == "cosine"
    ]
    if not decaying:
        return []
    return [
        "The learning rate decays over each run's own length (cosine), so a run that is read before"
        " its end is no run of that length."
    ]


def _bound(runs: Sequence[Run]) -> list[str]:
    """Say where the bound of arXiv 2206.05794 on the rank is vacuous, of plain decayed weights.

    The bound is m B log(2/eps)/(2 mu lambda') for a distance eps from a matrix of that rank, mu the
    rate, 2 lambda' PyTorch's weight decay, m the positions of a convolution, 1 of a dense layer.
    """
    found = {id(run): (run, bound) for run in runs if (bound := rank_bound(run)) is not None}
    if not found:
        return []
    bounds = [bound for _, bound in found.values()]
    ends = dict.fromkeys(f"{end:.3g}" for end in (min(bounds), max(bounds)))
    said = (
        f"The bound B log(2/eps)/(eta lambda) on the rank of plain weights (arXiv 2206.05794, eps ="
        f" {EPSILON:g}, per position of a convolution) is {' to '.join(ends)}"
    )
    sizes = [(bound, most) for run, bound in found.values() if (most := size_of(run))]
    if not sizes:
        return [f"{said}; the records do not say how many singular values a layer has."]
    vacuous = sum(bound >= most for bound, most in sizes)
    largest = max(most for _, most in sizes)
    return [
        f"{said}; a middle layer has at most {largest} singular values, so it is vacuous in"
        f" {vacuous} of {len(sizes)} runs."
    ]


def rank_bound(run: Run) -> float | None:
    """Return B log(2/eps)/(eta lambda) of a run; None without its numbers, or a decay of 0."""
    given = (batch_size(run), number_of("learning_rate")(run), weight_decay(run))
    if run.description.decay == "rho" or not all(isinstance(v, float) and v > 0 for v in given):
        return None
    size, rate, lam = map(float, given)  # type: ignore[arg-type]
    return size * math.log(2 / EPSILON) / (rate * lam)


def size_of(run: Run) -> int | None:
    """Return the most singular values of a middle layer; None if they were not recorded."""
    sizes = [len(look.sigma[k]) for look in run.spectra for k in middle(run) if k in look.sigma]
    return max(sizes, default=None)


def _hint(shown: Sequence[Run], left: Sequence[Run], by: Sequence[str]) -> list[str]:
    """Name the options in which runs that are left out differ from those shown."""
    sound = [run for run in left if not is_zero_function(run)]
    more = [name for name in varying([*shown, *sound]) if name not in by] if sound else []
    if len(by) > 1 or not more:
        return []
    return [f"Runs that are left out differ in {', '.join(more)}: name it by a second --by."]
