"""The sentences on the predictions, and what surprised; see results_sentences."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from results_said_confirm import by_loss
from results_said_confirm import decayed as in_new_seeds
from results_said_deep import FIG1, TRAINED, emptied, error, growth, middles, rho
from results_said_figures import at_end, at_rest, entropy, quick, square
from results_sentences import Recorded, Sentence, each, gmean, mean, middle, over, rank
from results_tables import MIDDLE, relative_spread, velocity
from scipy.stats import kendalltau

from janus_pl.records.families import lambda_of
from janus_pl.records.run import Run

CONSTANT = ("two_cores_constant", "two_cores_constant_seeds")


def constant(recorded: Recorded, lam: float) -> list[Run]:
    return recorded.of(*CONSTANT, lam=lam)


def off(run: Run) -> float:
    """|mu - (M + lambda) rho| of mu, in the last row; both in the units of the learned rho."""
    unit = run.last("rho") / abs(run.last("rho_learned"))
    return abs(run.last("equilibrium/residual") / (run.last("margin/mean") * unit))


def at_rest_under_a_cosine(recorded: Recorded) -> list[Run]:
    runs = recorded.of(*FIG1, "two_cores_rho", "two_cores_lagrange")
    return [run for run in runs if error(run) == 0]


def moving(recorded: Recorded) -> list[Run]:
    """At a constant rate with decay, but for the network that is f = 0; the farthest off last."""
    return sorted((run for lam in (1e-3, 2e-3) for run in constant(recorded, lam)), key=off)


def kendalls(runs: list[Run]) -> list[float]:
    """Kendall's tau of effective rank and ||V_k dot|| over the layers of each run, in order."""
    found = []
    for run in runs:
        layers = run.layers("velocity")
        ranks = [rank(layer)(run) for layer in layers]
        noise = [run.last(f"velocity/{layer}") for layer in layers]
        found.append(kendalltau(ranks, noise).statistic)
    return sorted(found)


def over_lambdas(recorded: Recorded) -> list[float]:
    """The same over the lambdas of Figure 1, by layer, in order."""
    layers = recorded.of(*FIG1)[0].layers("velocity")
    return sorted(
        kendalltau(
            [mean(recorded.of(*FIG1, lam=lam), rank(k)) for lam in TRAINED],
            [at_end(recorded, lam, k) for lam in TRAINED],
        ).statistic
        for k in layers
    )


def lowest_is_not_quietest(recorded: Recorded) -> bool:
    ranks = {lam: mean(recorded.of(*FIG1, lam=lam), middle) for lam in TRAINED}
    noise = {lam: gmean(recorded.of(*FIG1, lam=lam), velocity) for lam in TRAINED}
    return min(ranks, key=ranks.__getitem__) != min(noise, key=noise.__getitem__)


def below_sgd(recorded: Recorded, what: Callable[[Run], float]) -> list[float]:
    """SGD's at equal steps of GD's, at lambda 0 and 5e-3, in order."""
    ratios = (
        what(at_rest(recorded, "SGD", lam)) / what(at_rest(recorded, "GD", lam))
        for lam in (0, 5e-3)
    )
    return sorted(ratios)


def grown(runs: list[Run]) -> float:
    """||V dot|| at the largest lambda over that at the smallest."""
    return velocity(max(runs, key=lambda_of)) / velocity(min(runs, key=lambda_of))


def grows_with_rho_decay(recorded: Recorded) -> bool:
    runs = sorted(recorded.of("two_cores_rho"), key=lambda_of)
    return relative_spread(runs[-1]) > 5 * relative_spread(runs[0])


def of_cross_entropy(recorded: Recorded) -> list[float]:
    """At lambda = 0 its spread over the square loss's, and the square loss's ||V dot|| over its."""
    one, other = entropy(recorded, 0), square(recorded)
    return [relative_spread(one) / relative_spread(other), velocity(other) / velocity(one)]


