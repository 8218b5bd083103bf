"""What is said of the runs of new seeds; see results_sentences."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

from results_sentences import Recorded, Sentence, ends, kept, middle, times
from results_tables import CONFIRM, MIDDLE, left, of_sweeps, relative_spread, velocity

from janus_pl.records.families import is_zero_function, lambda_of, seed_of
from janus_pl.records.run import Run

mu = partial(Run.last, key="margin/mean")


def decayed(
    recorded: Recorded, sweep: str, lam: float, of: Callable[[Run], float]
) -> Sequence[float]:
    """A quantity at a lambda over that without decay, by seed, the least and the largest.

    Seeds with a network that is f = 0 are left out, as the claims leave them out.
    """
    runs = {seed_of(run): run for run in left(recorded.of(sweep, lam=lam))}
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


def by_loss(recorded: Recorded, of: Callable[[Run], float]) -> Sequence[float]:
    """A quantity at lambda = 0 under cross entropy over that under the square loss, by seed."""
    entropy = recorded.of("confirm_cross_entropy", lam=0)
    return ends(times(entropy, recorded.of("confirm_cosine", lam=0), of))


def of_lambdas(recorded: Recorded, sweep: str, *lams: float) -> list[float]:
    """The ends of sigma/mu and ||V dot|| at a lambda over those at another, by seed."""
    high, low = (recorded.of(sweep, lam=lam) for lam in lams)
    return [end for of in (relative_spread, velocity) for end in ends(times(high, low, of))]


def least_kept(recorded: Recorded) -> float:
    """What a middle layer keeps of its rank with decay on rho, at least, in per cent."""
    runs = recorded.of("confirm_rho", lam=1e-2)
    return math.floor(1000 * min(kept(layer)(run) for run in runs for layer in MIDDLE)) / 10


def largest_decay(recorded: Recorded) -> list[Run]:
    """The networks under cross entropy at the largest lambda."""
    return recorded.of("confirm_cross_entropy", lam=1e-2)


def as_before(recorded: Recorded) -> list[int]:
    """How many primary claims there are, and how many have the answer that is claimed."""
    primary = [v for v in recorded.verdicts("confirm").verdicts if v.claim.primary]
    return [len(primary), sum(str(v.answer) == "supported" for v in primary)]


SENTENCES = [
    Sentence("Of {} claims {} are as in the first seeds;", as_before),
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
        "Each sweep has five seeds; seeds 8 to 10 of the cosine and the constant rate, which were "
        "planned, are not run for want of time.",
        so=lambda r: all(
            {run.description.seed for run in r.of(sweep)} == {3, 4, 5, 6, 7} for sweep in CONFIRM
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
        "At the end of a cosine without decay sigma/mu under cross entropy is {:.0f} to {:.0f} "
        "times that under the square loss, by seed, and ‖V̇‖ {:.2f} to {:.2f} times.",
        lambda r: [*by_loss(r, relative_spread), *by_loss(r, velocity)],
    ),
    Sentence(
        "At lambda = 1e-2 {} of the {} networks under cross entropy are f = 0; the others have no "
        "training error, and mean middle ranks of {:.0f} to {:.0f}.",
        lambda r: (
            len(largest_decay(r)) - len(left(largest_decay(r))),
            len(largest_decay(r)),
            *ends(map(middle, left(largest_decay(r)))),
        ),
        lambda r: all(run.last("train/error") == 0 for run in left(largest_decay(r))),
    ),
    Sentence(
        "With decay on rho alone sigma/mu at lambda = 1e-2 is {:.0f} to {:.0f} times that at 1e-6, "
        "by seed, and ‖V̇‖ {:.1f} to {:.1f} times; the middle layers keep {:.1f}% of their ranks or "
        "more.",
        lambda r: [*of_lambdas(r, "confirm_rho", 1e-2, 1e-6), least_kept(r)],
    ),
    Sentence(
        "GD at a rate of 0.05 has no such order: with lambda = 1e-3 sigma/mu is {:.1f} to {:.0f} "
        "times that without decay, by seed, and ‖V̇‖ {:.2f} to {:.0f} times.",
        lambda r: of_lambdas(r, "confirm_gd", 1e-3, 0),
        lambda r: (
            of_lambdas(r, "confirm_gd", 1e-3, 0)[0] < 1 < of_lambdas(r, "confirm_gd", 1e-3, 0)[1]
        ),
    ),
    Sentence(
        "In [five new ones](confirm.md) ‖V̇‖ with decay is {:.2f} to {:.0f} times that without.",
        lambda r: of_lambdas(r, "confirm_gd", 1e-3, 0)[2:],
    ),
    Sentence(
        "Of [five new networks](confirm.md) at that lambda {} do.",
        lambda r: [len(left(largest_decay(r)))],
        lambda r: len(largest_decay(r)) == 5,
    ),
    Sentence(
        "{} of the {} networks are f = 0.",
        lambda r: (len(emptied(r)), len(of_sweeps(r.runs, *CONFIRM))),
        lambda r: {lambda_of(run) for run in emptied(r)} <= {1e-3, 2e-3, 5e-3, 1e-2},
    ),
]
