"""What is said of dose and response; see results_sentences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from results_sentences import Recorded, Sentence, each, ends, gmean
from results_tables import DOSE, at_end, factors, left, of_sweeps

from janus_pl.records import late
from janus_pl.records.families import is_zero_function
from janus_pl.records.run import Run

OWN = (8, 0.03, 5e-3)  # B, the rate and lambda of dose.yaml
rank, velocity = at_end(late.rank), at_end(late.velocity)


def at(recorded: Recorded, batch: int = 8, rate: float = 0.03, lam: float = 5e-3) -> Sequence[Run]:
    """The networks at some factors that are not f = 0.

    Raises:
        LookupError: There are none.
    """
    runs = [run for run in of_sweeps(recorded.runs, *DOSE) if factors(run) == (batch, rate, lam)]
    found = left(runs)
    if not found:
        raise LookupError(f"no runs of B {batch}, rate {rate}, lambda {lam}")
    return found


def emptied(recorded: Recorded) -> list[Run]:
    return [run for run in of_sweeps(recorded.runs, *DOSE) if is_zero_function(run)]


def at_lambdas(recorded: Recorded) -> list[float]:
    """Ranks at three lambdas, and ||V dot|| at three."""
    ranks = [gmean(at(recorded, lam=lam), rank) for lam in (5e-4, 2e-3, 5e-3)]
    return ranks + [gmean(at(recorded, lam=lam), velocity) for lam in (5e-4, 2e-3, 5e-3)]


def at_rates(recorded: Recorded) -> list[float]:
    """Ranks at the four rates."""
    return [gmean(at(recorded, rate=rate), rank) for rate in (0.0075, 0.015, 0.03, 0.06)]


def at_sizes(recorded: Recorded) -> list[float]:
    """Ranks at six batch sizes."""
    return [gmean(at(recorded, batch=batch), rank) for batch in (8, 16, 32, 64, 125, 250)]


def left_out(recorded: Recorded) -> list[str]:
    """The values of B, of the rate and of lambda that no slope goes through."""
    shown = [factors(run) for run in of_sweeps(recorded.runs, *DOSE) if run.dynamics == "SGD"]
    found = []
    for name, place in (("batch", 0), ("rate", 1), ("decay", 2)):
        (verdict,) = (v for v in recorded.verdicts("dose").verdicts if v.claim.name == name)
        arms = verdict.judged[0].setting.split(" ", 1)[1].split(", ")
        values = {f"{f[place]:g}" for f in shown if _alone(f, place)}
        found.append(", ".join(sorted(values - set(arms), key=float)))
    return found


def _alone(values: tuple[int, float, float], place: int) -> bool:
    """Whether all factors but one are those of `dose.yaml`."""
    return all(v == w for k, (v, w) in enumerate(zip(values, OWN, strict=True)) if k != place)


SENTENCES = [
    Sentence(
        "slopes of straight lines through the values at which the networks of all seeds are "
        "trained: without B = {}, the rate of {} and lambda = {}.",
        left_out,
    ),
    Sentence(
        "Against lambda there is a threshold and no power: ranks are {:.0f} at 5e-4, {:.0f} at "
        "2e-3 and {:.0f} at 5e-3, and ‖V̇‖ falls from {:.3f} to {:.3f} before it rises to {:.2f}.",
        at_lambdas,
    ),
    Sentence(
        "At equal eta t ranks fall with the rate: {:.0f}, {:.0f}, {:.0f} and {:.0f} at rates of "
        "0.0075, 0.015, 0.03 and 0.06.",
        at_rates,
        lambda r: at_rates(r) == sorted(at_rates(r), reverse=True),
    ),
    Sentence(
        "Against B, at equal steps, ranks are {:.0f}, {:.0f}, {:.0f}, {:.0f}, {:.0f} and {:.0f} at "
        "8, 16, 32, 64, 125 and 250: the smallest batches have the highest. But seeds differ by as "
        "much, at 250 from {:.0f} to {:.0f}.",
        lambda r: [*at_sizes(r), *ends(each(at(r, batch=250), rank))],
        lambda r: (
            min(at_sizes(r)[:2]) > max(at_sizes(r)[2:])
            and np.ptp(at_sizes(r)) < np.ptp(each(at(r, batch=250), rank))
        ),
    ),
    Sentence(
        "{} of the {} networks end as f = 0",
        lambda r: (len(emptied(r)), len(of_sweeps(r.runs, *DOSE))),
    ),
]