PREDICTIONS = [
    Sentence(
        "sigma/mu does not grow in order at the end of a cosine with decay on all",
        so=lambda r: (
            gmean(constant(r, 1e-3), relative_spread) > 100 * gmean(constant(r, 0), relative_spread)
            and grows_with_rho_decay(r)
            and sum(np.diff([gmean(r.of(*FIG1, lam=lam), relative_spread) for lam in TRAINED]) < 0)
            > 1
        ),
    ),
    Sentence(
        "mu = (M + lambda) rho to {:.2f}% of mu in every SGD run of 2,000 images that a cosine has "
        "brought to rest",
        lambda r: [100 * max(each(at_rest_under_a_cosine(r), off))],
    ),
    Sentence(
        "one last row is inside a wave (training error {:.0%}) and off by {:.0%}; the others are "
        "off by {:.1%} at most.",
        lambda r: (error(moving(r)[-1]), off(moving(r)[-1]), off(moving(r)[-2])),
    ),
    Sentence(
        "no effect of lambda on GD's spread is seen ({:.2f}-fold at 1e-3); in the other two "
        "settings it grows with lambda {:.0f}-fold and {:.0f}-fold, in one seed each.",
        lambda r: (
            growth(r, "GD"),
            relative_spread(quick(r, 1e-3)) / relative_spread(quick(r, 0)),
            relative_spread(at_rest(r, "GD", 5e-3)) / relative_spread(at_rest(r, "GD", 0)),
        ),
    ),
    Sentence(
        "In [five new seeds](confirm.md) the first of these is {:.1f} to {:.0f} times",
        lambda r: in_new_seeds(r, "confirm_gd", 1e-3, relative_spread),
        lambda r: len(r.of("confirm_gd", lam=1e-3)) == 5,
    ),
    Sentence(
        "where a cosine takes it to rest (500 images, one seed), ‖V̇‖ is {:.0f} to {:.0f} times "
        "below SGD's at equal steps and the spread {:.1f} to {:.1f} times.",
        lambda r: (*below_sgd(r, velocity), *below_sgd(r, relative_spread)),
    ),
    Sentence(
        "‖V̇‖ at lambda = 1e-3 is {:.0f} times that at 0 (three seeds), with decay on rho alone "
        "that at the largest lambda {:.1f} times that at the least, and with multipliers {:.2f} "
        "times (one seed each)",
        lambda r: [
            gmean(constant(r, 1e-3), velocity) / gmean(constant(r, 0), velocity),
            *(grown(r.of(sweep)) for sweep in ("two_cores_rho", "two_cores_lagrange")),
        ],
        lambda r: all(
            velocity(max(runs, key=lambda_of)) > 1.1 * velocity(min(runs, key=lambda_of))
            for runs in (r.of("two_cores_rho"), r.of("two_cores_lagrange"))
        ),
    ),
    Sentence(
        "that was trained Kendall's tau is {:.2f} to {:.2f}, "
        "at lambda = 0 {:.1f}, and under GD {:.2f}: it is that of the layers' widths.",
        lambda r: (
            kendalls([run for lam in TRAINED for run in r.of(*FIG1, lam=lam)])[0],
            kendalls([run for lam in TRAINED for run in r.of(*FIG1, lam=lam)])[-1],
            kendalls(r.of(*FIG1, lam=0))[0],
            kendalls(r.of("two_cores_fig2a"))[0],
        ),
        lambda r: all(
            kendalls(runs)[0] == kendalls(runs)[-1]
            for runs in (r.of(*FIG1, lam=0), r.of("two_cores_fig2a"))
        ),
    ),
    Sentence(
        "Over the nine lambdas it is {:.2f} to {:.2f} by layer, and the runs with the lowest ranks "
        "do not have the lowest ‖V̇_k‖.",
        lambda r: (over_lambdas(r)[0], over_lambdas(r)[-1]),
        lowest_is_not_quietest,
    ),
    Sentence(
        "At lambda = 0 the margins spread {:.0f} times as much as under the square loss; ‖V̇‖ is "
        "smaller, 1/{:.1f} of it",
        lambda r: of_cross_entropy(r),
        lambda r: (
            relative_spread(entropy(r, 0)) > 100 * relative_spread(square(r))
            and velocity(entropy(r, 0)) < velocity(square(r))
        ),
    ),
]

PREDICTIONS.append(
    Sentence(
        "In [five new seeds](confirm.md) the first is {:.0f} to {:.0f} times, and ‖V̇‖ {:.2f} to "
        "{:.2f} times.",
        lambda r: [end for of in (relative_spread, velocity) for end in by_loss(r, of)],
        lambda r: len(r.of("confirm_cross_entropy", lam=0)) == 5,
    )
)

# What surprised


def steps_of(run: Run) -> list[float]:
    """How much the mean of the middle ranks falls from look to look."""
    return [-fall for fall in np.diff(middles(run))]


def pauses(run: Run) -> int:
    """The looks at which it stands still, between its first fall of half a rank and its last."""
    falls = steps_of(run)
    real = [place for place, fall in enumerate(falls) if fall > 0.5]
    return sum(abs(falls[place]) < 0.1 for place in range(real[0], real[-1]))


LOW = 0.05  # the running loss above which one that was below it is in a spike


def lost_before_low(run: Run) -> float:
    """The share of the middle ranks' loss that comes before the running loss is first low."""
    losses, ranks = over(run, "train/loss_running"), middles(run)
    first = losses.index[losses < LOW][0]
    return float((ranks.iloc[0] - ranks[:first].iloc[-1]) / (ranks.iloc[0] - ranks.iloc[-1]))


