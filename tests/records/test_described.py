"""Descriptions of recorded runs: as measured, and derived for old records of our own classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from janus_pl.records.described import described
from janus_pl.records.families import families, is_untrained, lambda_of, seed_of
from janus_pl.records.read import read
from janus_pl.records.run import Run, ordered
from janus_pl.run.description import Description
from janus_pl.run.name import run_name, run_tags

RECORDED = Path(__file__).parents[2] / "docs" / "results"
TEN = "models.TenClassMLP"
MEASURED = Description(
    *(TEN, "module", "raw", "AdamW", False, ("net_2", "net_10", "head")),
    decays={"net_2": {"acts": "decoupled", "value": 0.1}},
    momentum=0.9,
    batch_size=64,
    num_train=640,
    seed=3,
    data_seed=4,
)


def config(
    task: str = "janus_pl.DeepReLUClassifier",
    description: Any = None,
    data: dict[str, Any] | None = None,
    **model: Any,
) -> dict[str, Any]:
    given = {"loss": "square", "weight_decay": 0.1, **model}
    sized = {"batch_size": 32, "seed": 1, "num_train": 99, **(data or {})}
    made = {
        "seed_everything": 2,
        "model": {"class_path": task, "init_args": given},
        "data": {"class_path": "janus_pl.data.DigitsPair", "init_args": sized},
    }
    return made if description is None else {**made, "description": description}


def run_of(given: dict[str, Any], **columns: Any) -> Run:
    rows = pd.DataFrame({"epoch": [0.0, 1.0], **columns})
    return Run("id", "name", None, Path("x"), given, 0, rows)


# Old records


def test_of_our_network_options_say_what_it_was() -> None:
    options = {"normalization": "lagrange", "decay": "rho", "loss": "logistic"}
    adam = {"class_path": "torch.optim.AdamW", "init_args": {"betas": [0.9, 0.99]}}
    found = described(config(**options, optimizer=adam))
    assert (found.task, found.kind, found.margin) == (
        *("janus_pl.DeepReLUClassifier", "network", "normalized"),
    )
    assert (found.loss, found.normalization, found.decay) == ("logistic", "lagrange", "rho")
    assert (found.weight_decay, found.batch_size, found.num_train) == (0.1, 32, 99)
    assert (found.seed, found.data_seed, found.whole, found.layers) == (2, 1, False, ())
    assert found.dynamics == "AdamW"
    full = described(config(data={"batch_size": "full"}, optimizer=adam))
    assert (full.whole, full.batch_size, full.dynamics) == (True, 99, "full-batch AdamW")


@pytest.mark.parametrize(
    ("optimizer", "dynamics", "momentum"),
    [
        ({}, "SGD", None),
        ({"optimizer": None}, "SGD", None),
        ({"optimizer": {"init_args": {"momentum": 0.9}}}, "SGD", 0.9),
        ({"optimizer": {"class_path": "torch.optim.SGD"}}, "SGD", None),
        ({"optimizer": {"class_path": "torch.optim.RMSprop"}}, "RMSprop", None),
        ({"optimizer": "torch.optim.AdamW"}, "AdamW", None),
    ],
)
def test_its_optimizer_is_the_configured_class_or_sgd(
    optimizer: dict[str, Any], dynamics: str, momentum: float | None
) -> None:
    found = described(config(**optimizer))
    assert (found.dynamics, found.momentum) == (dynamics, momentum)


def test_of_our_regressor_too() -> None:
    given = config("janus_pl.LinearRegressor", data={"batch_size": "full"}, weight_decay=[0.1, 0.2])
    found = described(given)
    assert (found.kind, found.margin, found.loss) == ("linear", "normalized", None)
    assert (found.dynamics, found.weight_decay, found.data_seed) == ("GD", [0.1, 0.2], 1)


@pytest.mark.parametrize(
    "task",
    [
        TEN,
        "models.DeepReLUClassifier",
        "janus_pl.deep.classifier.DeepReLUClassifier",
        "LinearRegressor",
    ],
)
@pytest.mark.parametrize("size", [32, "full"])
def test_of_any_other_class_nothing_is_guessed(task: str, size: Any) -> None:
    run = run_of(config(task, data={"batch_size": size}), **{"train/loss": [9.0, 9.0]})
    found = run.description
    assert (found.task, found.kind, found.margin) == (task, "module", "none")
    assert (found.loss, found.weight_decay, found.batch_size) == (None, None, None)
    assert (run.dynamics, found.whole) == ("unknown", False)
    assert math.isnan(lambda_of(run))
    assert not is_untrained(run), "its loss may be any"
    assert is_untrained(run_of(config(), **{"train/loss": [9.0, 9.0]})), "control"
    assert run_name(found) == f"{task.rpartition('.')[2]}-unknown-seed2"


@pytest.mark.parametrize("given", [{}, {"model": None, "data": None}, {"model": "x", "data": 3}])
def test_a_config_without_a_class_is_no_traceback(given: dict[str, Any]) -> None:
    assert (described(given).task, described(given).kind) == ("", "module")


def test_the_recorded_runs_of_docs_have_the_names_and_tags_that_they_got() -> None:
    runs = [run for run in read([RECORDED]).runs if run.config["name"] is None]
    assert len(runs) > 90
    assert [run_name(run.description) for run in runs] == [run.name for run in runs]
    for run in runs:
        options = [
            run.options[k] for k in ("model.loss", "model.normalization") if k in run.options
        ]
        size = run.options["data.batch_size"]
        linear = ["linear"] * run.options["model"].endswith("LinearRegressor")
        controls = ["growing"] * (run.options.get("model.schedule") == "growing")
        if (held := run.options.get("model.hold_norms")) is not None:
            controls.append(f"hold{held:g}")
        expected = [*linear, "GD" if size == "full" else "SGD", *options, *controls]
        assert run_tags(run.description) == expected


# As measured


def test_what_was_measured_is_read_and_no_option_beside_it() -> None:
    for task in (TEN, "janus_pl.DeepReLUClassifier"):
        run = run_of(config(task, MEASURED.to_plain()))
        assert run.description == MEASURED
        assert (run.dynamics, seed_of(run)) == ("AdamW", (3, 4))
        assert math.isnan(lambda_of(run))
    measured = replace(MEASURED, kind="network", weight_decay=0.25, loss="logistic")
    assert lambda_of(run_of(config(description=measured.to_plain()))) == 0.25


PLAIN = MEASURED.to_plain()
MALFORMED: dict[str, Any] = {
    "text": "AdamW",
    "nothing": {},
    "a list": [PLAIN],
    "a number": 3,
    "no kind": {k: v for k, v in PLAIN.items() if k != "kind"},
    "another kind": {**PLAIN, "kind": "transformer"},
    "another margin": {**PLAIN, "margin": 1.0},
    "whole in words": {**PLAIN, "whole": "no"},
    "layers as text": {**PLAIN, "layers": "fc1"},
    "layers as numbers": {**PLAIN, "layers": [1, 2]},
    "no layers": {**PLAIN, "layers": None},
    "an optimizer of parts": {**PLAIN, "optimizer": {"class_path": "AdamW"}},
    "a task that is none": {**PLAIN, "task": None},
    "a loss that is none": {**PLAIN, "loss": 2},
    "a batch in words": {**PLAIN, "batch_size": "32"},
    "lambda in words": {**PLAIN, "weight_decay": "1e-3"},
    "decays as a list": {**PLAIN, "decays": [0.1]},
    "decays without facts": {**PLAIN, "decays": {"net_2": 0.1}},
}


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_description_says_nothing_and_is_no_traceback(what: str) -> None:
    run = run_of(config(description=MALFORMED[what]), **{"train/loss": [9.0, 9.0]})
    found = run.description
    assert (found.kind, found.margin, found.optimizer) == ("module", "none", "unknown")
    assert math.isnan(lambda_of(run))
    assert run_name(found) == "DeepReLUClassifier-unknown-seed2"


# Layers


def layered(layers: Sequence[str], recorded: Sequence[str]) -> Run:
    given = config(TEN, replace(MEASURED, layers=tuple(layers)).to_plain())
    return run_of(given, **{f"velocity/{layer}": [1.0, 2.0] for layer in recorded})


def test_layers_are_in_the_order_of_the_forward_pass() -> None:
    names = ["net_2", "net_10", "net_0", "head"]
    recorded = ["head", "net_0", "net_10", "net_2"]
    assert layered(names, recorded).layers("velocity") == names
    assert layered(names, ["head", "net_10"]).layers("velocity") == ["net_10", "head"]
    later = ["zz", "head", "aa", "net_2"]
    assert layered(names, later).layers("velocity") == ["net_2", "head", "zz", "aa"]
    # Control: nobody described the layers of an old record.
    old = run_of(config(), **{f"velocity/{layer}": [1.0, 2.0] for layer in recorded})
    assert old.layers("velocity") == ["head", "net_0", "net_2", "net_10"]


def test_layers_of_several_runs_keep_the_order_of_each() -> None:
    runs = [layered(["a", "c"], []), layered(["a", "b", "c"], []), layered(["c", "x"], [])]
    assert ordered(["x", "c", "b", "a", "c"], runs) == ["a", "b", "c", "x"]
    assert ordered(["c", "new", "a"], runs) == ["a", "c", "new"]
    assert ordered(["c10", "c9", "c9"], []) == ["c9", "c10"]


# Families


@pytest.mark.parametrize(
    ("facts", "varied"),
    [
        ({"optimizer": "SGD"}, "nothing"),
        ({"momentum": 0.8}, "nothing"),
        ({"decays": {"net_2": {"acts": "decoupled", "value": 0.2}}}, "nothing"),
        ({"num_train": 641}, "nothing"),
        ({"batch_size": 32}, "batch"),
        ({"whole": True}, "batch"),
        ({"seed": 8, "data_seed": 9}, None),
        ({"device": "another", "versions": {"torch": "9"}}, None),
    ],
)
def test_facts_that_are_no_options_separate_families(
    facts: dict[str, Any], varied: str | None
) -> None:
    pair = [run_of(config(TEN, each.to_plain())) for each in (MEASURED, replace(MEASURED, **facts))]
    for name in ("lambda", "batch", "epochs", "loss"):
        assert (len(families(pair, name)) == 1) == (varied in (None, name)), name


def test_options_of_somebody_else_s_module_are_never_the_ones_that_are_varied() -> None:
    for given, name in (({"weight_decay": 0.2}, "lambda"), ({"loss": "logistic"}, "loss")):
        theirs = [run_of(config(TEN, PLAIN, **options)) for options in ({}, given)]
        assert len(families(theirs, name)) == 2
        ours = [run_of(config(**options)) for options in ({}, given)]
        assert len(families(ours, name)) == 1
    for folder, count in (("janus_pl.data.DigitsPair", 1), ("theirs.Digits", 2)):
        pair = [run_of(config(TEN, PLAIN, data={"batch_size": size})) for size in (8, 16)]
        for run in pair:
            run.config["data"]["class_path"] = folder
        assert len(families(pair, "batch")) == count


def test_an_old_record_compares_with_a_new_one_of_the_same_options() -> None:
    old = config(data={"batch_size": "full"})
    new = replace(
        described(old),
        layers=("conv1",),
        decays={"conv1": {"acts": "coupled", "value": 0.1}},
        batch_size=1000,
        num_train=1000,
        momentum=0.9,
        device="H200",
    )
    pair = [run_of(old), run_of({**old, "description": new.to_plain()})]
    assert len(families(pair)) == 1
    adam = {**old, "description": replace(new, optimizer="AdamW").to_plain()}
    assert len(families([pair[0], run_of(adam)])) == 2
