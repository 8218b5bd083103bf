"""What is said of linear regression; see results_sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from results_sentences import Recorded, Sentence, over, power

from janus_pl.records.families import lambda_of
from janus_pl.records.run import STEP, Run

NULL = "null/norm"
ROUNDING = 1e-12  # numbers of linear regression are of order 1


def above(value: float) -> str:
    """The power of ten above a small number."""
    return power(10.0 ** math.ceil(math.log10(value)))


def pair(recorded: Recorded, sweep: str) -> tuple[Run, Run]:
    """SGD and GD of a sweep."""
    sgd, gd = (recorded.of(f"linear-{sweep}", dynamics=dynamics) for dynamics in ("SGD", "GD"))
    return sgd[0], gd[0]


def both(recorded: Recorded, sweep: str, key: str) -> tuple[float, float]:
    """The last number of SGD and GD."""
    sgd, gd = pair(recorded, sweep)
    return sgd.last(key), gd.last(key)


def left(run: Run) -> float:
    """What is left of W in the null space, of its start."""
    return run.last(NULL) / run.first(NULL)


def singular_values(run: Run) -> list[float]:
    """The last ones, the largest first."""
    return sorted((run.last(k) for k in run.rows if k.startswith("singular_value/")), reverse=True)


def by_size(recorded: Recorded) -> list[Run]:
    """SGD over batch sizes."""
    return recorded.of("linear-batch_sizes", dynamics="SGD")


# The schedules of Figure A.2, Theorem 1, the law over B


def other_way_round(recorded: Recorded) -> bool:
    """Whether GD has the smaller value as printed, by more eta t, and SGD under one schedule."""
    printed, shared = (
        both(recorded, f"a2{kind}", "sigma_min") for kind in ("_printed_schedule", "")
    )
    eta_t = both(recorded, "a2_printed_schedule", "eta_t")
    return printed[1] < ROUNDING < printed[0] and eta_t[1] > eta_t[0] and shared[0] < shared[1]


def random_starts(recorded: Recorded) -> list[Run]:
    """The linear runs that have something in the null space at the start."""
    every = [run for run in recorded.runs if run.has("null/predicted")]
    return [run for run in every if run.first(NULL) > ROUNDING]


def off(run: Run) -> Iterator[float]:
    """How far the null space is off its closed form, of its start, and the quantiles of seeds."""
    for end in ("", "/q05", "/q95"):
        if run.has(NULL + end):
            apart = run.rows[NULL + end] - run.rows[f"null/predicted{end}"]
            yield float(apart.abs().max() / run.first(NULL + end))


def of_rate_alone(recorded: Recorded) -> bool:
    """Whether -2 lambda eta t is what is left, in logarithms, and seeds differ by their rate."""
    runs = [*pair(recorded, "a2"), *by_size(recorded), *pair(recorded, "a7")]
    slopes = [math.log(left(run)) / (2 * lambda_of(run) * run.last("eta_t")) for run in runs]
    seeds = pair(recorded, "seeds")
    apart = [run.last(f"{NULL}/q05") < 0.8 * run.last(f"{NULL}/q95") for run in seeds]
    return np.allclose(slopes, -1, rtol=0.01) and all(apart)


def slopes_off(run: Run, gd: Run, key: str = NULL) -> np.ndarray:
    """By how much log-slopes from row to row are not GD's times the steps per epoch."""
    slopes = [np.log(over(one, key)).diff().dropna() for one in (run, gd)]
    return (slopes[0] / slopes[1] / run.steps_per_epoch - 1).abs().to_numpy()


def law_off(recorded: Recorded) -> float:
    """`slopes_off` over batch sizes, at most."""
    gd = pair(recorded, "batch_sizes")[1]
    return max(float(slopes_off(run, gd).max()) for run in by_size(recorded))


def steps_of(recorded: Recorded) -> dict[int, tuple[float, int]]:
    """The steps per epoch and ceil(N/B), by batch size."""
    found = {}
    for run in by_size(recorded):
        n, b = run.description.num_train, run.description.batch_size
        assert n is not None and b is not None
        found[b] = run.steps_per_epoch, math.ceil(n / b)
    return found


def whole_is_gd(recorded: Recorded) -> bool:
    """Whether B = N has GD's numbers in every row."""
    gd = pair(recorded, "batch_sizes")[1]
    runs = [r for r in by_size(recorded) if r.description.batch_size == r.description.num_train]
    return len(runs) == 1 and all(runs[0].rows[key].equals(gd.rows[key]) for key in gd.rows)


