"""What `verify` says of the recorded runs, by claims file; see results.py."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from results_tables import CONFIRM, DOSE, EDGE, GD, WHOSE, of_sweeps

from janus_pl.records.run import Run
from janus_pl.verify.claims import find_claims, read_claims
from janus_pl.verify.judge import Verdicts, judge

# The sweeps of each claims file that was written down before their first run.
BEFORE: dict[str, Sequence[str]] = {
    "scale": ("scale", "scale_gd"),
    "whose": WHOSE,
    "confirm": CONFIRM,
    "edge": EDGE,
    "dose": DOSE,
    "gd": GD,
}


def judged(runs: Iterable[Run], claims: str = "") -> Verdicts:
    """The verdicts on the runs of a file in `BEFORE`, or by `paper.yaml` on all."""
    if not claims:
        return judge(read_claims(), list(runs))
    return judge(read_claims(find_claims(claims)), of_sweeps(runs, *BEFORE[claims]))
