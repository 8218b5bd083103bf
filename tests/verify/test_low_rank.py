"""The claims of low_rank.yaml on archives where the law holds, where not, and mixed by seed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from report.generic import measured
from report.scanned import N, archived, classified, scanned
from scipy import stats

from janus_pl.cli import subcommands as tools
from janus_pl.errors import UsageError
from janus_pl.records.run import Run
from janus_pl.verify import estimators
from janus_pl.verify.claims import find_claims, read_claims
from janus_pl.verify.decide import Answer
from janus_pl.verify.estimators import Evidence, evidence
from janus_pl.verify.judge import judge
from janus_pl.verify.quantities import QUANTITIES

FILE = find_claims("low_rank")
SEEDS = range(6)
BATCHES, RATES, LAMBDAS = (16, 32, 64), (0.05, 0.1, 0.2), (5e-4, 1e-3, 2e-3)
LAW = {"b": 0.3, "r": -0.4, "l": -0.25}
MIDDLE = ("conv3", "conv4", "fc1")


def equal_epochs(law: Callable[[int], dict[str, float]]) -> list[Run]:
    """Three scans of 40 epochs through B = 32, eta = 0.1, lambda = 1e-3."""
    runs = {}
    for seed in SEEDS:
        points: list[dict[str, Any]] = [{"batch": b} for b in BATCHES]
        points += [{"rate": r} for r in RATES]
        for point in [*points, *({"lam": lam} for lam in LAMBDAS)]:
            run = scanned(seed=seed, law=law(seed), **point)
            runs[run.id] = run
    return list(runs.values())


def equal_steps(law: Callable[[int], dict[str, float]]) -> list[Run]:
    """As above, of 640 steps or an eta t of 64: each run of another length."""
    runs = {}
    for seed in SEEDS:
        points: list[tuple[dict[str, Any], int]]
        points = [({"batch": b}, 640 * b // N) for b in BATCHES]
        points += [({"rate": r}, round(40 * 0.1 / r)) for r in RATES]
        for point, epochs in points:
            run = scanned(seed=seed, law=law(seed), epochs=tuple(range(epochs + 1)), **point)
            runs[run.id] = run
    return list(runs.values())


def answers(runs: list[Run]) -> dict[str, Answer]:
    return {v.claim.name: v.answer for v in judge(read_claims(FILE), runs).verdicts}


def test_a_law_that_holds_is_supported_by_every_claim() -> None:
    found = answers(equal_epochs(lambda seed: LAW))
    assert set(found.values()) == {Answer.SUPPORTED}
    assert len(found) == 9
    assert answers(equal_steps(lambda seed: LAW))["batch_steps"] is Answer.SUPPORTED


def test_a_law_that_is_reversed_is_contradicted_and_none_is_too() -> None:
    for law in ({name: -value for name, value in LAW.items()}, {}):
        found = answers(equal_epochs(lambda seed, law=law: law))  # type: ignore[misc]
        assert set(found.values()) == {Answer.CONTRADICTED}, law


def test_a_law_of_some_seeds_is_undecided() -> None:
    """Half of the seeds have the law, half its reverse."""

    def mixed(seed: int) -> dict[str, float]:
        return {name: value * (-1) ** seed for name, value in LAW.items()}

    assert set(answers(equal_epochs(mixed)).values()) == {Answer.UNDECIDED}


def test_each_scan_answers_its_own_claims() -> None:
    """Where B alone has a law, the claims of B are supported and the others are not."""
    found = answers(equal_epochs(lambda seed: {"b": 0.3}))
    supported = {name for name, answer in found.items() if answer is Answer.SUPPORTED}
    assert supported == {"batch", "batch_steps", "batch_eta_t"}


def test_runs_of_equal_steps_say_nothing_at_equal_epochs() -> None:
    """Their lengths differ, so that a mean over the last fifth is of other epochs."""
    found = answers(equal_steps(lambda seed: LAW))
    assert {found["batch"], found["rate"]} == {Answer.UNTESTABLE}
    assert {found["batch_steps"], found["rate_eta_t"]} == {Answer.SUPPORTED}


def late(run: Run, column: str, end: float) -> float:
    """The geometric mean over layers of the mean over the last fifth before a time."""
    inside = run.rows[(run.rows[column] > 0.8 * end) & (run.rows[column] <= end)]
    return float(stats.gmean([inside[f"effective_rank/{k}"].mean() for k in MIDDLE]))


def slopes(runs: list[Run], over: str, clock: str = "epochs") -> list[Evidence]:
    return evidence(runs, "slope", QUANTITIES["rank"], "SGD", clock, None, over)[0]


@pytest.mark.parametrize(
    ("clock", "column"), [("epochs", "epoch"), ("steps", "trainer/global_step"), ("eta_t", "eta_t")]
)
@pytest.mark.parametrize(("over", "word"), [("batch_size", "B"), ("learning_rate", "eta")])
def test_a_slope_is_one_least_squares_line(over: str, word: str, clock: str, column: str) -> None:
    name, values = {"B": ("batch", BATCHES), "eta": ("rate", RATES)}[word]
    points: list[dict[str, Any]] = [{name: value, "seed": s} for s in (0, 1) for value in values]
    runs = [scanned(law=LAW, **point) for point in points]
    (one,) = slopes(runs, over, clock)
    assert one.arms == f"{word} {', '.join(f'{v:g}' for v in values)}"
    for seed, effect in zip((0, 1), one.effects, strict=True):
        mine = [run for run in runs if run.description.seed == seed]
        end = min(float(run.rows[column].iloc[-1]) for run in mine)
        ranks = [late(run, column, end) for run in mine]
        assert effect == pytest.approx(stats.linregress(np.log(values), np.log(ranks)).slope)


def test_what_a_slope_over_b_leaves_out() -> None:
    runs = [scanned(b, seed=0, law=LAW) for b in (*BATCHES, "full")]
    assert slopes(runs, "batch_size")[0].arms == "B 16, 32, 64", "GD is no batch size of SGD"
    undecayed = [scanned(b, lam=0.0, seed=0, law=LAW) for b in BATCHES]
    assert slopes(undecayed, "batch_size") == [], "no lambda above 0"
    others = [scanned(b, rate=r) for b, r in zip(BATCHES, RATES, strict=True)]
    assert slopes(others, "batch_size") == slopes(others, "learning_rate") == []
    adam = [measured(run, optimizer="Adam") for run in runs[:3]]
    assert slopes(adam, "batch_size") == []


def test_of_two_lengths_of_a_run_the_longer_counts_at_equal_steps() -> None:
    runs = [scanned(b, seed=0, law=LAW) for b in BATCHES]
    short = scanned(16, seed=0, law={"b": 5}, epochs=tuple(range(6)))
    for some in ([*runs, short], [short, *runs]):
        assert slopes(some, "batch_size", "steps") == slopes(runs, "batch_size", "steps")


def test_a_slope_over_the_wrong_option_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control of the first test."""
    swapped = {**estimators.SLOPES, "batch_size": estimators.SLOPES["learning_rate"]}
    monkeypatch.setattr(estimators, "SLOPES", swapped)
    with pytest.raises(AssertionError):
        test_a_law_that_holds_is_supported_by_every_claim()


