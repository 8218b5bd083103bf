"""Somebody else's module: none of the paper's predictions is about it, whatever its options."""

from __future__ import annotations

from dataclasses import replace

import pytest
from report.generic import TEN_LAYERS, by_adam, network, regression, ten_classes

from janus_pl.records.families import is_untrained
from janus_pl.records.run import Run
from janus_pl.verify.predictions import PREDICTIONS
from janus_pl.verify.table import verdicts
from janus_pl.verify.verdicts import Outcome, Verdict
from janus_pl.verify.within_runs import top_layer_is_quietest

LAMBDAS = (0.0, 1e-4, 1e-3)


def of_the_paper(runs: list[Run]) -> list[Verdict]:
    return [verdict for verdict in verdicts(runs) if not verdict.theorem]


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
    assert len(found) == len(PREDICTIONS)
    for verdict in found:
        assert verdict.verdict is Outcome.UNTESTABLE
        reason = f"{runs[0].name} (and 5 more) is a TenClassMLP, not the paper's network"
        assert verdict.missing is not None
        assert verdict.missing.endswith(f"; {reason}")
    # Control: the same numbers as those of the paper's network decide.
    ours = [network(lam, seed=seed) for lam in LAMBDAS for seed in (0, 1)]
    assert sum(v.verdict is not Outcome.UNTESTABLE for v in of_the_paper(ours)) >= 5


def test_nor_of_an_old_record_of_theirs() -> None:
    """Of before descriptions, with margins under the keys of normalized ones."""
    task = "somebody.TenClassMLP"
    old = [network(lam, seed=seed, task=task) for lam in LAMBDAS for seed in (0, 1)]
    assert {v.verdict for v in of_the_paper(old)} == {Outcome.UNTESTABLE}
    high = network(columns={"train/loss": [9.0] * 5}, task=task)
    assert not is_untrained(high), "its loss of f = 0 is not known"
    assert all("not trained" not in str(v.missing) for v in of_the_paper([high]))


def test_a_network_by_adam_is_judged_on_nothing_of_sgd() -> None:
    sgd = [network(lam, seed=seed) for lam in LAMBDAS for seed in (0, 1)]
    gd = [network(lam, "full", seed) for lam in LAMBDAS for seed in (0, 1)]
    found = of_the_paper([by_adam(run) for run in [*sgd, *gd]])
    assert {v.verdict for v in found} == {Outcome.UNTESTABLE}
    for verdict in found:
        assert verdict.missing is not None
        first = "adamw-B32-lam0-seed0 (and 5 more) is trained by AdamW"
        second = "full-batch-adamw-lam0-seed0 (and 5 more) is trained by full-batch AdamW"
        said = "; the prediction is about SGD; "
        assert f"{first}{said}{second}{said.rstrip('; ')}" in verdict.missing
    # Control: beside them, SGD and GD decide alone.
    both = of_the_paper([*(by_adam(run) for run in sgd), *sgd, *gd])
    alone = of_the_paper([*sgd, *gd])
    assert [replace(v, missing=None) for v in both] == [replace(v, missing=None) for v in alone]
    assert sum(v.verdict is not Outcome.UNTESTABLE for v in both) >= 8


def test_linear_regression_is_no_network_and_the_other_way_round() -> None:
    (first, *_) = of_the_paper([regression()])
    assert str(first.missing).endswith("is a LinearRegressor, not the paper's network")
    theorems = [v for v in verdicts([network()]) if v.theorem and v.prediction != "tail bound"]
    assert len(theorems) == 3
    for verdict in theorems:
        said = "is a DeepReLUClassifier, not linear regression"
        assert str(verdict.missing).endswith(said)


def test_the_top_layer_is_the_last_of_the_forward_pass() -> None:
    """And not the last by name, which is `stem` here, or `net_9`."""
    names = TEN_LAYERS
    quiet = {f"velocity/{layer}": [5.0 + k] * 5 for k, layer in enumerate(names)}
    run = network(layers=names, columns={**quiet, "velocity/head": [1.0] * 5})
    seen = replace(run.description, layers=names)
    made = replace(run, config={**run.config, "description": seen.to_plain()})
    (found,) = top_layer_is_quietest([made])
    assert found.holds
    assert "head/stem 0.2" in found.measured
    (by_name,) = top_layer_is_quietest([run])
    assert not by_name.holds
