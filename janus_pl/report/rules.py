"""How records of the deep network decide on a prediction: one rule for each, runs in, findings out.

Numbers are those of a run's last row that holds them, unless said. Runs are compared only with runs
of the same options and seeds but for what a prediction varies. Thresholds are ours, for the paper
says "grows" and "small"; they are part of each criterion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product

import numpy as np

from janus_pl.report.evidence import (
    Estimate,
    by_seed,
    families,
    lambda_of,
    mean,
    ratio,
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
# Layers whose rank is far above the number of classes; the first two have few columns.
MIDDLE = ("conv3", "conv4", "fc1")

Quantity = Callable[[Run], float]


# Quantities


def relative_spread(run: Run) -> float:
    """std/mean of the margins: the units of the margins move with rho, this does not."""
    return run.last("margin/std") / abs(run.last("margin/mean"))


def mean_margin(run: Run) -> float:
    """mu, in the paper's units."""
    return run.last("margin/mean")


def velocity(run: Run) -> float:
    """Geometric mean of ||V_k dot|| over the layers."""
    norms = [run.last(f"velocity/{layer}") for layer in run.layers("velocity")]
    return float(np.exp(np.mean(np.log(norms))))


def middle_rank(run: Run) -> float:
    """Mean effective rank of the middle layers."""
    return float(np.mean([run.last(f"effective_rank/{layer}") for layer in middle(run)]))


def middle(run: Run) -> list[str]:
    """conv3, conv4 and fc1; of other networks all layers but the first and the last."""
    layers = run.layers("effective_rank")
    return [layer for layer in MIDDLE if layer in layers] or layers[1:-1] or layers


def falls(run: Run, row: int | None = None) -> dict[str, float]:
    """1 - effective rank/effective rank at the start, by middle layer, at a row or at the end."""
    found = {}
    for layer in middle(run):
        ranks = run.rows[f"effective_rank/{layer}"]
        now = ranks.dropna().iloc[-1] if row is None else ranks.loc[row]
        found[layer] = float(1 - now / ranks.dropna().iloc[0])
    return found


# Rules


def grows_with_lambda(
    quantity: Quantity, keys: Sequence[str], dynamics: str = "SGD", sign: int = 1
) -> Callable[[Sequence[Run]], list[Finding | Missing]]:
    """Kendall's tau of a quantity against lambda, seed by seed, and its change; square loss."""

    def rule(runs: Sequence[Run]) -> list[Finding | Missing]:
        results: list[Finding | Missing] = []
        for family in families(square(runs, dynamics, *keys), "lambda"):
            sweeps = [sorted(same, key=lambda_of) for same in by_seed(family)]
            sweeps = [sweep for sweep in sweeps if lambda_of(sweep[0]) < lambda_of(sweep[-1])]
            if not sweeps:
                results.append(Missing(f"another lambda beside {lambda_of(family[0]):g}"))
                continue
            taus = [trend([*map(lambda_of, s)], [*map(quantity, s)]) for s in sweeps]
            change = ratio("ratio", [quantity(s[-1]) / quantity(s[0]) for s in sweeps])
            tau = mean("tau", taus)
            ends = ", ".join(_range(s, quantity) for s in sweeps)
            results.append(
                Finding(
                    sign * tau.value >= TREND and sign * (change.value - 1) >= STAYS,
                    f"times {change} from lambda {_lambdas(sweeps)}; tau {tau.value:.2g}"
                    f" ({_seeds(len(sweeps))}: {ends})",
                    [change, tau],
                    [run for sweep in sweeps for run in sweep],
                )
            )
        return results

    return rule


