"""The theorems, checked against records; a failure is a defect of the program or the run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from janus_pl.errors import Exit
from janus_pl.records.families import by_seed, families
from janus_pl.records.run import Run
from janus_pl.verify.effects import mean
from janus_pl.verify.subjects import ANY, LINEAR
from janus_pl.verify.verdicts import Finding, Missing, Prediction

CLOSED_FORM = 1e-9  # of the start; float64 rounding over 500,000 steps leaves 5e-13
SLOPE = 1e-6  # relative; measured while both norms are above 1e-10 of their start
EMPTY = 1e-12


def null_space_decays(runs: Sequence[Run]) -> list[Finding | Missing]:
    """Measure the largest difference of null/norm and null/predicted, relative to the start."""
    results: list[Finding | Missing] = []
    for run in _with_null_space(runs):
        norm, predicted = run.rows["null/norm"], run.rows["null/predicted"]
        start = norm.dropna().iloc[0]
        if start <= EMPTY:
            continue
        worst = float((norm - predicted).abs().max() / start)
        kept = f"{float(norm.dropna().iloc[-1] / start):.3g}"
        results.append(
            Finding(
                worst <= CLOSED_FORM,
                f"{run.name}: at most {worst:.1e} of the start off the closed form in"
                f" {norm.notna().sum()} rows; {kept} of the start is left",
                [mean("difference", [worst])],
                [run],
            )
        )
    return results


def rate_is_steps_per_epoch(runs: Sequence[Run]) -> list[Finding | Missing]:
    """Compare the log-slopes per epoch of two batch sizes with their steps per epoch.

    Only runs of a single replica count: a median over many may end in another replica than it
    starts in.
    """
    results: list[Finding | Missing] = []
    one_rate = [
        run
        for run in _with_null_space(runs)
        if run.first("null/norm") > EMPTY
        and not run.has("null/norm/q05")
        and run.options.get("model.gd_schedule") is None
        and run.options.get("model.gd_learning_rate") is None
    ]
    for family in families(one_rate, "batch"):
        for same in by_seed(family):
            for a, b in combinations(sorted(same, key=lambda run: run.steps_per_epoch), 2):
                if a.steps_per_epoch == b.steps_per_epoch:
                    continue
                expected = b.steps_per_epoch / a.steps_per_epoch
                seen = _slope_ratio(a, b)
                if seen is None:
                    results.append(Missing(f"rows of {b.name} before its null space is rounding"))
                    continue
                results.append(
                    Finding(
                        abs(seen / expected - 1) <= SLOPE,
                        f"{b.name} falls {seen:.7g} times as fast per epoch as {a.name}; it takes"
                        f" {expected:g} times the steps",
                        [mean("ratio of slopes", [seen])],
                        [a, b],
                    )
                )
    return results


def empty_null_space_stays_empty(runs: Sequence[Run]) -> list[Finding | Missing]:
    """Measure the largest null/norm of SGD and of GD from W0 = 0."""
    results: list[Finding | Missing] = []
    empty = [run for run in _with_null_space(runs) if run.first("null/norm") <= EMPTY]
    for family in families(empty, "batch"):
        kinds = {run.dynamics for run in family}
        if kinds != {"SGD", "GD"}:
            other = "data.batch_size: full" if kinds == {"SGD"} else "data.batch_size: 1"
            results.append(Missing(f"{family[0].name} with {other}"))
            continue
        norms = {run.name: float(run.rows["null/norm"].max()) for run in family}
        measured = "; ".join(f"{name}: ||W_perp|| at most {v:.1e}" for name, v in norms.items())
        effects = [mean(name, [value]) for name, value in norms.items()]
        results.append(Finding(max(norms.values()) <= EMPTY, measured, effects, family))
    return results


def tails_are_bounded(runs: Sequence[Run]) -> list[Finding | Missing]:
    """Measure the largest ratio of a spectrum's tail to its bound, over layers and rows."""
    results: list[Finding | Missing] = []
    for run in runs:
        watched = run.layers("tail_bound/vacuous")
        largest = {k: _largest_ratio(run, k) for k in watched if _bounded(run, k).any()}
        if not largest:
            if watched:
                results.append(
                    Missing(f"a smaller batch than that of {run.name}: its bound is vacuous")
                )
            continue
        rows = np.any([_bounded(run, k) for k in largest], axis=0).sum()
        vacuous = sorted(set(watched) - set(largest))
        said = ", ".join(f"{layer} {value:.3g}" for layer, value in largest.items())
        said += f"; vacuous for {', '.join(vacuous)}" if vacuous else ""
        results.append(
            Finding(
                # RankBound's own judgement: its ratio allows for rounding. NaN is not below 1.
                run.exit_code != Exit.BROKEN_THEOREM
                and all(value <= 1 for value in largest.values()),
                f"{run.name}: tail/bound at most {said} ({rows} rows)",
                [mean(layer, [value]) for layer, value in largest.items()],
                [run],
            )
        )
    return results


