"""Each rule just below and just above each of its thresholds, seed by seed and row by row.

Rows before the newest number hold others that would decide otherwise, and the last row holds none,
so that a rule that looks at another row is seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from report.generic import EPOCHS, LAYERS, STEP, network

from janus_pl.records.run import Run
from janus_pl.verify.predictions import PREDICTIONS
from janus_pl.verify.quantities import middle, middle_rank
from janus_pl.verify.verdicts import Outcome, Prediction, Verdict, judge

ALL: dict[str, Prediction] = {prediction.key: prediction for prediction in PREDICTIONS}
GD = "full"
MIDDLE = ("conv3", "conv4", "fc1")
HOLDS, FAILS, UNTESTABLE = Outcome.HOLDS, Outcome.FAILS, Outcome.UNTESTABLE


def ending(values: Mapping[str, float]) -> dict[str, list[float]]:
    """Columns whose newest numbers these are, behind others and before a row without any."""
    return {key: [7.0 * value + 3, 900.0, 5e-4, value, math.nan] for key, value in values.items()}


def run(lam: float = 1e-3, batch: int | str = 32, seed: int = 0, **options: Any) -> Run:
    """A classifier's run; `ends` are newest numbers."""
    columns = {**ending(options.pop("ends", {})), **options.pop("columns", {})}
    return network(lam, batch, seed, columns=columns, **options)


def only(key: str, runs: Sequence[Run]) -> Verdict:
    (verdict,) = judge(ALL[key], runs)
    return verdict


def outcome(key: str, runs: Sequence[Run]) -> Outcome:
    return only(key, runs).verdict


# Sweeps over lambda

LAMBDAS = (0.0, 1e-4, 1e-3)
QUANTITIES = {
    "1: spread": lambda value: {"margin/std": value, "margin/mean": -1.0},
    "1: mean": lambda value: {"margin/mean": value},
    "3: velocity": lambda value: {f"velocity/{k}": value for k in LAYERS},
    "4: rank": lambda value: {f"effective_rank/{k}": 1 / value for k in MIDDLE},
}


def sweep(key: str, *seeds: Sequence[float], batch: int | str = 32) -> list[Run]:
    """Runs whose quantity has these values at lambda 0, 1e-4, 1e-3, ..., one list a seed."""
    lams = (*LAMBDAS, 2e-3, 3e-3, 5e-3, 7e-3, 1e-2)
    return [
        run(lam, batch, seed, ends=QUANTITIES[key](value))
        for seed, values in enumerate(seeds)
        for lam, value in zip(lams, values, strict=False)
    ]


@pytest.mark.parametrize("key", QUANTITIES)
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((1.0, 1.005, 1.0206), HOLDS),  # grows, or falls, by 2%
        ((1.0, 1.005, 1.0197), FAILS),
        ((1.0206, 1.005, 1.0), FAILS),
        ((1.0, 0.9, 4.0), FAILS),  # tau 1/3
        ((1.0, 2.0, 4.0), HOLDS),
        ((4.0, 2.0, 1.0), FAILS),
        ((1.0, 4.0, 2.0, 8.0, 5.0), HOLDS),  # tau 0.6 of five
        ((1.0, 4.0, 2.0, 8.0, 3.0), FAILS),  # 0.4
    ],
)
def test_growth_is_a_trend_and_two_percent(
    key: str, values: Sequence[float], expected: Outcome
) -> None:
    assert outcome(key, sweep(key, values)) is expected


@pytest.mark.parametrize("key", QUANTITIES)
def test_a_trend_of_one_half_over_seeds_is_one_and_less_is_none(key: str) -> None:
    rising, flat = (1.0, 2.0, 4.0), (3.0, 3.0, 3.0)
    half = only(key, sweep(key, rising, flat))
    assert half.verdict is HOLDS
    change, tau = half.effects
    assert tau.value == (0.5 if key != "4: rank" else -0.5)
    assert (change.seeds, tau.seeds) == (2, 2)
    expected = 2.0 if key != "4: rank" else 0.5  # of 4 and 1
    assert change.value == pytest.approx(expected)
    assert outcome(key, sweep(key, rising, flat, flat)) is FAILS
    # Twelve of 28 pairs more in order than not are below one half, and sixteen above.
    for order, said in (((1, 2, 8, 3, 4, 7, 6, 5), FAILS), ((1, 2, 8, 3, 4, 5, 7, 6), HOLDS)):
        verdict = only(key, sweep(key, order))
        assert abs(verdict.effects[1].value) == pytest.approx({FAILS: 12, HOLDS: 16}[said] / 28)
        assert verdict.verdict is said


