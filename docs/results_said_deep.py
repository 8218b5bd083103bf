"""The sentences of docs/results.md on the deep network, up to the predictions."""

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
    rank,
    times,
)
from results_tables import FIFTH, MIDDLE, _fifths, relative_spread, velocity

from janus_pl.records.families import lambda_of
from janus_pl.records.late import geometric_mean
from janus_pl.records.run import STEP, Run

FIG1 = ("two_cores_fig1", "two_cores_seeds")
TRAINED = (0, 1e-6, 1e-5, 5e-5, 1e-4, 5e-4, 1e-3, 2e-3, 5e-3)  # lambdas of Figure 1
EQUAL = ("two_cores_equal_steps_sgd", "two_cores_equal_steps")
error, loss = (partial(Run.last, key=f"train/{key}") for key in ("error", "loss"))
mu = partial(Run.last, key="margin/mean")


def middles(run: Run) -> pd.Series:
    """The mean effective rank of conv3, conv4 and fc1 over the epochs."""
    return sum(over(run, f"effective_rank/{layer}") for layer in MIDDLE) / len(MIDDLE)


def spreads(run: Run) -> pd.Series:
    """std/|mean| of the margins over the epochs."""
    return over(run, "margin/std") / over(run, "margin/mean").abs()


def late(series: pd.Series) -> float:
    """The mean over the last fifth of the epochs."""
    return float(series[series.index > (1 - FIFTH) * series.index[-1]].mean())


def late_velocity(run: Run) -> float:
    """The mean of ||V_k dot|| over the last fifth of the epochs, geometric over layers."""
    layers = run.layers("velocity")
    return geometric_mean([late(over(run, f"velocity/{layer}")) for layer in layers])


def velocity_at(run: Run, clock: str, value: float) -> float:
    """The geometric mean of ||V_k dot|| over layers, in the row that is nearest on a clock."""
    layers = run.layers("velocity")
    rows = run.rows[[clock, *(f"velocity/{layer}" for layer in layers)]].dropna()
    row = rows.loc[(rows[clock] - value).abs().idxmin()]
    return geometric_mean([row[f"velocity/{layer}"] for layer in layers])


def loudness(recorded: Recorded, lam: float, layer: str) -> float:
    """||V_k dot|| of a layer in mid-training, epochs 30 to 80, of Figure 1."""
    return gmean(
        recorded.of(*FIG1, lam=lam), lambda run: over(run, f"velocity/{layer}").loc[30:80].mean()
    )


def falls(runs: list[Run], form: str = "{:.0f}") -> list[float]:
    """By how many per cent the ranks of conv3, conv4 and fc1 have fallen, mean over seeds."""
    return [100 * (1 - mean(runs, kept(layer))) for layer in MIDDLE]


# At N = 10,000


