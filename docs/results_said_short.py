"""The sentences that stand first: what holds in short; and windows of claims."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import results_said_dose
from results_said_deep import FIG1, TRAINED, error, mu
from results_said_figures import at_rest, late_velocity, square
from results_said_predictions import below_sgd, loudness_over
from results_sentences import Recorded, Sentence, ends, gmean, kept, middle, rank, times
from results_tables import MIDDLE, relative_spread, velocity

from janus_pl.records.families import lambda_of, seed_of
from janus_pl.records.run import STEP, Run
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


def dose_rank(recorded: Recorded, lam: float) -> float:
    """The ranks of `dose.yaml` at a lambda."""
    return gmean(results_said_dose.at(recorded, lam=lam), results_said_dose.rank)


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


def steps(recorded: Recorded, *sweeps: str) -> float:
    """The steps of the longest SGD run."""
    return max(run.last(STEP) for run in recorded.of(*sweeps, dynamics="SGD"))


def in_order(recorded: Recorded, what) -> bool:
    """Whether it grows with lambda without a fall, at the end of a cosine."""
    return bool(np.all(np.diff([gmean(recorded.of(*FIG1, lam=lam), what) for lam in TRAINED]) > 0))


def ranks_fall_with_time(recorded: Recorded) -> bool:
    """Whether middle ranks have lost a tenth at 2e-3 and 5e-3, at 1e-3 in the longer runs alone."""

    def left(runs: list[Run], without: list[Run]) -> float:
        return gmean(runs, middle) / gmean(without, middle)

    short = {lam: left(recorded.of(*FIG1, lam=lam), recorded.of(*FIG1, lam=0)) for lam in TRAINED}
    long = (recorded.of("small", lam=lam, dynamics="SGD") for lam in (1e-3, 0))
    fallen = {lam for lam, rest in short.items() if rest < 0.9}
    return fallen == {2e-3, 5e-3} and left(*long) < 0.9


def first_layer_alone(recorded: Recorded) -> bool:
    """Whether decay on rho moves the rank of conv1 by a sixth, and the middle ones by nothing."""
    runs = sorted(recorded.of("two_cores_rho"), key=lambda_of)
    change = {k: rank(k)(runs[-1]) / rank(k)(runs[0]) for k in ("conv1", "conv3", "conv4", "fc1")}
    return abs(change.pop("conv1") - 5 / 6) < 0.02 and min(change.values()) > 0.99


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
        "The theorem is met to rounding in every run",
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
    Sentence("epochs {} to {}; the claims were", lambda r: windows(r)[:2]),
    Sentence("The windows are epochs {} to {}, and {} to {} for the late ranks.", windows),
    Sentence(
        "Mean margins grow with lambda, and ranks fall where decay has had time to act: at lambda "
        "of 2e-3 and 5e-3 in {:,.0f} steps, at 1e-3 in {:,.0f}.",
        lambda r: (steps(r, *FIG1), steps(r, "small")),
        lambda r: (
            ranks_fall_with_time(r)
            and gmean(r.of(*FIG1, lam=5e-3), mu) > 10 * gmean(r.of(*FIG1, lam=0), mu)
        ),
    ),
    Sentence(
        "But sigma/mu and ‖V̇‖ at the end do not grow with lambda in order.",
        so=lambda r: not in_order(r, relative_spread) and not in_order(r, velocity),
    ),
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
        "On 500 images under a cosine of {:,.0f} steps it does, and its ‖V̇‖ is {:.0f} to {:.0f} "
        "times smaller than SGD's at equal steps (one seed).",
        lambda r: (at_rest(r, "GD", 0).last(STEP), *below_sgd(r, velocity)),
        lambda r: all(len(r.of("two_cores_equal_steps", lam=lam)) == 1 for lam in (0, 5e-3)),
    ),
    Sentence(
        "but GD takes one step where SGD takes {:.0f}. At equal steps, on 500 images, it lowers "
        "the ranks as well, and by more than SGD (one seed).",
        lambda r: [twins(r)[0].last(STEP) / gd(r)[0].last(STEP)],
        lambda r: (
            min(rank("conv3")(run) for run in r.of("two_cores_fig2a"))
            > 0.99 * rank("conv3")(square(r))
            and middle(at_rest(r, "GD", 5e-3)) < middle(at_rest(r, "SGD", 5e-3))
            and len(r.of("two_cores_equal_steps", lam=5e-3)) == 1
        ),
    ),
    Sentence(
        "With decay on rho alone, which is what Eq. 12 has, margins, sigma/mu and ‖V̇‖ grow with "
        "lambda, and of the ranks that of the first layer falls by a sixth and the middle ones "
        "stay (one seed).",
        so=first_layer_alone,
    ),
    Sentence(
        "Where the norms of the v_k are held, and with them the effective rate eta/‖v_k‖², the "
        "mean of the middle ranks stays, but for {:.0f}% at most; that of conv1 does not.",
        lambda r: [lost_where_held(r)],
        lambda r: all(kept("conv1")(run) < 0.75 for run in r.of("whose_held")),
    ),
    Sentence(
        "In epochs 160 to 320, those of the factor of 24, SGD's ‖V̇‖ is {:.1f} times GD's, in an "
        "interval from {:.1f} to {:.1f}.",
        lambda r: with_interval(r, "noise_gd", "scale"),
        lambda r: windows(r)[:2] == [160, 320] and round(factor(r, "noise")) == 24,
    ),
    Sentence(
        "‖V̇‖ is {:.1f} times, in an interval from {:.1f} to {:.1f}. Two of the {} claims on new "
        "seeds are open: on 2,000 images at a constant rate ranks are {:.2f} of those without "
        "decay, and the spread of GD at a rate of 0.05 is {:.1f} times, each in an interval that "
        "passes 1.",
        lambda r: [
            *with_interval(r, "velocity", "confirm"),
            sum(v.claim.primary for v in r.verdicts("confirm").verdicts),
            *(factor(r, name, "confirm") for name in ("rank_constant", "gd_spread")),
        ],
        lambda r: (
            open_of_new_seeds(r) == ["rank_constant", "gd_spread"]
            and all(passes_one(r, name) for name in open_of_new_seeds(r))
        ),
    ),
    Sentence(
        "Where that rate grows, by decay or by a schedule without decay of the v_k, the geometric "
        "mean of the middle ranks is {:.2f} and {:.2f} of its start, [over {} and {} seeds]",
        lambda r: (
            *(factor(r, name, "whose") for name in ("decay", "growing")),
            *(seeds_of(r, name, "whose") for name in ("decay", "growing")),
        ),
    ),
    Sentence(
        "Without decay its margins spread {:.0f} times as much as under the square loss, and its "
        "‖V̇‖ is {:.2f} of it, [in five new seeds]",
        lambda r: [
            factor(r, name, "confirm") for name in ("cross_entropy", "cross_entropy_velocity")
        ],
        lambda r: seeds_of(r, "cross_entropy", "confirm") == 5,
    ),
    Sentence(
        "sigma/mu is lambda^{:.2f} and ‖V̇‖ lambda^{:.2f}, and the middle ranks stay, from 1e-6 to "
        "1e-2, the two lambdas that were run.",
        lambda r: [factor(r, name, "confirm") for name in ("rho_spread", "rho_velocity")],
        lambda r: (
            factor(r, "rho_rank", "confirm") > 0.99
            and seeds_of(r, "rho_spread", "confirm") == 5
            and {lambda_of(run) for run in r.of("confirm_rho")} == {1e-6, 1e-2}
        ),
    ),
    Sentence(
        "On 500 images ranks are eta^{:.2f} at equal eta t and lambda^{:.2f}, [over five seeds]",
        lambda r: [factor(r, name, "dose") for name in ("rate", "decay")],
        lambda r: {seeds_of(r, name, "dose") for name in ("rate", "decay")} == {5},
    ),
    Sentence(
        "the ranks stay up to lambda = 2e-3 and then fall.",
        so=lambda r: dose_rank(r, 2e-3) > 0.99 * dose_rank(r, 5e-4) > 1.1 * dose_rank(r, 5e-3),
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
README = [
    Sentence(
        "In the same epochs the velocity is {:.1f} times that of full-batch GD at equal epochs, in "
        "an interval from {:.1f} to {:.1f}.",
        lambda r: with_interval(r, "noise_gd", "scale"),
        lambda r: windows(r)[:2] == [160, 320],
    ),
]