def test_networks_of_any_kind_count_where_a_claim_says_so() -> None:
    runs = [classified(scanned(b, seed=s, law=LAW)) for b in BATCHES for s in SEEDS]
    assert answers(runs)["batch"] is Answer.SUPPORTED
    paper = judge(read_claims(), runs).verdicts
    assert all(
        verdict.missing and "not the paper's network" in verdict.missing for verdict in paper
    )
    theirs = [measured(run, kind="module", task="m.M", weight_decay=None) for run in runs]
    assert answers(theirs)["batch"] is Answer.UNTESTABLE, "its lambda is not known"


@pytest.mark.parametrize("name", ["low_rank", "low_rank.yaml", str(FILE)])
def test_a_claims_file_is_found_by_its_name(name: str) -> None:
    assert find_claims(name) == FILE


def test_a_file_of_ones_own_is_before_a_shipped_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for place in (Path("configs/claims/low_rank.yaml"), Path("low_rank.yaml")):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("mine")
        assert find_claims("low_rank") == place


@pytest.mark.parametrize("name", ["low_rnk", "", "low_rank.yml"])
def test_a_name_that_is_none_is_refused_with_the_nearest(name: str) -> None:
    near = "; the nearest is low_rank.yaml" if name else ""
    with pytest.raises(UsageError) as caught:
        find_claims(name)
    allowed = "an existing file, or the name of one in configs/claims"
    assert str(caught.value) == f"--claims: got {name!r}, allowed: {allowed}{near}"


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"over": "batchsize"}, "over: got 'batchsize', allowed: a valid key, the nearest is batch_"),
    ({"over": "width"}, "over: got 'width', allowed: one of batch_size, learning_rate, weight_dec"),
    ({"network": "all"}, "network: got 'all', allowed: one of any, paper"),
    ({"estimator": "level", "effect": 1, "bound": {"above": 0.5}}, "over: got 'batch_size', allow"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "said"), WRONG)
def test_a_wrong_claim_is_refused_in_one_line(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    plain = yaml.safe_load(FILE.read_text())
    plain["claims"]["batch"] |= change
    (path := tmp_path / "mine.yaml").write_text(yaml.safe_dump(plain))
    with pytest.raises(UsageError, match=f"^claims.batch.{said}") as caught:
        read_claims(path)
    assert "\n" not in str(caught.value)


def test_verify_prints_one_answer_a_claim(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """From an archive, by the command line."""
    archive = archived(equal_epochs(lambda seed: LAW), tmp_path / "scan.jsonl.xz")
    assert tools.main(["verify", str(archive), "--claims", "low_rank", "--json", "-"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [claim["answer"] for claim in told["claims"]] == ["supported"] * 9
    batch = told["claims"][0]
    assert (batch["over"], batch["network"]) == ("batch_size", "any")
    assert batch["settings"][0]["estimate"] == pytest.approx(0.3, abs=0.03)
    line = told["lines"][0]
    assert line["criterion"].startswith("slope of log effective rank in log B is above 0.02")
    assert tools.main(["verify", str(archive), "--claims", "low_rank"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("supported") for line in table) == 5, "those of the table"
    assert all(len(line) <= 100 for line in table)
    assert math.isfinite(batch["settings"][0]["power"])
