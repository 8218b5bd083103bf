"""Every rule on a record that holds, one that fails and one that cannot tell."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any

import pytest
from report.synthetic import bounded_run, deep_run, linear_run

from janus_pl.records.families import families, is_zero_function, setup, why_untrained
from janus_pl.records.run import Run
from janus_pl.verify.effects import Estimate
from janus_pl.verify.predictions import PREDICTIONS
from janus_pl.verify.subjects import ANY
from janus_pl.verify.table import verdicts
from janus_pl.verify.theorems import THEOREMS
from janus_pl.verify.verdicts import Finding, Outcome, Prediction, Verdict, judge

ALL = {prediction.key: prediction for prediction in (*PREDICTIONS, *THEOREMS)}
LOW = (15, 40, 70, 60, 50, 2)  # conv3, conv4 and fc1 fall by 30, 40 and 50%
STAYS = (20, 60, 99, 99, 99, 2)
SGD, GD = 32, "full"


def sweep(batch: int | str = SGD, **by_lambda: Sequence[float]) -> list[Run]:
    """Runs at lambda 0, 1e-4 and 1e-3 of two seeds, each option a value for each lambda."""
    lambdas = (0.0, 1e-4, 1e-3)
    return [
        deep_run(lam, batch, seed, **{name: v[i] for name, v in by_lambda.items()})
        for seed in (0, 1)
        for i, lam in enumerate(lambdas)
    ]


FLAT = (5, 5, 5, 5, 5, 5)
LOUD = (50, 50, 50, 50, 50, 50)
TOP_LOUD = (3, 4, 5, 6, 7, 9)
RARE = {"epochs": 400, "every": 400}  # rows at the start and at the end alone

# For each prediction: records where it holds, where it fails, and where it cannot be told.
CASES: dict[str, tuple[list[Run], list[Run], list[Run]]] = {
    "janus: low rank": (
        [deep_run(ranks=LOW), deep_run(batch=GD, ranks=STAYS)],
        [deep_run(ranks=LOW), deep_run(batch=GD, ranks=LOW)],
        [deep_run(ranks=LOW), deep_run(batch=GD, ranks=STAYS, seed=1)],
    ),
    "janus: noise": (
        sweep(std=(0.01, 0.1, 0.2)),
        sweep(std=(0.01, 0.02, 0.05)),
        [deep_run(1e-4, std=0.1), deep_run(1e-3, std=9.0)],
    ),
    "1: spread": (
        sweep(std=(0.01, 0.02, 0.04)),
        sweep(std=(0.04, 0.02, 0.01)),
        [deep_run(0.0), deep_run(1e-3, seed=1)],
    ),
    "1: mean": (
        sweep(mean=(1.0, 2.0, 4.0)),
        sweep(mean=(1.0, 1.0, 1.0)),
        [deep_run(0.0)],
    ),
    "2: GD": (
        sweep(GD, std=(0.1, 0.12, 0.11)),
        sweep(GD, std=(0.1, 0.2, 0.4)),
        sweep(GD, error=(0.2, 0.2, 0.2)),
    ),
    "3: velocity": (
        sweep(velocities=((1,) * 6, FLAT, LOUD)),
        sweep(velocities=(LOUD, FLAT, (1,) * 6)),
        [deep_run(1e-3), deep_run(1e-3, seed=1)],
    ),
    "3: top layer": (
        [deep_run()],
        [deep_run(velocities=TOP_LOUD)],
        [deep_run(0.0)],
    ),
    "4: rank": (
        sweep(ranks=((20, 60, 100, 100, 100, 2), (18, 50, 90, 90, 90, 2), LOW)),
        sweep(ranks=(LOW, (18, 50, 90, 90, 90, 2), (20, 60, 100, 100, 100, 2))),
        [deep_run(1e-3, GD), deep_run(0.0, GD)],
    ),
    "4: rank and velocity": (
        [deep_run(ranks=(20, 60, 80, 90, 100, 2), velocities=(2, 3, 4, 5, 6, 1))],
        [deep_run(ranks=(20, 60, 80, 90, 100, 2), velocities=(6, 4, 3, 2, 1, 9))],
        [deep_run(0.0)],
    ),
    "5: cross entropy": (
        [deep_run(0.0, std=0.01), deep_run(0.0, loss="cross_entropy", std=0.5)],
        [deep_run(0.0, std=0.01), deep_run(0.0, loss="cross_entropy", std=0.02)],
        [deep_run(0.0, std=0.01), deep_run(1e-3, loss="cross_entropy", std=0.5)],
    ),
    "equilibrium of rho": (
        [deep_run(residual=0.01)],  # mu in units of the learned rho is 1 * 10/2
        [deep_run(residual=-0.2)],
        [deep_run(residual=math.nan)],
    ),
    "control: equal steps": (
        # SGD's 10 epochs are 80 steps: a GD run of as many.
        [deep_run(ranks=LOW), deep_run(batch=GD, ranks=STAYS, epochs=80)],
        [deep_run(ranks=LOW), deep_run(batch=GD, ranks=STAYS)],  # SGD's ranks fall after step 10
        [deep_run(ranks=LOW), deep_run(batch=GD, ranks=STAYS, **RARE)],
    ),
    "control: equal eta t": (
        [deep_run(ranks=LOW, fall_at=1), deep_run(batch=GD, ranks=STAYS)],
        [deep_run(ranks=LOW), deep_run(batch=GD, ranks=LOW, epochs=80)],
        [deep_run(batch=GD)],
    ),
    "control: noise at equal steps": (
        [deep_run(velocities=LOUD), deep_run(batch=GD, velocities=FLAT, epochs=80)],
        [deep_run(velocities=LOUD), deep_run(batch=GD, velocities=(6,) * 6, epochs=80)],
        [deep_run(velocities=LOUD), deep_run(batch=GD, velocities=FLAT, **RARE)],
    ),
    "control: noise at equal eta t": (
        [deep_run(velocities=LOUD), deep_run(batch=GD, velocities=FLAT)],
        [deep_run(velocities=LOUD), deep_run(batch=GD, velocities=LOUD)],
        [deep_run(velocities=LOUD), deep_run(1e-4, GD, velocities=FLAT)],
    ),
    "Theorem 1": (
        [linear_run(), linear_run(GD)],
        [linear_run(), linear_run(GD, off=1e-6)],
        [linear_run(start=0.0)],
    ),
    "law over B": (
        [linear_run(), linear_run(GD)],
        [linear_run(), linear_run(GD, factor=0.98)],
        [linear_run(), linear_run(GD, gd_schedule="constant"), linear_run(GD, seed=1)],
    ),
    "A.1": (
        [linear_run(start=0.0), linear_run(GD, start=0.0)],
        [linear_run(start=0.0), linear_run(GD, start=0.0, off=1e-6)],
        [linear_run(start=0.0), linear_run()],
    ),
    "tail bound": ([bounded_run()], [bounded_run(1.2)], [bounded_run(None)]),
}


def outcomes(found: Sequence[Verdict]) -> set[Outcome]:
    return {verdict.verdict for verdict in found}


def test_every_prediction_has_its_three_records() -> None:
    assert list(CASES) == list(ALL)


@pytest.mark.parametrize("key", CASES)
def test_it_holds(key: str) -> None:
    found = judge(ALL[key], CASES[key][0])
    assert outcomes(found) == {Outcome.HOLDS}
    assert all(v.measured and v.runs and v.effects and v.missing is None for v in found)
    assert not any(verdict.violated for verdict in found)


@pytest.mark.parametrize("key", CASES)
def test_it_fails(key: str) -> None:
    found = judge(ALL[key], CASES[key][1])
    assert Outcome.FAILS in outcomes(found)
    assert Outcome.UNTESTABLE not in outcomes(found)
    assert any(verdict.violated for verdict in found) == ALL[key].theorem


@pytest.mark.parametrize("key", CASES)
def test_it_cannot_be_told_and_says_what_is_missing(key: str) -> None:
    (verdict,) = judge(ALL[key], CASES[key][2])
    assert verdict.verdict is Outcome.UNTESTABLE
    assert verdict.missing
    assert not verdict.measured


@pytest.mark.parametrize("key", CASES)
def test_without_runs_it_names_the_runs_it_wants(key: str) -> None:
    (verdict,) = judge(ALL[key], [])
    assert verdict.verdict is Outcome.UNTESTABLE
    assert verdict.missing == ALL[key].missing


def test_json_holds_numbers_and_null_alone() -> None:
    for key, sets in CASES.items():
        for runs in sets:
            json.dumps([v.to_json() for v in judge(ALL[key], runs)], allow_nan=False)
    # Control: a rule that lets other numbers through.
    odd = Estimate("odd", math.nan, -math.inf, math.inf, 2)
    rule = Prediction("", "", "", "", ANY, lambda runs: [Finding(False, "", [odd], runs)], "")
    (verdict,) = judge(rule, [deep_run()])
    assert math.isnan(verdict.effects[0].value)
    (effect,) = verdict.to_json()["effects"]
    assert effect == {"name": "odd", "value": None, "low": None, "high": None, "seeds": 2}


def test_a_broken_theorem_in_the_exit_code_is_no_pass() -> None:
    (verdict,) = judge(ALL["tail bound"], [bounded_run(0.9, exit_code=5)])
    assert verdict.violated


# Subjects

OF_SGD = [key for key in CASES if key != "tail bound"]


def described(runs: Sequence[Run], **facts: Any) -> list[Run]:
    """The same runs with descriptions, of which some facts are others."""
    plain = [dataclasses.replace(run.description, **facts).to_plain() for run in runs]
    return [
        dataclasses.replace(run, config={**run.config, "description": seen})
        for run, seen in zip(runs, plain, strict=True)
    ]


@pytest.mark.parametrize("key", CASES)
@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_measured_description_decides_as_the_options_do(key: str, which: int) -> None:
    runs = CASES[key][which]
    assert judge(ALL[key], described(runs)) == judge(ALL[key], runs)
    coupled = {"fc1": {"acts": "coupled", "value": 0.1}, "fc2": {"acts": "none", "value": 0.0}}
    assert judge(ALL[key], described(runs, decays=coupled)) == judge(ALL[key], runs)


@pytest.mark.parametrize("key", OF_SGD)
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"optimizer": "AdamW"}, "is trained by {}AdamW; the prediction is about SGD"),
        (
            {"decays": {"fc1": {"acts": "decoupled", "value": 0.1}}},
            "has decoupled weight decay; the prediction is about a decay in the gradient",
        ),
        ({"kind": "module", "task": "a.TenClassMLP"}, "is a TenClassMLP, not {}"),
        ({"kind": "module", "task": "a.MLP", "optimizer": "unknown"}, "is a MLP, not {}"),
        ({"kind": "module", "task": "a.Encoder"}, "is an Encoder, not {}"),
        ({"kind": "module", "task": ""}, "is of a class that the record does not name, not {}"),
        ({"kind": "module"}, "has no description that can be read"),
    ],
)
def test_no_other_run_decides_and_the_reason_is_said(
    key: str, which: int, facts: dict[str, Any], reason: str
) -> None:
    runs = described(CASES[key][which], **facts)
    (verdict,) = judge(ALL[key], runs)
    assert verdict.verdict is Outcome.UNTESTABLE
    assert not verdict.violated
    assert (verdict.measured, verdict.runs, verdict.effects) == ("", [], [])
    subject = "linear regression" if ALL[key].theorem else "the paper's network"
    expected: dict[str, list[Run]] = {}
    for run in runs:
        whole = "full-batch " if run.description.whole else ""
        said = reason.format(whole if "AdamW" in reason else subject)
        expected.setdefault(said, []).append(run)
    named = [
        f"{some[0].name}{f' (and {len(some) - 1} more)' if len(some) > 1 else ''} {said}"
        for said, some in expected.items()
    ]
    assert verdict.missing == "; ".join([ALL[key].missing, *named])


@pytest.mark.parametrize("key", OF_SGD)
def test_runs_that_it_is_not_about_change_no_verdict(key: str) -> None:
    """Those of another optimizer would fail it, or meet it, if they were taken for SGD's."""
    for which, other in ((0, 1), (1, 0)):
        strangers = described(CASES[key][other], optimizer="AdamW")
        found = judge(ALL[key], [*strangers, *CASES[key][which]])
        assert found == judge(ALL[key], CASES[key][which])