@pytest.mark.parametrize("key", QUANTITIES)
def test_growth_is_of_sgd_under_the_square_loss_alone(key: str) -> None:
    values = (1.0, 2.0, 4.0)
    assert outcome(key, sweep(key, values, batch=GD)) is UNTESTABLE
    other = [
        run(lam, loss="logistic", ends=QUANTITIES[key](value))
        for lam, value in zip(LAMBDAS, values, strict=True)
    ]
    assert outcome(key, other) is UNTESTABLE
    unfinished = [replace(one, exit_code=None) for one in sweep(key, values)]
    assert outcome(key, unfinished) is UNTESTABLE


def test_quantities_are_those_of_their_definitions() -> None:
    """Spread: std/|mean|. Velocity: geometric mean over layers. Rank: mean over middle layers."""
    velocities: dict[float, dict[str, float]] = {
        0.0: dict(zip(LAYERS, (1, 2, 4, 8, 16, 32), strict=True)),
        1e-3: dict(zip(LAYERS, (3, 90, 1, 5, 0.2, 7), strict=True)),
    }
    ranks = {0.0: (50, 30, 20), 1e-3: (12, 8, 9)}
    means = {0.0: 3.0, 1e-3: -0.5}
    stds = {0.0: 0.25, 1e-3: 2.0}
    runs = []
    for lam in velocities:
        ends = {f"velocity/{k}": float(v) for k, v in velocities[lam].items()}
        ends |= {f"effective_rank/{k}": float(v) for k, v in zip(MIDDLE, ranks[lam], strict=True)}
        runs.append(run(lam, ends={**ends, "margin/mean": means[lam], "margin/std": stds[lam]}))
    assert only("1: spread", runs).effects[0].value == pytest.approx((2 / 0.5) / (0.25 / 3))
    geometric = [np.prod(list(v.values())) ** (1 / 6) for v in velocities.values()]
    assert only("3: velocity", runs).effects[0].value == pytest.approx(geometric[1] / geometric[0])
    assert only("4: rank", runs).effects[0].value == pytest.approx(29 / 100)


@pytest.mark.parametrize(
    ("layers", "counted"),
    [
        (("a", "b", "c", "d"), ("b", "c")),  # a network of other layers: not the first nor last
        (("a", "b"), ("a", "b")),
        (("a", "conv4", "z"), ("conv4",)),
    ],
)
def test_the_middle_layers_of_other_networks(layers: Sequence[str], counted: Sequence[str]) -> None:
    runs = []
    for lam in (0.0, 1e-3):
        ranks = {k: 10 / (1 + 1e3 * lam) if k in counted else 1.0 for k in layers}
        ends = {f"effective_rank/{k}": rank for k, rank in ranks.items()}
        runs.append(run(lam, layers=layers, ends=ends))
    assert middle(runs[0]) == list(counted)
    assert [middle_rank(one) for one in runs] == [10, 5]


# The noise that weight decay makes


