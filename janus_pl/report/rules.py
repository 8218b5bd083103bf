"""How records of the deep network decide on a prediction: one rule for each, runs in, findings out.

Numbers are those of a run's last row that holds them, unless said. Runs are compared only with runs
of the same options and seeds but for what a prediction varies. Intervals are over seeds: several
runs of a seed are averaged first. Thresholds are ours, for the paper says "grows" and "small"; they
are part of each criterion.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product
from typing import NamedTuple, TypeVar

import numpy as np

from janus_pl.report.evidence import (
    Estimate,
    by_seed,
    families,
    is_positive,
    lambda_of,
    mean,
    mean_by_seed,
    ratio,
    ratio_by_seed,
    seed_of,
    trend,
)
from janus_pl.report.records import STEP, Run
from janus_pl.report.verdicts import Finding, Missing

TREND = 0.5  # Kendall's tau: three quarters of all pairs of lambdas are in order
RANK_FALLS = 0.20  # share of the effective rank at the start
STAYS = 0.02  # a change of less is none
NOISE_FACTOR = 10.0
SAME_FACTOR = 1.5
CONVERGED_ERROR = 0.01  # of the training set; the paper's for converged GD (Fig. 2b)
EQUILIBRIUM = 0.01
SAME_CLOCK = 0.05  # steps, or eta t, that differ by no more of themselves are equal
# Layers whose rank is far above the number of classes; the first two have few columns.
MIDDLE = ("conv3", "conv4", "fc1")

RANK, VELOCITY = "effective_rank", "velocity"

T = TypeVar("T")
Quantity = Callable[[Run], float]


class At(NamedTuple):
    """A run at one of its rows."""

    run: Run
    row: int


# SGD and GD of the same seed, each at a row.
Pair = tuple[At, At]


# Quantities


def relative_spread(run: Run) -> float:
    """std/mean of the margins: the units of the margins move with rho, this does not."""
    mean = abs(run.last("margin/mean"))
    return run.last("margin/std") / mean if mean else math.inf


def mean_margin(run: Run) -> float:
    """mu, in the paper's units."""
    return run.last("margin/mean")


def velocity(run: Run) -> float:
    """Geometric mean of ||V_k dot|| over the layers; NaN where none is recorded."""
    return _geometric_mean([run.last(f"velocity/{layer}") for layer in run.layers("velocity")])


def velocity_at(at: At) -> float:
    """The same at a row."""
    layers = at.run.layers(VELOCITY)
    return _geometric_mean([float(at.run.rows[f"{VELOCITY}/{k}"].loc[at.row]) for k in layers])


def _geometric_mean(values: Sequence[float]) -> float:
    if not values:
        return math.nan
    if min(values) <= 0:
        return 0.0
    return float(np.exp(np.mean(np.log(values))))


def middle_rank(run: Run) -> float:
    """Mean effective rank of the middle layers."""
    return float(np.mean([run.last(f"effective_rank/{layer}") for layer in middle(run)]))


def middle(run: Run) -> list[str]:
    """conv3, conv4 and fc1; of other networks all layers but the first and the last."""
    layers = run.layers("effective_rank")
    return [layer for layer in MIDDLE if layer in layers] or layers[1:-1] or layers


def least_rank_at_start(run: Run) -> float:
    """Of the middle layers."""
    return min(run.first(f"effective_rank/{layer}") for layer in middle(run))


def falls(run: Run, row: int | None = None) -> dict[str, float]:
    """1 - effective rank/effective rank at the start, by middle layer, at a row or at the end."""
    found = {}
    for layer in middle(run):
        ranks = run.rows[f"effective_rank/{layer}"]
        now = float(ranks.dropna().iloc[-1] if row is None else ranks.loc[row])
        start = run.first(f"effective_rank/{layer}")
        found[layer] = 1 - now / start if start else math.nan
    return found


# Rules


