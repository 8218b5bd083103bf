"""What is said of GD at as many steps as SGD, in five seeds; see results_sentences."""

from __future__ import annotations

import numpy as np
import pandas as pd
from results_sentences import Recorded, Sentence, ends, middle, over, times
from results_tables import MIDDLE, at_equal_steps, velocity

from janus_pl.records.families import is_untrained, seed_of
from janus_pl.records.run import STEP, Run


def pairs(recorded: Recorded, schedule: str) -> tuple[list[Run], list[Run]]:
    """GD and SGD of the same seeds, at a constant rate or under a cosine.

    Raises:
        LookupError: There are none.
    """
    some = [r for r in at_equal_steps(recorded.runs) if r.options["model.schedule"] == schedule]
    some.sort(key=lambda run: str(seed_of(run)))
    gd, sgd = ([run for run in some if run.dynamics == name] for name in ("GD", "SGD"))
    if not gd or [seed_of(run) for run in gd] != [seed_of(run) for run in sgd]:
        raise LookupError(f"no pairs of SGD and GD, {schedule}")
    return gd, sgd


def middles(run: Run) -> pd.Series:
    """The mean of the middle ranks over the steps, as a share of its start."""
    ranks = sum(over(run, f"effective_rank/{layer}", STEP) for layer in MIDDLE)
    return ranks / ranks.iloc[0]


def lost(runs: list[Run]) -> list[float]:
    """The least and the most that the mean of the middle ranks has lost, in per cent."""
    return [*ends(100 * (1 - middles(run).iloc[-1]) for run in runs)]


def whole_until(recorded: Recorded, schedule: str) -> float:
    """The last look up to which no GD network has lost a hundredth of its middle ranks."""
    gd, _ = pairs(recorded, schedule)
    return float(min(middles(run)[middles(run).cummin() > 0.99].index[-1] for run in gd))


def jump(run: Run) -> tuple[float, float]:
    """The looks between which the middle ranks lose the most."""
    shares = middles(run)
    place = int(np.argmax(-np.diff(shares)))
    return float(shares.index[place]), float(shares.index[place + 1])


def of_jumps(recorded: Recorded) -> list[float]:
    """The first and the last look at those jumps, the least share of all that is lost, the loss."""
    gd, _ = pairs(recorded, "constant")
    looks = [jump(run) for run in gd]
    shares = [
        100 * (middles(run)[low] - middles(run)[high]) / (1 - middles(run).min())
        for run, (low, high) in zip(gd, looks, strict=True)
    ]
    losses = [
        over(run, "train/loss_running", STEP).loc[low:high].max()
        for run, (low, high) in zip(gd, looks, strict=True)
    ]
    return [min(low for low, _ in looks), max(high for _, high in looks), min(shares), min(losses)]


def untrained(recorded: Recorded) -> int:
    """How many GD networks at a constant rate end no better than f = 0."""
    return sum(map(is_untrained, pairs(recorded, "constant")[0]))


def below(recorded: Recorded, schedule: str) -> int:
    """In how many seeds GD ends with the lower mean of the middle ranks."""
    gd, sgd = pairs(recorded, schedule)
    return sum(ratio < 1 for ratio in times(gd, sgd, middle))


def turns(run: Run) -> int:
    """How often rho changes its sign between the looks of the jump."""
    low, high = jump(run)
    return int((np.sign(over(run, "rho_learned", STEP).loc[low:high]).diff().abs() > 0).sum())


def at_rest(recorded: Recorded) -> list[Run]:
    """The GD networks under the cosine that hardly move at the end."""
    return [run for run in pairs(recorded, "cosine")[0] if velocity(run) < 0.01]


def worst(recorded: Recorded) -> Run:
    """The GD network under the cosine with the lowest middle ranks."""
    return min(pairs(recorded, "cosine")[0], key=middle)


def louder(recorded: Recorded) -> list[float]:
    """||V dot|| of SGD over that of GD's networks at rest, by seed, the least and the most."""
    quiet = at_rest(recorded)
    seeds = [*map(seed_of, quiet)]
    twins = [run for run in pairs(recorded, "cosine")[1] if seed_of(run) in seeds]
    return [*ends(times(twins, quiet, velocity))]


def losers(recorded: Recorded) -> list[int]:
    """How many GD networks end without a tenth of their middle ranks, and of how many."""
    gd = [run for schedule in ("constant", "cosine") for run in pairs(recorded, schedule)[0]]
    return [sum(middles(run).iloc[-1] < 0.9 for run in gd), len(gd)]


def shares(recorded: Recorded, place: int) -> list[float]:
    """The share of all lost ranks that goes between two looks, of GD (0) or SGD (1).

    Of networks that have lost a tenth or more.
    """
    runs = [run for schedule in ("constant", "cosine") for run in pairs(recorded, schedule)[place]]
    found = []
    for run in runs:
        (low, high), kept = jump(run), middles(run)
        if kept.iloc[-1] < 0.9:
            found.append(float((kept[low] - kept[high]) / (1 - kept.min())))
    return found


SENTENCES = [
    Sentence(
        "At equal steps {} of {} networks lose a tenth of their middle ranks or more under GD as "
        "well, so no minibatches are needed for that. Under SGD they fall by and by in all but one "
        "of {}, under GD in jumps.",
        lambda r: [*losers(r), losers(r)[1]],
        lambda r: [sum(share > 0.5 for share in shares(r, k)) for k in (0, 1)] == [losers(r)[0], 1],
    ),
    Sentence(
        "At the constant rate no network has lost a hundredth of its middle ranks by step "
        "{:,.0f}. Then, between two looks up to step {:,.0f}, the running loss comes to {:.1f} or "
        "more, rho passes zero, and {:.0f}% or more of what is lost goes at once.",
        lambda r: [whole_until(r, "constant"), *of_jumps(r)[1:2], of_jumps(r)[3], of_jumps(r)[2]],
        lambda r: min(map(turns, pairs(r, "constant")[0])) > 0,
    ),
    Sentence(
        "At the constant rate half of all steps pass without a loss of rank under GD; then one "
        "jump takes most of it",
        so=lambda r: whole_until(r, "constant") >= 2016 and of_jumps(r)[2] > 50,
    ),
    Sentence(
        "At the end the mean of the middle ranks has fallen by {:.0f} to {:.0f}%, under SGD by "
        "{:.0f} to {:.0f}%; GD's is the lower one in {} of {} seeds. {} of the networks under GD "
        "end no better than f = 0, and the claim leaves them out.",
        lambda r: [
            *(value for runs in pairs(r, "constant") for value in lost(runs)),
            *(below(r, "constant"), len(pairs(r, "constant")[0]), untrained(r)),
        ],
    ),
    Sentence(
        "Under the cosine it falls by {:.0f} to {:.0f}%, under SGD by {:.0f} to {:.0f}%; GD's is "
        "the lower one in {} of {} seeds. {} of the networks under GD come to rest, and SGD's ‖V̇‖ "
        "at the end is {:.0f} to {:.0f} times theirs. The other one has lost the most of its "
        "ranks, and ends with a loss of {:.2f}.",
        lambda r: [
            *(value for runs in pairs(r, "cosine") for value in lost(runs)),
            *(below(r, "cosine"), len(pairs(r, "cosine")[0]), len(at_rest(r)), *louder(r)),
            worst(r).last("train/loss"),
        ],
        lambda r: (
            len(at_rest(r)) == len(pairs(r, "cosine")[0]) - 1
            and seed_of(worst(r)) not in map(seed_of, at_rest(r))
        ),
    ),
]