def spreads(*seeds: tuple[float, float], batch: int | str = 32, **options: Any) -> list[Run]:
    """std/mean at lambda 0 and 1e-3, a pair for each seed."""
    return [
        run(lam, batch, seed, ends={"margin/std": value, "margin/mean": 1.0}, **options)
        for seed, values in enumerate(seeds)
        for lam, value in zip((0.0, 1e-3), values, strict=True)
    ]


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([(0.1, 1.001)], HOLDS),
        ([(0.1, 0.999)], FAILS),
        ([(1.001, 0.1)], FAILS),
        ([(1.0, 2.01), (1.0, 50.0)], HOLDS),  # the geometric mean of 2.01 and 50 is 10.02
        ([(1.0, 1.99), (1.0, 50.0)], FAILS),  # 9.97, and the arithmetic one is 26
    ],
)
def test_weight_decay_makes_ten_times_the_noise(
    pairs: list[tuple[float, float]], expected: Outcome
) -> None:
    runs = spreads(*pairs)
    assert outcome("janus: noise", runs) is expected
    # Without is lambda = 0, and no small lambda.
    for one in runs:
        options = one.config["model"]["init_args"]
        options["weight_decay"] = options["weight_decay"] or 1e-9
    missing = only("janus: noise", [replace(one) for one in runs]).missing
    assert missing == "SGD at lambda = 0 and above, of the same seed"


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([(1.0, 1.499)], HOLDS),
        ([(1.0, 1.501)], FAILS),
        ([(1.499, 1.0)], HOLDS),
        ([(1.501, 1.0)], FAILS),
        ([(1.0, 3.0), (3.0, 1.0)], HOLDS),  # the mean over seeds is 1
        ([(1.0, 3.0), (2.0, 1.0)], HOLDS),  # 1.22
        ([(1.0, 3.0), (1.3, 1.0)], FAILS),  # 1.52
    ],
)
def test_gd_keeps_its_spread_within_one_and_a_half_times(
    pairs: list[tuple[float, float]], expected: Outcome
) -> None:
    runs = spreads(*pairs, batch=GD)
    for one in runs:
        one.rows["train/error"] = ending({"train/error": 0.0})["train/error"]
    assert outcome("2: GD", runs) is expected


@pytest.mark.parametrize(("error", "converged"), [(0.0099, True), (0.01, False), (0.02, False)])
def test_gd_has_converged_below_one_percent_of_error_at_its_end(
    error: float, converged: bool
) -> None:
    runs = spreads((1.0, 1.2), batch=GD)
    for one, value in zip(runs, (0.0, error), strict=True):
        one.rows["train/error"] = ending({"train/error": value})["train/error"]
    verdict = only("2: GD", runs)
    assert (verdict.verdict is HOLDS) is converged
    if not converged:
        said = f"{runs[1].name} is not converged: training error {error:.2g}"
        assert verdict.missing == f"{said}; converged GD at another lambda beside 0"
    assert outcome("2: GD", spreads((1.0, 1.2))) is UNTESTABLE, "SGD is no GD"


# Layers


def layered(top: float, others: Sequence[float], seed: int = 0, lam: float = 1e-3) -> Run:
    norms = dict(zip(LAYERS, (*others, top), strict=True))
    return run(lam, seed=seed, ends={f"velocity/{k}": v for k, v in norms.items()})


@pytest.mark.parametrize(
    ("top", "others", "expected"),
    [
        (3.0, (4.0, 3.0, 9.0, 5.0, 6.0), HOLDS),  # equal to the least is quietest
        (2.9, (4.0, 3.0, 9.0, 5.0, 6.0), HOLDS),
        (3.1, (4.0, 3.0, 9.0, 5.0, 6.0), FAILS),
        (5.0, (1.0, 9.0, 9.0, 9.0, 9.0), FAILS),  # least of all in the first layer
        (5.0, (9.0, 9.0, 9.0, 9.0, 1.0), FAILS),
    ],
)
def test_the_top_layer_is_quietest_if_no_other_is_quieter(
    top: float, others: Sequence[float], expected: Outcome
) -> None:
    verdict = only("3: top layer", [layered(top, others)])
    assert verdict.verdict is expected
    assert verdict.effects[0].value == pytest.approx(top / min(others))
    least = LAYERS[others.index(min(others))]
    assert f"fc2/{least} {top / min(others):.3g}" in verdict.measured


def test_the_top_layer_over_seeds_is_a_geometric_mean() -> None:
    even = (2.0,) * 5
    pair = [layered(1.0, even), layered(3.9, even, seed=1)]  # 0.5 and 1.95: 0.987
    assert outcome("3: top layer", pair) is HOLDS
    assert outcome("3: top layer", [pair[0], layered(4.1, even, seed=1)]) is FAILS
    # Within a seed the geometric mean over its lambdas comes first.
    mine = [layered(top, even, lam=lam) for top, lam in ((1.0, 1e-4), (16.0, 1e-3))]
    verdict = only("3: top layer", [*mine, layered(1.0, even, seed=1)])
    assert verdict.effects[0].value == pytest.approx((2.0 * 0.5) ** 0.5)
    assert verdict.effects[0].seeds == 2


