"""The sentences that stand first: what holds in short; and windows of claims."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
from results_said_deep import error
from results_said_figures import late_velocity, square
from results_said_gd import at_rest, below, losers, louder, pairs
from results_said_predictions import loudness_over
from results_sentences import Recorded, Sentence, ends, kept, middle, rank, times
from results_tables import MIDDLE

from janus_pl.records.families import CONVERGED_ERROR, seed_of
from janus_pl.records.run import STEP, Run
from janus_pl.verify.claims import Claim
from janus_pl.verify.judge import Judged
from janus_pl.verify.lines import lines


def deciding(recorded: Recorded, name: str, claims: str = "scale") -> Judged:
    """What decides a claim of `scale.yaml`, or of another file."""
    (verdict,) = (v for v in recorded.verdicts(claims).verdicts if v.claim.name == name)
    return verdict.judged[0]


def factor(recorded: Recorded, name: str, claims: str = "scale") -> float:
    """What a claim estimates."""
    return deciding(recorded, name, claims).estimate


def seeds_of(recorded: Recorded, name: str, claims: str) -> int:
    """The seeds behind what a claim estimates."""
    return len(deciding(recorded, name, claims).effects)


def with_interval(recorded: Recorded, name: str, claims: str) -> list[float]:
    """What a claim estimates, and the ends of its interval."""
    found = deciding(recorded, name, claims)
    assert found.interval is not None
    return [found.estimate, *found.interval]


def open_of_new_seeds(recorded: Recorded) -> list[str]:
    """The primary claims on new seeds that are not decided."""
    primary = [v for v in recorded.verdicts("confirm").verdicts if v.claim.primary]
    return [v.claim.name for v in primary if str(v.answer) not in ("supported", "contradicted")]


def passes_one(recorded: Recorded, name: str) -> bool:
    _, low, high = with_interval(recorded, name, "confirm")
    return low < 1 < high


def windows(recorded: Recorded) -> list[float]:
    by_name = {v.claim.name: v.claim.window for v in recorded.verdicts("scale").verdicts}
    (early, late) = (by_name[name] for name in ("noise", "rank_late"))
    assert early and late
    return [*early, *late]


def answers(recorded: Recorded) -> Counter[str]:
    """How many primary claims of the paper have which answer."""
    found = recorded.verdicts()
    primary = {v.claim.name for v in found.verdicts if v.claim.primary}
    return Counter(line.answer for line in lines(found) if line.name in primary)


def whose_claims(recorded: Recorded) -> tuple[int, int]:
    """How many primary claims are the paper's, and how many ours."""
    sources = [v.claim.source for v in recorded.verdicts().verdicts if v.claim.primary]
    ours = sum(source == "not in the paper" for source in sources)
    return len(sources) - ours, ours


def theorems(recorded: Recorded) -> list[str]:
    """The answers to the theorems."""
    found = recorded.verdicts()
    claims = {v.claim.name for v in found.verdicts}
    return [line.answer for line in lines(found) if line.name not in claims]


def lost_where_held(recorded: Recorded) -> float:
    """The most that a mean of the middle ranks has lost where norms are held, in per cent."""
    return max(100 * (1 - middle(run) / first_middle(run)) for run in recorded.of("whose_held"))


def first_middle(run: Run) -> float:
    """The mean of the middle ranks in the first row."""
    return float(np.mean([run.first(f"effective_rank/{layer}") for layer in MIDDLE]))


def gd(recorded: Recorded) -> list[Run]:
    """GD at N = 10,000, by seed."""
    return recorded.of("scale_gd")


def twins(recorded: Recorded) -> list[Run]:
    """The SGD runs of the same seeds."""
    sgd = {seed_of(run): run for run in recorded.of("scale", lam=1e-3, dynamics="SGD")}
    return [sgd[seed_of(run)] for run in gd(recorded)]


def restless(recorded: Recorded) -> list[float]:
    """GD's ||V dot|| over the last fifth of the epochs, of SGD's with the same seed."""
    return times(gd(recorded), twins(recorded), late_velocity)


def bursts(recorded: Recorded) -> tuple[float, float]:
    """The least and the largest ||V dot|| of GD from epoch 130 on."""
    noise = [loudness_over(run).loc[130:] for run in gd(recorded)]
    return min(each.min() for each in noise), max(each.max() for each in noise)


def least_kept(recorded: Recorded) -> float:
    """The least that a middle layer keeps of its rank, in per cent, rounded down."""
    least = min(kept(layer)(run) for run in gd(recorded) for layer in MIDDLE)
    return math.floor(1000 * least) / 10


NUMBERS = ("no", "one", "two", "three", "four", "five")


