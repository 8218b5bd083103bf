"""A run on minibatches beside one on the whole set, alike in all else: figures of single runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from janus_pl.records.families import families, lambda_of, seed_of
from janus_pl.records.run import Run, natural
from janus_pl.report.figures import style
from janus_pl.report.figures.series import Unavailable, batch_of
from janus_pl.report.figures.study import names_of, others


def pair_of(
    runs: Sequence[Run], holds: Callable[[Run], bool], what: str
) -> tuple[list[Run], list[Run]]:
    """Return a run on minibatches and one on the whole set, and the other runs that could be shown.

    Both have equal options but for the batch size. Of several such pairs the one of networks is
    taken, then the one of the largest lambda, then that of the first seed. Without a pair it is a
    single run, on minibatches if there is one.

    Args:
        runs: The runs of a report.
        holds: Tells whether a run has what is shown.
        what: What is shown, for the reason.

    Raises:
        Unavailable: No run has it.
    """
    able = [run for run in runs if holds(run)]
    if not able:
        raise Unavailable(f"no {what} in {names_of(runs)}" if runs else f"no run with {what}")
    found = [_sides(same) for same in families(able, "batch")]
    best = max(found, key=lambda sides: (len(sides), *_rank(sides[0])))
    return best, others(able, best)


def told(shown: Sequence[Run], left_out: Sequence[Run]) -> list[str]:
    """Return the sentence that one seed is shown, where a report has several."""
    (same,) = (
        same
        for same in families([*shown, *left_out], "batch")
        if any(run is shown[0] for run in same)
    )
    more = len(same) > len(shown)
    return ["One run of each is shown; others differ in seeds or batch size alone."] if more else []


def title_of(run: Run) -> str:
    """Return what a run is in a panel's title: dynamics, batch size, lambda if it has one."""
    lam = lambda_of(run)
    said = "" if math.isnan(lam) else rf", $\lambda$ = {style.number(lam)}"
    return f"{run.dynamics}, B = {batch_of(run)}{said}"


def option_of(run: Run, callback: str, name: str) -> float | None:
    """Return the number that a run's config gives a callback of ours; None if it has none."""
    given = run.options.get("trainer.callbacks")
    for each in given if isinstance(given, list) else ():
        path = each.get("class_path") if isinstance(each, dict) else None
        if path == f"callbacks.{callback}":
            value = (each.get("init_args") or {}).get(name)
            return float(value) if isinstance(value, int | float) else None
    return None


def _sides(same: Sequence[Run]) -> list[Run]:
    """Return the first run on minibatches and the first on the whole set, of the same seed."""
    ordered = sorted(same, key=_order)
    noisy = [run for run in ordered if not run.description.whole]
    whole = [run for run in ordered if run.description.whole]
    pairs = [(a, b) for a in noisy for b in whole if seed_of(a) == seed_of(b)]
    if pairs:
        return [*pairs[0]]
    return [*noisy[:1], *whole[:1]]


def _rank(run: Run) -> tuple[bool, bool, float]:
    seen, lam = run.description, lambda_of(run)
    return seen.kind == "network", not seen.whole, -math.inf if math.isnan(lam) else lam


def _order(run: Run) -> Any:
    weights, samples = seed_of(run)
    return natural(f"{weights}/{samples}"), run.description.batch_size or 0, run.name, run.id
