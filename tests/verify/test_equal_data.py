"""Runs are compared on equal data alone, wherever these lie; seeds pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report.synthetic import deep_run, linear_run

from janus_pl.cli import report as report_command
from janus_pl.cli import verify as verify_command
from janus_pl.records import families as module
from janus_pl.records.families import by_data, families, told_apart
from janus_pl.records.read import Records
from janus_pl.records.run import Run
from janus_pl.verify.table import verdicts
from janus_pl.verify.verdicts import Outcome

A, B = "a" * 64, "b" * 64


def on(
    run: Run,
    pool: str | None,
    place: str = "/here",
    model: Mapping[str, Any] | None = None,
    **options: Any,
) -> Run:
    """The run on these data, with options of the data and of the model."""
    config = {**run.config}
    for part, more in (("data", options), ("model", model or {})):
        config[part] = {**config[part], "init_args": {**config[part]["init_args"], **more}}
    config["data"]["class_path"] = "janus_pl.data.ImageFolderPair"
    facts = {} if pool is None else {"sha256": pool, "pool": pool, "source": place}
    described = replace(run.description, data=facts)
    return replace(run, config={**config, "description": described.to_plain()})


def of(prediction: str, runs: list[Run]) -> list[Any]:
    return [v for v in verdicts(runs) if v.prediction == prediction]


# A theorem is not violated by other data


def pair(sgd: str | None, gd: str | None) -> list[Run]:
    """SGD as one CSV has it, and GD with the slope of another."""
    runs = [linear_run(1), linear_run("full", factor=0.95)]
    return [on(run, pool) for run, pool in zip(runs, (sgd, gd), strict=True)]


def test_a_changed_file_breaks_no_theorem() -> None:
    (verdict,) = of("law over B", pair(A, B))
    assert verdict.verdict is Outcome.UNTESTABLE
    assert "other data are not compared: linear-B1-seed0 (linear-B1-seed0) on aaaaaaaa from /here;"
    assert "linear-Bfull-seed0) on bbbbbbbb from /here" in verdict.missing


@pytest.mark.parametrize("pools", [(A, A), (None, None), (A, None)])
def test_of_equal_or_unknown_data_it_is_judged(pools: tuple[str | None, str | None]) -> None:
    """The control: the same numbers on the same data do violate the theorem."""
    (verdict,) = of("law over B", pair(*pools))
    assert verdict.violated


def test_without_the_comparison_of_data_the_theorem_is_violated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The negative control."""
    monkeypatch.setattr(module, "by_data", lambda runs: [list(runs)])
    assert of("law over B", pair(A, B))[0].violated


# SGD against GD


def test_within_a_seed_pairs_are_on_equal_data_and_seeds_pool() -> None:
    key = "janus: low rank"
    low, same = (20, 30, 50, 50, 50, 2), (20, 60, 100, 100, 100, 2)
    seeds = [on(deep_run(seed=s, ranks=low), A) for s in (0, 1)]
    seeds += [on(deep_run(batch="full", seed=s, ranks=same), A) for s in (0, 1)]
    (pooled,) = of(key, seeds)
    assert pooled.verdict is Outcome.HOLDS
    assert "(2 seeds; 2 alone would do)" in pooled.measured
    moved = [*seeds[:3], on(deep_run(batch="full", seed=1, ranks=same), B)]
    (one,) = of(key, moved)
    assert "(1 seed; 1 alone would do)" in one.measured
    apart = [on(deep_run(ranks=low), A), on(deep_run(batch="full", ranks=same), B)]
    (neither,) = of(key, apart)
    assert neither.verdict is Outcome.UNTESTABLE
    assert "other data are not compared" in str(neither.missing)


def test_findings_on_two_data_are_told_apart_by_them() -> None:
    high = [on(deep_run(lam, std=std), pool) for pool in (A, B) for lam, std in ((0, 1), (0.1, 9))]
    found = of("janus: noise", high)
    assert [v.measured.partition(":")[0] for v in found] == ["sha256 aaaaaaaa", "sha256 bbbbbbbb"]


# Families


