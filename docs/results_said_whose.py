"""What is said of whose the low rank is; see results_sentences."""

from __future__ import annotations

from functools import partial

import numpy as np
from results_judged import judged
from results_sentences import Recorded, Sentence, kept, mean, times
from results_tables import MIDDLE, WHOSE, arms, of_sweeps, rate_growth

from janus_pl.records.effects import ratio
from janus_pl.records.families import is_zero_function
from janus_pl.records.run import Run
from janus_pl.verify.decide import interval


def whose(recorded: Recorded) -> tuple[dict[str, list[Run]], dict[str, list[Run]]]:
    """The arms whose norms are held, and the others; without the networks that are f = 0."""
    held: dict[str, list[Run]] = {}
    free: dict[str, list[Run]] = {}
    for arm, runs in arms(of_sweeps(recorded.runs, *WHOSE)).items():
        left = [run for run in runs if not is_zero_function(run)]
        (held if arm.kind == "held" else free)[arm.words] = left
    return held, free


def held_keep(recorded: Recorded) -> bool:
    """Whether ranks stay where norms are held, and rho decays."""
    held, _ = whose(recorded)
    stay = all(mean(runs, kept(layer)) > 0.95 for layer in MIDDLE for runs in held.values())
    every = [run for runs in held.values() for run in runs]
    same = np.allclose([rate_growth(run) for run in every], 1)
    return (
        len(held) == 3
        and stay
        and same
        and all(run.last("rho") < run.first("rho") for run in every)
    )


def first_layer_lost(recorded: Recorded) -> list[float]:
    """The least and the most that conv1 loses of its rank where norms are held, in per cent."""
    held, _ = whose(recorded)
    lost = [100 * (1 - kept("conv1")(run)) for runs in held.values() for run in runs]
    return [min(lost), max(lost)]


def free_lose(recorded: Recorded) -> bool:
    """Whether ranks fall and the effective rate grows in each of the other arms."""
    _, free = whose(recorded)
    fell = all(mean(runs, kept(layer)) < 0.9 for layer in MIDDLE for runs in free.values())
    grown = [ratio("", [rate_growth(run) for run in runs]).low for runs in free.values()]
    return len(free) == 4 and fell and all(low is not None and low > 1 for low in grown)


def plain_arms(recorded: Recorded) -> tuple[list[Run], list[Run]]:
    """The networks without normalization, slow and fast."""
    _, free = whose(recorded)
    return free["none, rate 0.01"], free["none, rate 0.03"]


def slow_grows_more(recorded: Recorded) -> bool:
    """Whether the effective rate grows more at a third of the rate, in every seed."""
    slow, fast = plain_arms(recorded)
    third = times(slow, fast, partial(Run.last, key="learning_rate"))
    return np.allclose(third, 1 / 3) and min(times(slow, fast, rate_growth)) > 1


def slow_of_fast(recorded: Recorded) -> float:
    """The effective rate of the slow arm at the end, of the fast arm's with the same seed."""
    slow, fast = plain_arms(recorded)
    return float(np.mean(times(slow, fast, rate_growth))) / 3


def slow_is_not_small(recorded: Recorded) -> bool:
    """Whether the slow arm's effective rate ends above that of every held one."""
    held, _ = whose(recorded)

    def rate(run: Run) -> float:
        return float(np.mean([run.last(f"effective_rate/{layer}") for layer in MIDDLE]))

    highest = max(rate(run) for runs in held.values() for run in runs)
    return min(rate(run) for run in plain_arms(recorded)[0]) > highest


def grown(recorded: Recorded) -> list[Run]:
    """The weight-normalized networks whose effective rate may grow."""
    found = arms(of_sweeps(recorded.runs, *WHOSE)).items()
    return [run for arm, runs in found for run in runs if arm.kind == "weight_norm"]


def left_out(recorded: Recorded) -> tuple[int, int]:
    """How many of these the claims leave out, and of how many."""
    collapsed = recorded.verdicts("whose").collapsed
    apart = {run.id for runs in collapsed.values() for run in runs}
    return sum(run.id in apart for run in grown(recorded)), len(grown(recorded))


def at_zero(recorded: Recorded) -> int:
    """How many end with a loss of about 1, that of f = 0, or above it."""
    return sum(run.last("train/loss") > 0.99 for run in grown(recorded))


def answers(recorded: Recorded) -> set[str]:
    """What is answered of both faces of the effective rate, grown and held."""
    names = ("decay", "growing", "held_1", "held_07")
    found = recorded.verdicts("whose").verdicts
    return {str(verdict.answer) for verdict in found if verdict.claim.name in names}


