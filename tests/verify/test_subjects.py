"""Somebody else's module: none of the paper's predictions is about it, whatever its options."""

from __future__ import annotations

from dataclasses import replace

import pytest
from report.generic import TEN_LAYERS, by_adam, network, regression, ten_classes

from janus_pl.records.families import is_untrained
from janus_pl.records.late import window
from janus_pl.records.run import Run
from janus_pl.verify.claims import read_claims
from janus_pl.verify.decide import Answer
from janus_pl.verify.judge import Verdict, judge
from janus_pl.verify.quantities import top_layer

CLAIMS = read_claims()
LAMBDAS = (0.0, 1e-4, 1e-3)


def of_the_paper(runs: list[Run]) -> list[Verdict]:
    return [*judge(CLAIMS, runs).verdicts]


def judged(runs: list[Run]) -> int:
    """How many claims have numbers."""
    return sum(bool(verdict.judged) for verdict in of_the_paper(runs))


def theirs(**facts: object) -> list[Run]:
    return [ten_classes(lam, seed, **facts) for lam in LAMBDAS for seed in (0, 1)]


@pytest.mark.parametrize(
    "facts",
    [{}, {"optimizer": "SGD"}, {"optimizer": "SGD", "whole": True}, {"optimizer": "unknown"}],
)
def test_of_ten_classes_nothing_of_the_paper_is_testable(facts: dict[str, object]) -> None:
    runs = theirs(**facts)
    assert runs[0].options["model.loss"] == "square"
    assert {"model.weight_decay", "data.batch_size"} <= set(runs[0].options)
    found = of_the_paper(runs)
    assert len(found) == len(CLAIMS.claims)
    for verdict in found:
        assert verdict.answer is Answer.UNTESTABLE
        assert not verdict.judged
        reason = f"{runs[0].name} (and 5 more) is a TenClassMLP, not the paper's network"
        assert str(verdict.missing).endswith(f"; {reason}")
    # Control: the same numbers as those of the paper's network are judged.
    assert judged([network(lam, seed=seed) for lam in LAMBDAS for seed in (0, 1)]) >= 5


def test_nor_of_an_old_record_of_theirs() -> None:
    """Of before descriptions, with margins under the keys of normalized ones."""
    task = "somebody.TenClassMLP"
    old = [network(lam, seed=seed, task=task) for lam in LAMBDAS for seed in (0, 1)]
    assert judged(old) == 0
    high = network(columns={"train/loss": [9.0] * 5}, task=task)
    assert not is_untrained(high), "its loss of f = 0 is not known"
    assert not judge(CLAIMS, [high]).collapsed


def test_a_network_by_adam_is_judged_on_nothing_of_sgd() -> None:
    sgd = [network(lam, seed=seed) for lam in LAMBDAS for seed in (0, 1)]
    gd = [network(lam, "full", seed) for lam in LAMBDAS for seed in (0, 1)]
    adam = [by_adam(run) for run in [*sgd, *gd]]
    for verdict in of_the_paper(adam):
        assert not verdict.judged
        first = "adamw-B32-lam0-seed0 (and 5 more) is trained by AdamW; the statement is about SGD"
        assert str(verdict.missing).endswith(first)
    # Control: beside them, SGD and GD are judged as they are alone.
    assert of_the_paper([*adam, *sgd, *gd]) == of_the_paper([*sgd, *gd])
    assert judged([*sgd, *gd]) >= 5


def test_linear_regression_is_no_network_and_the_other_way_round() -> None:
    (first, *_) = of_the_paper([regression()])
    assert str(first.missing).endswith("is a LinearRegressor, not the paper's network")
    theorems = judge(CLAIMS, [network()]).theorems
    assert [checked.answer for checked in theorems] == ["not testable"] * 4


def test_the_top_layer_is_the_last_of_the_forward_pass() -> None:
    """And not the last by name, which is `stem` here, or `net_9`."""
    names = TEN_LAYERS
    quiet = {f"velocity/{layer}": [5.0 + k] * 5 for k, layer in enumerate(names)}
    run = network(layers=names, columns={**quiet, "velocity/head": [1.0] * 5})
    seen = replace(run.description, layers=names)
    made = replace(run, config={**run.config, "description": seen.to_plain()})
    assert top_layer(window(made)) == pytest.approx(0.2), "head over stem"
    assert top_layer(window(run)) > 1