def noise_needs_lambda(runs: Sequence[Run]) -> list[Finding | Missing]:
    """The relative spread with weight decay over that without, under SGD."""
    results: list[Finding | Missing] = []
    for family in families(square(runs, "SGD", "margin/std"), "lambda"):
        pairs = [
            (without, max(same, key=lambda_of))
            for same in by_seed(family)
            for without in same
            if lambda_of(without) == 0 and max(map(lambda_of, same)) > 0
        ]
        if not pairs:
            results.append(Missing("SGD at lambda = 0 and above, of the same seed"))
            continue
        ratios = [relative_spread(b) / relative_spread(a) for a, b in pairs]
        factor = ratio("spread", ratios)
        results.append(
            Finding(
                factor.value >= NOISE_FACTOR,
                f"std/mean times {factor} from lambda 0 to {lambda_of(pairs[0][1]):g}"
                f" ({_seeds(len(pairs))}: {_list(ratios)})",
                [factor],
                [run for pair in pairs for run in pair],
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
        sweeps = [sorted(same, key=lambda_of) for same in by_seed(family)]
        sweeps = [sweep for sweep in sweeps if lambda_of(sweep[0]) < lambda_of(sweep[-1])]
        if not sweeps:
            results.append(
                Missing(f"converged GD at another lambda beside {lambda_of(family[0]):g}")
            )
            continue
        change = ratio("ratio", [relative_spread(s[-1]) / relative_spread(s[0]) for s in sweeps])
        results.append(
            Finding(
                1 / SAME_FACTOR <= change.value <= SAME_FACTOR,
                f"std/mean times {change} from lambda {_lambdas(sweeps)} ({_seeds(len(sweeps))})",
                [change],
                [run for sweep in sweeps for run in sweep],
            )
        )
    return results


def top_layer_is_quietest(runs: Sequence[Run]) -> list[Finding | Missing]:
    """||V_k dot|| of the last layer over the least of the others, under SGD at lambda > 0."""
    results: list[Finding | Missing] = []
    decayed = [r for r in square(runs, "SGD") if lambda_of(r) > 0 and len(r.layers("velocity")) > 1]
    for family in families(decayed, "lambda"):
        ratios, names = [], []
        for run in family:
            *others, top = run.layers("velocity")
            norms = {layer: run.last(f"velocity/{layer}") for layer in others}
            quietest = min(norms, key=lambda layer: norms[layer])
            ratios.append(run.last(f"velocity/{top}") / norms[quietest])
            names.append(f"{top}/{quietest}")
        share = ratio("top/least other", ratios)
        least = ", ".join(f"{n} {r:.3g}" for n, r in zip(names, ratios, strict=True))
        results.append(
            Finding(share.value <= 1, f"times {share} the least other ({least})", [share], family)
        )
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
        tau = mean("tau", taus)
        measured = f"tau {tau} over the layers of a run ({_list(taus)})"
        results.append(Finding(tau.value >= TREND, measured, [tau], family))
    return results


def cross_entropy_keeps_noise(runs: Sequence[Run]) -> list[Finding | Missing]:
    """The relative spread at lambda = 0: an exponential-type loss over the square loss."""
    results: list[Finding | Missing] = []
    undecayed = [r for r in deep(runs, "SGD", "margin/std") if lambda_of(r) == 0]
    for family in families(undecayed, "loss"):
        losses = {run.options["model.loss"] for run in family}
        if losses == {"square"} or "square" not in losses:
            lacking = "cross_entropy" if losses == {"square"} else "square"
            results.append(Missing(f"the same SGD run at lambda = 0 with model.loss: {lacking}"))
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
            noise = ratio("spread", [relative_spread(b) / relative_spread(a) for a, b in pairs])
            move = ratio("velocity", [velocity(b) / velocity(a) for a, b in pairs])
            results.append(
                Finding(
                    noise.value >= NOISE_FACTOR,
                    f"{loss} over square at lambda 0: std/mean times {noise}, ||V_k dot|| times"
                    f" {move} ({_seeds(len(pairs))})",
                    [noise, move],
                    [run for pair in pairs for run in pair],
                )
            )
    return results


def sgd_lowers_ranks(runs: Sequence[Run]) -> list[Finding | Missing]:
    """How far the effective ranks fall from their start, SGD against GD at equal epochs."""
    results: list[Finding | Missing] = []
    for sgd, gd in _pairs_by_batch(runs, "batch"):
        if not (sgd and gd):
            results.append(_lacks(sgd, gd))
            continue
        results.append(_compare([falls(r) for r in sgd], [falls(r) for r in gd], "", sgd + gd))
    return results


def at_equal(clock: str, words: str) -> Callable[[Sequence[Run]], list[Finding | Missing]]:
    """The fall of the ranks where SGD and GD have gone equally far by another clock."""

    def rule(runs: Sequence[Run]) -> list[Finding | Missing]:
        results: list[Finding | Missing] = []
        for sgd, gd in _pairs_by_batch(runs, "batch", "epochs"):
            if not (sgd and gd):
                results.append(_lacks(sgd, gd))
                continue
            # Seeds whose runs go equally far together: means are over equal clocks alone.
            reached: dict[str, list[tuple[Run, int, Run, int]]] = {}
            for a, b in zip(sgd, gd, strict=True):
                i, j = _rows_at(a, b, clock)
                reached.setdefault(f"{a.rows[clock][i]:.4g}", []).append((a, i, b, j))
            for time, pairs in reached.items():
                times = ", ".join(f"{b.rows[clock][j]:.4g}" for _, _, b, j in pairs)
                ends = f"{pairs[0][0].last(clock):.4g}, GD at {pairs[0][2].last(clock):.4g}"
                results.append(
                    _compare(
                        [falls(a, i) for a, i, _, _ in pairs],
                        [falls(b, j) for _, _, b, j in pairs],
                        f"at {words} {time} (GD at {times}; SGD ends at {ends}): ",
                        [run for a, _, b, _ in pairs for run in (a, b)],
                    )
                )
        return results

    return rule


def rho_is_at_equilibrium(runs: Sequence[Run]) -> list[Finding | Missing]:
    """|mu - (M + lambda) rho - the common mode's part|/mu, in units of the learned rho."""
    results: list[Finding | Missing] = []
    kept = [run for run in deep(runs) if run.has("equilibrium/residual", "margin/mean")]
    for family in families(kept, "lambda"):
        shares = []
        for run in family:
            mu = run.last("margin/mean") * run.last("rho") / abs(run.last("rho_learned"))
            residual = run.last("equilibrium/residual") - run.last("equilibrium/common_mode")
            shares.append(abs(residual / mu))
        share = mean("residual/mu", shares)
        worst = family[int(np.argmax(shares))]
        results.append(
            Finding(
                share.value <= EQUILIBRIUM,
                f"{family[0].dynamics}: {share.value:.2g} of mu on average, at most"
                f" {max(shares):.2g} ({worst.name})",
                [share],
                family,
            )
        )
    return results


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


def _pairs_by_batch(runs: Sequence[Run], *varied: str) -> Iterator[tuple[list[Run], list[Run]]]:
    """SGD and GD of the same seeds, run by run, for each batch size; one of them is empty else.

    Where epochs vary too, a seed has one pair for each batch size, the two longest runs, and they
    need not be finished, for they are compared where both have been.
    """
    wanted = runs if "epochs" in varied else [run for run in runs if run.finished]
    ranked = [
        run
        for run in wanted
        if "model.loss" in run.options
        and run.has(*(f"effective_rank/{layer}" for layer in middle(run) or ["?"]))
    ]
    decayed = sorted((run for run in ranked if lambda_of(run) > 0), key=lambda_of)
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


def _lacks(sgd: Sequence[Run], gd: Sequence[Run]) -> Missing:
    if sgd:
        return Missing(f"{sgd[0].name} with data.batch_size: full, at the same seed")
    return Missing(f"{gd[0].name} with a data.batch_size below N, at the same seed")


def _rows_at(a: Run, b: Run, clock: str) -> tuple[int, int]:
    """The last row of a within the reach of both, and the row of b that is nearest to it."""
    times = [r.rows.loc[r.rows[f"effective_rank/{middle(r)[0]}"].notna(), clock] for r in (a, b)]
    reach = min(time.iloc[-1] for time in times) * (1 + 1e-9)
    at = int(times[0][times[0] <= reach].index[-1])
    return at, int((times[1] - times[0].loc[at]).abs().idxmin())


def _compare(
    sgd: Sequence[dict[str, float]], gd: Sequence[dict[str, float]], where: str, runs: list[Run]
) -> Finding:
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


def _range(sweep: Sequence[Run], quantity: Quantity) -> str:
    return " to ".join(f"{quantity(run):.3g}" for run in (sweep[0], sweep[-1]))


def _lambdas(sweeps: Sequence[Sequence[Run]]) -> str:
    lows, highs = ({lambda_of(s[i]) for s in sweeps} for i in (0, -1))
    return f"{', '.join(f'{v:g}' for v in sorted(lows))} to " + ", ".join(
        f"{v:g}" for v in sorted(highs)
    )