@pytest.mark.parametrize("key", CASES)
def test_beside_what_is_missing_the_reasons_of_strangers_are_said(key: str) -> None:
    (alone,) = judge(ALL[key], CASES[key][2])
    stranger = described([deep_run()], kind="module", task="a.Mine")
    (verdict,) = judge(ALL[key], [*stranger, *CASES[key][2]])
    assert verdict.missing is not None
    assert alone.missing is not None
    assert verdict.missing.startswith(alone.missing)
    told = f"; {stranger[0].name} is a Mine, not "
    assert (told in verdict.missing) == (key in OF_SGD)


def test_the_tail_bound_is_about_any_run_that_recorded_it() -> None:
    for facts in ({"optimizer": "AdamW"}, {"kind": "module", "task": "a.Mine"}):
        (kept,) = judge(ALL["tail bound"], described([bounded_run()], **facts))
        (broken,) = judge(ALL["tail bound"], described([bounded_run(1.2)], **facts))
        assert (kept.verdict, broken.violated) == (Outcome.HOLDS, True)


def test_a_reason_is_said_once_for_a_hundred_runs() -> None:
    runs = described([deep_run(seed=seed) for seed in range(100)], optimizer="AdamW")
    (verdict,) = judge(ALL["1: mean"], runs)
    assert verdict.missing == (
        f"{ALL['1: mean'].missing}; square-B32-lam0.001-seed0 (and 99 more) is trained by AdamW;"
        " the prediction is about SGD"
    )


