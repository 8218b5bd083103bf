"""What is said of the runs of new seeds; see results_sentences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from results_sentences import Recorded, Sentence, ends, middle, times
from results_tables import CONFIRM, of_sweeps, relative_spread, velocity

from janus_pl.records.families import is_zero_function, lambda_of, seed_of
from janus_pl.records.run import Run

mu = partial(Run.last, key="margin/mean")


def decayed(
    recorded: Recorded, sweep: str, lam: float, of: Callable[[Run], float]
) -> Sequence[float]:
    """A quantity at a lambda over that without decay, by seed, the least and the largest.

    Seeds with a network that is f = 0 are left out, as the claims leave them out.
    """
    runs = {seed_of(run): run for run in recorded.of(sweep, lam=lam) if not is_zero_function(run)}
    plain = {seed_of(run): run for run in recorded.of(sweep, lam=0)}
    both = sorted(runs.keys() & plain.keys(), key=str)
    return ends(times([runs[seed] for seed in both], [plain[seed] for seed in both], of))


def faces(recorded: Recorded, sweep: str, lam: float) -> list[float]:
    """The ends of ||V dot||, sigma/mu and the mean of the middle ranks, of those without decay."""
    of = (velocity, relative_spread, middle)
    return [end for each in of for end in decayed(recorded, sweep, lam, each)]


def emptied(recorded: Recorded) -> Sequence[Run]:
    """The networks of these sweeps that are f = 0."""
    return [run for run in of_sweeps(recorded.runs, *CONFIRM) if is_zero_function(run)]


SENTENCES = [
    Sentence(
        "At a constant rate and lambda = 1e-3 ‖V̇‖ in the last row is {:.0f} to {:.0f} times that "
        "without decay, by seed, sigma/mu {:.0f} to {:,.0f} times, and the mean of the middle "
        "ranks {:.2f} to {:.2f} of it.",
        lambda r: faces(r, "confirm_constant", 1e-3),
    ),
    Sentence(
        "At the end of a cosine and lambda = 5e-3 the mean margin is {:.0f} to {:.0f} times that "
        "without decay and the mean of the middle ranks {:.2f} to {:.2f} of it; ‖V̇‖ is {:.2f} to "
        "{:.1f} times and sigma/mu {:.1f} to {:.0f} times.",
        lambda r: [
            end
            for of in (mu, middle, velocity, relative_spread)
            for end in decayed(r, "confirm_cosine", 5e-3, of)
        ],
    ),
    Sentence(
        "At lambda = 2e-3 sigma/mu is {:.1f} to {:.0f} times and the mean of the middle ranks "
        "{:.2f} to {:.2f} of it.",
        lambda r: [
            end
            for of in (relative_spread, middle)
            for end in decayed(r, "confirm_cosine", 2e-3, of)
        ],
    ),
    Sentence(
        "Five seeds of the eight that were planned, of the first two sweeps; seeds 8 to 10 and the "
        "other sweeps are not run.",
        so=lambda r: (
            {run.description.seed for run in of_sweeps(r.runs, *CONFIRM)} == {3, 4, 5, 6, 7}
            and not of_sweeps(r.runs, *CONFIRM[2:])
        ),
    ),
    Sentence(
        "Under the cosine sigma/mu does end larger with decay of 5e-3 than without, in every seed",
        so=lambda r: decayed(r, "confirm_cosine", 5e-3, relative_spread)[0] > 1,
    ),
    Sentence(
        "‖V̇‖ ends larger in some seeds and smaller in others.",
        so=lambda r: (
            decayed(r, "confirm_cosine", 5e-3, velocity)[0]
            < 1
            < decayed(r, "confirm_cosine", 5e-3, velocity)[1]
        ),
    ),
    Sentence(
        "{} of the {} networks are f = 0.",
        lambda r: (len(emptied(r)), len(of_sweeps(r.runs, *CONFIRM))),
        lambda r: {lambda_of(run) for run in emptied(r)} <= {1e-3, 2e-3, 5e-3, 1e-2},
    ),
]
