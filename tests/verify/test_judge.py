"""From records to answers: who decides, at which level, and what the lines say."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report.generic import LAYERS, measured, network

from janus_pl.records.run import Run
from janus_pl.verify.claims import Claim, Claims
from janus_pl.verify.decide import ALPHA, Answer, interval
from janus_pl.verify.judge import Verdicts, judge
from janus_pl.verify.lines import LEGEND, details, table, to_json

NOISE = Claim(
    *("noise", "SGD's noise is {} x GD's", "Fig. 1", "sgd_over_gd", "velocity", {"above": 3}),
    *(20, 0.8),
)
RANK = replace(NOISE, name="rank", says="ranks {}", quantity="rank", bound={"below": 0.9})
SLOPE = replace(
    NOISE, name="slope", says="velocity is lambda^{}", estimator="slope", bound={"above": 0.1}
)
SHA = "f" * 64


def of(*claims: Claim) -> Claims:
    return Claims(claims, SHA, Path("mine.yaml"))


def pair(
    seed: int, factor: float, rank: float = 1.0, lam: float = 1e-3, samples: int | None = None
) -> list[Run]:
    """SGD and GD of a seed, whose velocities and ranks have these ratios in every row."""
    runs = []
    for batch, v, r in ((32, factor, rank), ("full", 1.0, 1.0)):
        columns: dict[str, Any] = {f"velocity/{k}": [v] * 5 for k in LAYERS}
        columns |= {f"effective_rank/{k}": [50 * r] * 5 for k in LAYERS}
        data = {"num_train": samples} if samples else {}
        runs.append(network(lam, batch, seed, columns=columns, data=data))
    return runs


def pairs(factors: Sequence[float], **options: Any) -> list[Run]:
    return [run for seed, factor in enumerate(factors) for run in pair(seed, factor, **options)]


def answers(found: Verdicts) -> dict[str, str]:
    return {v.claim.name: str(v.answer) for v in found.verdicts}


LARGE, SMALL, MIXED = (20, 30, 25, 15, 28), (1.0, 1.1, 0.9, 1.2, 1.0), (1, 80, 3, 9, 2)


@pytest.mark.parametrize(
    ("factors", "answer"),
    [
        (LARGE, "supported"),
        (SMALL, "contradicted"),
        (MIXED, "undecided"),
        (LARGE[:4], "not testable"),
    ],
)
def test_the_interval_over_seeds_answers(factors: Sequence[float], answer: str) -> None:
    (verdict,) = judge(of(NOISE), pairs(factors)).verdicts
    assert verdict.answer == answer
    (judged,) = verdict.judged
    logs = np.log(factors)
    assert judged.estimate == pytest.approx(math.exp(logs.mean()))
    assert judged.effects == pytest.approx(factors)
    expected = [math.exp(end) for end in interval(logs, 0.05)]
    assert judged.interval_95 == pytest.approx(expected)
    assert verdict.missing == ("4 of 5 seeds" if answer == "not testable" else None)
    if answer == "undecided":
        assert judged.seeds_needed is not None
        assert verdict.sentence.endswith(f"; 5 seeds, {judged.seeds_needed} needed")
    elif answer == "not testable":
        assert judged.answer is None
        assert verdict.sentence.endswith("; 4 of 5 seeds")
    else:
        assert verdict.sentence.endswith("; 5 seeds")


def test_the_level_is_holm_s_over_the_primary_claims() -> None:
    """p of 0.03 supports a claim alone, and not beside another one without evidence."""
    logs = np.array([0.9, 0.2, 1.4, 0.3, 1.1])
    near = np.exp(math.log(3) + logs * 0.55)
    runs = pairs([*map(float, near)])
    alone = judge(of(NOISE), runs).verdicts[0]
    assert alone.judged[0].p is not None
    assert 0.025 < alone.judged[0].p < 0.05
    assert alone.answer is Answer.SUPPORTED
    beside = judge(of(NOISE, SLOPE), runs).verdicts[0]
    assert beside.judged[0].level == ALPHA / 2
    assert beside.answer is Answer.UNDECIDED
    secondary = judge(of(NOISE, replace(SLOPE, primary=False)), runs).verdicts[0]
    assert secondary.answer is Answer.SUPPORTED, "a secondary claim costs nothing"


def test_a_secondary_claim_has_a_level_of_its_own() -> None:
    other = replace(RANK, primary=False, effect=0.5)
    found = judge(of(NOISE, other), pairs(LARGE, rank=0.5)).verdicts
    assert [v.judged[0].level for v in found] == [ALPHA, ALPHA]
    assert answers(judge(of(NOISE, other), pairs(LARGE, rank=0.5)))["rank"] == "supported"


def test_of_several_settings_the_one_with_most_seeds_decides_and_others_are_descriptive() -> None:
    runs = [*pairs(LARGE), *pairs(SMALL[:3], lam=2e-3)]
    (verdict,) = judge(of(NOISE), runs).verdicts
    assert verdict.answer is Answer.SUPPORTED
    assert [j.setting for j in verdict.judged] == ["B 32, lambda 0.001", "B 32, lambda 0.002"]
    assert [j.answer for j in verdict.judged] == [Answer.SUPPORTED, None]
    named = {name for j in verdict.judged[:1] for name in j.runs}
    assert named == {f"{run.name} ({run.id})" for run in pairs(LARGE)}


def test_of_settings_with_enough_seeds_the_one_with_the_most_samples_decides() -> None:
    small, large = pairs((*SMALL, 1.05), samples=500), pairs(LARGE, samples=10_000)
    (verdict,) = judge(of(NOISE), [*small, *large]).verdicts
    assert [len(j.effects) for j in verdict.judged] == [5, 6]
    assert [j.answer for j in verdict.judged] == [Answer.SUPPORTED, None]
    # Control: four seeds do not decide, of however many samples.
    few = pairs(LARGE[:4], samples=10_000)
    (verdict,) = judge(of(NOISE), [*small, *few]).verdicts
    assert [len(j.effects) for j in verdict.judged] == [6, 4]
    assert verdict.answer is Answer.CONTRADICTED


def test_a_setting_says_which_runs_a_claim_is_about() -> None:
    runs = pairs(LARGE)
    for setting, answer in (
        ({"loss": "square"}, "supported"),
        ({"loss": "logistic"}, "not testable"),
        ({"lambda": [1e-3, 5e-3]}, "supported"),
        ({"lambda": 5e-3}, "not testable"),
        ({"learning_rate": 0.1}, "supported"),
        ({"converged": True}, "supported"),
        ({"epochs": 10}, "not testable"),
    ):
        found = judge(of(replace(NOISE, setting=setting)), runs)
        assert answers(found) == {"noise": answer}, setting


def test_controls_are_judged_where_a_setting_names_them() -> None:
    runs = pairs(LARGE)
    held = [measured(run, hold_norms=0.5) for run in runs]
    grown = [measured(run, schedule="growing") for run in runs]
    for some in (held, grown):
        assert answers(judge(of(NOISE), some)) == {"noise": "not testable"}
    of_held = replace(NOISE, setting={"hold_norms": 0.5})
    assert answers(judge(of(of_held), held)) == {"noise": "supported"}
    assert answers(judge(of(of_held), runs)) == {"noise": "not testable"}
    of_grown = replace(NOISE, setting={"schedule": "growing"})
    assert answers(judge(of(of_grown), grown)) == {"noise": "supported"}


def test_what_is_missing_is_named() -> None:
    (verdict,) = judge(of(NOISE), [pair(0, 20)[0]]).verdicts
    assert verdict.missing is not None
    assert verdict.missing == "needs SGD and GD at lambda > 0 by seed"
    blind = [
        replace(run, rows=run.rows.drop(columns=[f"velocity/{k}" for k in LAYERS]))
        for run in pairs(LARGE)
    ]
    (verdict,) = judge(of(NOISE), blind).verdicts
    assert verdict.missing == f"velocity/* of {blind[0].name}"
    (verdict,) = judge(of(replace(NOISE, setting={"loss": "logistic"})), pairs(LARGE)).verdicts
    assert verdict.missing == "needs SGD and GD at lambda > 0 by seed; loss logistic"


def test_runs_that_know_the_file_are_prospective() -> None:
    runs = pairs(LARGE)
    assert judge(of(NOISE), runs).verdicts[0].judged[0].retrospective
    knowing = [measured(run, claims={"x.yaml": SHA}) for run in runs]
    found = judge(of(NOISE), knowing)
    assert not found.verdicts[0].judged[0].retrospective
    assert LEGEND not in "\n".join(table(found))
    one_old = judge(of(NOISE), [*knowing[:-1], runs[-1]])
    assert one_old.verdicts[0].judged[0].retrospective
    lines = table(one_old)
    assert lines[0].startswith("supported*    SGD's noise is 23 [")
    assert LEGEND in lines[-1]


def test_networks_that_ended_as_nothing_are_an_outcome_of_their_own() -> None:
    runs = pairs(LARGE)
    flat = {"train/loss": [1.0] * 5, "rho": [10, 10, 10, 1e-9, 1e-9]}
    zero = network(
        5e-3, seed=7, columns={**flat, "margin/mean": [1.0] * 5, "margin/std": [1.0] * 5}
    )
    hardly = network(5e-3, seed=8, columns={"train/loss": [0.999] * 5})
    lost = network(5e-3, seed=9, columns={"diverged": [math.nan] * 4 + [1]})
    found = judge(of(NOISE), [*runs, zero, hardly, lost])
    assert {why: [r.id for r in rs] for why, rs in found.collapsed.items()} == {
        "collapsed to f = 0": [zero.id],
        "not trained": [hardly.id],
        "diverged": [lost.id],
    }
    last = table(found)[-1]
    assert last.startswith("left out      1 collapsed to f = 0, 1 not trained, 1 diverged")
    # One of a pair: that seed has no effect.
    (first, *others) = runs
    gone = replace(first, rows=first.rows.assign(**{"train/loss": 1.0}))
    assert judge(of(NOISE), [gone, *others]).verdicts[0].missing == "4 of 5 seeds"


@pytest.mark.parametrize(("end", "answer"), [(4, "supported"), (9, "not testable")])
@pytest.mark.parametrize("outcome", ["collapsed", "diverged"])
def test_what_comes_after_a_window_leaves_no_run_out(outcome: str, end: int, answer: str) -> None:
    runs = pairs(LARGE)
    assert list(runs[0].rows["epoch"]) == [0, 1, 3, 4, 9]
    at = runs[0].rows.index[-1]
    later = {"collapsed": ("train/loss", 1.0), "diverged": ("diverged", 1.0)}[outcome]
    rows = runs[0].rows.copy()
    rows.loc[at, later[0]] = later[1]
    first = replace(runs[0], rows=rows, exit_code=3 if outcome == "diverged" else 0)
    claim = replace(NOISE, window=[0, end])
    assert answers(judge(of(claim), runs)) == {"noise": "supported"}, "control"
    found = judge(of(claim), [first, *runs[1:]])
    assert answers(found) == {"noise": answer}
    assert sum(map(len, found.collapsed.values())) == 1, "counted, whatever the window"
    assert answers(judge(of(NOISE), [first, *runs[1:]])) == {"noise": "not testable"}


def test_unfinished_runs_decide_nothing() -> None:
    runs = [replace(run, exit_code=None) for run in pairs(LARGE)]
    assert answers(judge(of(NOISE), runs)) == {"noise": "not testable"}


def test_details_have_every_setting_with_the_interval_that_decides_nothing() -> None:
    found = judge(of(NOISE, SLOPE), pairs(LARGE))
    text = "\n".join(details(found))
    judged = found.verdicts[0].judged[0]
    assert judged.interval_95 is not None
    low, high = judged.interval_95
    assert f"95% [{low:.3g}, {high:.3g}], p {judged.p:.2g}, sign flips 0.062" in text
    assert "decided at 97.50%" in text
    assert "||V_k dot|| of SGD over that of GD is above 3; 5 seeds or more; primary" in text


def test_low_rank_is_also_told_within_and_between_spikes() -> None:
    runs = pairs(LARGE, rank=0.5)
    for k, run in enumerate(runs):
        for layer in LAYERS:
            sgd = run.dynamics == "SGD"
            run.rows[f"event/rank_within/{layer}"] = 60.0 + k if sgd else 0.0
            run.rows[f"event/rank_between/{layer}"] = 0.25 if sgd else 0.5
    text = "\n".join(details(judge(of(RANK), runs)))
    assert "; rank lost within / between spikes: SGD 64 / 0.25, GD 0 / 0.5" in text
    assert "spikes" not in "\n".join(details(judge(of(NOISE), runs)))
    assert "spikes" not in "\n".join(details(judge(of(RANK), pairs(LARGE, rank=0.5))))


def test_json_has_everything_in_plain_values() -> None:
    found = judge(
        of(NOISE, SLOPE), [*pairs(LARGE), network(2e-3, columns={"train/loss": [1.0] * 5})]
    )
    text = json.dumps(to_json(found), allow_nan=False)
    plain = json.loads(text)
    assert plain["claims_file"] == {"path": "mine.yaml", "sha256": SHA}
    noise, slope = plain["claims"]
    assert noise["answer"] == "supported"
    assert noise["settings"][0]["effects"] == pytest.approx(LARGE)
    assert (slope["answer"], slope["settings"]) == ("not testable", [])
    assert [line["name"] for line in plain["lines"][:2]] == ["noise", "slope"]
    assert plain["left_out"] == "1 not trained"


def test_lines_fit_and_are_as_many_as_claims_and_theorems() -> None:
    long = replace(NOISE, says="w" * 120 + "{}")
    lines = table(judge(of(long, SLOPE), pairs(MIXED)))
    assert len(lines) == 2 + 4 + 1
    assert max(map(len, lines)) <= 100
    assert lines[0].endswith("...")