def grows_with_lambda(
    quantity: Quantity, words: str, keys: Sequence[str], dynamics: str = "SGD", sign: int = 1
) -> Callable[[Sequence[Run]], list[Finding | Missing]]:
    """Kendall's tau of a quantity against lambda, seed by seed, and its change; square loss."""

    def rule(runs: Sequence[Run]) -> list[Finding | Missing]:
        results: list[Finding | Missing] = []
        for family in families(square(runs, dynamics, *keys), "lambda"):
            sweeps = _sweeps(family)
            if not sweeps:
                results.append(Missing(f"another lambda beside {lambda_of(family[0]):g}"))
            for group in _groups(sweeps):
                ends = _ends(group)
                if lacking := _no_ratio(_flat(ends), quantity, words):
                    results.append(lacking)
                    continue
                taus = [trend([*map(lambda_of, s)], [*map(quantity, s)]) for s in group]
                change = ratio("ratio", [quantity(high) / quantity(low) for low, high in ends])
                tau = mean("tau", taus)
                ranges = ", ".join(" to ".join(f"{quantity(r):.3g}" for r in pair) for pair in ends)
                results.append(
                    Finding(
                        sign * tau.value >= TREND and sign * (change.value - 1) >= STAYS,
                        f"times {change} from lambda {_lambdas(ends)}; tau {tau.value:.2g}"
                        f" ({_whose(group, sweeps)}: {ranges})",
                        [change, tau],
                        _flat(group),
                    )
                )
        return results

    return rule


def noise_needs_lambda(runs: Sequence[Run]) -> list[Finding | Missing]:
    """The relative spread with weight decay over that without, under SGD."""
    results: list[Finding | Missing] = []
    for family in families(square(runs, "SGD", "margin/std"), "lambda"):
        sweeps = [sweep for sweep in _sweeps(family) if lambda_of(sweep[0]) == 0]
        if not sweeps:
            results.append(Missing("SGD at lambda = 0 and above, of the same seed"))
        for group in _groups(sweeps):
            ends = _ends(group)
            if lacking := _no_ratio(_flat(ends), relative_spread, "std/mean"):
                results.append(lacking)
                continue
            ratios = [relative_spread(high) / relative_spread(low) for low, high in ends]
            factor = ratio("spread", ratios)
            results.append(
                Finding(
                    factor.value >= NOISE_FACTOR,
                    f"std/mean times {factor} from lambda {_lambdas(ends)}"
                    f" ({_whose(group, sweeps)}: {_list(ratios)})",
                    [factor],
                    _flat(ends),
                )
            )
    return results


def gd_spread_is_constant(runs: Sequence[Run]) -> list[Finding | Missing]:
    """The relative spread at the largest lambda over that at the smallest, under converged GD."""
    gd = square(runs, "GD", "margin/std", "train/error")
    converged = [run for run in gd if run.last("train/error") < CONVERGED_ERROR]
    results: list[Finding | Missing] = [
        Missing(f"{run.name} is not converged: training error {run.last('train/error'):.2g}")
        for run in gd
        if run not in converged
    ]
    for family in families(converged, "lambda"):
        sweeps = _sweeps(family)
        if not sweeps:
            beside = f"converged GD at another lambda beside {lambda_of(family[0]):g}"
            results.append(Missing(beside))
        for group in _groups(sweeps):
            ends = _ends(group)
            if lacking := _no_ratio(_flat(ends), relative_spread, "std/mean"):
                results.append(lacking)
                continue
            ratios = [relative_spread(high) / relative_spread(low) for low, high in ends]
            change = ratio("ratio", ratios)
            results.append(
                Finding(
                    1 / SAME_FACTOR <= change.value <= SAME_FACTOR,
                    f"std/mean times {change} from lambda {_lambdas(ends)}"
                    f" ({_whose(group, sweeps)})",
                    [change],
                    _flat(group),
                )
            )
    return results