SAME: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"root": "/here"}, {"root": "/there", "download": False}),
    ({"source": "a.csv"}, {"source": "/b/a.csv"}),
    ({"micro_batch_size": None}, {"micro_batch_size": 50}),
    ({"model": {"on_divergence": "stop"}}, {"model": {"on_divergence": "record"}}),
    ({}, {"model": {"hold_norms": None}}),  # of a record from before, and of now
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_options_that_change_no_number_split_no_family(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    runs = [on(deep_run(), A, **one), on(deep_run(0.1), A, "/there", **other)]
    assert len(families(runs, "lambda")) == 1
    assert len(families([runs[0], on(deep_run(0.1), B, **other)], "lambda")) == 2


OTHER: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"source": "gaussian"}, {"source": "toy"}),
    ({"num_train": 10}, {"num_train": 20}),
    ({"order": "shuffle"}, {"order": "sequential"}),
    ({"model": {"loss": "square"}}, {"model": {"loss": "logistic"}}),
]


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_options_that_change_numbers_still_do(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert len(families([on(deep_run(), A, **one), on(deep_run(0.1), A, **other)], "lambda")) == 2


def described(run: Run, **facts: Any) -> Run:
    """The run with other facts in its description, as a script's record has them."""
    plain = replace(run.description, **facts).to_plain()
    return replace(run, config={**run.config, "description": plain})


CONTROLS: list[dict[str, Any]] = [{"schedule": "growing"}, {"hold_norms": 1.0}, {"hold_norms": 0.5}]


def test_a_control_is_no_run_of_its_weight_decay() -> None:
    """A script's options do not name the schedule."""
    usual, other = deep_run(), described(deep_run(0.1), schedule="constant")
    assert len(families([usual, other], "lambda")) == 1
    controls = [described(deep_run(0.1), **facts) for facts in CONTROLS]
    assert len(families([usual, other, *controls], "lambda")) == 1 + len(CONTROLS)
    again = [described(deep_run(0.2), **facts) for facts in CONTROLS]
    assert len(families([*again, *controls], "lambda")) == len(CONTROLS)


def test_the_path_of_unknown_data_still_tells() -> None:
    runs = [on(deep_run(), None, root="/here"), on(deep_run(0.1), None, root="/there")]
    assert len(families(runs, "lambda")) == 2


def test_a_record_older_than_fingerprints_is_with_those_of_its_place() -> None:
    known, old = on(deep_run(), A, root="/here"), on(deep_run(0.1), None, root="/here")
    elsewhere = on(deep_run(0.2), None, root="/there")
    assert families([known, old, elsewhere], "lambda") == [[known, old], [elsewhere]]
    (told,) = told_apart([known, elsewhere])
    assert told.endswith(
        "on aaaaaaaa from /here; square-B32-lam0.2-seed0 (square-B32-lam0.2-seed0) on unknown"
    )
    assert told_apart([old, elsewhere]) == [], "nothing is known of either"


def test_an_option_of_the_name_in_somebody_elses_module_still_tells() -> None:
    runs = [on(deep_run(), A, model={"on_divergence": given}) for given in ("stop", "record")]
    foreign = []
    for run in runs:
        described = {**run.config["description"], "kind": "module", "task": "m.M"}
        foreign.append(replace(run, config={**run.config, "description": described}))
    assert len(families(foreign)) == 2


def test_unknown_data_are_with_the_others_unless_these_differ() -> None:
    known, other, unknown = (on(deep_run(), pool) for pool in (A, B, None))
    assert by_data([known, unknown]) == [[known, unknown]]
    assert by_data([known, unknown, other]) == [[known], [unknown], [other]]


def test_data_changed_within_a_run_are_nobody_elses() -> None:
    run = on(deep_run(), A)
    data = {**run.description.data, "changes": [{"step": 5, "from": B, "to": A}]}
    changed = replace(run, config={**run.config})
    described = {**run.config["description"], "data": data}
    changed = replace(run, config={**run.config, "description": described})
    assert by_data([run, changed]) == [[run], [changed]]
    (told,) = told_apart([run, changed])
    assert told.count("on aaaaaaaa") == 2


def test_data_that_no_reader_understands_describe_nothing() -> None:
    odd_data: list[Any] = [[], {"pool": 3}, {"changes": [1]}, {"changes": 5}, {"sha256": None}]
    for data in odd_data:
        run = on(deep_run(), A)
        described = {**run.config["description"], "data": data}
        odd = replace(run, config={**run.config, "description": described})
        assert odd.description.optimizer == "unknown", data


# What the commands say


@pytest.mark.parametrize("command", [verify_command, report_command])
def test_the_commands_name_runs_on_other_data(
    command: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr(command, "read", lambda *_: Records(pair(A, B), []))
    out = ["--out", str(tmp_path / "out")] if command is report_command else []
    assert command.main(["runs", *out]) == 0
    said = capsys.readouterr()
    assert "A theorem is violated" not in said.out
    assert said.err.splitlines() == [
        "other data are not compared: linear-B1-seed0 (linear-B1-seed0) on aaaaaaaa from /here;"
        " linear-Bfull-seed0 (linear-Bfull-seed0) on bbbbbbbb from /here"
    ]