def test_every_prediction_says_what_it_is_about() -> None:
    words = {key: prediction.about.words for key, prediction in ALL.items()}
    assert {words[prediction.key] for prediction in PREDICTIONS} == {
        "the paper's network, trained by SGD, on minibatches or (GD) on the whole set"
    }
    assert words["Theorem 1"] == words["law over B"] == words["A.1"]
    assert words["Theorem 1"].startswith("linear regression")
    assert words["tail bound"] == "any run"
    (verdict,) = judge(ALL["Theorem 1"], [])
    assert verdict.to_json()["about"] == words["Theorem 1"]


# Numbers


def test_effects_are_means_over_seeds_with_student_s_interval() -> None:
    falls = (90, 70, 50)  # of conv3: 10, 30 and 50%
    sgd = [deep_run(seed=i, ranks=(20, 60, r, 60, 50, 2)) for i, r in enumerate(falls)]
    gd = [deep_run(batch=GD, seed=i, ranks=STAYS) for i in range(3)]
    (verdict,) = judge(ALL["janus: low rank"], sgd + gd)
    conv3 = next(effect for effect in verdict.effects if effect.name == "SGD conv3")
    assert conv3.value == pytest.approx(0.3)
    assert conv3.seeds == 3
    half = 4.302652729911275 * 0.2 / math.sqrt(3)  # t of 2 degrees of freedom at 97.5%
    assert (conv3.low, conv3.high) == pytest.approx((0.3 - half, 0.3 + half))
    assert "conv3 30.0%" in verdict.measured
    assert "(3 seeds; 2 alone would do)" in verdict.measured