def gd_seeds(recorded: Recorded) -> str:
    """How many seeds of GD there are, in a word."""
    return NUMBERS[len(gd(recorded))]


GD = [
    Sentence("**GD at equal epochs** (`scale_gd.yaml`), {} seeds.", lambda r: [gd_seeds(r)]),
    Sentence(
        "The middle ranks keep {:.1f}% of their start or more, and the training errors are {:.1%} "
        "to {:.1%}.",
        lambda r: (least_kept(r), *ends(error(run) for run in gd(r))),
    ),
    Sentence(
        "from epoch 130 on ‖V̇‖ is between {:.2f} and {:.0f}, and over the last fifth of the "
        "epochs it is {:.1f} to {:.1f} times SGD's of the same seed. SGD took {:.0f} times the "
        "steps",
        lambda r: (*bursts(r), *ends(restless(r)), twins(r)[0].last(STEP) / gd(r)[0].last(STEP)),
    ),
    Sentence(
        "GD does not rest in {:.0f} epochs, and its ‖V̇‖ is {:.1f} to {:.1f} times SGD's at equal "
        "epochs ({} seeds).",
        lambda r: (gd(r)[0].last("epoch"), *ends(restless(r)), gd_seeds(r)),
    ),
    Sentence(
        "Late in training GD's ‖V̇‖ is above SGD's in every seed.",
        so=lambda r: min(restless(r)) > 1,
    ),
    Sentence("and GD with lambda = 1e-3, {} seeds.", lambda r: [gd_seeds(r)]),
]
SENTENCES = [
    *GD,
    Sentence(
        "the theorem is met to rounding in every run",
        so=lambda r: set(theorems(r)) == {"holds"},
    ),
    Sentence(
        "At N = 10,000, B = 128 and lambda = 1e-3 ‖V̇‖ is {:.0f} times, the margins' spread "
        "sigma/mu {:.0f} times, and the geometric mean of the middle ranks {:.2f} of what they "
        "are without decay",
        lambda r: [factor(r, name) for name in ("noise", "spread", "rank")],
        lambda r: all(
            str(v.answer) == "supported" for v in r.verdicts("scale").verdicts if v.claim.primary
        ),
    ),
    Sentence("epochs {} to {}. Under the paper's cosine", lambda r: windows(r)[:2]),
    Sentence("The windows are epochs {} to {}, and {} to {} for the late ranks.", windows),
    Sentence(
        "the mean margin at lambda = 5e-3 is {:.0f} times, sigma/mu {:.1f} times and the geometric "
        "mean of the middle ranks {:.2f} of what they are without decay",
        lambda r: [factor(r, name, "confirm") for name in ("mean", "spread", "rank")],
        lambda r: all(
            str(v.answer) == "supported" and len(v.judged[0].effects) == 5
            for v in r.verdicts("confirm").verdicts
            if v.claim.name in ("mean", "spread", "rank")
        ),
    ),
    Sentence(
        "On 500 images under a cosine of {:,.0f} steps it does in {} of {} seeds, and its ‖V̇‖ is "
        "{:.0f} to {:.0f} times smaller there than SGD's at equal steps.",
        lambda r: [
            pairs(r, "cosine")[0][0].last(STEP),
            *(len(at_rest(r)), len(pairs(r, "cosine")[0]), *louder(r)),
        ],
    ),
    Sentence(
        "but GD takes one step where SGD takes {:.0f}. At equal steps, on 500 images, it lowers "
        "the ranks as well, and by more than SGD in {} of {} seeds at a constant rate and in {} of "
        "{} under a cosine",
        lambda r: [
            twins(r)[0].last(STEP) / gd(r)[0].last(STEP),
            *(
                value
                for schedule in ("constant", "cosine")
                for value in (below(r, schedule), len(pairs(r, schedule)[0]))
            ),
        ],
        lambda r: (
            min(rank("conv3")(run) for run in r.of("two_cores_fig2a"))
            > 0.99 * rank("conv3")(square(r))
        ),
    ),
    Sentence(
        "Where the norms of the v_k are held, and with them that rate, the mean of the middle "
        "ranks stays, but for {:.0f}% at most.",
        lambda r: [lost_where_held(r)],
    ),
    Sentence(
        "at lambda = 5e-3 ‖V̇‖ is {:.1f} times that without decay, in an interval from {:.1f} to "
        "{:.1f}. And with decay of rho alone, which is what Eq. 12 has, the middle ranks stay.",
        lambda r: with_interval(r, "velocity", "confirm"),
        lambda r: factor(r, "rho_rank", "confirm") > 0.99,
    ),
    Sentence(
        "Two of the {} claims on new seeds are open: on 2,000 images at a constant rate ranks are "
        "{:.2f} of those without decay, and the spread of GD at a rate of 0.05 is {:.1f} times, "
        "each in an interval that passes 1.",
        lambda r: [
            sum(v.claim.primary for v in r.verdicts("confirm").verdicts),
            *(factor(r, name, "confirm") for name in ("rank_constant", "gd_spread")),
        ],
        lambda r: (
            open_of_new_seeds(r) == ["rank_constant", "gd_spread"]
            and all(passes_one(r, name) for name in open_of_new_seeds(r))
        ),
    ),
    Sentence(
        "Where it grows, by decay or by a schedule without decay of the v_k, the geometric mean "
        "of the middle ranks is {:.2f} and {:.2f} of its start, [over {} and {} seeds]",
        lambda r: (
            *(factor(r, name, "whose") for name in ("decay", "growing")),
            *(seeds_of(r, name, "whose") for name in ("decay", "growing")),
        ),
    ),
    Sentence(
        "Of the {} claims in the table, {} of the paper and {} of ours, {} are decided, and {} "
        "need more seeds. `low_rank_steps` is not testable: its runs do not look often enough.",
        lambda r: (
            sum(answers(r).values()),
            *whose_claims(r),
            answers(r)["supported"] + answers(r)["contradicted"],
            answers(r)["undecided"],
        ),
        lambda r: answers(r)["not testable"] == 1,
    ),
]