def top_layer_is_quietest(runs: Sequence[Run]) -> list[Finding | Missing]:
    """||V_k dot|| of the last layer over the least of the others, under SGD at lambda > 0."""
    results: list[Finding | Missing] = []
    decayed = [r for r in square(runs, "SGD") if lambda_of(r) > 0 and len(r.layers("velocity")) > 1]
    for family in families(decayed, "lambda"):
        if lacking := _no_ratio(family, velocity, "||V_k dot|| of a layer"):
            results.append(lacking)
            continue
        ratios, names = [], []
        for run in family:
            *others, top = run.layers("velocity")
            norms = {layer: run.last(f"velocity/{layer}") for layer in others}
            quietest = min(norms, key=lambda layer: norms[layer])
            ratios.append(run.last(f"velocity/{top}") / norms[quietest])
            names.append(f"{top}/{quietest}")
        share = ratio_by_seed("top/least other", family, ratios)
        least = ", ".join(f"{n} {r:.3g}" for n, r in zip(names, ratios, strict=True))
        measured = f"times {share} the least other ({_seeds(share.seeds)}: {least})"
        results.append(Finding(share.value <= 1, measured, [share], family))
    return results


def rank_goes_with_velocity(runs: Sequence[Run]) -> list[Finding | Missing]:
    """Kendall's tau between effective rank and ||V_k dot|| over the layers of a run."""
    results: list[Finding | Missing] = []
    decayed = [
        run
        for run in square(runs, "SGD")
        if lambda_of(run) > 0
        and len(run.layers("velocity")) > 2
        and run.layers("velocity") == run.layers("effective_rank")
    ]
    for family in families(decayed, "lambda"):
        taus = [
            trend(*([run.last(f"{kind}/{layer}") for layer in run.layers(kind)] for kind in kinds))
            for run in family
            for kinds in [("effective_rank", "velocity")]
        ]
        tau = mean_by_seed("tau", family, taus)
        measured = f"tau {tau} over the layers of a run ({_seeds(tau.seeds)}: {_list(taus)})"
        results.append(Finding(tau.value >= TREND, measured, [tau], family))
    return results


def cross_entropy_keeps_noise(runs: Sequence[Run]) -> list[Finding | Missing]:
    """The relative spread at lambda = 0: an exponential-type loss over the square loss."""
    results: list[Finding | Missing] = []
    undecayed = [r for r in deep(runs, "SGD", "margin/std") if lambda_of(r) == 0]
    for family in families(undecayed, "loss"):
        losses = {run.options["model.loss"] for run in family}
        if losses == {"square"} or "square" not in losses:
            wanted = "cross_entropy" if losses == {"square"} else "square"
            results.append(Missing(f"the same SGD run at lambda = 0 with model.loss: {wanted}"))
            continue
        for loss in sorted(losses - {"square"}):
            pairs = [
                (run, other)
                for same in by_seed(family)
                for run, other in product(same, same)
                if (run.options["model.loss"], other.options["model.loss"]) == ("square", loss)
            ]
            if not pairs:
                results.append(Missing(f"square loss and {loss} at lambda = 0 of the same seed"))
                continue
            if lacking := _no_ratio(_flat(pairs), relative_spread, "std/mean"):
                results.append(lacking)
                continue
            first = [a for a, _ in pairs]
            spreads = [relative_spread(b) / relative_spread(a) for a, b in pairs]
            effects = [ratio_by_seed("spread", first, spreads)]
            told = f"std/mean times {effects[0]}"
            # Told beside the spread, which decides; not every record has it.
            if not _no_ratio(_flat(pairs), velocity, "||V_k dot||"):
                moves = [velocity(b) / velocity(a) for a, b in pairs]
                effects.append(ratio_by_seed("velocity", first, moves))
                told += f", ||V_k dot|| times {effects[1]}"
            results.append(
                Finding(
                    effects[0].value >= NOISE_FACTOR,
                    f"{loss} over square at lambda 0: {told} ({_seeds(effects[0].seeds)})",
                    effects,
                    _flat(pairs),
                )
            )
    return results