def test_ratios_are_geometric_means_over_seeds() -> None:
    runs = [deep_run(0.0, seed=i, std=0.01) for i in (0, 1)]
    runs += [deep_run(1e-3, seed=i, std=std) for i, std in enumerate((0.04, 0.16))]
    (verdict,) = judge(ALL["1: spread"], runs)
    change = verdict.effects[0]
    assert change.value == pytest.approx(8)
    half = 12.706204736432095 * math.log(2)  # t of one degree of freedom; std/sqrt(2) = log 2
    assert change.high == pytest.approx(8 * math.exp(half))


def test_an_interval_is_over_seeds_and_no_other_runs() -> None:
    lambdas = (1e-4, 1e-3, 2e-3)
    keys = ("3: top layer", "4: rank and velocity", "equilibrium of rho")
    for key in keys:
        one = [
            deep_run(lam, residual=lam, velocities=(3, 4, 5, 6, 7, 1e3 * lam)) for lam in lambdas
        ]
        (verdict,) = judge(ALL[key], one)
        (effect,) = verdict.effects
        assert (effect.seeds, effect.low, effect.high) == (1, None, None), key
        assert "1 seed" in verdict.measured
    # Of two seeds, three runs and one: each seed counts once.
    runs = [
        deep_run(lam, velocities=(4,) * 5 + (top,))
        for lam, top in zip(lambdas, (1, 4, 16), strict=True)
    ]
    runs += [deep_run(1e-3, seed=1, velocities=(4,) * 5 + (16,))]
    (verdict,) = judge(ALL["3: top layer"], runs)
    assert verdict.effects[0].value == pytest.approx(2)  # of 1 and 4
    assert verdict.effects[0].seeds == 2
    runs = [deep_run(lam, residual=r) for lam, r in zip(lambdas, (0.0, 0.1, 0.2), strict=True)]
    runs += [deep_run(1e-3, seed=1, residual=0.3)]
    (verdict,) = judge(ALL["equilibrium of rho"], runs)
    assert verdict.effects[0].value == pytest.approx(0.2 / 5)  # mu is 5 in these units
    assert "on average, at most 0.06 (square-B32-lam0.001-seed1; 2 seeds)" in verdict.measured


def test_seeds_are_pooled_at_the_largest_lambda_that_all_have() -> None:
    runs = [deep_run(lam, seed=0, std=std) for lam, std in ((0, 0.01), (1e-4, 0.2), (1e-3, 9.0))]
    runs += [deep_run(lam, seed=1, std=std) for lam, std in ((0, 0.01), (1e-4, 0.05))]
    (noise,) = judge(ALL["janus: noise"], runs)
    assert noise.measured.startswith("std/mean times 10 [")
    assert noise.measured.endswith(" from lambda 0 to 0.0001 (2 seeds: 20, 5)")
    (spread,) = judge(ALL["1: spread"], runs)
    assert spread.effects[0] == noise.effects[0]._replace(name="ratio")
    assert "from lambda 0 to 0.0001; tau 1 (2 seeds: 0.01 to 0.2, 0.01 to 0.05)" in spread.measured
    gd = [deep_run(lam, GD, std=std) for lam, std in ((0, 0.1), (1e-4, 0.1), (1e-3, 9.0))]
    gd += [deep_run(lam, GD, seed=1) for lam in (0, 1e-4)]
    (constant,) = judge(ALL["2: GD"], gd)
    assert constant.measured.startswith("std/mean times 1 [1, 1] from lambda 0 to 0.0001 (2 seeds")


