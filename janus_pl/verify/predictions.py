"""The paper's predictions for the deep network (Section 2.1), and controls that it lacks."""

from __future__ import annotations

from janus_pl.records.families import CONVERGED_ERROR
from janus_pl.records.run import STEP
from janus_pl.verify.over_lambda import (
    cross_entropy_keeps_noise,
    gd_spread_is_constant,
    grows_with_lambda,
    noise_needs_lambda,
)
from janus_pl.verify.quantities import (
    RANK,
    VELOCITY,
    mean_margin,
    middle_rank,
    relative_spread,
    velocity,
)
from janus_pl.verify.sgd_against_gd import at_equal, ranks_fall, sgd_is_noisier, sgd_lowers_ranks
from janus_pl.verify.subjects import NETWORK
from janus_pl.verify.thresholds import (
    EQUILIBRIUM,
    NOISE_FACTOR,
    RANK_FALLS,
    SAME_CLOCK,
    SAME_FACTOR,
    STAYS,
    TREND,
)
from janus_pl.verify.verdicts import Prediction
from janus_pl.verify.within_runs import (
    rank_goes_with_velocity,
    rho_is_at_equilibrium,
    top_layer_is_quietest,
)

LAMBDAS = "SGD runs with the square loss at two lambdas or more, of the same seed"
PAIR = "an SGD run at lambda > 0 and the same with data.batch_size: full"
TREND_WORDS = (
    f"Kendall's tau against lambda is at least {TREND}, mean over seeds, and the growth from the"
    f" least lambda to the largest that all seeds share at least {STAYS:.0%}"
)
FALLS_WORDS = (
    f"conv3, conv4 and fc1 each fall by {RANK_FALLS:.0%} or more under SGD and by less than"
    f" {STAYS:.0%} under GD, mean over seeds"
)
CLOCK_WORDS = (
    f"at the last row of SGD at which GD has one too, to {SAME_CLOCK:.0%}, the first rows apart"
)
NOISIER_WORDS = (
    f"||V_k dot||, geometric mean over layers, is {NOISE_FACTOR:g} times that of GD at the same"
    " lambda or more under SGD, geometric mean over seeds"
)

