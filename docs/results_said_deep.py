"""The sentences of the pages of results up to Figure 1, and on whether runs have settled."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
from results_sentences import (
    Recorded,
    Sentence,
    each,
    gmean,
    kept,
    mean,
    middle,
    over,
    power,
    times,
)
from results_tables import MIDDLE, _fifths, relative_spread, velocity

from janus_pl.records.families import is_zero_function
from janus_pl.records.late import geometric_mean
from janus_pl.records.run import STEP, Run

FIG1 = ("two_cores_fig1", "two_cores_seeds")
TRAINED = (0, 1e-6, 1e-5, 5e-5, 1e-4, 5e-4, 1e-3, 2e-3, 5e-3)  # lambdas of Figure 1
EQUAL = ("two_cores_equal_steps_sgd", "two_cores_equal_steps")
error, loss = (partial(Run.last, key=f"train/{key}") for key in ("error", "loss"))
mu, rho = (partial(Run.last, key=key) for key in ("margin/mean", "rho"))


def middles(run: Run) -> pd.Series:
    """The mean effective rank of conv3, conv4 and fc1 over the epochs."""
    return sum(over(run, f"effective_rank/{layer}") for layer in MIDDLE) / len(MIDDLE)


def spreads(run: Run) -> pd.Series:
    """std/|mean| of the margins over the epochs."""
    return over(run, "margin/std") / over(run, "margin/mean").abs()


def velocity_at(run: Run, clock: str, value: float) -> float:
    """The geometric mean of ||V_k dot|| over layers, in the row that is nearest on a clock."""
    layers = run.layers("velocity")
    rows = run.rows[[clock, *(f"velocity/{layer}" for layer in layers)]].dropna()
    row = rows.loc[(rows[clock] - value).abs().idxmin()]
    return geometric_mean([row[f"velocity/{layer}"] for layer in layers])


def falls(runs: list[Run], form: str = "{:.0f}") -> list[float]:
    """By how many per cent the ranks of conv3, conv4 and fc1 have fallen, mean over seeds."""
    return [100 * (1 - mean(runs, kept(layer))) for layer in MIDDLE]


# At N = 10,000


def scale(recorded: Recorded, lam: float) -> list[Run]:
    return recorded.of("scale", lam=lam, dynamics="SGD")


def come_apart(recorded: Recorded) -> Run:
    """The fourth seed of the smaller lambda."""
    return scale(recorded, 3e-4)[3]


def spike(run: Run) -> int:
    """The epoch after which the learned rho has grown the most."""
    return int(over(run, "rho").pct_change().idxmax())


def at(run: Run, key: str, epoch: int) -> float:
    return float(over(run, key).loc[epoch])


def faces_at_scale(recorded: Recorded) -> bool:
    """Velocity, spread and rank of each seed with decay are beyond all of those without."""
    without, decayed = scale(recorded, 0), scale(recorded, 1e-3)
    return (
        min(each(decayed, velocity)) > 5 * max(each(without, velocity))
        and min(each(decayed, relative_spread)) > 5 * max(each(without, relative_spread))
        and max(each(decayed, middle)) < 0.5 * min(each(without, middle))
    )


def of_four(recorded: Recorded) -> list[float]:
    ends = sorted(each(scale(recorded, 3e-4), middle))
    return [ends[1], ends[-1]]


AT_SCALE = [
    Sentence(
        "At lambda = 1e-3 both faces are there in every seed; without decay ‖V̇‖ ends at {:.3f}, "
        "and the middle ranks stay.",
        lambda r: [gmean(scale(r, 0), velocity)],
        lambda r: (
            faces_at_scale(r)
            and all(kept(layer)(run) > 0.99 for run in scale(r, 0) for layer in MIDDLE)
        ),
    ),
    Sentence(
        "The mean of the middle ranks falls mostly in a few large steps, to {:.0f} in one seed, "
        "and comes back in part at most: at epoch 500 it is {:.0f} to {:.0f}, of {:.0f}.",
        lambda r: (
            min(middles(run).min() for run in scale(r, 1e-3)),
            *(end(each(scale(r, 1e-3), middle)) for end in (min, max)),
            mean(scale(r, 0), middle),
        ),
    ),
    Sentence(
        "At lambda = 3e-4 ranks fall later and less: at epoch 500 their mean is {:.0f} to "
        "{:.0f} in four seeds of five.",
        of_four,
        lambda r: (
            of_four(r)[0] > max(each(scale(r, 1e-3), middle))
            and mean(scale(r, 3e-4), lambda run: middles(run).loc[200])
            > mean(scale(r, 1e-3), lambda run: middles(run).loc[200])
        ),
    ),
    Sentence(
        "In the remaining one, seed 3, at epoch {}, one spike takes the mean of the middle ranks "
        "from {:.0f} to {:.0f} and the learned rho to {:.0f} times what it was.",
        lambda r: (
            spike(come_apart(r)),
            middles(come_apart(r)).loc[: spike(come_apart(r))].iloc[-1],
            middles(come_apart(r)).loc[spike(come_apart(r)) :].iloc[0],
            at(come_apart(r), "rho_learned", spike(come_apart(r)) + 1)
            / at(come_apart(r), "rho_learned", spike(come_apart(r)) - 1),
        ),
    ),
    Sentence(
        "The loss is {:.4f} before it and {:.2f} after it; at epoch 500 the run still has a loss "
        "of {:.2f} and half of the samples wrong.",
        lambda r: (
            at(come_apart(r), "train/loss_running", spike(come_apart(r)) - 1),
            at(come_apart(r), "train/loss_running", spike(come_apart(r)) + 1),
            loss(come_apart(r)),
        ),
        lambda r: abs(error(come_apart(r)) - 0.5) < 0.01,
    ),
]

# Figure 1 and the runs of 1,000 images


def means(recorded: Recorded) -> list[float]:
    return [mean(recorded.of(*FIG1, lam=lam), mu) for lam in TRAINED]


def sigmas(recorded: Recorded) -> list[float]:
    """The standard deviation of the margins by lambda."""
    deviation = partial(Run.last, key="margin/std")
    return [gmean(recorded.of(*FIG1, lam=lam), deviation) for lam in TRAINED]


def needles(recorded: Recorded) -> list[float]:
    return [
        relative_spread(run)
        for lam in TRAINED
        if lam <= 1e-3
        for run in recorded.of(*FIG1, lam=lam)
    ]


def emptied(recorded: Recorded) -> Run:
    return recorded.of("two_cores_fig1", lam=1e-2)[0]


def largest_loss_again(run: Run) -> float:
    """The largest running loss after the first epoch in which it was below 0.05."""
    losses = over(run, "train/loss_running")
    return float(losses.loc[(losses < 0.05).idxmax() :].max())


def small(recorded: Recorded, dynamics: str, lam: float) -> list[Run]:
    return recorded.of("small", lam=lam, dynamics=dynamics)


def by_seed(recorded: Recorded) -> list[float]:
    return [fall for run in small(recorded, "SGD", 1e-3) for fall in falls([run])]


def without_third(recorded: Recorded) -> list[float]:
    return falls(small(recorded, "SGD", 1e-3)[:2])


def growth(recorded: Recorded, dynamics: str) -> float:
    """The spread at the end, of that without decay, over seeds."""
    decayed, without = (small(recorded, dynamics, lam) for lam in (1e-3, 0))
    return gmean(decayed, relative_spread) / gmean(without, relative_spread)


def spread_by_seed(recorded: Recorded, dynamics: str) -> list[float]:
    return times(small(recorded, dynamics, 1e-3), small(recorded, dynamics, 0), relative_spread)


def median_spread(run: Run) -> float:
    return float(spreads(run).loc[200:600].median())


def against_gd(recorded: Recorded, clock: str) -> float:
    """||V dot|| of SGD with decay where GD ends, by steps or by eta t, of GD's there."""
    pairs = zip(small(recorded, "SGD", 1e-3), small(recorded, "GD", 1e-3), strict=True)
    return geometric_mean(
        [velocity_at(sgd, clock, gd.last(clock)) / velocity(gd) for sgd, gd in pairs]
    )


