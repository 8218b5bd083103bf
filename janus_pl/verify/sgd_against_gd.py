"""Rules that compare SGD with GD, at equal epochs or by another clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from janus_pl.records.run import Run
from janus_pl.verify.effects import (
    Estimate,
    is_positive,
    mean,
    ratio,
)
from janus_pl.verify.quantities import (
    RANK,
    Pair,
    clock_of,
    falls,
    flat,
    least_rank_at_start,
    velocity_at,
)
from janus_pl.verify.selection import (
    at_equal_clock,
    lacks,
    no_ratio,
    no_ratio_to,
    pairs_by_batch,
)
from janus_pl.verify.thresholds import (
    NOISE_FACTOR,
    RANK_FALLS,
    STAYS,
)
from janus_pl.verify.verdicts import Finding, Missing
from janus_pl.verify.words import fall_of, listed, seeds_of


def sgd_lowers_ranks(runs: Sequence[Run]) -> list[Finding | Missing]:
    """Compare the fall of the effective ranks from their start, SGD and GD at equal epochs."""
    results: list[Finding | Missing] = []
    for sgd, gd in pairs_by_batch([run for run in runs if run.finished], RANK, "batch"):
        if not (sgd and gd):
            results.append(lacks(sgd, gd))
            continue
        results.append(_compare([falls(r) for r in sgd], [falls(r) for r in gd], "", sgd + gd))
    return results


def at_equal(
    clock: str, words: str, kind: str, compare: Callable[[Sequence[Pair], str], Finding | Missing]
) -> Callable[[Sequence[Run]], list[Finding | Missing]]:
    """Make a rule: `compare` on keys `kind/LAYER` at rows where a clock of SGD and GD is equal.

    The runs need not be finished, because the rule compares rows that both have reached.
    """

    def rule(runs: Sequence[Run]) -> list[Finding | Missing]:
        results: list[Finding | Missing] = []
        timed = [run for run in runs if run.has(clock)]
        for sgd, gd in pairs_by_batch(timed, kind, "batch", "epochs"):
            if not (sgd and gd):
                results.append(lacks(sgd, gd))
                continue
            # Pool only seeds whose rows have the same time, so that means are over equal clocks.
            reached: dict[str, list[Pair]] = {}
            for a, b in zip(sgd, gd, strict=True):
                pair = at_equal_clock(a, b, clock, words, kind)
                if isinstance(pair, Missing):
                    results.append(pair)
                    continue
                reached.setdefault(f"{clock_of(pair[0], clock):.4g}", []).append(pair)
            for time, pairs in reached.items():
                times = ", ".join(f"{clock_of(b, clock):.4g}" for _, b in pairs)
                longest, control = (at.run.last(clock) for at in pairs[0])
                ends = f"SGD ends at {longest:.4g}, GD at {control:.4g}"
                results.append(compare(pairs, f"at {words} {time} (GD at {times}; {ends}): "))
        return results

    return rule


def ranks_fall(pairs: Sequence[Pair], where: str) -> Finding | Missing:
    """Compare the fall of the effective ranks under SGD and under GD."""
    sgd, gd = ([falls(pair[i].run, pair[i].row) for pair in pairs] for i in (0, 1))
    return _compare(sgd, gd, where, [at.run for pair in pairs for at in pair])


def sgd_is_noisier(pairs: Sequence[Pair], where: str) -> Finding | Missing:
    """Compare ||V_k dot|| of SGD with that of GD, geometric mean over the layers."""
    for at in flat(pairs):
        if not is_positive(velocity_at(at)):
            return no_ratio_to(at.run, "||V_k dot|| of a layer", velocity_at(at))
    ratios = [velocity_at(a) / velocity_at(b) for a, b in pairs]
    factor = ratio("SGD/GD", ratios)
    return Finding(
        factor.value >= NOISE_FACTOR,
        f"{where}||V_k dot|| of SGD is {factor} times that of GD"
        f" ({seeds_of(len(pairs))}: {listed(ratios)})",
        [factor],
        [at.run for at in flat(pairs)],
    )


def _compare(
    sgd: Sequence[dict[str, float]], gd: Sequence[dict[str, float]], where: str, runs: list[Run]
) -> Finding | Missing:
    if lacking := no_ratio(runs, least_rank_at_start, "effective ranks at the start"):
        return lacking
    effects: dict[str, list[Estimate]] = {"SGD": [], "GD": []}
    for name, seen in (("SGD", sgd), ("GD", gd)):
        for layer in seen[0]:
            effects[name].append(mean(f"{name} {layer}", [fall[layer] for fall in seen]))
    holds = all(e.value >= RANK_FALLS for e in effects["SGD"]) and all(
        e.value < STAYS for e in effects["GD"]
    )
    parts = [
        f"{name} {', '.join(fall_of(effect, name) for effect in found)}"
        for name, found in effects.items()
    ]
    alone = sum(
        min(a.values()) >= RANK_FALLS and max(b.values()) < STAYS
        for a, b in zip(sgd, gd, strict=True)
    )
    seeds = f"({seeds_of(len(sgd))}; {alone} alone would do)"
    measured = f"{where}effective rank falls by: {'; '.join(parts)} {seeds}"
    return Finding(holds, measured, [*effects["SGD"], *effects["GD"]], runs)