def at_equal_steps(recorded: Recorded) -> float:
    """The steps that SGD and GD of N = 10,000 have in common."""
    return max(run.last(STEP) for run in gd(recorded))


def before_ranks_fall(recorded: Recorded) -> bool:
    """Whether SGD's first looks at its ranks, up to epoch 20, find those of the start."""
    sgd = [run.rows.set_index("epoch").loc[:20] for run in twins(recorded)]
    return all(
        rows[f"effective_rank/{layer}"].dropna().min() > 0.99 * rows[f"effective_rank/{layer}"][0]
        for rows in sgd
        for layer in MIDDLE
    )


def bound_of(recorded: Recorded, name: str) -> dict[str, float]:
    """The bound of a claim of `paper.yaml`."""
    (claim,) = (v.claim for v in recorded.verdicts().verdicts if v.claim.name == name)
    return dict(claim.bound)


def of_spread(recorded: Recorded) -> list[int]:
    """The seeds that would decide `spread`, and how many settings fit it."""
    (verdict,) = (v for v in recorded.verdicts().verdicts if v.claim.name == "spread")
    return [int(verdict.judged[0].seeds_needed or 0), len(verdict.judged)]


def of_gd_at_scale(recorded: Recorded) -> Claim:
    (claim,) = (v.claim for v in recorded.verdicts("scale").verdicts if v.claim.name == "noise_gd")
    return claim


SENTENCES += [
    Sentence(
        '"{} needed": so many seeds would decide, if mean and deviation stay. "In 1 of {} '
        'settings": seven fit the claim, and one of them decides.',
        of_spread,
        lambda r: of_spread(r)[1] == 7,
    ),
    Sentence("Converged GD has a training error below {:.0%}.", lambda r: [CONVERGED_ERROR]),
    Sentence(
        "`noise` is contradicted here (SGD's velocity above {} times GD's), and `low_rank` is "
        "supported (SGD's ranks below {} of GD's;",
        lambda r: [bound_of(r, "noise")["above"], bound_of(r, "low_rank")["below"]],
    ),
    Sentence(
        "the row of velocities at equal steps compares the last fifth of {:.0f} steps, the first "
        "six epochs of SGD, before its ranks fall.",
        lambda r: [at_equal_steps(r)],
        lambda r: (
            6 <= at_equal_steps(r) / twins(r)[0].steps_per_epoch < 6.5 and before_ranks_fall(r)
        ),
    ),
]
README = [
    Sentence(
        "GD's ranks fall, too ({} of {} networks, 500 images), and under a cosine it comes to "
        "rest, with far less noise than SGD ({} of {}).",
        lambda r: [*losers(r), len(at_rest(r)), len(pairs(r, "cosine")[0])],
        lambda r: louder(r)[0] > 10,
    ),
    Sentence(
        "In the same epochs the velocity is {:.1f} times that of full-batch GD at equal epochs, in "
        "an interval from {:.1f} to {:.1f}; a secondary claim has it above {}.",
        lambda r: [*with_interval(r, "noise_gd", "scale"), *of_gd_at_scale(r).bound.values()],
        lambda r: windows(r)[:2] == [160, 320] and not of_gd_at_scale(r).primary,
    ),
]