def scale(recorded: Recorded, lam: float) -> list[Run]:
    return recorded.of("scale", lam=lam)


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
    Sentence("At lambda = 1e-3 both faces are there in every seed", so=faces_at_scale),
    Sentence(
        "The mean of the middle ranks falls in steps, not smoothly, to {:.0f} in one seed, and "
        "comes back in part at most: at epoch 500 it is {:.0f} to {:.0f}, of {:.0f}.",
        lambda r: (
            min(middles(run).min() for run in scale(r, 1e-3)),
            *(end(each(scale(r, 1e-3), middle)) for end in (min, max)),
            mean(scale(r, 0), middle),
        ),
    ),
    Sentence(
        "At lambda = 3e-4 ranks fall later and less: at epoch 500 the three are at {:.0f} to "
        "{:.0f} in four seeds of five.",
        of_four,
        lambda r: (
            of_four(r)[0] > max(each(scale(r, 1e-3), middle))
            and mean(scale(r, 3e-4), lambda run: middles(run).loc[200])
            > mean(scale(r, 1e-3), lambda run: middles(run).loc[200])
        ),
    ),
    Sentence(
        "In the fourth of them, at epoch {}, one spike takes the mean of the middle ranks from "
        "{:.0f} to {:.0f} and the learned rho to {:.0f} times what it was.",
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
    return times(
        small(recorded, dynamics, 1e-3), small(recorded, dynamics, 0), relative_spread
    )


def median_spread(run: Run) -> float:
    return float(spreads(run).loc[200:600].median())


def against_gd(recorded: Recorded, clock: str) -> float:
    """||V dot|| of SGD with decay where GD ends, by steps or by eta t, of GD's there."""
    pairs = zip(small(recorded, "SGD", 1e-3), small(recorded, "GD", 1e-3), strict=True)
    return geometric_mean(
        [velocity_at(sgd, clock, gd.last(clock)) / velocity(gd) for sgd, gd in pairs]
    )


FIGURE_1 = [
    Sentence(
        "The means grow with lambda: {:.0f}-fold from 0 to 5e-3",
        lambda r: [mean(r.of("two_cores_fig1", lam=5e-3), mu) / means(r)[0]],
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
        "conv3, conv4 and fc1 fall by {:.0f}, {:.0f} and {:.0f}% under SGD and by less than 0.1% "
        "under GD; by seed {:.0f}, {:.0f}, {:.0f}%; {:.0f}, {:.0f}, {:.0f}%; {:.0f}, {:.0f}, "
        "{:.0f}%.",
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
        "larger with decay ({:.0f}-fold at the end; by seed {:.0f}, {:.0f} and {:,.0f}).",
        lambda r: (growth(r, "SGD"), *spread_by_seed(r, "SGD")),
    ),
    Sentence(
        "from epoch 200 to 600 the median spread at lambda = 1e-3 is {:.0f} and {:.0f} times that "
        "at 0 in the other two seeds.",
        lambda r: times(small(r, "SGD", 1e-3), small(r, "SGD", 0), median_spread)[:2],
    ),
    Sentence(
        "Converged GD spreads alike with and without decay ({:.2f}-fold; by seed {:.2f}, {:.2f} "
        "and {:.1f}).",
        lambda r: (growth(r, "GD"), *spread_by_seed(r, "GD")),
    ),
    Sentence(
        "At equal steps, 800 for both, no rank has moved under either, so low rank takes decay "
        "time to act; ‖V̇‖ of SGD is then {:.0f} times GD's, at equal eta t {:.0f} times.",
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


SETTLED = [
    Sentence(
        "Ranks have settled: the last fifth moves them by {:.1f}% where it moves them most.",
        lambda r: [
            100
            * max(
                abs(change)
                for layer in MIDDLE
                for change in moved(r, lambda run, k=layer: [f"effective_rank/{k}"], 1)
            )
        ],
    ),
    Sentence(
        "Up to lambda = 1e-4 ‖V̇‖ falls by {:.0f}% a fifth at most.",
        lambda r: [-100 * min(moved(r, velocities, 1e-4))],
    ),
    Sentence(
        "At lambda of 5e-4 and above it falls by {:.0f}% or more, with the learning rate",
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

# Figures 2 to 5


def gd(recorded: Recorded) -> list[Run]:
    return recorded.of("two_cores_fig2a")


def spikes(run: Run) -> int:
    """How often the running loss rises by half from one epoch to the next, after epoch 100."""
    losses = over(run, "train/loss_running").loc[100:]
    return int((losses.pct_change() > 0.5).sum())


def quick(recorded: Recorded, lam: float) -> Run:
    """GD at the paper's constant rate."""
    return recorded.of("two_cores_fig2b", lam=lam)[0]


def at_rest(recorded: Recorded, dynamics: str, lam: float) -> Run:
    """The run of 500 images whose epochs are as many steps under SGD and GD."""
    return recorded.of(EQUAL[dynamics == "GD"], lam=lam)[0]


FIGURE_2 = [
    Sentence(
        "The training error is {:.1%} to {:.1%}, and the loss at lambda = 0 is {:.2f} where SGD's "
        "is {}; sigma/mu is {:.2f} at lambda = 0 and {:.2f} at 1e-2",
        lambda r: (
            min(each(gd(r), error)),
            max(each(gd(r), error)),
            loss(gd(r)[0]),
            power(loss(r.of("two_cores_fig1", lam=0)[0])),
            *(relative_spread(gd(r)[place]) for place in (0, -1)),
        ),
    ),
    Sentence(
        "less and not more, for the larger lambda has gone a little further",
        so=lambda r: loss(gd(r)[-1]) < loss(gd(r)[0]) and error(gd(r)[-1]) < error(gd(r)[0]),
    ),
    Sentence(
        "Ranks of conv3, conv4 and fc1 are those of the start to {:.2f}%.",
        lambda r: [100 * max(abs(1 - kept(k)(run)) for run in gd(r) for k in MIDDLE)],
    ),
    Sentence(
        "At lambda = 1e-3 the spread of the three seeds is {:.2f} times that at 0, at a loss of "
        "{} still",
        lambda r: (growth(r, "GD"), power(gmean(small(r, "GD", 1e-3), loss))),
    ),
    Sentence(
        "At the paper's rate no training sample is wrong after 600 steps, but GD does not rest: "
        "after epoch 100 the running loss rises by half or more from one epoch to the next {} "
        "times at lambda = 0 and {} times at 1e-3. At lambda = 1e-3 sigma/mu is {:.3f} and ‖V̇‖ {:.1f} at "
        "the end, against {:.3f} and {:.2f} at lambda = 0.",
        lambda r: (
            *(spikes(quick(r, lam)) for lam in (0, 1e-3)),
            *(f(quick(r, 1e-3)) for f in (relative_spread, velocity)),
            *(f(quick(r, 0)) for f in (relative_spread, velocity)),
        ),
        lambda r: error(quick(r, 0)) == error(quick(r, 1e-3)) == 0,
    ),
    Sentence(
        "Ranks are those of the start to {:.2f}%: 600 steps are too few for decay.",
        lambda r: [
            100 * max(abs(1 - kept(k)(quick(r, lam))) for lam in (0, 1e-3) for k in MIDDLE)
        ],
    ),
    Sentence(
        "GD comes to rest, ‖V̇‖ = {:.3f}. Its spread is small but not independent of lambda: "
        "sigma/mu is {} at lambda = 0 and {} at 5e-3, against {} and {} under SGD.",
        lambda r: (
            velocity(at_rest(r, "GD", 5e-3)),
            *(
                power(relative_spread(at_rest(r, dynamics, lam)))
                for dynamics in ("GD", "SGD")
                for lam in (0, 5e-3)
            ),
        ),
        lambda r: velocity(at_rest(r, "GD", 0)) < 1e-3,
    ),
]


def louder_with_decay(recorded: Recorded) -> bool:
    layers = recorded.of(*FIG1)[0].layers("velocity")
    quiet = {k: max(loudness(recorded, lam, k) for lam in TRAINED if lam < 1e-3) for k in layers}
    loud = {k: min(loudness(recorded, lam, k) for lam in TRAINED if lam >= 1e-3) for k in layers}
    return all(loud[layer] > quiet[layer] for layer in layers)


def at_end(recorded: Recorded, lam: float, layer: str) -> float:
    return gmean(recorded.of(*FIG1, lam=lam), partial(Run.last, key=f"velocity/{layer}"))


def quietest_but_conv1(recorded: Recorded) -> bool:
    others = ("conv2", "conv3", "conv4", "fc1", "fc2")
    return all(
        at_end(recorded, lam, "conv1") < min(at_end(recorded, lam, k) for k in others)
        for lam in TRAINED
        if lam < 5e-3
    )


def left_of(recorded: Recorded, lam: float, layer: str) -> float:
    return mean(recorded.of(*FIG1, lam=lam), kept(layer))


def layers_above(recorded: Recorded, lam: float) -> list[str]:
    """The layers whose ||V_k dot|| at the end is above that without decay."""
    layers = recorded.of(*FIG1)[0].layers("velocity")
    return [k for k in layers if at_end(recorded, lam, k) > at_end(recorded, 0, k)]


def exponent(recorded: Recorded, lam: float) -> float:
    """Without gradients and with momentum 0.9, v_k keeps exp of this: -lambda eta t/(1 - 0.9)."""
    return lam * recorded.of("two_cores_fig1", lam=lam)[0].last("eta_t") / (1 - 0.9)


FIGURES_3_4 = [
    Sentence(
        "In mid-training, the mean of epochs 30 to 80, ‖V̇_k‖ is larger at lambda of 1e-3 and "
        "above than below, in every layer.",
        so=louder_with_decay,
    ),
    Sentence(
        "It does not stay: it follows the cosine down.",
        so=lambda r: all(
            at_end(r, lam, k) < 0.5 * loudness(r, lam, k)
            for lam in TRAINED
            for k in r.of(*FIG1)[0].layers("velocity")
        ),
    ),
    Sentence(
        "At the end the top layer (fc2) is among the quietest, but conv1 is quieter still at every "
        "lambda below 5e-3.",
        so=quietest_but_conv1,
    ),
    Sentence(
        "At the end of a cosine ‖V̇_k‖ is smallest at lambda = 1e-3 in every layer but fc1. At 2e-3 and "
        "5e-3 it is larger again, but above that of lambda = 0 in conv1 alone, and at 5e-3 in "
        "conv2.",
        so=lambda r: (
            all(
                at_end(r, 1e-3, k) == min(at_end(r, lam, k) for lam in TRAINED)
                for k in r.of(*FIG1)[0].layers("velocity")
                if k != "fc1"
            )
            and layers_above(r, 2e-3) == ["conv1"]
            and layers_above(r, 5e-3) == ["conv1", "conv2"]
        ),
    ),
    Sentence(
        "Up to lambda = 5e-4 no rank of conv2 to fc1 moves by more than {:.1f}% in 12,600 steps; "
        "at 1e-3 conv1 and conv2 have lost {:.0f} and {:.0f}%, the others {:.0f}% at most; at 5e-3 "
        "conv4 has lost {:.0f}% of its effective rank and fc1 {:.0f}%.",
        lambda r: (
            100
            * max(
                1 - left_of(r, lam, k)
                for lam in TRAINED
                if lam <= 5e-4
                for k in ("conv2", *MIDDLE)
            ),
            *(100 * (1 - left_of(r, 1e-3, k)) for k in ("conv1", "conv2")),
            100 * max(1 - left_of(r, 1e-3, k) for k in (*MIDDLE, "fc2")),
            *(100 * (1 - left_of(r, 5e-3, k)) for k in ("conv4", "fc1")),
        ),
    ),
    Sentence(
        "with momentum 0.9 and a cosine v_k keeps exp(-{:.1f}) of its start at lambda = 1e-3 and "
        "exp(-{:.1f}) at 5e-3.",
        lambda r: [exponent(r, lam) for lam in (1e-3, 5e-3)],
    ),
]


def entropy(recorded: Recorded, lam: float) -> Run:
    return recorded.of("two_cores_fig5a", lam=lam)[0]


def square(recorded: Recorded, lam: float = 0) -> Run:
    return recorded.of("two_cores_fig1", lam=lam)[0]


FIGURE_5 = [
    Sentence(
        "sigma/mu at lambda = 0 is {:.0f} times that of the square loss, and about the same, "
        "{:.2f} to {:.2f}, up to lambda = 2e-3; it is {:.2f} and {:.2f} at 5e-3 and 1e-2.",
        lambda r: (
            relative_spread(entropy(r, 0)) / relative_spread(square(r)),
            *(
                end(relative_spread(entropy(r, lam)) for lam in TRAINED if lam <= 2e-3)
                for end in (min, max)
            ),
            *(relative_spread(entropy(r, lam)) for lam in (5e-3, 1e-2)),
        ),
    ),
    Sentence(
        "‖V̇‖ at lambda = 0 is 1/{:.1f} of the square loss's, and at most {:.3f} at any lambda.",
        lambda r: (
            velocity(square(r)) / velocity(entropy(r, 0)),
            max(each(r.of("two_cores_fig5a"), velocity)),
        ),
    ),
    Sentence(
        "The low rank is there as under the square loss, from lambda = 2e-3 on",
        so=lambda r: all(
            (middle(entropy(r, lam)) < 0.95 * middle(entropy(r, 0))) == (lam >= 2e-3)
            and (middle(square(r, lam)) < 0.95 * middle(square(r))) == (lam >= 2e-3)
            for lam in (*TRAINED, 1e-2)
        ),
    ),
    Sentence(
        "leaves one here that has no training error at effective ranks of {:.0f} (conv4) and "
        "{:.0f} (fc1) of {:.0f}.",
        lambda r: (
            *(rank(k)(entropy(r, 1e-2)) for k in ("conv4", "fc1")),
            rank("conv4")(entropy(r, 0)),
        ),
        lambda r: error(entropy(r, 1e-2)) == 0,
    ),
    Sentence(
        "At lambda = 0 the training loss is {} and the margins are one needle, "
        "sigma/mu = {}.",
        lambda r: (power(loss(square(r))), power(relative_spread(square(r)))),
    ),
]


def late_by_seed(recorded: Recorded, lam: float, what: Callable[[Run], float]) -> list[float]:
    return each(recorded.of(*FIG1, lam=lam), what)


def late_spread(run: Run) -> float:
    return late(spreads(run))


def quiet_runs(recorded: Recorded) -> list[tuple[float, int]]:
    """The lambdas up to 1e-3 with the places of their seeds."""
    lams = [lam for lam in TRAINED if lam <= 1e-3]
    return [(lam, k) for lam in lams for k in range(len(recorded.of(*FIG1, lam=lam)))]


def gd_is_above(recorded: Recorded) -> bool:
    return all(
        what(run) > max(late_by_seed(recorded, lambda_of(run), what))
        for run in gd(recorded)
        if lambda_of(run) <= 5e-3
        for what in (late_spread, late_velocity)
    )


AGAINST_LAMBDA = [
    Sentence(
        "Up to lambda = 1e-3 the spread of SGD's margins stays between {} and {}, and ‖V̇‖ "
        "falls; at 2e-3 and 5e-3 both are larger again, and at 2e-3 the spreads of the three seeds "
        "differ {:.0f}-fold.",
        lambda r: (
            *(
                power(end(late_by_seed(r, lam, late_spread)[k] for lam, k in quiet_runs(r)), 1)
                for end in (min, max)
            ),
            max(late_by_seed(r, 2e-3, late_spread)) / min(late_by_seed(r, 2e-3, late_spread)),
        ),
        lambda r: all(
            geometric_mean(late_by_seed(r, lam, what))
            > geometric_mean(late_by_seed(r, 1e-3, what))
            for lam in (2e-3, 5e-3)
            for what in (late_spread, late_velocity)
        ),
    ),
    Sentence(
        "GD, far from its end, has the larger spread and velocity at every lambda that SGD trains "
        "at, and its ranks do not move.",
        so=gd_is_above,
    ),
]

SENTENCES = [
    *(*AT_SCALE, *FIGURE_1, *SMALL, *SETTLED),
    *(*FIGURE_2, *FIGURES_3_4, *FIGURE_5, *AGAINST_LAMBDA),
]
