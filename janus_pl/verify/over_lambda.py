"""Rules that compare runs over lambda, or over the loss at lambda = 0."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

from janus_pl.records.families import CONVERGED_ERROR, by_seed, families, lambda_of
from janus_pl.records.run import Run
from janus_pl.verify.effects import (
    mean,
    ratio,
    ratio_by_seed,
    trend,
)
from janus_pl.verify.quantities import (
    Quantity,
    flat,
    relative_spread,
    velocity,
)
from janus_pl.verify.selection import (
    deep,
    ends_of,
    groups_of,
    no_ratio,
    square,
    sweeps_of,
)
from janus_pl.verify.thresholds import (
    NOISE_FACTOR,
    SAME_FACTOR,
    STAYS,
    TREND,
)
from janus_pl.verify.verdicts import Finding, Missing
from janus_pl.verify.words import lambdas_of, listed, seeds_of, whose


def grows_with_lambda(
    quantity: Quantity, words: str, keys: Sequence[str], dynamics: str = "SGD", sign: int = 1
) -> Callable[[Sequence[Run]], list[Finding | Missing]]:
    """Make a rule: a quantity's tau against lambda, by seed, and its change; square loss."""

    def rule(runs: Sequence[Run]) -> list[Finding | Missing]:
        results: list[Finding | Missing] = []
        for family in families(square(runs, dynamics, *keys), "lambda"):
            sweeps = sweeps_of(family)
            if not sweeps:
                results.append(Missing(f"another lambda beside {lambda_of(family[0]):g}"))
            for group in groups_of(sweeps):
                ends = ends_of(group)
                if lacking := no_ratio(flat(ends), quantity, words):
                    results.append(lacking)
                    continue
                taus = [trend([*map(lambda_of, s)], [*map(quantity, s)]) for s in group]
                change = ratio("ratio", [quantity(high) / quantity(low) for low, high in ends])
                tau = mean("tau", taus)
                ranges = ", ".join(" to ".join(f"{quantity(r):.3g}" for r in pair) for pair in ends)
                results.append(
                    Finding(
                        sign * tau.value >= TREND and sign * (change.value - 1) >= STAYS,
                        f"times {change} from lambda {lambdas_of(ends)}; tau {tau.value:.2g}"
                        f" ({whose(group, sweeps)}: {ranges})",
                        [change, tau],
                        flat(group),
                    )
                )
        return results

    return rule


def noise_needs_lambda(runs: Sequence[Run]) -> list[Finding | Missing]:
    """Compare the relative spread with weight decay with that without, under SGD."""
    results: list[Finding | Missing] = []
    for family in families(square(runs, "SGD", "margin/std"), "lambda"):
        sweeps = [sweep for sweep in sweeps_of(family) if lambda_of(sweep[0]) == 0]
        if not sweeps:
            results.append(Missing("SGD at lambda = 0 and above, of the same seed"))
        for group in groups_of(sweeps):
            ends = ends_of(group)
            if lacking := no_ratio(flat(ends), relative_spread, "std/mean"):
                results.append(lacking)
                continue
            ratios = [relative_spread(high) / relative_spread(low) for low, high in ends]
            factor = ratio("spread", ratios)
            results.append(
                Finding(
                    factor.value >= NOISE_FACTOR,
                    f"std/mean times {factor} from lambda {lambdas_of(ends)}"
                    f" ({whose(group, sweeps)}: {listed(ratios)})",
                    [factor],
                    flat(ends),
                )
            )
    return results


def gd_spread_is_constant(runs: Sequence[Run]) -> list[Finding | Missing]:
    """Compare the relative spread at the largest and at the smallest lambda, under converged GD."""
    gd = square(runs, "GD", "margin/std", "train/error")
    converged = [run for run in gd if run.last("train/error") < CONVERGED_ERROR]
    results: list[Finding | Missing] = [
        Missing(f"{run.name} is not converged: training error {run.last('train/error'):.2g}")
        for run in gd
        if run not in converged
    ]
    for family in families(converged, "lambda"):
        sweeps = sweeps_of(family)
        if not sweeps:
            beside = f"converged GD at another lambda beside {lambda_of(family[0]):g}"
            results.append(Missing(beside))
        for group in groups_of(sweeps):
            ends = ends_of(group)
            if lacking := no_ratio(flat(ends), relative_spread, "std/mean"):
                results.append(lacking)
                continue
            ratios = [relative_spread(high) / relative_spread(low) for low, high in ends]
            change = ratio("ratio", ratios)
            results.append(
                Finding(
                    1 / SAME_FACTOR <= change.value <= SAME_FACTOR,
                    f"std/mean times {change} from lambda {lambdas_of(ends)}"
                    f" ({whose(group, sweeps)})",
                    [change],
                    flat(group),
                )
            )
    return results


def cross_entropy_keeps_noise(runs: Sequence[Run]) -> list[Finding | Missing]:
    """Compare the relative spread at lambda = 0: an exponential-type loss over the square loss."""
    results: list[Finding | Missing] = []
    undecayed = [r for r in deep(runs, "SGD", "margin/std") if lambda_of(r) == 0]
    for family in families(undecayed, "loss"):
        losses = {str(run.description.loss) for run in family}
        if losses == {"square"} or "square" not in losses:
            wanted = "cross_entropy" if losses == {"square"} else "square"
            results.append(Missing(f"the same SGD run at lambda = 0 with model.loss: {wanted}"))
            continue
        for loss in sorted(losses - {"square"}):
            pairs = [
                (run, other)
                for same in by_seed(family)
                for run, other in product(same, same)
                if (run.description.loss, other.description.loss) == ("square", loss)
            ]
            if not pairs:
                results.append(Missing(f"square loss and {loss} at lambda = 0 of the same seed"))
                continue
            if lacking := no_ratio(flat(pairs), relative_spread, "std/mean"):
                results.append(lacking)
                continue
            first = [a for a, _ in pairs]
            spreads = [relative_spread(b) / relative_spread(a) for a, b in pairs]
            effects = [ratio_by_seed("spread", first, spreads)]
            told = f"std/mean times {effects[0]}"
            # The velocity is told beside the spread, which decides; not every record has it.
            if not no_ratio(flat(pairs), velocity, "||V_k dot||"):
                moves = [velocity(b) / velocity(a) for a, b in pairs]
                effects.append(ratio_by_seed("velocity", first, moves))
                told += f", ||V_k dot|| times {effects[1]}"
            results.append(
                Finding(
                    effects[0].value >= NOISE_FACTOR,
                    f"{loss} over square at lambda 0: {told} ({seeds_of(effects[0].seeds)})",
                    effects,
                    flat(pairs),
                )
            )
    return results