def sgd_lowers_ranks(runs: Sequence[Run]) -> list[Finding | Missing]:
    """How far the effective ranks fall from their start, SGD against GD at equal epochs."""
    results: list[Finding | Missing] = []
    for sgd, gd in _pairs_by_batch([run for run in runs if run.finished], RANK, "batch"):
        if not (sgd and gd):
            results.append(_lacks(sgd, gd))
            continue
        results.append(_compare([falls(r) for r in sgd], [falls(r) for r in gd], "", sgd + gd))
    return results


def at_equal(
    clock: str, words: str, kind: str, compare: Callable[[Sequence[Pair], str], Finding | Missing]
) -> Callable[[Sequence[Run]], list[Finding | Missing]]:
    """What `compare` says of keys `kind/LAYER` where SGD and GD have gone equally far by a clock.

    The runs need not be finished, for they are compared where both have been.
    """

    def rule(runs: Sequence[Run]) -> list[Finding | Missing]:
        results: list[Finding | Missing] = []
        timed = [run for run in runs if run.has(clock)]
        for sgd, gd in _pairs_by_batch(timed, kind, "batch", "epochs"):
            if not (sgd and gd):
                results.append(_lacks(sgd, gd))
                continue
            # Seeds whose runs go equally far together: means are over equal clocks alone.
            reached: dict[str, list[Pair]] = {}
            for a, b in zip(sgd, gd, strict=True):
                pair = _at_equal_clock(a, b, clock, words, kind)
                if isinstance(pair, Missing):
                    results.append(pair)
                    continue
                reached.setdefault(f"{_clock(pair[0], clock):.4g}", []).append(pair)
            for time, pairs in reached.items():
                times = ", ".join(f"{_clock(b, clock):.4g}" for _, b in pairs)
                longest, control = (at.run.last(clock) for at in pairs[0])
                ends = f"SGD ends at {longest:.4g}, GD at {control:.4g}"
                results.append(compare(pairs, f"at {words} {time} (GD at {times}; {ends}): "))
        return results

    return rule


def ranks_fall(pairs: Sequence[Pair], where: str) -> Finding | Missing:
    """How far the effective ranks have fallen under SGD and under GD."""
    sgd, gd = ([falls(pair[i].run, pair[i].row) for pair in pairs] for i in (0, 1))
    return _compare(sgd, gd, where, [at.run for pair in pairs for at in pair])


def sgd_is_noisier(pairs: Sequence[Pair], where: str) -> Finding | Missing:
    """||V_k dot|| of SGD over that of GD, geometric mean over the layers."""
    for at in _flat(pairs):
        if not is_positive(velocity_at(at)):
            return _no_ratio_to(at.run, "||V_k dot|| of a layer", velocity_at(at))
    ratios = [velocity_at(a) / velocity_at(b) for a, b in pairs]
    factor = ratio("SGD/GD", ratios)
    return Finding(
        factor.value >= NOISE_FACTOR,
        f"{where}||V_k dot|| of SGD is {factor} times that of GD"
        f" ({_seeds(len(pairs))}: {_list(ratios)})",
        [factor],
        [at.run for at in _flat(pairs)],
    )


def rho_is_at_equilibrium(runs: Sequence[Run]) -> list[Finding | Missing]:
    """|mu - (M + lambda) rho - the common mode's part|/mu, in units of the learned rho."""
    results: list[Finding | Missing] = []
    keys = ("equilibrium/residual", "equilibrium/common_mode", "margin/mean", "rho", "rho_learned")
    for family in families(deep(runs, None, *keys), "lambda"):
        if lacking := _no_ratio(family, _learned_mu, "mu in units of the learned rho"):
            results.append(lacking)
            continue
        residuals = [
            run.last("equilibrium/residual") - run.last("equilibrium/common_mode") for run in family
        ]
        shares = [abs(r) / _learned_mu(run) for r, run in zip(residuals, family, strict=True)]
        share = mean_by_seed("residual/mu", family, shares)
        worst = family[int(np.argmax(shares))]
        results.append(
            Finding(
                share.value <= EQUILIBRIUM,
                f"{family[0].dynamics}: {share.value:.2g} of mu on average, at most"
                f" {max(shares):.2g} ({worst.name}; {_seeds(share.seeds)})",
                [share],
                family,
            )
        )
    return results