def test_a_run_without_decay_or_with_one_layer_has_no_quietest() -> None:
    assert outcome("3: top layer", [layered(1.0, (2.0,) * 5, lam=0.0)]) is UNTESTABLE
    one = run(layers=("fc1",))
    two = run(layers=("a", "b"), ends={"velocity/a": 2.0, "velocity/b": 1.0})
    assert outcome("3: top layer", [one]) is UNTESTABLE
    assert outcome("3: top layer", [two]) is HOLDS


def tied(ranks: Sequence[float], norms: Sequence[float], seed: int = 0, lam: float = 1e-3) -> Run:
    ends = {f"effective_rank/{k}": float(r) for k, r in zip(LAYERS, ranks, strict=False)}
    ends |= {f"velocity/{k}": float(v) for k, v in zip(LAYERS, norms, strict=False)}
    return run(lam, seed=seed, layers=LAYERS[: len(ranks)], ends=ends)


def test_rank_goes_with_velocity_from_one_half() -> None:
    key = "4: rank and velocity"
    ranks = (1, 2, 3, 4, 5, 6)
    orders = {HOLDS: (1, 2, 5, 3, 6, 4), FAILS: (1, 5, 6, 3, 2, 7)}  # 9 and 5 of 15 more
    for expected, norms in orders.items():
        verdict = only(key, [tied(ranks, norms)])
        assert verdict.verdict is expected
        assert verdict.effects[0].value == pytest.approx({HOLDS: 9 / 15, FAILS: 5 / 15}[expected])
    four = ranks[:4]  # of which tau is 1 without rounding
    rising, flat = tied(four, four), tied(four, (2,) * 4, seed=1)
    half = only(key, [rising, flat])
    assert half.effects[0].value == 0.5
    assert half.verdict is HOLDS
    assert outcome(key, [rising, flat, tied(four, (2,) * 4, seed=2)]) is FAILS
    assert outcome(key, [tied(ranks, ranks[::-1])]) is FAILS


def test_rank_goes_with_velocity_in_three_layers_or_more_with_both() -> None:
    key = "4: rank and velocity"
    assert outcome(key, [tied((1, 2, 3), (1, 2, 3))]) is HOLDS
    assert outcome(key, [tied((1, 2), (1, 2))]) is UNTESTABLE
    assert outcome(key, [tied((1, 2, 3), (1, 2, 3), lam=0.0)]) is UNTESTABLE
    lacks = tied((1, 2, 3, 4), (1, 2, 3, 4))
    del lacks.rows["velocity/conv2"]
    assert outcome(key, [lacks]) is UNTESTABLE


# Cross entropy

LOSSES = ("square", "cross_entropy")


@pytest.mark.parametrize("loss", ["cross_entropy", "logistic", "exponential"])
@pytest.mark.parametrize(("factor", "expected"), [(9.99, FAILS), (10.01, HOLDS), (0.05, FAILS)])
def test_an_exponential_loss_keeps_ten_times_the_noise(
    loss: str, factor: float, expected: Outcome
) -> None:
    key = "5: cross entropy"
    square = run(0.0, ends={"margin/std": 0.3, "margin/mean": -1.0})
    other = run(0.0, loss=loss, ends={"margin/std": 0.3 * factor, "margin/mean": 1.0})
    verdict = only(key, [square, other])
    assert verdict.verdict is expected
    assert verdict.effects[0].value == pytest.approx(factor)
    velocities = [
        np.prod([one.rows[f"velocity/{k}"].iloc[-1] for k in LAYERS]) ** (1 / 6)
        for one in (square, other)
    ]
    assert verdict.effects[1].value == pytest.approx(velocities[1] / velocities[0])
    assert f"{loss} over square at lambda 0" in verdict.measured


def test_losses_are_compared_at_lambda_zero_of_equal_seeds() -> None:
    key = "5: cross entropy"
    ends = [{"margin/std": std, "margin/mean": 1.0} for std in (0.1, 5.0)]
    for lams in ((1e-6, 1e-6), (0.0, 1e-6), (1e-6, 0.0)):
        pair = [
            run(lam, loss=loss, ends=e) for lam, loss, e in zip(lams, LOSSES, ends, strict=True)
        ]
        assert outcome(key, pair) is UNTESTABLE, lams
    apart = [
        run(0.0, seed=s, loss=loss, ends=e)
        for s, (loss, e) in enumerate(zip(LOSSES, ends, strict=True))
    ]
    assert (
        only(key, apart).missing == "square loss and cross_entropy at lambda = 0 of the same seed"
    )