PREDICTIONS = (
    Prediction(
        "janus: low rank",
        "SGD with weight decay lowers the effective ranks; GD does not (equal epochs)",
        "Sections 1 and 2",
        FALLS_WORDS,
        NETWORK,
        sgd_lowers_ranks,
        PAIR,
    ),
    Prediction(
        "janus: noise",
        "SGD's margins spread with weight decay and hardly without",
        "Section 2.1 (1), Fig. 1",
        f"std/mean of the margins at the largest lambda that all seeds share is {NOISE_FACTOR:g}"
        " times that at 0 or more, geometric mean over seeds",
        NETWORK,
        noise_needs_lambda,
        LAMBDAS,
    ),
    Prediction(
        "1: spread",
        "the margins' spread (std/mean) grows with lambda under SGD",
        "Section 2.1 (1), Fig. 1",
        TREND_WORDS,
        NETWORK,
        grows_with_lambda(relative_spread, "std/mean", ("margin/std", "margin/mean")),
        LAMBDAS,
    ),
    Prediction(
        "1: mean",
        "the mean margin grows with lambda under SGD",
        "Section 2.1 (1), Fig. 1",
        TREND_WORDS,
        NETWORK,
        grows_with_lambda(mean_margin, "the mean margin", ("margin/mean",)),
        LAMBDAS,
    ),
    Prediction(
        "2: GD",
        "the margins' spread does not depend on lambda under converged GD",
        "Section 2.1 (2), Fig. 2b",
        "std/mean at the largest lambda that all seeds share over that at the smallest is within"
        f" {SAME_FACTOR:g} times, geometric mean over seeds; converged: training error below"
        f" {CONVERGED_ERROR:.0%}",
        NETWORK,
        gd_spread_is_constant,
        "GD runs with the square loss at two lambdas or more, of the same seed, converged",
    ),
    Prediction(
        "3: velocity",
        "||V_k dot|| grows with lambda under SGD",
        "Section 2.1 (3), Eq. 24, Fig. 3",
        f"{TREND_WORDS}; geometric mean over layers",
        NETWORK,
        grows_with_lambda(velocity, "||V_k dot|| of every layer", ("velocity/fc1",)),
        LAMBDAS,
    ),
    Prediction(
        "3: top layer",
        "||V_k dot|| is smallest at the top layer",
        "Section 2.1 (3), Fig. 3",
        "the top layer's over the least of the others is at most 1, geometric mean over each seed's"
        " runs, then over seeds",
        NETWORK,
        top_layer_is_quietest,
        "SGD runs with the square loss at lambda > 0",
    ),
    Prediction(
        "4: rank",
        "the rank falls with lambda under SGD",
        "Section 2.1 (4), Fig. 4b",
        f"Kendall's tau of the middle layers' mean effective rank against lambda is -{TREND} or"
        f" less, mean over seeds, and the fall from the least lambda to the largest that all seeds"
        f" share at least {STAYS:.0%}",
        NETWORK,
        grows_with_lambda(middle_rank, "the effective rank", ("effective_rank/fc1",), sign=-1),
        LAMBDAS,
    ),
    Prediction(
        "4: rank and velocity",
        "layers of larger rank have the larger ||V_k dot||",
        "Section 2.1 (4), Fig. 4",
        f"Kendall's tau over the layers of a run is at least {TREND}, mean over each seed's runs,"
        " then over seeds",
        NETWORK,
        rank_goes_with_velocity,
        "SGD runs with the square loss at lambda > 0, with velocities and ranks",
    ),
    Prediction(
        "5: cross entropy",
        "an exponential-type loss keeps its noise at lambda = 0, the square loss does not",
        "Section 2.1 (5), Fig. 5a",
        f"std/mean at lambda = 0 is {NOISE_FACTOR:g} times that of the square loss or more,"
        " geometric mean over seeds",
        NETWORK,
        cross_entropy_keeps_noise,
        "SGD at lambda = 0 under the square loss and under cross_entropy, of the same seed",
    ),
    Prediction(
        "equilibrium of rho",
        "mu = (M + lambda) rho at the end of training",
        "Section 2.1, Eq. 13",
        f"the residual, without the second output's part, is at most {EQUILIBRIUM:.0%} of mu, mean"
        " over each seed's runs, then over seeds",
        NETWORK,
        rho_is_at_equilibrium,
        "runs with the square loss and a global rho (equilibrium/residual)",
    ),
    Prediction(
        "control: equal steps",
        "SGD lowers the ranks and GD does not, at equal numbers of steps",
        "not in the paper",
        f"{FALLS_WORDS}, {CLOCK_WORDS}",
        NETWORK,
        at_equal(STEP, "steps", RANK, ranks_fall),
        PAIR,
    ),
    Prediction(
        "control: equal eta t",
        "SGD lowers the ranks and GD does not, at equal accumulated learning rate",
        "not in the paper",
        f"{FALLS_WORDS}, {CLOCK_WORDS}",
        NETWORK,
        at_equal("eta_t", "eta t", RANK, ranks_fall),
        PAIR,
    ),
    Prediction(
        "control: noise at equal steps",
        "||V_k dot|| is far larger under SGD than under GD, at equal numbers of steps",
        "not in the paper",
        f"{NOISIER_WORDS}, {CLOCK_WORDS}",
        NETWORK,
        at_equal(STEP, "steps", VELOCITY, sgd_is_noisier),
        PAIR,
    ),
    Prediction(
        "control: noise at equal eta t",
        "||V_k dot|| is far larger under SGD than under GD, at equal accumulated learning rate",
        "not in the paper",
        f"{NOISIER_WORDS}, {CLOCK_WORDS}",
        NETWORK,
        at_equal("eta_t", "eta t", VELOCITY, sgd_is_noisier),
        PAIR,
    ),
)