def _learned_mu(run: Run) -> float:
    """|mu| in units of the learned rho."""
    learned = abs(run.last("rho_learned"))
    return abs(run.last("margin/mean") * run.last("rho")) / learned if learned else math.inf


# Which runs


def deep(runs: Sequence[Run], dynamics: str | None = None, *keys: str) -> list[Run]:
    """Finished runs of a network on a loss, with these keys in the record."""
    return [
        run
        for run in runs
        if run.finished
        and "model.loss" in run.options
        and run.has(*keys)
        and (dynamics is None or run.dynamics == dynamics)
    ]


def square(runs: Sequence[Run], dynamics: str, *keys: str) -> list[Run]:
    """Those under the square loss."""
    return [r for r in deep(runs, dynamics, *keys) if r.options["model.loss"] == "square"]


def _sweeps(family: Sequence[Run]) -> list[list[Run]]:
    """For each seed that has two lambdas or more its runs, in the order of lambda."""
    sweeps = [sorted(same, key=lambda_of) for same in by_seed(family)]
    return [sweep for sweep in sweeps if lambda_of(sweep[0]) < lambda_of(sweep[-1])]


def _groups(sweeps: Sequence[Sequence[Run]]) -> list[Sequence[Sequence[Run]]]:
    """Seeds to pool: all that share two lambdas, else each alone, for their changes differ."""
    if not sweeps or len(_shared(sweeps)) > 1:
        return [sweeps] if sweeps else []
    return [[sweep] for sweep in sweeps]


def _shared(sweeps: Sequence[Sequence[Run]]) -> set[float]:
    return set.intersection(*({lambda_of(run) for run in sweep} for sweep in sweeps))


def _ends(group: Sequence[Sequence[Run]]) -> list[tuple[Run, Run]]:
    """Of each seed the runs at the least and at the largest lambda that all of them share."""
    shared = _shared(group)
    return [
        (
            next(run for run in sweep if lambda_of(run) == min(shared)),
            next(run for run in sweep if lambda_of(run) == max(shared)),
        )
        for sweep in group
    ]


def _no_ratio(runs: Sequence[Run], quantity: Quantity, words: str) -> Missing | None:
    """What to say where a ratio of or to a number has no meaning, as with a velocity of 0."""
    for run in runs:
        if not is_positive(value := quantity(run)):
            return _no_ratio_to(run, words, value)
    return None


def _no_ratio_to(run: Run, words: str, value: float) -> Missing:
    seen = "not recorded" if math.isnan(value) else f"{value:.3g}"
    return Missing(f"{words} above 0 in {run.name}: it is {seen}")


def _pairs_by_batch(
    runs: Sequence[Run], kind: str, *varied: str
) -> Iterator[tuple[list[Run], list[Run]]]:
    """SGD and GD of the same seeds, run by run, for each batch size; one of them is empty else.

    Where epochs vary too, a seed has one pair for each batch size, the two longest runs.
    """
    usable = [run for run in runs if "model.loss" in run.options and run.has(*_keys(run, kind))]
    decayed = sorted((run for run in usable if lambda_of(run) > 0), key=lambda_of)
    for family in families(decayed, *varied):  # type: ignore[arg-type]
        longest: dict[tuple[object, object], Run] = {}
        for run in sorted(family, key=lambda run: run.last(STEP)):
            longest[seed_of(run), run.options["data.batch_size"]] = run
        gd = {seed: run for (seed, batch), run in longest.items() if batch == "full"}
        sizes = {batch for _, batch in longest if batch != "full"}
        if not sizes:
            yield [], [*gd.values()]
        for size in sorted(sizes, key=str):
            sgd = {seed: run for (seed, batch), run in longest.items() if batch == size}
            both = [seed for seed in sgd if seed in gd]
            if both:
                yield [sgd[seed] for seed in both], [gd[seed] for seed in both]
            else:
                yield [*sgd.values()], []


