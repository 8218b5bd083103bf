"""The table of verdicts: every prediction and theorem on some runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from janus_pl.records.families import is_untrained
from janus_pl.records.run import Run
from janus_pl.verify.predictions import PREDICTIONS
from janus_pl.verify.theorems import THEOREMS
from janus_pl.verify.verdicts import Verdict, judge


def verdicts(runs: Sequence[Run]) -> list[Verdict]:
    """Judge every prediction and theorem on some runs, in the order of the table.

    The predictions are about trained networks. Untrained networks, and networks that ended as
    f = 0, count for the theorems alone.
    """
    trained = [run for run in runs if not is_untrained(run)]
    found = [verdict for p in PREDICTIONS for verdict in judge(p, trained)]
    if left_out := len(runs) - len(trained):
        # The missing run may be among the runs left out.
        found = [_with_left_out(verdict, left_out) for verdict in found]
    return found + [verdict for p in THEOREMS for verdict in judge(p, runs)]


def _with_left_out(verdict: Verdict, count: int) -> Verdict:
    if verdict.missing is None:
        return verdict
    told = "1 run is" if count == 1 else f"{count} runs are"
    return replace(verdict, missing=f"{verdict.missing} ({told} left out as not trained)")
