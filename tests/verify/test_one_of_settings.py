"""A number of one setting says whose it is, where a claim has several."""

from __future__ import annotations

from report.scanned import scanned

from janus_pl.records.run import Run
from janus_pl.verify.claims import find_claims, read_claims
from janus_pl.verify.judge import judge
from janus_pl.verify.lines import WIDTH, table

LAW = {"b": 0.3, "l": -0.25}


def grid(batches: tuple[int, ...], lambdas: tuple[float, ...]) -> list[Run]:
    return [
        scanned(seed=seed, law=LAW, batch=batch, lam=lam)
        for seed in range(6)
        for batch in batches
        for lam in lambdas
    ]


def said(runs: list[Run]) -> dict[str, str]:
    found = judge(read_claims(find_claims("low_rank")), runs)
    assert all(len(line) <= WIDTH for line in table(found))
    return {verdict.claim.name: verdict.sentence for verdict in found.verdicts}


def test_the_sentence_names_the_setting_that_decides() -> None:
    sentences = said(grid((16, 32), (5e-4, 2e-3)))
    assert sentences["batch"].endswith("; 6 seeds at weight_decay 0.0005 (1 of 2)")
    assert sentences["decay"].endswith("; 6 seeds at batch_size 16 (1 of 2)")


def test_one_setting_alone_needs_no_name() -> None:
    assert said(grid((16, 32), (1e-3,)))["batch"].endswith("equal epochs; 6 seeds")
    assert said(grid((16,), (5e-4, 2e-3)))["decay"].endswith("equal epochs; 6 seeds")


def test_the_settings_of_a_slope_over_b_are_told_apart_by_lambda() -> None:
    found = judge(read_claims(find_claims("low_rank")), grid((16, 32), (5e-4, 2e-3)))
    (batch,) = (verdict for verdict in found.verdicts if verdict.claim.name == "batch")
    assert [each.setting for each in batch.judged] == [
        "B 16, 32, weight_decay 0.0005",
        "B 16, 32, weight_decay 0.002",
    ]


def test_the_settings_of_a_slope_over_b_may_differ_in_the_rate() -> None:
    runs = grid((16, 32), (1e-3,))
    both = [
        *runs,
        *(
            scanned(seed=s, law=LAW, batch=b, lam=1e-3, rate=0.2)
            for s in range(6)
            for b in (16, 32)
        ),
    ]
    sentence = said(both)["batch"]
    assert sentence.endswith("; 6 seeds at learning_rate 0.1 (1 of 2)")