def _bounded(run: Run, layer: str) -> pd.Series[bool]:
    """Tell in which rows the bound of a layer is not vacuous, so that there is a ratio."""
    return run.rows[f"tail_bound/vacuous/{layer}"] == 0


def _largest_ratio(run: Run, layer: str) -> float:
    """Return the largest ratio of a layer; NaN if a row that should have a ratio has none.

    Records keep the row of a ratio that is NaN or infinite, but not the ratio: W&B writes such
    numbers as text.
    """
    ratios = run.rows.reindex(columns=[f"tail_bound/ratio/{layer}"]).squeeze(axis=1)
    due = ratios[_bounded(run, layer)]
    return math.nan if due.isna().any() else float(ratios.max())


def _with_null_space(runs: Sequence[Run]) -> list[Run]:
    return [run for run in runs if run.has("null/norm", "null/predicted")]


def _slope_ratio(a: Run, b: Run) -> float | None:
    """Return log(kept by b)/log(kept by a) at the last common epoch above rounding, or None."""
    parts = []
    for run in (a, b):
        norm = run.rows.set_index("epoch")["null/norm"].dropna()
        parts.append(norm / norm.iloc[0])
    common = parts[0].index.intersection(parts[1].index)
    kept = np.array([[part[epoch] for part in parts] for epoch in common])
    usable = kept[((kept > 1e-10) & (kept < 1)).all(axis=1)]
    if not len(usable):
        return None
    return math.log(usable[-1, 1]) / math.log(usable[-1, 0])


RANDOM = "linear regression from a random W0 (configs/linear/a2.yaml)"

THEOREMS = (
    Prediction(
        "Theorem 1",
        "W_perp shrinks by 1 - 2 eta lambda at every step, whatever the minibatch",
        "Theorem 1, Eq. 9",
        f"||W_perp|| is the closed form to {CLOSED_FORM:g} of its start at every recorded epoch",
        LINEAR,
        null_space_decays,
        RANDOM,
        theorem=True,
    ),
    Prediction(
        "law over B",
        "per epoch W_perp shrinks N/B times as fast as under GD",
        "Remark after Theorem 1, as corrected",
        f"the log-slopes per epoch are as the steps per epoch, to {SLOPE:g}",
        LINEAR,
        rate_is_steps_per_epoch,
        f"{RANDOM} at two batch sizes and the same seed",
        theorem=True,
    ),
    Prediction(
        "A.1",
        "from W0 = 0 both SGD and GD keep the null space empty",
        "Theorem 1, Fig. A.1",
        f"||W_perp|| stays below {EMPTY:g}",
        LINEAR,
        empty_null_space_stays_empty,
        "configs/linear/a1.yaml and the same with data.batch_size: full",
        theorem=True,
    ),
    Prediction(
        "tail bound",
        "without momentum the tail of each spectrum is below prod |a_t| ||W||",
        "arXiv 2206.05794; Lemma 1's mechanism",
        "tail_bound/ratio is at most 1 in every layer and row",
        ANY,
        tails_are_bounded,
        "a run without momentum with callbacks.RankBound (configs/theory.yaml)",
        theorem=True,
    ),
)