# The equilibrium of rho


def settled(
    residual: float, mode: float = 0.0, seed: int = 0, lam: float = 1e-3, **ends: float
) -> Run:
    """mu in units of the learned rho is 4 * 0.5/2 = 1, unless said."""
    given = {"residual": residual, "common_mode": mode}
    numbers = {f"equilibrium/{k}": v for k, v in given.items()}
    numbers |= {"margin/mean": 4.0, "rho": 0.5, "rho_learned": -2.0}
    return run(
        lam, seed=seed, ends={**numbers, **{k.replace("__", "/"): v for k, v in ends.items()}}
    )


@pytest.mark.parametrize(
    ("given", "share", "expected"),
    [
        ({"residual": 0.01}, 0.01, HOLDS),
        ({"residual": 0.0101}, 0.0101, FAILS),
        ({"residual": -0.0101}, 0.0101, FAILS),
        ({"residual": 0.05, "mode": 0.041}, 0.009, HOLDS),
        ({"residual": 0.05, "mode": 0.039}, 0.011, FAILS),
        ({"residual": 0.005, "mode": -0.006}, 0.011, FAILS),
        ({"residual": 0.019, "rho": 1.0}, 0.0095, HOLDS),
        ({"residual": 0.019, "margin__mean": -8.0}, 0.0095, HOLDS),
        ({"residual": 0.009, "rho_learned": 2.5}, 0.01125, FAILS),
        ({"residual": 0.009, "rho_learned": 2.2}, 0.0099, HOLDS),
    ],
)
def test_rho_is_at_equilibrium_to_one_percent_of_mu(
    given: dict[str, float], share: float, expected: Outcome
) -> None:
    verdict = only("equilibrium of rho", [settled(**given)])
    assert verdict.verdict is expected
    assert verdict.effects[0].value == pytest.approx(share)


def test_the_equilibrium_is_a_mean_over_seeds_and_names_the_worst() -> None:
    runs = [settled(-0.018), settled(0.001, seed=1)]  # of which the signed mean would be small
    verdict = only("equilibrium of rho", runs)
    assert verdict.effects[0].value == pytest.approx(0.0095)
    assert verdict.verdict is HOLDS
    assert f"at most 0.018 ({runs[0].name}; 2 seeds)" in verdict.measured
    assert outcome("equilibrium of rho", [settled(-0.018), settled(0.003, seed=1)]) is FAILS


# Ranks under SGD and GD

START = 100.0


def ranked(
    fall: float | Sequence[float],
    batch: int | str = 32,
    seed: int = 0,
    lam: float = 1e-3,
    others: float = 0.0,
    **options: Any,
) -> Run:
    """Middle layers that have fallen by a share at the end, each from another start."""
    falls = [fall] * 3 if isinstance(fall, float) else fall
    columns = {}
    for k, (layer, share) in enumerate(zip(MIDDLE, falls, strict=True)):
        start = START + 10 * k
        end = start * (1 - share)
        columns[f"effective_rank/{layer}"] = [start, 1.0, 3 * start, end, math.nan]
    for layer in set(LAYERS) - set(MIDDLE):
        columns[f"effective_rank/{layer}"] = [START, 1.0, 7.0, START * (1 - others), math.nan]
    return run(lam, batch, seed, columns=columns, **options)


LOW = "janus: low rank"


@pytest.mark.parametrize(
    ("sgd", "gd", "expected"),
    [
        (0.201, 0.019, HOLDS),
        (0.199, 0.019, FAILS),
        (0.201, 0.021, FAILS),
        (0.201, -0.5, HOLDS),  # GD's ranks may grow
        (-0.5, -0.5, FAILS),
        *[([0.5] * k + [0.199] + [0.5] * (2 - k), 0.0, FAILS) for k in range(3)],
        *[(0.5, [0.0] * k + [0.021] + [0.0] * (2 - k), FAILS) for k in range(3)],
        ([0.201, 0.9, 0.3], [0.019, -0.3, 0.0], HOLDS),
    ],
)
def test_every_middle_layer_falls_by_a_fifth_under_sgd_and_none_by_two_percent_under_gd(
    sgd: float | Sequence[float], gd: float | Sequence[float], expected: Outcome
) -> None:
    pair = [ranked(sgd, others=-1.0), ranked(gd, GD, others=0.9)]
    verdict = only(LOW, pair)
    assert verdict.verdict is expected
    wanted = [(name, f) for name, fall in (("SGD", sgd), ("GD", gd)) for f in _three(fall)]
    named = [f"{name} {layer}" for name in ("SGD", "GD") for layer in MIDDLE]
    assert [effect.name for effect in verdict.effects] == named
    assert [e.value for e in verdict.effects] == pytest.approx([f for _, f in wanted])