def test_seeds_that_share_no_two_lambdas_are_not_pooled() -> None:
    runs = [deep_run(lam, std=std) for lam, std in ((0.0, 0.01), (1e-3, 0.2))]
    runs += [deep_run(lam, seed=1, std=std) for lam, std in ((0.0, 0.01), (1e-4, 0.05))]
    for key in ("janus: noise", "1: spread"):
        found = judge(ALL[key], runs)
        assert [len({run.rpartition("seed")[2] for run in v.runs}) for v in found] == [1, 1]
        assert [v.effects[0].seeds for v in found] == [1, 1]
        assert "times 20 from lambda 0 to 0.001" in found[0].measured
        assert "times 5 from lambda 0 to 0.0001" in found[1].measured
        for seed, verdict in enumerate(found):
            assert f"(seed {seed} alone, for the seeds share no two lambdas: " in verdict.measured


def test_the_spread_is_relative_to_the_mean() -> None:
    runs = [deep_run(0.0, std=0.01, mean=1.0), deep_run(1e-3, std=0.04, mean=8.0)]
    (verdict,) = judge(ALL["1: spread"], runs)
    assert verdict.verdict is Outcome.FAILS
    assert verdict.effects[0].value == pytest.approx(0.5)


def test_a_change_in_order_that_is_next_to_nothing_is_none() -> None:
    cases: dict[str, tuple[str, list[Any]]] = {
        "4: rank": ("ranks", [(20, 60, r, r, r, 2) for r in (99.0, 98.5, 98.0, 96.9)]),
        "1: mean": ("mean", [1.0, 1.01, 1.019, 1.021]),
    }
    for key, (option, (*small, enough)) in cases.items():
        assert outcomes(judge(ALL[key], sweep(**{option: small}))) == {Outcome.FAILS}
        grown = [*small[:2], enough]
        assert outcomes(judge(ALL[key], sweep(**{option: grown}))) == {Outcome.HOLDS}


def test_equal_clocks_are_rows_of_equal_clocks() -> None:
    sgd, gd = deep_run(ranks=LOW, fall_at=1), deep_run(batch=GD, ranks=STAYS, epochs=20)
    (verdict,) = judge(ALL["control: equal steps"], [sgd, gd])
    assert verdict.measured.startswith("at steps 16 (GD at 16; SGD ends at 80, GD at 20)")
    (verdict,) = judge(ALL["control: equal eta t"], [sgd, gd])
    assert verdict.measured.startswith("at eta t 1.6 (GD at 1.6; SGD ends at 8, GD at 2)")


@pytest.mark.parametrize("face", ["", "noise at "])
def test_a_gd_row_far_from_sgd_s_is_no_control(face: str) -> None:
    sgd = deep_run(ranks=LOW, fall_at=1, velocities=LOUD)
    for clock, seen in (("steps", ("80", "400")), ("eta t", ("8", "40"))):
        rare = deep_run(batch=GD, ranks=STAYS, **RARE)
        (verdict,) = judge(ALL[f"control: {face}equal {clock}"], [sgd, rare])
        assert verdict.verdict is Outcome.UNTESTABLE
        at, nearest = seen
        assert f"with more rows: at {clock} {at} of SGD its nearest is at {nearest}" in (
            verdict.missing or ""
        )
        # An earlier row of SGD will do: 40 of its 80 steps.
        some = deep_run(batch=GD, ranks=STAYS, epochs=400, every=41)
        (verdict,) = judge(ALL[f"control: {face}equal {clock}"], [sgd, some])
        assert verdict.measured.startswith(
            {"steps": "at steps 80 (GD at 82;", "eta t": "at eta t 8 (GD at 8.2;"}[clock]
        )
        fewer = deep_run(batch=GD, ranks=STAYS, epochs=400, every=39)  # 39, 78, 117
        (verdict,) = judge(ALL[f"control: {face}equal {clock}"], [sgd, fewer])
        assert verdict.measured.startswith(
            {"steps": "at steps 80 (GD at 78;", "eta t": "at eta t 8 (GD at 7.8;"}[clock]
        )
        earlier = deep_run(batch=GD, ranks=STAYS, epochs=400, every=57)  # 57, 114
        (verdict,) = judge(ALL[f"control: {face}equal {clock}"], [sgd, earlier])
        assert verdict.measured.startswith(
            {"steps": "at steps 56 (GD at 57;", "eta t": "at eta t 5.6 (GD at 5.7;"}[clock]
        )


