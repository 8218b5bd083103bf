"""What is said of Lemma 1, the controls and linear regression; see results_sentences.

The words of a sentence are tested where it says more than its numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd
from results_said_deep import FIG1
from results_said_linear import SENTENCES as LINEAR
from results_said_whose import SENTENCES as WHOSE
from results_sentences import Recorded, Sentence, ends, gmean, kept, mean, over, power, rank, times
from results_tables import MIDDLE, relative_spread, velocity

from janus_pl.records.effects import ratio
from janus_pl.records.families import is_zero_function, lambda_of, seed_of
from janus_pl.records.run import STEP, Run

CONSTANT = ("two_cores_constant", "two_cores_constant_seeds")


# Lemma 1


def theory(recorded: Recorded) -> Run:
    """The run with tail bounds and gradient noise."""
    return recorded.of("two_cores_theory")[0]


def noise_over_mean(run: Run, layer: str) -> float:
    """What a minibatch's V_k dot has about the whole set's, over the norm of the latter."""
    n, b = run.description.num_train, run.description.batch_size
    assert n is not None and b is not None
    # The scale is tr S/norm^2 of one sample, and b of n without replacement leave this of tr S.
    return (run.last(f"gradient_noise/scale/{layer}") * (n - b) / (b * (n - 1))) ** 0.5


def noises(recorded: Recorded) -> list[float]:
    """`noise_over_mean` of every layer."""
    run = theory(recorded)
    return [noise_over_mean(run, layer) for layer in run.layers("velocity")]


def mean_is_the_sets(recorded: Recorded) -> bool:
    """Whether the minibatches' mean is no farther from the set's than sampling leaves it."""
    run, key = theory(recorded), "gradient_noise/bias"
    layers = run.layers("velocity")
    return all(run.last(f"{key}/{k}") <= run.last(f"{key}_expected/{k}") for k in layers)


def tails(recorded: Recorded) -> pd.DataFrame:
    """The tail over its bound by row, of the layers that have one."""
    rows = theory(recorded).rows
    return rows[[key for key in rows if key.startswith("tail_bound/ratio/")]].dropna()


def as_untrained(recorded: Recorded) -> bool:
    """Whether tails stay as they begin, in fc1 and conv4; the other bounds say nothing."""
    run, found = theory(recorded), tails(recorded)
    bounded = {key.split("/")[-1] for key in found}
    others = set(run.layers("velocity")) - bounded
    stays = (found / found.iloc[0] - 1).abs().max().max() < 0.01
    vacuous = all(run.rows[f"tail_bound/vacuous/{k}"].dropna().eq(1).all() for k in others)
    return bool(stays and vacuous and bounded == {"fc1", "conv4"})


LEMMA = [
    Sentence(
        "The lemma: the run agrees with it. A minibatch's V̇_k is off the whole set's by {:.0f} "
        "to {:.0f} times the norm of the latter: where the set's is small the minibatches' are not",
        lambda r: ends(noises(r)),
        lambda r: min(noises(r)) > 1,
    ),
    Sentence("Their mean is the set's, to what sampling leaves.", so=mean_is_the_sets),
    Sentence(
        "No tail exceeds it in any row, with {:.0%} to spare in fc1 and conv4, which is what an "
        "untrained matrix has. It says nothing of the other layers",
        lambda r: [1 - tails(r).max().max()],
        as_untrained,
    ),
]


# Equal steps


def equal(recorded: Recorded, lam: float) -> tuple[Run, Run]:
    """SGD and GD at equal steps."""
    sgd = recorded.of("two_cores_equal_steps_sgd", lam=lam, dynamics="SGD")
    return sgd[0], recorded.of("two_cores_equal_steps", lam=lam, dynamics="GD")[0]


def ahead(recorded: Recorded) -> float:
    """By how much the eta t of SGD and GD differ at most, at equal steps."""
    sgd, gd = (over(run, "eta_t", STEP) for run in equal(recorded, 0.005))
    apart = (sgd / gd - 1).abs().dropna()
    return float(apart[apart.index > 0].max())


def lost(recorded: Recorded) -> list[float]:
    """What GD and SGD lose of the effective rank of conv3, conv4 and fc1, in turn."""
    sgd, gd = equal(recorded, 0.005)
    return [1 - kept(layer)(run) for layer in MIDDLE for run in (gd, sgd)]


def fall(run: Run) -> tuple[float, float]:
    """The steps between which 5 to 95% of the loss of effective rank lie, of conv3 to fc1."""
    ranks = sum(over(run, f"effective_rank/{layer}", STEP) for layer in MIDDLE)
    gone = (ranks.iloc[0] - ranks) / (ranks.iloc[0] - ranks.iloc[-1])
    # Of the first look with so much: the maximum so far never falls, as interpolation needs.
    low, high = np.interp([0.05, 0.95], gone.cummax(), gone.index)
    return float(low), float(high)


def jump(recorded: Recorded) -> list[float]:
    """GD's fall: its steps, its largest loss, the zeros of rho, and the steps of SGD's fall."""
    sgd, gd = equal(recorded, 0.005)
    low, high = fall(gd)
    loss = over(gd, "train/loss_running", STEP).loc[low:high]
    signs = np.sign(over(gd, "rho_learned", STEP)).diff().dropna()
    zeros = signs[signs != 0].index
    of_gd = [round(low, -1), round(high, -1), loss.max(), len(zeros), zeros[0], zeros[-1]]
    return [*of_gd, *(round(step, -2) for step in fall(sgd))]


EQUAL = [
    Sentence("so that equal steps are equal eta t to {:.0%}.", lambda r: [ahead(r)]),
    Sentence(
        "At equal steps and equal eta t GD lowers the ranks, too, and here by more (conv3 by "
        "{:.0%} against {:.0%}, conv4 by {:.0%} against {:.0%}, fc1 by "
        "{:.0%} against {:.0%}).",
        lost,
        lambda r: (
            all(gd > sgd > 0 for gd, sgd in zip(lost(r)[::2], lost(r)[1::2], strict=True))
            and equal(r, 0.005)[0].last(STEP) == equal(r, 0.005)[1].last(STEP)
        ),
    ),
    Sentence(
        "Here the noise is SGD's: ‖V̇‖ at the end is {:.0f} times GD's at lambda = 5e-3 and {:.0f} "
        "times at 0.",
        lambda r: [
            velocity(sgd) / velocity(gd) for sgd, gd in (equal(r, lam) for lam in (0.005, 0))
        ],
    ),
    Sentence(
        "GD's fall is a jump: 5 to 95% of it happen between steps {:,.0f} and {:,.0f}. There its "
        "loss reaches {:.1f}, and rho passes zero {} times, between steps {:,.0f} and {:,.0f}. "
        "SGD's takes from step {:,.0f} to {:,.0f}. One seed;",
        jump,
        lambda r: (
            np.diff(fall(equal(r, 0.005)[1])) < 0.1 * np.diff(fall(equal(r, 0.005)[0]))
            and len(r.of("two_cores_equal_steps", lam=0.005)) == 1
        ),
    ),
]


# A constant rate


def speeds(run: Run) -> pd.Series:
    """Geometric mean of ||V_k dot|| over the layers, by epoch."""
    layers = [over(run, f"velocity/{layer}") for layer in run.layers("velocity")]
    return np.exp(sum(np.log(layer) for layer in layers) / len(layers))


def spreads(run: Run) -> pd.Series:
    """std/|mean| of the margins, by epoch."""
    return over(run, "margin/std") / over(run, "margin/mean").abs()


def swings(values: pd.Series) -> tuple[float, float]:
    """The largest factors by which something rises, and falls, in the second half of the epochs."""
    late = values.loc[values.index[-1] / 2 :]
    return (late / late.cummin()).max(), (late.cummax() / late).max()


def waves(recorded: Recorded) -> list[float]:
    """The factor by which noise and spread both rise and fall, of each run that does not settle."""
    runs = [run for lam in (0.001, 0.002) for run in recorded.of(*CONSTANT, lam=lam)]
    return [min(swings(of(run))) for run in runs for of in (speeds, spreads)]


def settling(recorded: Recorded) -> bool:
    """Whether noise and spread fall at lambda = 0, where ranks stay."""
    runs = recorded.of(*CONSTANT, lam=0)
    found = [swings(of(run)) for run in runs for of in (speeds, spreads)]
    stay = all(kept(layer)(run) > 0.99 for layer in MIDDLE for run in runs)
    return stay and all(rise < 1.3 and fell > 2 for rise, fell in found)


def lower_than_under_the_cosine(recorded: Recorded) -> bool:
    """Whether noise and spread without decay end lower at a constant rate."""
    constant_rate, cosine = (recorded.of(*sweeps, lam=0) for sweeps in (CONSTANT, FIG1))
    return all(gmean(constant_rate, of) < gmean(cosine, of) for of in (velocity, relative_spread))


def both_faces(recorded: Recorded) -> bool:
    """Whether every seed with decay has more noise, more spread and less rank than without."""
    runs, plain = (recorded.of(*CONSTANT, lam=lam) for lam in (0.001, 0))
    noise = [times(runs, plain, of) for of in (velocity, relative_spread)]
    less = all(kept(layer)(run) < 0.9 for layer in MIDDLE for run in runs)
    return less and np.min(noise) > 10 and len(runs) == 3


def constant(recorded: Recorded) -> list[float]:
    """What decay makes of noise, spread (and of the seed with the least), and ranks."""
    runs, plain, cosine = (
        recorded.of(*sweeps, lam=lam)
        for sweeps, lam in ((CONSTANT, 0.001), (CONSTANT, 0), (FIG1, 0.001))
    )
    noise, spread = (gmean(runs, of) / gmean(plain, of) for of in (velocity, relative_spread))
    less = [ends(1 - mean(some, kept(layer)) for layer in MIDDLE) for some in (runs, cosine)]
    least = min(times(runs, plain, relative_spread))
    return [noise, round(spread, -2), least, 100 * less[0][0], 100 * less[0][1], *less[1]]


def wide(recorded: Recorded) -> bool:
    """Whether the interval of the noise over seeds, as in the table, is wide."""
    found = ratio("", [velocity(run) for run in recorded.of(*CONSTANT, lam=0.001)])
    return found.low is not None and found.high is not None and found.high / found.low > 100


def counts(sweeps: Sequence[str], recorded: Recorded, lams: Sequence[float]) -> list[int]:
    """How many seeds there are at some lambdas."""
    return [len({seed_of(run) for run in recorded.of(*sweeps, lam=lam)}) for lam in lams]


CONSTANTS = [
    Sentence("Both faces are there in each of three seeds", so=both_faces),
    Sentence(
        "At lambda = 0 noise and spread go on falling, to {:.1g} and {}, and the ranks stay. There "
        "both end lower than under the cosine",
        lambda r: [
            gmean(r.of(*CONSTANT, lam=0), velocity),
            power(gmean(r.of(*CONSTANT, lam=0), relative_spread)),
        ],
        lambda r: settling(r) and lower_than_under_the_cosine(r),
    ),
    Sentence(
        "At lambda = 1e-3 and 2e-3 noise and spread have not settled by the end: ‖V̇‖ and the "
        "spread go up and down by factors of {:.0f} to {:.0f} in the second half of the epochs",
        lambda r: ends(waves(r)),
        lambda r: min(waves(r)) > 5,
    ),
    Sentence("which the table has, is a snapshot of a wave and its interval wide.", so=wide),
    Sentence(
        "In the last row at lambda = 1e-3 ‖V̇‖ is {:.0f} times that at lambda = 0, sigma/mu {:.0f} "
        "times (in the seed where it is least, {:.0f} times), and conv3, conv4 and fc1 have lost "
        "{:.0f} to {:.0f}% of their effective rank where the cosine takes {:.1%} to {:.1%}.",
        constant,
        both_faces,
    ),
    Sentence(
        "Lambda = 5e-3 empties the network.",
        so=lambda r: all(is_zero_function(run) for run in r.of(*CONSTANT, lam=0.005)),
    ),
    Sentence(
        "Lambda = 0 and 1e-3 have three seeds, the others one.",
        so=lambda r: counts(CONSTANT, r, (0, 0.001, 0.002, 0.005)) == [3, 3, 1, 1],
    ),
]


# Decay on rho alone, multipliers, the default network


def by_lambda(recorded: Recorded) -> list[Run]:
    """The runs with decay on rho alone, by lambda."""
    return sorted(recorded.of("two_cores_rho"), key=lambda_of)


def of_margins(recorded: Recorded) -> list[np.ndarray]:
    """Mean margin, sigma/mu and ||V dot|| by lambda."""
    of = (partial(Run.last, key="margin/mean"), relative_spread, velocity)
    return [np.array([quantity(run) for run in by_lambda(recorded)]) for quantity in of]


def drops(recorded: Recorded) -> list[list[float]]:
    """By how much each of them falls from a lambda to the next, where it does."""
    steps = [values[1:] / values[:-1] - 1 for values in of_margins(recorded)]
    return [[float(-change) for change in step if change < 0] for step in steps]


def of_rho(recorded: Recorded) -> list[float]:
    """conv4 at the largest lambda and at the start, conv1 and fc2 at the largest and least."""
    least, *_, most = by_lambda(recorded)
    start = most.first("effective_rank/conv4")
    moved = [rank(layer)(run) for run in (most, least) for layer in ("conv1", "fc2")]
    return [rank("conv4")(most), start, *moved]


def two_moved(recorded: Recorded) -> bool:
    """Whether conv1 and fc2 alone lose rank with lambda on rho; on all it empties the network."""
    least, *_, most = by_lambda(recorded)
    moved = {
        layer
        for layer in most.layers("effective_rank")
        if rank(layer)(most) < 0.99 * rank(layer)(least)
    }
    emptied = all(is_zero_function(run) for run in recorded.of("two_cores_fig1", lam=0.01))
    return emptied and moved == {"conv1", "fc2"}


def decayed(recorded: Recorded) -> bool:
    """Whether decay on all parameters takes rank from the middle layers, in every seed."""
    runs = recorded.of(*FIG1, lam=0.005)
    return all(kept(layer)(run) < 0.9 for layer in MIDDLE for run in runs)


def same_error(recorded: Recorded) -> bool:
    """Whether multipliers and weight normalization end within half a percent of test error."""
    pairs = [
        [recorded.of(sweep, lam=lam)[0] for sweep in ("two_cores_lagrange", "two_cores_fig1")]
        for lam in (0, 0.001)
    ]
    return all(
        abs(one.last("val/error") - other.last("val/error")) < 0.005
        and one.last("train/error") == other.last("train/error") == 0
        for one, other in pairs
    )


def multipliers(recorded: Recorded, layers: Sequence[str] = MIDDLE) -> list[list[float]]:
    """Ranks by layer of multipliers at two lambdas, and of weight normalization at lambda = 0."""
    runs = [recorded.of("two_cores_lagrange", lam=lam)[0] for lam in (0, 0.001)]
    runs.append(recorded.of("two_cores_fig1", lam=0)[0])
    return [[rank(layer)(run) for layer in layers] for run in runs]


def default(recorded: Recorded) -> list[Run]:
    """SGD and GD of the default network."""
    return [recorded.of("default_network", dynamics=dynamics)[0] for dynamics in ("SGD", "GD")]


def of_default(recorded: Recorded) -> list[float]:
    """Epochs, steps, and what moves of the ranks."""
    sgd, gd = default(recorded)
    wide_layer = [sgd.options["model.hidden"], rank("fc1")(sgd)]
    moved = [sgd.first("effective_rank/conv1"), rank("conv1")(sgd)]
    return [sgd.last("epoch"), sgd.last(STEP), gd.last(STEP), *wide_layer, *moved]


def too_short(recorded: Recorded) -> bool:
    """Whether conv2 to fc1 keep their ranks, and fc1 has as many columns as rows or more."""
    runs = default(recorded)
    still = all(kept(k)(run) > 0.998 for k in ("conv2", *MIDDLE) for run in runs)
    full = all(run.first("rank/fc1") == run.options["model.hidden"] for run in runs)
    return still and full and len({run.last("epoch") for run in runs}) == 1


OTHERS = [
    Sentence("Decay on all parameters makes the low rank.", so=decayed),
    Sentence(
        "the mean margin, sigma/mu and ‖V̇‖ grow with lambda (in order, but for a pair of ‖V̇‖ "
        "that is equal to {:.1%}), by factors of {:.0f}, {:.0f} and {:.1f} from 1e-6 to 1e-2.",
        lambda r: [*drops(r)[2], *(values[-1] / values[0] for values in of_margins(r))],
        lambda r: [len(found) for found in drops(r)] == [0, 0, 1],
    ),
    Sentence(
        "And it makes no low rank: at lambda = 1e-2, which on all parameters empties the network, "
        "conv4 has {:.1f} of its {:.1f}, and conv1 and fc2 alone have moved, to {:.1f} and {:.2f} "
        "where 1e-6 leaves {:.1f} and {:.2f}.",
        of_rho,
        two_moved,
    ),
    Sentence(
        "The two trainings differ, though both find networks of the same error.",
        so=same_error,
    ),
    Sentence(
        "ranks hardly depend on lambda.",
        so=lambda r: np.allclose(multipliers(r)[0], multipliers(r)[1], rtol=0.01),
    ),
    Sentence(
        "They are lower than weight normalization's at lambda = 0 (conv3 {:.0f} against {:.0f})",
        lambda r: [multipliers(r)[0][0], multipliers(r)[2][0]],
        lambda r: np.less(multipliers(r)[0], multipliers(r)[2]).all(),
    ),
    Sentence(
        "Too short to tell: {:.0f} of the paper's 2,000 epochs were reached by each, {:.0f} steps "
        "of SGD and {:.0f} of GD, and at lambda = 1e-3 that is too little decay for the ranks of "
        "conv2 to fc1 to move (fc1 has {:,} rows here, and no fewer columns, so that its effective "
        "rank is {:.0f} at the start and after); under SGD that of conv1 falls from {:.1f} to "
        "{:.1f}.",
        of_default,
        too_short,
    ),
    Sentence(
        "SGD is at a training error of {:.1%} and a test error of {:.1%}, GD at {:.1%}.",
        lambda r: [
            *(default(r)[0].last(f"{part}/error") for part in ("train", "val")),
            default(r)[1].last("train/error"),
        ],
    ),
]


SENTENCES = [*LEMMA, *EQUAL, *CONSTANTS, *OTHERS, *WHOSE, *LINEAR]
