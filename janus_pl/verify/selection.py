"""The choice of the runs that are compared with each other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from janus_pl.records.families import by_seed, families, lambda_of, seed_of
from janus_pl.records.run import STEP, Run
from janus_pl.verify.effects import (
    is_positive,
)
from janus_pl.verify.quantities import (
    RANK,
    At,
    Pair,
    Quantity,
    middle,
)
from janus_pl.verify.thresholds import (
    SAME_CLOCK,
)
from janus_pl.verify.verdicts import Missing

WHOLE = "whole"  # in place of B if each batch is the whole training set


def deep(runs: Sequence[Run], dynamics: str | None = None, *keys: str) -> list[Run]:
    """Return the finished runs of the paper's network, with these keys in the record."""
    return [
        run
        for run in runs
        if run.finished
        and run.description.kind == "network"
        and run.has(*keys)
        and (dynamics is None or run.dynamics == dynamics)
    ]


def square(runs: Sequence[Run], dynamics: str, *keys: str) -> list[Run]:
    """Return the runs of `deep` under the square loss."""
    return [r for r in deep(runs, dynamics, *keys) if r.description.loss == "square"]


def sweeps_of(family: Sequence[Run]) -> list[list[Run]]:
    """Return the runs of each seed that has two lambdas or more, in the order of lambda."""
    sweeps = [sorted(same, key=lambda_of) for same in by_seed(family)]
    return [sweep for sweep in sweeps if lambda_of(sweep[0]) < lambda_of(sweep[-1])]


def groups_of(sweeps: Sequence[Sequence[Run]]) -> list[Sequence[Sequence[Run]]]:
    """Return the seeds to pool: all if they share two lambdas; else each alone."""
    if not sweeps or len(shared_lambdas(sweeps)) > 1:
        return [sweeps] if sweeps else []
    return [[sweep] for sweep in sweeps]


def shared_lambdas(sweeps: Sequence[Sequence[Run]]) -> set[float]:
    return set.intersection(*({lambda_of(run) for run in sweep} for sweep in sweeps))


def ends_of(group: Sequence[Sequence[Run]]) -> list[tuple[Run, Run]]:
    """Return each seed's runs at the least and the largest lambda that all seeds share."""
    shared = shared_lambdas(group)
    return [
        (
            next(run for run in sweep if lambda_of(run) == min(shared)),
            next(run for run in sweep if lambda_of(run) == max(shared)),
        )
        for sweep in group
    ]


def no_ratio(runs: Sequence[Run], quantity: Quantity, words: str) -> Missing | None:
    """Return what is missing if a quantity is not above 0 in a run, so has no ratio; else None."""
    for run in runs:
        if not is_positive(value := quantity(run)):
            return no_ratio_to(run, words, value)
    return None


def no_ratio_to(run: Run, words: str, value: float) -> Missing:
    seen = "not recorded" if math.isnan(value) else f"{value:.3g}"
    return Missing(f"{words} above 0 in {run.name}: it is {seen}")


def pairs_by_batch(
    runs: Sequence[Run], kind: str, *varied: str
) -> Iterator[tuple[list[Run], list[Run]]]:
    """Yield the SGD and GD runs of equal seeds, pair by pair, for each batch size.

    If there is no pair, one of the two lists is empty. If epochs vary too, a seed has one pair for
    each batch size, the two longest runs.
    """
    networks = [run for run in runs if run.description.kind == "network"]
    usable = [run for run in networks if run.has(*keys_of(run, kind))]
    decayed = sorted((run for run in usable if lambda_of(run) > 0), key=lambda_of)
    for family in families(decayed, *varied):  # type: ignore[arg-type]
        longest: dict[tuple[object, object], Run] = {}
        for run in sorted(family, key=lambda run: run.last(STEP)):
            longest[seed_of(run), _size(run)] = run
        gd = {seed: run for (seed, batch), run in longest.items() if batch == WHOLE}
        sizes = {batch for _, batch in longest if batch != WHOLE}
        if not sizes:
            yield [], [*gd.values()]
        for size in sorted(sizes, key=str):
            sgd = {seed: run for (seed, batch), run in longest.items() if batch == size}
            both = [seed for seed in sgd if seed in gd]
            if both:
                yield [sgd[seed] for seed in both], [gd[seed] for seed in both]
            else:
                yield [*sgd.values()], []


def _size(run: Run) -> int | str | None:
    return WHOLE if run.description.whole else run.description.batch_size


def keys_of(run: Run, kind: str) -> list[str]:
    """Return the keys to compare; if the run has none of the kind, one that no record has."""
    layers = middle(run) if kind == RANK else run.layers(kind)
    return [f"{kind}/{layer}" for layer in layers or ["?"]]


def lacks(sgd: Sequence[Run], gd: Sequence[Run]) -> Missing:
    if sgd:
        return Missing(f"{sgd[0].name} with data.batch_size: full, at the same seed")
    return Missing(f"{gd[0].name} with a data.batch_size below N, at the same seed")


def at_equal_clock(sgd: Run, gd: Run, clock: str, words: str, kind: str) -> Pair | Missing:
    """Return the last row of SGD, within the reach of both, at which GD has a row too.

    The first rows do not count, since all runs are equal before the first step.
    """
    times, of_gd = (
        run.rows.loc[run.rows[keys_of(run, kind)].notna().all(axis=1), clock] for run in (sgd, gd)
    )
    times, of_gd = times[times > sgd.first(clock)], of_gd[of_gd > gd.first(clock)]
    if times.empty:
        return Missing(f"{sgd.name} with rows after its first")
    reach = of_gd.iloc[-1] if len(of_gd) else gd.first(clock)
    within = times[times <= reach * (1 + 1e-9)]
    if within.empty:
        return Missing(
            f"{gd.name} with more epochs: it ends at {words} {reach:.4g}, before SGD's first row at"
            f" {times.iloc[0]:.4g}"
        )
    for row, time in reversed(list(within.items())):
        off = (of_gd - time).abs()
        if off.min() <= SAME_CLOCK * time:
            return At(sgd, int(row)), At(gd, int(off.idxmin()))
    nearest = of_gd.loc[(of_gd - within.iloc[-1]).abs().idxmin()]
    return Missing(
        f"{gd.name} with more rows: at {words} {within.iloc[-1]:.4g} of SGD its nearest is at"
        f" {nearest:.4g}"
    )