@pytest.mark.parametrize("face", ["", "noise at "])
def test_the_start_is_no_row_to_compare(face: str) -> None:
    short = [deep_run(ranks=LOW, fall_at=1), deep_run(batch=GD, ranks=STAYS, epochs=5)]
    (verdict,) = judge(ALL[f"control: {face}equal steps"], short)
    assert verdict.verdict is Outcome.UNTESTABLE
    assert verdict.missing == (
        "square-Bfull-lam0.001-seed0 with more epochs: it ends at steps 5, before SGD's first row"
        " at 8"
    )
    alone = [deep_run(ranks=LOW, epochs=0), deep_run(batch=GD)]
    (verdict,) = judge(ALL[f"control: {face}equal steps"], alone)
    assert "with rows after its first" in (verdict.missing or "")
    assert judge(ALL[f"control: {face}equal steps"], [deep_run()])[0].missing == (
        "square-B32-lam0.001-seed0 with data.batch_size: full, at the same seed"
    )


def test_the_noise_of_a_pair_is_that_of_equal_clocks() -> None:
    """GD's later rows, and its other lambdas and seeds, do not enter."""
    sgd = [deep_run(seed=seed, velocities=LOUD) for seed in (0, 1)]
    gd = [deep_run(batch=GD, seed=i, velocities=(v,) * 6, epochs=90) for i, v in enumerate((1, 4))]
    for run in gd:
        late = run.rows["trainer/global_step"] > 80
        run.rows.loc[late, [c for c in run.rows if c.startswith("velocity")]] = 1e9
    others = [deep_run(1e-4, GD, velocities=LOUD), deep_run(batch=GD, seed=2, velocities=LOUD)]
    (verdict,) = judge(ALL["control: noise at equal steps"], [*sgd, *gd, *others])
    assert verdict.verdict is Outcome.HOLDS
    assert verdict.effects[0].value == pytest.approx(25)
    assert verdict.measured.startswith("at steps 80 (GD at 80, 80; SGD ends at 80, GD at 90): ")
    assert verdict.measured.endswith("times that of GD (2 seeds: 50, 12.5)")


def test_seeds_are_averaged_only_where_they_go_equally_far() -> None:
    runs = [deep_run(ranks=LOW, seed=i) for i in range(3)]
    runs += [deep_run(batch=GD, ranks=STAYS, seed=i, epochs=e) for i, e in enumerate((80, 10, 10))]
    found = judge(ALL["control: equal steps"], runs)
    said = [v.measured.split(" (")[0] for v in found]
    assert said == ["at steps 80", "max_epochs 10: at steps 8"]
    assert [v.effects[0].seeds for v in found] == [1, 2]
    assert [v.verdict for v in found] == [Outcome.HOLDS, Outcome.FAILS]


def test_the_longest_run_of_a_seed_is_the_control() -> None:
    runs = [deep_run(ranks=LOW), deep_run(batch=GD, ranks=STAYS)]
    longer = deep_run(batch=GD, ranks=LOW, epochs=80)
    (verdict,) = judge(ALL["control: equal steps"], [*runs, longer])
    assert verdict.verdict is Outcome.FAILS, "GD's ranks fall as well, in as many steps"
    assert "at steps 80 (GD at 80" in verdict.measured
    (verdict,) = judge(ALL["janus: low rank"], [*runs, longer])
    assert verdict.verdict is Outcome.HOLDS, "but not in as many epochs"


def test_an_unfinished_run_serves_controls_and_theorems_alone() -> None:
    sgd, gd = deep_run(ranks=LOW), deep_run(batch=GD, ranks=STAYS, epochs=80)
    begun = [dataclasses.replace(run, exit_code=None) for run in (sgd, gd)]
    (verdict,) = judge(ALL["control: equal steps"], begun)
    assert verdict.verdict is Outcome.HOLDS
    for key in ("janus: low rank", "3: top layer", "equilibrium of rho"):
        assert judge(ALL[key], begun)[0].verdict is Outcome.UNTESTABLE
    interrupted = dataclasses.replace(linear_run(), exit_code=143)
    assert judge(ALL["Theorem 1"], [interrupted])[0].verdict is Outcome.HOLDS


def test_the_slope_ratio_is_that_of_the_steps() -> None:
    runs = [linear_run(1, steps=10), linear_run(3, steps=4), linear_run(GD)]
    found = judge(ALL["law over B"], runs)
    assert sorted(v.effects[0].value for v in found) == pytest.approx([2.5, 4, 10])
    assert outcomes(found) == {Outcome.HOLDS}


