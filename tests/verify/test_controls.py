"""Negative controls on recorded runs: labels that are shuffled or swapped support nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT

from janus_pl.records.families import Varied, by_seed, families, is_untrained, lambda_of
from janus_pl.records.read import read
from janus_pl.records.run import Run
from janus_pl.verify.claims import Claims, read_claims
from janus_pl.verify.decide import Answer
from janus_pl.verify.judge import judge

SHUFFLES = 20
# 5% of the shuffles may support something; one expected, and three binomial errors.
MOST = 3


def few_seeds() -> Claims:
    """The paper's claims for what is recorded: three seeds, at any schedule."""
    claims = read_claims()
    of_square = {"loss": "square"}
    own = [
        replace(c, seeds=3, setting=of_square if "schedule" in c.setting else c.setting)
        for c in claims.claims
        if c.primary
    ]
    return replace(claims, claims=own)


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    """Those of the paper's claims; the ones at N = 10,000, two lambdas above 0, have their own."""
    found = [r for r in read([ROOT / "docs" / "results"]).runs if r.group != "scale"]
    return [r for r in found if r.description.kind == "network" and not is_untrained(r)]


def supported(runs: Iterable[Run]) -> set[str]:
    found = judge(few_seeds(), list(runs)).verdicts
    return {v.claim.name for v in found if v.answer is Answer.SUPPORTED}


def shuffled(runs: list[Run], rng: np.random.Generator) -> list[Run]:
    """The runs with their rows dealt out anew among the lambdas of each seed."""
    found = []
    for family in families(runs, "lambda"):
        for same in by_seed(family):
            order = rng.permutation(len(same))
            found += [replace(run, rows=same[k].rows) for run, k in zip(same, order, strict=True)]
    return found


def swapped(runs: list[Run], of: str = "dynamics") -> list[Run]:
    """The runs with rows exchanged of SGD and GD, or two losses, of equal seed and lambda."""
    label, varied = LABELS[of]
    found = []
    for family in families(runs, "lambda", varied):
        for same in by_seed(family):
            by_label = {(label(run), lambda_of(run)): run for run in same}
            labels = sorted({label(run) for run in same})
            other = dict(zip(labels, reversed(labels), strict=True))
            for run in same:
                twin = by_label.get((other[label(run)], lambda_of(run)), run)
                found.append(replace(run, rows=twin.rows))
    return found


LABELS: dict[str, tuple[Callable[[Run], str], Varied]] = {
    "dynamics": (lambda run: run.dynamics, "batch"),
    "loss": (lambda run: str(run.description.loss), "loss"),
}


def test_the_true_labels_support_something(runs: list[Run]) -> None:
    """Or the controls would show nothing."""
    assert {"rank", "cross_entropy"} <= supported(runs)


def test_lambda_shuffled_within_seeds_supports_nothing(runs: list[Run]) -> None:
    of_lambda = {"spread", "mean", "velocity", "rank"}
    found = [supported(shuffled(runs, np.random.default_rng(k))) for k in range(SHUFFLES)]
    assert sum(bool(each & of_lambda) for each in found) <= MOST
    assert not found[0] - {"cross_entropy"}, "which is about the loss, at any lambda"


def test_sgd_and_gd_swapped_within_seeds_supports_nothing(runs: list[Run]) -> None:
    """But for the new seeds of SGD, which have no GD to be swapped with."""
    assert supported(swapped([run for run in runs if run.group != "confirm"])) == set()


def test_losses_swapped_within_seeds_support_nothing_about_them(runs: list[Run]) -> None:
    assert "cross_entropy" not in supported(swapped(runs, "loss"))
