"""Rules about single runs: their layers, and the equilibrium of rho."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from janus_pl.records.families import families, lambda_of
from janus_pl.records.run import Run
from janus_pl.verify.effects import (
    mean_by_seed,
    ratio_by_seed,
    trend,
)
from janus_pl.verify.quantities import (
    learned_mu,
    velocity,
)
from janus_pl.verify.selection import (
    deep,
    no_ratio,
    square,
)
from janus_pl.verify.thresholds import (
    EQUILIBRIUM,
    TREND,
)
from janus_pl.verify.verdicts import Finding, Missing
from janus_pl.verify.words import listed, seeds_of


def top_layer_is_quietest(runs: Sequence[Run]) -> list[Finding | Missing]:
    """Compare the last layer's ||V_k dot|| with the least of the others, SGD at lambda > 0."""
    results: list[Finding | Missing] = []
    decayed = [r for r in square(runs, "SGD") if lambda_of(r) > 0 and len(r.layers("velocity")) > 1]
    for family in families(decayed, "lambda"):
        if lacking := no_ratio(family, velocity, "||V_k dot|| of a layer"):
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
        measured = f"times {share} the least other ({seeds_of(share.seeds)}: {least})"
        results.append(Finding(share.value <= 1, measured, [share], family))
    return results


def rank_goes_with_velocity(runs: Sequence[Run]) -> list[Finding | Missing]:
    """Measure Kendall's tau of effective rank and ||V_k dot|| over the layers of a run."""
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
        measured = f"tau {tau} over the layers of a run ({seeds_of(tau.seeds)}: {listed(taus)})"
        results.append(Finding(tau.value >= TREND, measured, [tau], family))
    return results


def rho_is_at_equilibrium(runs: Sequence[Run]) -> list[Finding | Missing]:
    """Measure |mu - (M + lambda) rho - common mode|/|mu|, in units of the learned rho."""
    results: list[Finding | Missing] = []
    keys = ("equilibrium/residual", "equilibrium/common_mode", "margin/mean", "rho", "rho_learned")
    for family in families(deep(runs, None, *keys), "lambda"):
        if lacking := no_ratio(family, learned_mu, "mu in units of the learned rho"):
            results.append(lacking)
            continue
        residuals = [
            run.last("equilibrium/residual") - run.last("equilibrium/common_mode") for run in family
        ]
        shares = [abs(r) / learned_mu(run) for r, run in zip(residuals, family, strict=True)]
        share = mean_by_seed("residual/mu", family, shares)
        worst = family[int(np.argmax(shares))]
        results.append(
            Finding(
                share.value <= EQUILIBRIUM,
                f"{family[0].dynamics}: {share.value:.2g} of mu on average, at most"
                f" {max(shares):.2g} ({worst.name}; {seeds_of(share.seeds)})",
                [share],
                family,
            )
        )
    return results