def test_medians_over_replicas_are_no_evidence_for_the_slope() -> None:
    sgd, gd = linear_run(factor=0.9), linear_run(GD, factor=0.8, steps=1)
    law = ALL["law over B"]
    (control,) = judge(law, [sgd, gd])
    assert control.violated
    many = [
        dataclasses.replace(run, rows=run.rows.assign(**{"null/norm/q05": run.rows["null/norm"]}))
        for run in (sgd, gd)
    ]
    (verdict,) = judge(law, many)
    assert verdict.verdict is Outcome.UNTESTABLE


def test_rounding_does_not_enter_the_slope() -> None:
    fast = linear_run(factor=0.2, off=1e-16)  # rounding from epoch 2 on
    (verdict,) = judge(ALL["law over B"], [fast, linear_run(GD, factor=0.2)])
    assert verdict.verdict is Outcome.HOLDS


# Numbers of which there is no ratio


def everything() -> list[Run]:
    """Runs on which all predictions decide."""
    runs = [deep_run(lam) for lam in (0.0, 1e-3)]
    runs += [deep_run(lam, GD, epochs=80, every=8) for lam in (0.0, 1e-3)]
    return [*runs, deep_run(0.0, loss="cross_entropy", std=0.5)]


def test_of_everything_all_is_decided() -> None:
    for prediction in PREDICTIONS:
        # Equal epochs are of other runs than equal steps.
        extra = [deep_run(batch=GD)] if prediction.key == "janus: low rank" else []
        found = judge(prediction, [*everything(), *extra])
        assert Outcome.UNTESTABLE not in outcomes(found), prediction.key


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
@pytest.mark.parametrize("which", range(5))
def test_no_number_stops_the_others(value: float, which: int) -> None:
    """A column of one run that is 0, negative or not there: a verdict or what is missing."""
    clocks = ("epoch", "trainer/global_step", "eta_t")
    alike = [f"{kind}/{k}" for kind in ("effective_rank", "velocity") for k in ("conv2", "conv4")]
    for key in [key for key in deep_run().rows if key not in (*clocks, *alike)]:
        runs = everything()
        runs[which].rows[key] = value
        for prediction in PREDICTIONS:
            for verdict in judge(prediction, runs):
                told = (key, verdict.measured)
                assert "nan" not in verdict.measured, told
                assert "inf" not in verdict.measured, told
                assert all(math.isfinite(effect.value) for effect in verdict.effects), told
                json.dumps(verdict.to_json(), allow_nan=False)


def test_a_layer_without_velocity_and_margins_without_spread_are_no_ratios() -> None:
    still = sweep(velocities=((3, 4, 5, 0, 7, 1), FLAT, LOUD))
    (verdict,) = judge(ALL["3: velocity"], still)
    assert verdict.verdict is Outcome.UNTESTABLE
    assert verdict.missing == "||V_k dot|| of every layer above 0 in square-B32-lam0-seed0: it is 0"
    (verdict,) = judge(ALL["3: top layer"], [deep_run(velocities=(0, 4, 5, 6, 7, 1))])
    assert "it is 0" in (verdict.missing or "")
    even = sweep(std=(0.0, 0.1, 0.2))
    for key in ("1: spread", "janus: noise"):
        (verdict,) = judge(ALL[key], even)
        assert verdict.missing == "std/mean above 0 in square-B32-lam0-seed0: it is 0"
    (verdict,) = judge(ALL["1: mean"], sweep(mean=(-1.0, 2.0, 4.0)))
    assert verdict.missing == "the mean margin above 0 in square-B32-lam0-seed0: it is -1"


def test_seeds_that_are_worlds_apart_have_an_interval_without_ends() -> None:
    runs = sweep(std=(1e-150, 1.0, 1e-150))
    for run in runs[3:]:
        run.rows["margin/std"] *= 1e300 if run.options["model.weight_decay"] == 1e-3 else 1
    (verdict,) = judge(ALL["1: spread"], runs)
    assert verdict.effects[0].high == math.inf
    assert verdict.to_json()["effects"][0]["high"] is None


def test_the_spread_of_cross_entropy_needs_no_velocity() -> None:
    square, other = deep_run(0.0, std=0.01), deep_run(0.0, loss="cross_entropy", std=0.5)
    (verdict,) = judge(ALL["5: cross entropy"], [square, other])
    assert verdict.measured.endswith("std/mean times 50, ||V_k dot|| times 1 (1 seed)")
    for without in ([square], [square, other]):
        for run in without:
            for key in [key for key in run.rows if key.startswith("velocity/")]:
                del run.rows[key]
        (verdict,) = judge(ALL["5: cross entropy"], [square, other])
        assert verdict.verdict is Outcome.HOLDS
        assert verdict.measured.endswith("at lambda 0: std/mean times 50 (1 seed)")
        assert [effect.name for effect in verdict.effects] == ["spread"]


# What is compared