def _keys(run: Run, kind: str) -> list[str]:
    """The keys that are compared; one that no record has where it has none of the kind."""
    layers = middle(run) if kind == RANK else run.layers(kind)
    return [f"{kind}/{layer}" for layer in layers or ["?"]]


def _lacks(sgd: Sequence[Run], gd: Sequence[Run]) -> Missing:
    if sgd:
        return Missing(f"{sgd[0].name} with data.batch_size: full, at the same seed")
    return Missing(f"{gd[0].name} with a data.batch_size below N, at the same seed")


def _at_equal_clock(sgd: Run, gd: Run, clock: str, words: str, kind: str) -> Pair | Missing:
    """The last row of SGD within the reach of both at which GD has one too.

    Their first rows are none: all runs are equal before the first step.
    """
    times, of_gd = (
        run.rows.loc[run.rows[_keys(run, kind)].notna().all(axis=1), clock] for run in (sgd, gd)
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


def _clock(at: At, clock: str) -> float:
    return float(at.run.rows[clock].loc[at.row])


def _compare(
    sgd: Sequence[dict[str, float]], gd: Sequence[dict[str, float]], where: str, runs: list[Run]
) -> Finding | Missing:
    if lacking := _no_ratio(runs, least_rank_at_start, "effective ranks at the start"):
        return lacking
    effects: dict[str, list[Estimate]] = {"SGD": [], "GD": []}
    for name, seen in (("SGD", sgd), ("GD", gd)):
        for layer in seen[0]:
            effects[name].append(mean(f"{name} {layer}", [fall[layer] for fall in seen]))
    holds = all(e.value >= RANK_FALLS for e in effects["SGD"]) and all(
        e.value < STAYS for e in effects["GD"]
    )
    parts = [
        f"{name} {', '.join(_fall(effect, name) for effect in found)}"
        for name, found in effects.items()
    ]
    alone = sum(
        min(a.values()) >= RANK_FALLS and max(b.values()) < STAYS
        for a, b in zip(sgd, gd, strict=True)
    )
    seeds = f"({_seeds(len(sgd))}; {alone} alone would do)"
    measured = f"{where}effective rank falls by: {'; '.join(parts)} {seeds}"
    return Finding(holds, measured, [*effects["SGD"], *effects["GD"]], runs)


# Words


def _fall(effect: Estimate, name: str) -> str:
    interval = "" if effect.low is None else f" [{effect.low:.1%}, {effect.high:.1%}]"
    return f"{effect.name.removeprefix(name).strip()} {effect.value:.1%}{interval}"


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.3g}" for value in values)


def _lambdas(ends: Sequence[tuple[Run, Run]]) -> str:
    low, high = map(lambda_of, ends[0])
    return f"{low:g} to {high:g}"


def _whose(group: Sequence[Sequence[Run]], sweeps: Sequence[Sequence[Run]]) -> str:
    """How many seeds are pooled, or whose the numbers are where none can be."""
    if len(group) == len(sweeps):
        return _seeds(len(group))
    weights, samples = seed_of(group[0][0])
    seed = f"{weights}" if samples in (None, weights) else f"{weights}, data {samples}"
    return f"seed {seed} alone, for the seeds share no two lambdas"


def _flat(nested: Iterable[Iterable[T]]) -> list[T]:
    return [each for inner in nested for each in inner]
