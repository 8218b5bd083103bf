"""Lambda and learning rate of somebody else's module: measured, and then they may be scanned."""

from __future__ import annotations

from typing import Any

import pytest
from report.generic import measured
from report.scanned import MIDDLE, scanned
from verify.test_low_rank import BATCHES, LAMBDAS, LAW, RATES, SEEDS, answers

from janus_pl.records.families import families, lambda_of
from janus_pl.records.run import Run
from janus_pl.records.scans import OPTIONS, varying
from janus_pl.run.name import run_name
from janus_pl.verify.decide import Answer


def theirs(
    batch: int = 32, rate: float = 0.1, lam: float = 1e-3, seed: int = 0, **facts: Any
) -> Run:
    """A run of a module with these options, of which the optimizer has what `facts` do not say."""
    kind = {"kind": "coupled", "weight_decay": lam} if lam else {"kind": "none", "weight_decay": 0}
    known = {"decays": dict.fromkeys(MIDDLE, kind), "learning_rate": rate, **facts}
    run = scanned(batch, rate, lam, seed, law=LAW)
    del run.config["data"]["init_args"]["seed"]  # of ours alone it is known what it seeds
    return measured(run, kind="module", task="m.M", weight_decay=None, **known)


def renamed(run: Run, old: str, new: str) -> Run:
    """The same run, whose module calls an option otherwise."""
    given = run.config["model"]["init_args"]
    given[new] = given.pop(old)
    return run


def test_measured_options_of_a_module_are_scanned() -> None:
    points: list[dict[str, Any]] = [{"batch": 16}, {"rate": 0.2}, {"lam": 2e-3}, {"lam": 0.0}]
    runs = [theirs(), *(theirs(**point) for point in points)]
    assert varying(runs) == ["batch_size", "learning_rate", "weight_decay"]
    assert [lambda_of(run) for run in runs] == [1e-3, 1e-3, 1e-3, 2e-3, 0]
    assert [OPTIONS["learning_rate"].of(run) for run in runs] == [0.1, 0.1, 0.2, 0.1, 0.1]
    short = [renamed(theirs(rate=rate), "learning_rate", "lr") for rate in (0.1, 0.2)]
    assert varying(short) == ["learning_rate"]


@pytest.mark.parametrize(
    ("name", "pair"),
    [
        ("lambda", lambda: [theirs(lam=lam, decays={}) for lam in LAMBDAS[:2]]),
        ("rate", lambda: [theirs(rate=rate, learning_rate=None) for rate in RATES[:2]]),
        # An option of that name which is not what the optimizer has.
        ("rate", lambda: [theirs(rate=rate, learning_rate=0.5) for rate in RATES[:2]]),
        ("lambda", lambda: [renamed(theirs(lam=lam), "weight_decay", "wd") for lam in LAMBDAS[:2]]),
        ("batch", lambda: [theirs(lam=lam) for lam in LAMBDAS[:2]]),
    ],
    ids=["no decay known", "no rate known", "another rate", "another name", "another option"],
)
def test_what_was_not_measured_tells_runs_apart(name: Any, pair: Any) -> None:
    assert len(families(pair(), name)) == 2


def test_layers_of_several_decays_have_no_lambda() -> None:
    kinds = [{"kind": "coupled", "weight_decay": lam} for lam in LAMBDAS]
    run = theirs(decays=dict(zip(MIDDLE, kinds, strict=True)))
    assert OPTIONS["weight_decay"].of(run) is None
    kinds = [{"kind": kind, "weight_decay": 0.1} for kind in ("coupled", "decoupled")]
    assert theirs(decays=dict(zip(MIDDLE, kinds, strict=False))).description.lam is None


def test_claims_about_any_network_are_answered_by_a_module() -> None:
    runs = [theirs(batch, seed=seed) for batch in BATCHES for seed in SEEDS]
    runs += [theirs(lam=lam, seed=seed) for lam in LAMBDAS for seed in SEEDS if lam != 1e-3]
    runs += [theirs(rate=rate, seed=seed) for rate in RATES for seed in SEEDS if rate != 0.1]
    found = answers(runs)
    assert [found[name] for name in ("batch", "rate", "decay")] == [Answer.SUPPORTED] * 3
    unknown = [theirs(batch, seed=seed, decays={}) for batch in BATCHES for seed in SEEDS]
    assert answers(unknown)["batch"] is Answer.UNTESTABLE, "control: without a lambda"


def test_the_name_of_a_module_s_run_is_as_before() -> None:
    assert run_name(theirs(rate=0.3, seed=1).description) == "M-sgd-B32-wd0.001-seed1"
