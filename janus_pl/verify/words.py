"""The words of findings."""

from __future__ import annotations

from collections.abc import Sequence

from janus_pl.records.families import lambda_of, seed_of
from janus_pl.records.run import Run
from janus_pl.verify.effects import (
    Estimate,
)


def fall_of(effect: Estimate, name: str) -> str:
    interval = "" if effect.low is None else f" [{effect.low:.1%}, {effect.high:.1%}]"
    return f"{effect.name.removeprefix(name).strip()} {effect.value:.1%}{interval}"


def seeds_of(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"


def listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.3g}" for value in values)


def lambdas_of(ends: Sequence[tuple[Run, Run]]) -> str:
    low, high = map(lambda_of, ends[0])
    return f"{low:g} to {high:g}"


def whose(group: Sequence[Sequence[Run]], sweeps: Sequence[Sequence[Run]]) -> str:
    """Say how many seeds are pooled, or, if none can be, of which seed the numbers are."""
    if len(group) == len(sweeps):
        return seeds_of(len(group))
    weights, samples = seed_of(group[0][0])
    seed = f"{weights}" if samples in (None, weights) else f"{weights}, data {samples}"
    return f"seed {seed} alone, for the seeds share no two lambdas"