LAWS = [
    Sentence(
        "With the schedules as printed it is the other way round: GD's smallest singular value is "
        "rounding ({}) and SGD's {}. At a constant rate GD accumulates more eta t than SGD does at "
        "1/sqrt(t) in N times the steps.",
        lambda r: [power(v) for v in both(r, "a2_printed_schedule", "sigma_min")[::-1]],
        other_way_round,
    ),
    Sentence("Figure A.2 comes out under a shared schedule only.", so=other_way_round),
    Sentence(
        "Holds, to rounding: at most {} of the start off the closed form at every recorded epoch "
        "of every run, {:,.0f} steps included.",
        lambda r: [
            power(max(max(off(run)) for run in random_starts(r)), 1),
            max(run.last(STEP) for run in random_starts(r)),
        ],
    ),
    Sentence(
        "The factor depends on nothing but eta and lambda; the rate is 0.5/sigma_max(X), and so "
        "the {} seeds differ in it.",
        lambda r: [pair(r, "seeds")[0].options["data.replicas"]],
        of_rate_alone,
    ),
    Sentence(
        "Holds: the log-slopes per epoch are as the numbers of steps, to {}. With B = 3 that is "
        "{:.0f}, not 10/3: an epoch has ceil(N/B) steps.",
        lambda r: [above(law_off(r)), steps_of(r)[3][0]],
        lambda r: all(steps == ceil for steps, ceil in steps_of(r).values()),
    ),
    Sentence("B = N has GD's numbers.", so=whole_is_gd),
]


# The figures


def none_enters(recorded: Recorded) -> list[str]:
    """A power of ten that the null space of A.1 stays below."""
    return [above(max(run.rows[NULL].max() for run in pair(recorded, "a1")))]


def of_a1(recorded: Recorded) -> list[float]:
    """SGD's error, the epochs, and GD's error."""
    sgd, gd = both(recorded, "a1", "train/mse_per_sample")
    return [sgd, both(recorded, "a1", "epoch")[0], gd]


def same_per_step(recorded: Recorded) -> bool:
    """Whether SGD and GD of A.2 shrink the null space as much per eta t."""
    sgd, gd = (math.log(left(run)) / run.last("eta_t") for run in pair(recorded, "a2"))
    return math.isclose(sgd, gd, rel_tol=1e-6)


def third_last(recorded: Recorded) -> list[float]:
    """The third smallest singular value of A.3 under SGD and GD."""
    return [singular_values(run)[-3] for run in pair(recorded, "a3")]


def sooner(recorded: Recorded) -> bool:
    """Whether two singular values of SGD stand out in A.3, and two are at rounding."""
    sgd, gd = (singular_values(run) for run in pair(recorded, "a3"))
    stands_out = sgd[1] > 5 * sgd[2] and gd[1] > 4 * gd[2] and sgd[2] < gd[2]
    return stands_out and sgd[-2] < ROUNDING < min(sgd[-3], gd[-1])


def of_a6(recorded: Recorded) -> list[float]:
    """What is left in A.6 under SGD and GD, and the latter, as it is written, to the power of N."""
    sgd, gd = pair(recorded, "a6")
    n, one = gd.description.num_train, round(left(gd), 4)
    assert n is not None
    return [left(sgd), left(gd), one, n, one**n]


def tenth(run: Run) -> float:
    """The noise of W in the last tenth over that of the tenth before."""
    return run.last("noise/weights_last_tenth") / run.last("noise/weights_tenth_before")


def late_slope(run: Run, key: str) -> float:
    """The log-slope over the second half of the epochs."""
    values = over(run, key)
    late = values.loc[values.index[-1] / 2 :]
    return float(np.polyfit(late.index, np.log(late), 1)[0])


def slope_ratios(recorded: Recorded) -> list[float]:
    """SGD's log-slopes over GD's in A.7, of the null space and of the smallest singular value."""
    sgd, gd = pair(recorded, "a7")
    return [late_slope(sgd, key) / late_slope(gd, key) for key in (NULL, "sigma_min")]


def slopes_meet(recorded: Recorded) -> bool:
    """Whether the null space's log-slopes are as the steps to seven digits, and sigma_min's end."""
    sgd, gd = pair(recorded, "a7")
    null, smallest = (slopes_off(sgd, gd, key) for key in (NULL, "sigma_min"))
    return null.max() < 5e-8 and smallest[-1] < 1e-4 < smallest[0] and sgd.last(NULL) < ROUNDING