def loud(run: Run) -> list[bool]:
    """Whether ||V dot|| is above 1 in an epoch from one look to the next."""
    noise, looks = loudness_over(run), middles(run).index
    return [noise.loc[start:end].max() > 1 for start, end in pairwise(looks)]


def in_spikes(run: Run) -> float:
    """The share of that fall between looks with such an epoch, in per cent."""
    falls = np.maximum(steps_of(run), 0)
    return float(100 * falls[loud(run)].sum() / falls.sum())


def loud_looks(run: Run) -> float:
    """The share of the looks that have such an epoch before them, in per cent."""
    return float(100 * np.mean(loud(run)))


def loudness_over(run: Run):
    """The geometric mean of ||V_k dot|| over layers, over the epochs."""
    columns = [np.log(over(run, f"velocity/{k}")) for k in run.layers("velocity")]
    return np.exp(sum(columns) / len(columns))


def falls_with_lambda(recorded: Recorded, what: Callable[[Run], float]) -> bool:
    """Whether it falls with lambda up to 1e-3, within a per cent."""
    found = [gmean(recorded.of(*FIG1, lam=lam), what) for lam in TRAINED if lam <= 1e-3]
    return all(after < 1.01 * before for before, after in pairwise(found))


def waves(recorded: Recorded) -> list[tuple[float, float]]:
    """The least and the largest ||V dot|| after epoch 50 of each seed at a constant rate."""
    found = [loudness_over(run).loc[50:] for run in constant(recorded, 1e-3)]
    return [(noise.min(), noise.max()) for noise in found]


SURPRISED = [
    Sentence(
        "At lambda = 1e-2 on all parameters the network is emptied",
        so=lambda r: max(rank(k)(emptied(r)) for k in MIDDLE) < 3,
    ),
    Sentence(
        "In steps at 2e-3; at 5e-3 mostly before the loss is below {} for the first time.",
        lambda r: [LOW],
        lambda r: lost_before_low(r.of("two_cores_fig1", lam=5e-3)[0]) > 0.5,
    ),
    Sentence(
        "At lambda = 2e-3 ranks fall in steps: at least {:.0f}% of the fall comes between looks "
        "with a ‖V̇‖ above 1, which are at most {:.0f}% of all looks; at 5e-3, where spikes "
        "follow each other, they stand still for fewer looks.",
        lambda r: (
            np.floor(min(each(r.of(*FIG1, lam=2e-3), in_spikes))),
            max(each(r.of(*FIG1, lam=2e-3), loud_looks)),
        ),
        lambda r: mean(r.of(*FIG1, lam=2e-3), pauses) > mean(r.of(*FIG1, lam=5e-3), pauses),
    ),
    Sentence(
        "At the end of a cosine ‖V̇‖ falls with lambda up to 1e-3. rho, to which ‖V̇_k‖ is "
        "proportional, falls with lambda; but so it does with",
        so=lambda r: (
            falls_with_lambda(r, velocity)
            and falls_with_lambda(r, rho)
            and grown(r.of("two_cores_rho")) > 2
            and rho(max(r.of("two_cores_rho"), key=lambda_of))
            < 0.5 * rho(min(r.of("two_cores_rho"), key=lambda_of))
        ),
    ),
    Sentence(
        "after epoch 50 ‖V̇‖ falls to {:.2f} or less and rises to {:.0f} or more in each seed, and "
        "at least {:.0f}% of the fall of the middle ranks comes between looks with a ‖V̇‖ above 1; "
        "these are at most {:.0f}% of all looks.",
        lambda r: (
            max(least for least, _ in waves(r)),
            np.floor(min(largest for _, largest in waves(r))),
            np.floor(min(each(constant(r, 1e-3), in_spikes))),
            max(each(constant(r, 1e-3), loud_looks)),
        ),
    ),
    Sentence(
        "At lambda = 0 the margins spread {:.0f} times as much as under the square loss, while "
        "the weights move {:.1f} times less (one seed); and the network survives a lambda that "
        "empties it under the square loss.",
        lambda r: of_cross_entropy(r),
        lambda r: (
            min(relative_spread(entropy(r, lam)) for lam in TRAINED if lam <= 2e-3)
            > 100 * max(relative_spread(square(r, lam)) for lam in TRAINED if lam <= 1e-3)
            and velocity(entropy(r, 0)) < velocity(square(r))
            and error(entropy(r, 1e-2)) == 0
            and error(emptied(r)) > 0.5
        ),
    ),
]

SENTENCES = [*PREDICTIONS, *SURPRISED]