FIGURE_1 = [
    Sentence("Lambda = 1e-2 ends as f = 0:", so=lambda r: is_zero_function(emptied(r))),
    Sentence(
        "The means grow with lambda: {:.0f}-fold from 0 to 5e-3",
        lambda r: [means(r)[-1] / means(r)[0]],
    ),
    Sentence(
        "Sigma itself grows with lambda from 1e-6 to 5e-3, {:.0f}-fold (it is in units of 1/rho, "
        "and rho falls). In units of the mean it does not grow in order",
        lambda r: [sigmas(r)[-1] / sigmas(r)[1]],
        lambda r: (
            min(np.diff(sigmas(r)[1:])) > 0
            and sum(np.diff([gmean(r.of(*FIG1, lam=lam), relative_spread) for lam in TRAINED]) < 0)
            > 1
            and gmean(r.of(*FIG1, lam=5e-3), rho) < 0.2 * gmean(r.of(*FIG1, lam=1e-6), rho)
        ),
    ),
    Sentence("in order but for one pair", so=lambda r: sum(np.diff(means(r)) < 0) == 1),
    Sentence(
        "up to lambda = 1e-3 every run ends as a needle of sigma/mu of {} to {}, with "
        "lambda or without",
        lambda r: [power(min(needles(r))), power(max(needles(r)))],
    ),
    Sentence(
        "within 35 epochs the ranks of conv3, conv4 and fc1 fall below 10, and training stays at "
        "the loss of {:.0f}",
        lambda r: [loss(emptied(r))],
        lambda r: (
            all(at(emptied(r), f"effective_rank/{layer}", 35) < 10 for layer in MIDDLE)
            and over(emptied(r), "train/loss_running").loc[40:].sub(1).abs().max() < 0.05
        ),
    ),
]
FIGURE_1.append(
    Sentence(
        "after the running loss was below 0.05 it comes back to {:.1f} to {:.1f}",
        lambda r: [
            end(largest_loss_again(run) for lam in (2e-3, 5e-3) for run in r.of(*FIG1, lam=lam))
            for end in (min, max)
        ],
    )
)
SMALL = [
    Sentence(
        "conv3, conv4 and fc1 fall by {:.0f}, {:.0f} and {:.0f}% under SGD, most of it in one "
        "seed, and by less than 0.1% under GD. By seed it is {:.0f}, {:.0f}, {:.0f}%; {:.0f}, "
        "{:.0f}, {:.0f}%; {:.0f}, {:.0f}, {:.0f}%.",
        lambda r: (*falls(small(r, "SGD", 1e-3)), *by_seed(r)),
        lambda r: all(fall < 0.1 for run in small(r, "GD", 1e-3) for fall in falls([run])),
    ),
    Sentence(
        "the learned rho peaks at {:,.0f} times its start, the error ends at {:.0%}, the spread "
        "at {:.1f}.",
        lambda r: (
            over(small(r, "SGD", 1e-3)[2], "rho_learned").abs().max(),
            error(small(r, "SGD", 1e-3)[2]),
            relative_spread(small(r, "SGD", 1e-3)[2]),
        ),
    ),
    Sentence("Without it the fall would be {:.0f}, {:.0f} and {:.0f}%.", without_third),
    Sentence(
        "The spread under SGD is larger with decay ({:.0f}-fold at the end; by seed {:.0f}, "
        "{:.0f} and {:,.0f}).",
        lambda r: (growth(r, "SGD"), *spread_by_seed(r, "SGD")),
    ),
    Sentence(
        "from epoch 200 to 600 the median spread at lambda = 1e-3 is {:.0f} and {:.0f} times that "
        "at 0 in the other two seeds.",
        lambda r: times(small(r, "SGD", 1e-3), small(r, "SGD", 0), median_spread)[:2],
    ),
    Sentence(
        "Of converged GD's spread no effect of decay is seen ({:.2f}-fold; by seed {:.2f}, {:.2f} "
        "and {:.1f}).",
        lambda r: (growth(r, "GD"), *spread_by_seed(r, "GD")),
    ),
    Sentence(
        "At equal epochs GD ends louder: ‖V̇‖ is {:.3f} against {:.4f} at lambda = 0, and {:.3f} "
        "against {:.3f} at 1e-3.",
        lambda r: [
            gmean(small(r, dynamics, lam), velocity)
            for lam in (0, 1e-3)
            for dynamics in ("GD", "SGD")
        ],
        lambda r: all(
            gmean(small(r, "GD", lam), velocity) > gmean(small(r, "SGD", lam), velocity)
            for lam in (0, 1e-3)
        ),
    ),
    Sentence(
        "At 800 steps of each no middle rank has moved under either: low rank takes decay time to "
        "act. ‖V̇‖ of SGD is then {:.0f} times GD's, but SGD's rate is still nearly the full one, "
        "and GD is at the end of its cosine; at equal eta t it is {:.0f} times.",
        lambda r: (against_gd(r, STEP), against_gd(r, "eta_t")),
        lambda r: all(
            run.rows.set_index(STEP)[f"effective_rank/{k}"].dropna().loc[:800].min()
            > 0.999 * run.first(f"effective_rank/{k}")
            for dynamics in ("SGD", "GD")
            for run in small(r, dynamics, 1e-3)
            for k in MIDDLE
        ),
    ),
]

