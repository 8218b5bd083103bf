"""The sentences of the pages of results on Figures 2 to 5 and the claims against lambda."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pandas as pd
from results_said_deep import (
    FIG1,
    TRAINED,
    error,
    growth,
    loss,
    small,
    spread_by_seed,
    spreads,
)
from results_sentences import Recorded, Sentence, each, gmean, kept, mean, middle, over, power, rank
from results_tables import FIFTH, MIDDLE, relative_spread, velocity

from janus_pl.records.families import lambda_of
from janus_pl.records.late import geometric_mean
from janus_pl.records.run import Run

EQUAL = ("two_cores_equal_steps_sgd", "two_cores_equal_steps")


def loudness(recorded: Recorded, lam: float, layer: str) -> float:
    """||V_k dot|| of a layer in mid-training, epochs 30 to 80, of Figure 1."""
    return gmean(
        recorded.of(*FIG1, lam=lam), lambda run: over(run, f"velocity/{layer}").loc[30:80].mean()
    )


def late(series: pd.Series) -> float:
    """The mean over the last fifth of the epochs."""
    return float(series[series.index > (1 - FIFTH) * series.index[-1]].mean())


def late_velocity(run: Run) -> float:
    """The mean of ||V_k dot|| over the last fifth of the epochs, geometric over layers."""
    layers = run.layers("velocity")
    return geometric_mean([late(over(run, f"velocity/{layer}")) for layer in layers])


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
        "sigma/mu is below {} in the table, and above {} in",
        lambda r: [0.03, 0.4],
        lambda r: (
            max(relative_spread(quick(r, lam)) for lam in (0, 1e-3)) < 0.03
            and min(each(gd(r), relative_spread)) > 0.4
        ),
    ),
    Sentence(
        "On 1,000 images under a cosine the spread at lambda = 1e-3 is {:.2f} times that at 0 (by "
        "seed {:.2f}, {:.2f} and {:.1f}), at a loss of {} still",
        lambda r: (
            growth(r, "GD"),
            *spread_by_seed(r, "GD"),
            power(gmean(small(r, "GD", 1e-3), loss)),
        ),
    ),
    Sentence(
        "At the paper's rate no training sample is wrong after 600 steps, but GD does not rest: "
        "after epoch 100 the running loss rises by half or more from one epoch to the next {} "
        "times at lambda = 0 and {} times at 1e-3. At lambda = 1e-3 sigma/mu is {:.3f} and "
        "‖V̇‖ {:.1f} at the end, against {:.3f} and {:.2f} at lambda = 0.",
        lambda r: (
            *(spikes(quick(r, lam)) for lam in (0, 1e-3)),
            *(f(quick(r, 1e-3)) for f in (relative_spread, velocity)),
            *(f(quick(r, 0)) for f in (relative_spread, velocity)),
        ),
        lambda r: error(quick(r, 0)) == error(quick(r, 1e-3)) == 0,
    ),
    Sentence(
        "Ranks are those of the start to {:.2f}%: 600 steps are too few for decay.",
        lambda r: [100 * max(abs(1 - kept(k)(quick(r, lam))) for lam in (0, 1e-3) for k in MIDDLE)],
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
        "In mid-training, the mean of epochs 30 to 80, ‖V̇_k‖ is larger at lambda of 1e-3 to "
        "5e-3 than below, in every layer.",
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
        "ranks fall from 1e-3 on, and those of the last four layers are not all below those of the "
        "first two.",
        so=lambda r: (
            all(
                (min(left_of(r, lam, k) for k in ("conv2", *MIDDLE)) < 0.98) == (lam >= 1e-3)
                for lam in TRAINED
            )
            and mean(r.of(*FIG1, lam=5e-3), rank("conv3"))
            > mean(r.of(*FIG1, lam=5e-3), rank("conv2"))
        ),
    ),
    Sentence(
        "Of the lambdas that train, ‖V̇_k‖ at the end of a cosine is smallest at 1e-3 in every "
        "layer but fc1. At 2e-3 and 5e-3 it is larger again, but above that of lambda = 0 in conv1 "
        "alone, and at 5e-3 in conv2.",
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
        "Up to 1e-3 fc1 is the loudest layer.",
        so=lambda r: all(
            at_end(r, lam, "fc1")
            == max(at_end(r, lam, k) for k in r.of(*FIG1)[0].layers("velocity"))
            for lam in TRAINED
            if lam <= 1e-3
        ),
    ),
    Sentence(
        "Up to lambda = 5e-4 no rank of conv2 to fc1 moves by more than {:.1f}% in 12,600 steps; "
        "at 1e-3 conv1 and conv2 have lost {:.0f} and {:.0f}%, the others {:.0f}% at most; at 5e-3 "
        "conv4 has lost {:.0f}% of its effective rank and fc1 {:.0f}%, more than the first two "
        "layers, which lost {:.0f} and {:.0f}%; conv3 and fc2 have lost less.",
        lambda r: (
            100
            * max(
                1 - left_of(r, lam, k) for lam in TRAINED if lam <= 5e-4 for k in ("conv2", *MIDDLE)
            ),
            *(100 * (1 - left_of(r, 1e-3, k)) for k in ("conv1", "conv2")),
            100 * max(1 - left_of(r, 1e-3, k) for k in (*MIDDLE, "fc2")),
            *(100 * (1 - left_of(r, 5e-3, k)) for k in ("conv4", "fc1", "conv1", "conv2")),
        ),
        lambda r: (
            max(left_of(r, 5e-3, k) for k in ("conv4", "fc1"))
            < min(left_of(r, 5e-3, k) for k in ("conv1", "conv2"))
            and max(left_of(r, 5e-3, k) for k in ("conv1", "conv2"))
            < min(left_of(r, 5e-3, k) for k in ("conv3", "fc2"))
        ),
    ),
    Sentence(
        "Without gradients, with momentum 0.9 and a cosine, v_k would keep exp(-{:.1f}) of its "
        "start at lambda = 1e-3 and exp(-{:.1f}) at 5e-3: at 1e-3 decay has hardly had time, at "
        "5e-3 it has.",
        lambda r: [exponent(r, lam) for lam in (1e-3, 5e-3)],
    ),
]


def entropy(recorded: Recorded, lam: float) -> Run:
    return recorded.of("two_cores_fig5a", lam=lam)[0]


def square(recorded: Recorded, lam: float = 0) -> Run:
    return recorded.of("two_cores_fig1", lam=lam)[0]


FIGURE_5 = [
    Sentence(
        "sigma/mu at lambda = 0 is {:.0f} times that of the square loss with the same seed, and "
        "about the same, {:.2f} to {:.2f}, up to lambda = 2e-3; it is {:.2f} and {:.2f} at 5e-3 "
        "and 1e-2.",
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
        "At lambda = 0 the training loss is {} and the margins are needles, one a seed, of "
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
            geometric_mean(late_by_seed(r, lam, what)) > geometric_mean(late_by_seed(r, 1e-3, what))
            for lam in (2e-3, 5e-3)
            for what in (late_spread, late_velocity)
        ),
    ),
    Sentence(
        "Ranks of the middle layers fall from 2e-3 on.",
        so=lambda r: all(
            (gmean(r.of(*FIG1, lam=lam), middle) < 0.95 * gmean(r.of(*FIG1, lam=0), middle))
            == (lam >= 2e-3)
            for lam in TRAINED
        ),
    ),
    Sentence(
        "GD, far from its end, has the larger spread and velocity at every lambda that SGD trains "
        "at, and its ranks do not move.",
        so=gd_is_above,
    ),
]

SENTENCES = [*FIGURE_2, *FIGURES_3_4, *FIGURE_5, *AGAINST_LAMBDA]