def _three(fall: float | Sequence[float]) -> Sequence[float]:
    return [fall] * 3 if isinstance(fall, float) else fall


def test_falls_are_means_over_the_seeds_that_have_both() -> None:
    sgd = [ranked(f, seed=s) for s, f in enumerate((0.3, 0.11, 0.0))]
    gd = [ranked(f, GD, seed=s) for s, f in ((1, 0.01), (0, 0.029), (3, 0.9))]
    verdict = only(LOW, [*sgd, *gd])
    assert verdict.verdict is HOLDS
    assert [e.value for e in verdict.effects] == pytest.approx([0.205] * 3 + [0.0195] * 3)
    assert {e.seeds for e in verdict.effects} == {2}
    compared = [*sgd[:2], *gd[:2]]
    assert set(verdict.runs) == {f"{one.name} ({one.id})" for one in compared}
    # Seed 0 alone falls enough under SGD and too far under GD; seed 1 the other way round.
    assert "(2 seeds; 0 alone would do)" in verdict.measured
    gd = [ranked(f, GD, seed=s) for s, f in ((1, 0.029), (0, 0.01))]
    assert "(2 seeds; 1 alone would do)" in only(LOW, [*sgd, *gd]).measured
    # A seed does alone if all of its layers do.
    sgd = [ranked([0.19, 0.4, 0.4]), ranked(0.3, seed=1), ranked(0.3, seed=2)]
    gd = [ranked(0.0, GD), ranked([0.03, 0.0, 0.0], GD, seed=1), ranked(0.0, GD, seed=2)]
    verdict = only(LOW, [*sgd, *gd])
    assert verdict.verdict is HOLDS
    assert "(3 seeds; 1 alone would do)" in verdict.measured


def test_ranks_are_compared_by_lambda_batch_size_and_finished_runs() -> None:
    gd = ranked(0.0, GD)
    both = [ranked(0.5, 16), ranked(0.1, 64)]
    found = judge(ALL[LOW], [*both, gd])
    assert [(v.verdict, v.effects[0].value) for v in found] == [
        (HOLDS, pytest.approx(0.5)),
        (FAILS, pytest.approx(0.1)),
    ]
    assert outcome(LOW, [ranked(0.5), replace(gd, exit_code=None)]) is UNTESTABLE
    assert outcome(LOW, [ranked(0.5), ranked(0.0, GD, lam=2e-3)]) is UNTESTABLE
    assert outcome(LOW, [ranked(0.5, lam=0.0), ranked(0.0, GD, lam=0.0)]) is UNTESTABLE
    said = only(LOW, [gd]).missing or ""
    assert said == f"{gd.name} with a data.batch_size below N, at the same seed"


@pytest.mark.parametrize("layer", MIDDLE)
def test_no_fall_is_from_a_rank_of_zero(layer: str) -> None:
    sgd, gd = ranked(0.5), ranked(0.0, GD)
    gd.rows.loc[0, f"effective_rank/{layer}"] = 0.0
    verdict = only(LOW, [sgd, gd])
    assert verdict.verdict is UNTESTABLE
    assert verdict.missing == f"effective ranks at the start above 0 in {gd.name}: it is 0"


# Equal clocks


def timed(
    clock: str,
    times: Sequence[float],
    values: Sequence[float],
    batch: int | str = 32,
    seed: int = 0,
    **options: Any,
) -> Run:
    """A run whose middle ranks are `values`, and whose velocities are too, at some times."""
    columns: dict[str, Any] = {clock: times}
    for k, layer in enumerate(LAYERS):
        columns[f"effective_rank/{layer}"] = [v * (1 + k) for v in values]
        columns[f"velocity/{layer}"] = [v * (1 + k) for v in values]
    epochs = range(len(times))
    return network(1e-3, batch, seed, epochs=epochs, columns=columns, **options)