# Have the runs settled?


def moved(recorded: Recorded, keys: Callable[[Run], list[str]], most: float) -> list[float]:
    """How much the last fifth of the epochs moves a quantity, of the runs up to a lambda."""
    runs = [run for lam in TRAINED if lam <= most for run in recorded.of(*FIG1, lam=lam)]
    return [_fifths(run, keys(run)) - 1 for run in runs]


def velocities(run: Run) -> list[str]:
    return [f"velocity/{layer}" for layer in run.layers("velocity")]


def of_rank(layer: str) -> Callable[[Run], list[str]]:
    return lambda run: [f"effective_rank/{layer}"]


SETTLED = [
    Sentence(
        "Ranks no longer move: the last fifth changes them by {:.1f}% where it changes them most.",
        lambda r: [
            100 * max(abs(change) for layer in MIDDLE for change in moved(r, of_rank(layer), 1))
        ],
    ),
    Sentence(
        "Up to lambda = 1e-4 ‖V̇‖ falls by {:.0f}% a fifth at most.",
        lambda r: [-100 * min(moved(r, velocities, 1e-4))],
    ),
    Sentence(
        "At lambda of 5e-4 and above it falls by {:.0f}% or more: there the noise has not "
        "settled when the cosine ends.",
        lambda r: [
            -100
            * max(
                _fifths(run, velocities(run)) - 1
                for lam in TRAINED
                if lam > 1e-4
                for run in r.of(*FIG1, lam=lam)
            )
        ],
    ),
]

SENTENCES = [*AT_SCALE, *FIGURE_1, *SMALL, *SETTLED]