def test_runs_of_other_options_are_never_compared() -> None:
    a, b = deep_run(0.0, std=0.01), deep_run(1e-3, std=0.5)
    assert judge(ALL["1: spread"], [a, b])[0].verdict is Outcome.HOLDS
    b.config["model"]["init_args"]["learning_rate"] = 0.2
    b.__dict__.pop("options", None)
    assert setup(a, "lambda") != setup(b, "lambda")
    assert judge(ALL["1: spread"], [a, b])[0].verdict is Outcome.UNTESTABLE


def test_findings_say_in_what_they_differ() -> None:
    pairs = [deep_run(lam, batch) for lam in (1e-3, 5e-5) for batch in (32, "full")]
    found = [v.measured for v in verdicts(pairs) if v.prediction == "janus: low rank"]
    assert [words.split(":")[0] for words in found] == ["lambda 5e-05", "lambda 0.001"]
    (alone,) = [v.measured for v in verdicts(pairs[:2]) if v.prediction == "janus: low rank"]
    assert alone.startswith("effective rank falls by")


def test_two_experiments_have_a_verdict_each() -> None:
    other = sweep(std=(0.04, 0.02, 0.01))
    for run in other:
        run.config["model"]["init_args"]["strides"] = [1, 2, 1, 2]
    runs = [*sweep(std=(0.01, 0.02, 0.04)), *other]
    assert len(families(runs, "lambda")) == 2
    found = judge(ALL["1: spread"], runs)
    assert [verdict.verdict for verdict in found] == [Outcome.HOLDS, Outcome.FAILS]


@pytest.mark.parametrize(
    ("loss", "train_loss"), [("square", 1.0), ("square", 1.3), ("cross_entropy", 0.693)]
)
def test_a_network_that_ended_as_zero_is_no_evidence(loss: str, train_loss: float) -> None:
    """Of margins that are rounding std/mean is large, whatever SGD does."""
    sweep = [deep_run(0, loss=loss, std=0.1), deep_run(1e-3, loss=loss, std=0.1)]
    emptied = deep_run(1e-2, loss=loss, std=9.0, train_loss=train_loss)
    found, without = verdicts([*sweep, emptied]), verdicts(sweep)
    assert [(v.prediction, v.measured) for v in found] == [
        (v.prediction, v.measured) for v in without
    ]
    # Control: half as high a loss is a network that does something.
    trained = deep_run(1e-2, loss="square", std=9.0, train_loss=train_loss / 2)
    (spread,) = [v for v in verdicts([*sweep, trained]) if v.prediction == "janus: noise"]
    assert (spread.verdict == Outcome.HOLDS) == (loss == "square")


def test_a_network_that_is_hardly_trained_is_not_one_that_ended_as_zero() -> None:
    """Outputs start near 0, so that the loss is that of f = 0 before the first step."""
    emptied = deep_run(1e-2, train_loss=1.0, rho=1e-6)
    begun, lost = deep_run(train_loss=0.998), deep_run(train_loss=1.3, rho=20.0)
    assert [is_zero_function(run) for run in (emptied, begun, lost)] == [True, False, False]
    said = "its training loss is 1 and its outputs 1.0e-07 of the first: f = 0"
    assert why_untrained(emptied) == said
    said = "it is not trained: its loss, 0.998, is not 1% below that of f = 0"
    assert why_untrained(begun) == f"{said} (and its outputs are 1 of the first, not 0)"
    assert "its loss, 1.3, is not 1%" in why_untrained(lost)
    without = deep_run(train_loss=0.998)
    del without.rows["rho"]
    assert why_untrained(without).endswith("is not 1% below that of f = 0")
    # Control: a network that does something may have outputs as small as it likes.
    assert not is_zero_function(deep_run(rho=1e-6))


def test_what_is_missing_may_be_among_those_left_out() -> None:
    runs = [deep_run(ranks=LOW), deep_run(batch=GD, ranks=STAYS, train_loss=0.998)]
    (verdict,) = [v for v in verdicts(runs) if v.prediction == "janus: low rank"]
    assert (verdict.missing or "").endswith("at the same seed (1 run is left out as not trained)")
    (verdict,) = [v for v in verdicts([*runs, *runs]) if v.prediction == "janus: noise"]
    assert (verdict.missing or "").endswith("same seed (2 runs are left out as not trained)")
    (verdict,) = [v for v in verdicts(runs[:1]) if v.prediction == "janus: low rank"]
    assert (verdict.missing or "").endswith("at the same seed")


def test_all_verdicts_of_a_mixed_set_come_in_the_order_of_the_table() -> None:
    found = verdicts([*sweep(std=(0.01, 0.1, 0.2)), linear_run(), linear_run(GD)])
    assert list(dict.fromkeys(v.prediction for v in found)) == list(ALL)
    assert len([v for v in found if v.prediction == "Theorem 1"]) == 2
