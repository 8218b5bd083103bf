"""A run on minibatches beside one on the whole set, alike in all else: figures of single runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from janus_pl.records.families import Varied, families, is_zero_function, lambda_of, seed_of
from janus_pl.records.run import Run, natural
from janus_pl.report.figures import style
from janus_pl.report.figures.series import Unavailable, batch_of
from janus_pl.report.figures.study import names_of, others
from janus_pl.run.spelling import OLDER, older


def pair_of(
    runs: Sequence[Run],
    holds: Callable[[Run], bool],
    what: str,
    prefer: Callable[[Run], bool] = lambda run: True,
) -> tuple[list[Run], list[Run]]:
    """Return a run on minibatches and one on the whole set, and the other runs that could be shown.

    Both have equal options but for the batch size. Without such a pair they may differ in length,
    since in equal epochs they take unequal numbers of steps. Of several pairs the one of networks
    that did not end as f = 0 is taken, then a preferred one, then the one of the largest lambda,
    then that of the first seed. Without any pair it is a single run, on minibatches if there is
    one.

    Args:
        runs: The runs of a report.
        holds: Tells whether a run has what is shown.
        what: What is shown, for the reason.
        prefer: Tells whether a run on minibatches shows more than others.

    Raises:
        Unavailable: No run has it.
    """
    able = [run for run in runs if holds(run)]
    if not able:
        raise Unavailable(f"no {what} in {names_of(runs)}" if runs else f"no run with {what}")
    alike: tuple[tuple[Varied, ...], ...] = (("batch",), ("batch", "epochs"))
    for varied in alike:
        found = [_sides(same, prefer) for same in families(able, *varied)]
        best = max(found, key=lambda sides: (len(sides), *_rank(sides[0], prefer)))
        if len(best) == 2:
            break
    return best, others(able, best)


def told(shown: Sequence[Run], left_out: Sequence[Run]) -> list[str]:
    """Say that the two runs differ in length, and that a report has others of their kind."""
    ends = [f"{run.last('epoch'):g}" for run in shown]
    length = f"They differ in length, too: {' and '.join(ends)} epochs."
    (same,) = (
        same
        for same in families([*shown, *left_out], "batch")
        if any(run is shown[0] for run in same)
    )
    more = "One run of each is shown; others differ in seeds or batch size alone."
    several = len(same) > sum(any(run is one for one in same) for run in shown)
    return [length] * (len(set(ends)) > 1) + [more] * several


def title_of(run: Run) -> str:
    """Return what a run is in a panel's title: dynamics, batch size, lambda if it has one."""
    lam = lambda_of(run)
    said = "" if math.isnan(lam) else f", λ = {style.number(lam)}"
    return f"{run.dynamics}, B = {batch_of(run)}{said}"


def option_of(run: Run, callback: str, name: str) -> float | None:
    """Return the number that a run's config gives a callback of ours; None if it has none."""
    given = run.options.get("trainer.callbacks")
    for each in given if isinstance(given, list) else ():
        path = each.get("class_path") if isinstance(each, dict) else None
        if path is not None and older(path) == f"{OLDER}{callback}":
            options = each.get("init_args")
            value = options.get(name) if isinstance(options, dict) else None
            return float(value) if isinstance(value, int | float) else None
    return None


def _sides(same: Sequence[Run], prefer: Callable[[Run], bool]) -> list[Run]:
    """Return the first run on minibatches and the first on the whole set, of the same seed."""
    ordered = sorted(same, key=_order)
    noisy = [run for run in ordered if not run.description.whole]
    noisy.sort(key=lambda run: not prefer(run))
    whole = [run for run in ordered if run.description.whole]
    pairs = [(a, b) for a in noisy for b in whole if seed_of(a) == seed_of(b)]
    if pairs:
        return [*pairs[0]]
    return [*noisy[:1], *whole[:1]]


def _rank(run: Run, prefer: Callable[[Run], bool]) -> tuple[bool | float, ...]:
    seen, lam = run.description, lambda_of(run)
    trained = seen.is_network and not is_zero_function(run)
    size = -math.inf if math.isnan(lam) else lam
    return trained, not seen.whole, prefer(run), size


def _order(run: Run) -> Any:
    weights, samples = seed_of(run)
    size, length = run.description.batch_size or 0, -run.last("epoch")
    return natural(f"{weights}/{samples}"), size, length, run.name, run.id