CLOCKS = {"steps": STEP, "eta t": "eta_t"}
FACES = {"": "ranks", "noise at ": "noise"}


def equal(face: str, words: str, runs: Sequence[Run]) -> Verdict:
    return only(f"control: {face}equal {words}", runs)


@pytest.mark.parametrize("words", CLOCKS)
@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize(
    ("of_gd", "row"),
    [
        (95.0, 95.0),  # five percent of SGD's 100
        (105.0, 105.0),
        (94.9, None),
        (105.1, None),
        (93.0, None),  # which is five percent of the 200 that GD reaches
    ],
)
def test_clocks_are_equal_to_five_percent_of_sgd_s(
    of_gd: float, row: float | None, face: str, words: str
) -> None:
    clock = CLOCKS[words]
    sgd = timed(clock, [0, 100], [100, 10])
    gd = timed(clock, [0, of_gd, 200], [100, 99, 1], GD)
    verdict = equal(face, words, [sgd, gd])
    if row is None:
        assert verdict.verdict is UNTESTABLE
        said = f"{gd.name} with more rows: at {words} 100 of SGD its nearest is at {of_gd:.4g}"
        assert verdict.missing == said
        return
    assert verdict.measured.startswith(
        f"at {words} 100 (GD at {row:.4g}; SGD ends at 100, GD at 200)"
    )
    values = [effect.value for effect in verdict.effects]
    assert values == pytest.approx([0.9] * 3 + [0.01] * 3 if face == "" else [10 / 99])


@pytest.mark.parametrize("words", CLOCKS)
def test_the_last_row_of_sgd_that_gd_has_reached_is_compared(words: str) -> None:
    clock = CLOCKS[words]
    sgd = timed(clock, [0, 50, 100, 150, 300], [100, 90, 60, 20, 1])
    gd = timed(clock, [0, 50, 100, 160], [100, 97, 99, 50], GD)
    verdict = equal("", words, [sgd, gd])
    # 150 lies within GD's 160, but 160 is 6.7% off; 100 is the last that both have.
    assert verdict.measured.startswith(f"at {words} 100 (GD at 100; SGD ends at 300, GD at 160)")
    assert [e.value for e in verdict.effects] == pytest.approx([0.4] * 3 + [0.01] * 3)
    assert verdict.verdict is HOLDS
    # At GD's own last row the two are compared, and no row beyond it.
    gd = timed(clock, [0, 50, 100, 150], [100, 97, 99, 99], GD)
    verdict = equal("", words, [sgd, gd])
    assert [e.value for e in verdict.effects] == pytest.approx([0.8] * 3 + [0.01] * 3)
    near = timed(clock, [0, 50, 100, 149], [100, 97, 99, 50], GD)
    verdict = equal("", words, [sgd, near])
    assert verdict.measured.startswith(f"at {words} 100 (GD at 100;")


def test_each_control_is_at_its_own_clock() -> None:
    """Equal steps and equal eta t are at different rows of these runs."""
    columns = {"trainer/global_step": [0, 10, 20, 30], "eta_t": [0, 1, 2, 3]}
    of_gd = {"trainer/global_step": [0, 10, 40, 50], "eta_t": [0, 0.2, 2, 9]}
    made = []
    for batch, clocks, values in (
        (32, columns, (8.0, 4.0, 2.0, 1.0)),
        (GD, of_gd, (8, 7.9, 7.8, 7.7)),
    ):
        one = timed(STEP, clocks[STEP], values, batch)
        one.rows["eta_t"] = clocks["eta_t"]
        made.append(one)
    steps = {face: equal(face, "steps", made) for face in FACES}
    etas = {face: equal(face, "eta t", made) for face in FACES}
    assert [e.value for e in steps[""].effects] == pytest.approx([0.5] * 3 + [1 - 7.9 / 8] * 3)
    assert [e.value for e in etas[""].effects] == pytest.approx([0.75] * 3 + [1 - 7.8 / 8] * 3)
    assert steps["noise at "].effects[0].value == pytest.approx(4 / 7.9)
    assert etas["noise at "].effects[0].value == pytest.approx(2 / 7.8)