def stays_away(recorded: Recorded) -> bool:
    """Whether SGD of A.7 ends no nearer to W* than it was for half the run, and GD reaches it."""
    sgd, gd = (over(run, "solution/distance") for run in pair(recorded, "a7"))
    late = sgd.loc[sgd.index[-1] / 2 :]
    return late.min() > 0.99 * late.iloc[-1] and gd.iloc[-1] < 0.01 * sgd.iloc[-1]


FIGURES = [
    Sentence("The null space: holds, ‖W_perp‖ stays below {} under both.", none_enters),
    Sentence(
        "The errors: SGD's is {:.3g} after {:.0f} epochs, GD's {:.3g} (the paper's: 0.88 and 1.52; "
        "they depend on the draw). The same rate: not per epoch, where SGD takes ten steps and GD "
        "one.",
        of_a1,
        lambda r: (
            of_a1(r)[0] < of_a1(r)[2] and [run.steps_per_epoch for run in pair(r, "a1")] == [10, 1]
        ),
    ),
    Sentence(
        "Holds of the null space, and is a matter of steps: per step the two factors are identical "
        "under the shared schedule. Over {} seeds {} of the start is left under SGD and {:.2f} "
        "under GD (medians;",
        lambda r: [
            pair(r, "seeds")[0].options["data.replicas"],
            power(left(pair(r, "seeds")[0]), 1),
            left(pair(r, "seeds")[1]),
        ],
        same_per_step,
    ),
    Sentence(
        "Holds per epoch: two singular values are at rounding under SGD, which took {:.0f} steps "
        "where GD took {:.0f}, and a third is at {}, where GD's is at {}. In the null space {:.2f} "
        "of the start is left under SGD in {:.0f} epochs, {:.2f} under GD.",
        lambda r: [
            *(run.steps_per_epoch for run in pair(r, "a3")),
            *(power(value) for value in third_last(r)),
            left(pair(r, "a3")[0]),
            both(r, "a3", "epoch")[0],
            left(pair(r, "a3")[1]),
        ],
        sooner,
    ),
    Sentence(
        "Holds: after one pass two singular values stand out under SGD ({:.1f} and {:.1f} against "
        "{:.2f}); GD has taken a single step.",
        lambda r: singular_values(pair(r, "a4")[0])[:3],
        lambda r: (
            both(r, "a4", STEP)[1] == 1
            and singular_values(pair(r, "a4")[0])[1] > 10 * singular_values(pair(r, "a4")[0])[2]
        ),
    ),
    Sentence(
        "Holds: the noise of W in the last tenth is that of the tenth before, to {:.0%}.",
        lambda r: [abs(tenth(pair(r, "a5")[0]) - 1)],
        lambda r: abs(tenth(pair(r, "a5")[0]) - 1) < 0.05,
    ),
    Sentence(
        "Holds: {:.3f} of the start is left under SGD, {:.4f} under GD, and {:.4f}^{} is {:.3f}.",
        of_a6,
        lambda r: math.isclose(of_a6(r)[0], of_a6(r)[-1], rel_tol=1e-3),
    ),
    Sentence(
        "The slopes: hold. Those of log ‖W_perp‖ differ by the factor {:.7g} to seven digits, down "
        "to where SGD's is rounding ({}). Those of the smallest singular value come to it: they "
        "differ by {:.3f} over the second half of the epochs.",
        lambda r: [slope_ratios(r)[0], power(both(r, "a7", NULL)[0]), slope_ratios(r)[1]],
        slopes_meet,
    ),
    Sentence(
        "SGD does not reach W*: at a constant rate it stays {:.2f} away, and its noise does not "
        "decay.",
        lambda r: [both(r, "a7", "solution/distance")[0]],
        lambda r: stays_away(r) and abs(tenth(pair(r, "a7")[0]) - 1) < 0.05,
    ),
]

LARGEST = "singular_value/1"


def settles(run: Run) -> int:
    """The last epoch in which the largest singular value is off its end by more than 1%."""
    values = over(run, LARGEST)
    return int(values[(values / values.iloc[-1] - 1).abs() > 0.01].index[-1])


def of_largest(recorded: Recorded) -> list[float]:
    """When it settles and where it ends, SGD first."""
    pair = [recorded.of("linear-a7", dynamics=name)[0] for name in ("SGD", "GD")]
    return [*map(settles, pair), *(run.last(LARGEST) for run in pair)]


LAST = [
    Sentence(
        "The rates of the largest singular value: not similar per epoch. It stays within 1% of its "
        "end after epoch {} under SGD, after epoch {} under GD, and ends at {:.2f} and {:.2f}.",
        of_largest,
    ),
]
SENTENCES = [*LAWS, *FIGURES, *LAST]
