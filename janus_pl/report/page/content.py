"""Everything that the page shows, as one value of plain JSON."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from janus_pl.records.families import families, is_zero_function, lambda_of, seed_of
from janus_pl.records.run import Run, ordered
from janus_pl.report.page.columns import batch_of, family_of, model_of, seed, table
from janus_pl.report.page.numbers import rounded
from janus_pl.report.page.series import OF_LAYERS, Limits, histograms, margins_of, series

MOST_CHOSEN = 12  # curves that a chart shows before anybody ticks a row
RANKS = {
    "effective_rank": "effective rank, exp(entropy of σᵢ/Σσ)",
    "stable_rank": "stable rank, 1/σ₁²",
    "rank": "rank at the config's tolerance",
}
FACETS = ("family", "model", "dynamics", "λ", "B", "loss", "seed")


def content(
    runs: Sequence[Run],
    verdicts: Mapping[str, Any],
    command: str,
    most: Limits,
    scans: Sequence[Mapping[str, str]] = (),
) -> dict[str, Any]:
    """Return the page's data.

    Args:
        runs: in the order of the table.
        verdicts: The JSON of `verify`; empty is a page without them.
        command: what made the page, as typed.
        most: points a curve and epochs with a histogram.
        scans: pictures of a scan, each with its title and caption.
    """
    heads, cells = table(runs)
    shown: list[dict[str, Any]] = [
        {
            "name": run.name,
            "id": run.id,
            "model": model_of(run),
            "facets": _facets(run),
            "whole": run.description.whole,
            "margins": {"key": f"{margins_of(run).prefix}/hist", "axis": margins_of(run).axis},
            "cells": row,
            "series": series(run, most.points),
            "histograms": histograms(run, most.epochs),
        }
        for run, row in zip(runs, cells, strict=True)
    ]
    keys = sorted({key for run in shown for group in run["series"] for key in group["y"]})
    return {
        "command": command,
        "columns": heads,
        "facets": list(FACETS),
        "runs": shown,
        "chosen": chosen(runs),
        "dynamics": _dynamics(runs),
        "layers": _layers(runs, shown),
        "ranks": _rank_kinds(keys),
        "quantities": [key for key in keys if "/" not in key or not _of_layers_or_values(key)],
        "verdicts": list(verdicts.get("lines", ())),
        "left_out": verdicts.get("left_out", ""),
        "scans": list(scans),
    }


def chosen(runs: Sequence[Run]) -> list[int]:
    """Return the places of the runs ticked at first: by model, the most runs that compare.

    Those differ in lambda, B and seed alone; one seed of each lambda and B is enough to begin with,
    and where they are many, lambdas spread evenly, each with all its B. Networks that ended as
    f = 0 would stretch the axes, and are not among them unless there is nothing else.
    """
    place = {id(run): k for k, run in enumerate(runs)}
    found: list[int] = []
    for model in sorted({model_of(run) for run in runs}):
        same = [run for run in runs if model_of(run) == model]
        same = [run for run in same if not is_zero_function(run)] or same
        first: dict[Any, Run] = {}
        for run in max(families(same, "lambda", "batch"), key=_size):
            key = (str(lambda_of(run)), str(batch_of(run)))
            first[key] = min(first.get(key, run), run, key=lambda r: str(seed_of(r)))
        found += [place[id(run)] for run in _spread(list(first.values()))]
    return sorted(found)


def _spread(runs: Sequence[Run]) -> list[Run]:
    by_lambda: dict[float, list[Run]] = {}
    for run in sorted(runs, key=lambda run: (math.isnan(lambda_of(run)), lambda_of(run))):
        by_lambda.setdefault(lambda_of(run), []).append(run)
    groups = list(by_lambda.values())
    most = max(1, MOST_CHOSEN // max(map(len, groups)))
    if len(groups) > most:
        step = (len(groups) - 1) / max(1, most - 1)
        groups = [groups[round(k * step)] for k in range(most)]
    return [run for group in groups for run in group][:MOST_CHOSEN]


def _size(family: Sequence[Run]) -> tuple[int, int]:
    return len(family), max(len(run.rows) for run in family)


def _facets(run: Run) -> dict[str, Any]:
    values = (
        family_of(run),
        model_of(run),
        run.dynamics,
        rounded(lambda_of(run)),
        batch_of(run),
        run.description.loss,
        seed(run),
    )
    return dict(zip(FACETS, values, strict=True))


def _dynamics(runs: Iterable[Run]) -> list[str]:
    """Return the dynamics of some runs: minibatches before the whole set, SGD and GD first."""
    found = {
        (run.description.whole, run.description.optimizer != "SGD", run.dynamics) for run in runs
    }
    return [name for *_, name in sorted(found)]


def _layers(runs: Sequence[Run], shown: Iterable[dict[str, Any]]) -> dict[str, list[str]]:
    """Return, by model, the layers with numbers or a spectrum in any of its runs."""
    found: dict[str, list[str]] = {}
    for run in shown:
        keys = [key for group in run["series"] for key in group["y"] if OF_LAYERS.match(key)]
        keys += [key for key in run["histograms"] if key.startswith("spectrum/")]
        found.setdefault(run["model"], []).extend(key.partition("/")[2] for key in keys)
    by_model = {model: [run for run in runs if model_of(run) == model] for model in found}
    return {model: ordered(names, by_model[model]) for model, names in sorted(found.items())}


def _rank_kinds(keys: Sequence[str]) -> list[dict[str, str]]:
    kinds = {key.partition("/")[0] for key in keys if "rank" in key and OF_LAYERS.match(key)}
    known = [kind for kind in RANKS if kind in kinds]
    return [
        {"kind": kind, "label": _rank_label(kind)} for kind in [*known, *sorted(kinds - set(known))]
    ]


def _rank_label(kind: str) -> str:
    """Return the label of a kind of rank.

    >>> _rank_label("rank_relative_1e-02")
    'rank, σᵢ > 0.01 σ₁'
    """
    tolerance = re.fullmatch(r"rank_(absolute|relative)_(\d\S*)", kind)
    if not tolerance:
        return RANKS.get(kind, kind)
    try:
        number = f"{float(tolerance[2]):g}"
    except ValueError:
        return kind
    return f"rank, σᵢ > {number}{' σ₁' if tolerance[1] == 'relative' else ''}"


def _of_layers_or_values(key: str) -> bool:
    return bool(OF_LAYERS.match(key)) or key.startswith("singular_value/")