def test_a_row_that_lacks_a_layer_is_not_compared() -> None:
    sgd = timed(STEP, [0, 50, 100], [100, 70, 10])
    gd = timed(STEP, [0, 50, 100], [100, 99, 98], GD)
    for one in (sgd, gd):
        lacks = replace(one, rows=one.rows.copy())
        lacks.rows.loc[2, "effective_rank/conv4"] = math.nan
        lacks.rows.loc[2, "velocity/fc2"] = math.nan
        pair = [lacks if other is one else other for other in (sgd, gd)]
        for face in FACES:
            assert equal(face, "steps", pair).measured.startswith("at steps 50 (GD at 50;")
    # A layer that is not compared may be missing: of the ranks the first.
    sgd.rows.loc[2, "effective_rank/conv1"] = math.nan
    assert equal("", "steps", [sgd, gd]).measured.startswith("at steps 100 (GD at 100;")


def test_no_row_of_the_start_is_compared_whatever_the_clock_says_there() -> None:
    """A record may begin after some steps; its first row is the start nonetheless."""
    sgd = timed(STEP, [40, 80], [100, 10])
    gd = timed(STEP, [40, 42], [100, 99], GD)
    verdict = equal("", "steps", [sgd, gd])
    assert verdict.verdict is UNTESTABLE
    assert "it ends at steps 42, before SGD's first row at 80" in (verdict.missing or "")
    later = timed(STEP, [79, 90], [100, 99], GD)
    assert "its nearest is at 90" in (equal("", "steps", [sgd, later]).missing or "")


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [([10.01], HOLDS), ([9.99], FAILS), ([2.01, 50.0], HOLDS), ([1.99, 50.0], FAILS)],
)
def test_sgd_is_ten_times_as_noisy(ratios: list[float], expected: Outcome) -> None:
    runs = []
    for seed, value in enumerate(ratios):
        runs.append(timed(STEP, [0, 100, 300], [1, 3 * value, 1e-9], seed=seed))
        runs.append(timed(STEP, [0, 100, 200], [1, 3, 1e9], GD, seed=seed))
    verdict = equal("noise at ", "steps", runs)
    assert verdict.verdict is expected
    assert verdict.effects[0].value == pytest.approx(np.prod(ratios) ** (1 / len(ratios)))
    assert verdict.effects[0].seeds == len(ratios)


def test_the_noise_of_a_network_is_the_geometric_mean_over_all_its_layers() -> None:
    norms = {32: (1, 2, 4, 8, 16, 640), GD: (3, 0.5, 7, 11, 0.1, 2)}
    made = []
    for batch, values in norms.items():
        columns = {f"velocity/{k}": [9.0, v] for k, v in zip(LAYERS, values, strict=True)}
        columns[STEP] = [0, 100]
        made.append(network(1e-3, batch, epochs=(0, 1), columns=columns))
    expected = (np.prod(norms[32]) / np.prod(norms[GD])) ** (1 / 6)
    assert equal("noise at ", "steps", made).effects[0].value == pytest.approx(expected)


def test_of_several_runs_of_a_seed_the_two_longest_are_compared() -> None:
    short = timed(STEP, [0, 100], [100, 50])
    long = replace(timed(STEP, [0, 100, 200], [100, 50, 30]), id="long")
    gds = [
        timed(STEP, [0, 100], [100, 99], GD),
        replace(timed(STEP, [0, 100, 200], [100, 99, 98], GD), id="long-gd"),
    ]
    for runs in ([short, long, *gds], [long, short, *gds[::-1]]):
        verdict = equal("", "steps", runs)
        assert set(verdict.runs) == {f"{long.name} (long)", f"{gds[1].name} (long-gd)"}
        assert [e.value for e in verdict.effects] == pytest.approx([0.7] * 3 + [0.02] * 3)


def test_epochs_of_the_generic_runs_are_uneven() -> None:
    """The control of all: clocks that are not proportional, numbers that differ in every row."""
    rows = network().rows
    assert len(set(np.diff(EPOCHS))) > 1
    assert len(set(np.round(rows["eta_t"][1:] / rows[STEP][1:], 12))) == len(EPOCHS) - 1
    for key in rows:
        if not key.startswith("rank"):
            assert rows[key].nunique() == len(EPOCHS), key