def by_seed(recorded: Recorded) -> list[float]:
    """What networks keep with decay of all, and without how many of them the claim is open."""
    (verdict,) = (v for v in recorded.verdicts("whose").verdicts if v.claim.name == "decay")
    first, bound = verdict.judged[0], verdict.claim.region.high
    lowest, second, *others = sorted(first.effects)
    logs = np.log(first.effects)
    tops = [interval(np.delete(logs, k), first.level)[1] for k in range(len(logs))]
    hang = sum(top >= bound for top in tops)
    return [len(others), len(logs), others[0], others[-1], lowest, second, hang]


def held_spikes(recorded: Recorded) -> bool:
    """Whether a network with norms held at 1 or 0.7 has a spike."""
    held, _ = whose(recorded)
    arms_of = ("norms held at 1", "norms held at 0.7")
    return any(run.last("event/count") > 0 for words in arms_of for run in held[words])


def of_first_seeds(recorded: Recorded) -> bool:
    """Whether the first eight seeds leave both growing arms open, and the others came later."""
    arms_of = {"whose_decay": 16, "whose_held": 8, "whose_plain": 8, "whose_plain_slow": 8}
    seeds = {sweep: {run.description.seed for run in recorded.of(sweep)} for sweep in arms_of}
    first = [run for run in recorded.of(*WHOSE) if int(run.description.seed or 0) < 8]
    early = judged(first, "whose").verdicts
    open_then = {str(v.answer) for v in early if v.claim.name in ("decay", "growing")}
    counts = all(seeds[sweep] == {*range(count)} for sweep, count in arms_of.items())
    return counts and open_then <= {"undecided", "not testable"}


def smooth(run: Run) -> bool:
    """Whether more rank is lost between spikes than in them."""
    within, between = (
        np.nansum([run.last(f"event/rank_{where}/{layer}") for layer in MIDDLE])
        for where in ("within", "between")
    )
    return bool(between > within)


def in_spikes(recorded: Recorded) -> list[int]:
    """In how many networks of the three other arms more is lost in spikes, and of how many."""
    _, free = whose(recorded)
    runs = [run for words, some in free.items() if words != "none, rate 0.01" for run in some]
    return [sum(not smooth(run) for run in runs), len(runs)]


SENTENCES = [
    Sentence(
        "the ranks of conv3, conv4 and fc1 stay within a few percent, though rho decays; conv1 "
        "loses {:.0f} to {:.0f}%.",
        lambda r: first_layer_lost(r),
        held_keep,
    ),
    Sentence(
        "In the four other arms ranks fall, and in all four the effective rate has grown",
        so=free_lose,
    ),
    Sentence(
        "At a third of the rate it grows by more, and ends at about half of the other's.",
        so=lambda r: slow_grows_more(r) and 0.4 < slow_of_fast(r) < 0.6,
    ),
    Sentence(
        "{} of {} end with a loss of 0.99 or more, no better than f = 0; the claims leave those "
        "out.",
        left_out,
        lambda r: left_out(r)[0] == at_zero(r),
    ),
    Sentence(
        "Eight seeds were planned, and left the first two arms open; seeds 8 to 15 of these two "
        "were added then, and the level of 5% does not cover seeds that are added after a look.",
        so=of_first_seeds,
    ),
    Sentence(
        "With decay of all v_k {} of {} networks keep {:.2f} to {:.2f} of their ranks, and two "
        "{:.2f} and {:.2f}; the interval ends just inside its bound, and without any one of {} of "
        "them it does not.",
        by_seed,
    ),
    Sentence(
        "Ranks of conv3 to fc1 fall in both arms and are kept where norms are held. The claims "
        "file reads such a result as the growing rate's doing, or that of the spikes that it "
        "brings. The held arms at 1 and 0.7 have none, so the two are not told apart.",
        so=lambda r: answers(r) == {"supported"} and not held_spikes(r),
    ),
    Sentence(
        "its slow arm cannot: without normalization a smaller rate does not keep the effective "
        "rate small.",
        so=slow_is_not_small,
    ),
    Sentence(
        "And in every seed of the slow arm more rank is lost between spikes than in them; in the "
        "three other arms it is so in {} networks of {}, without those that are f = 0.",
        lambda r: [in_spikes(r)[1] - in_spikes(r)[0], in_spikes(r)[1]],
        lambda r: all(smooth(run) for run in plain_arms(r)[0]),
    ),
]
