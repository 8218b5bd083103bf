"""Names and tags of runs: those of our classes, by any optimizer, and of somebody else's class."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from janus_pl.run.description import Description
from janus_pl.run.name import run_name, run_tags

NETWORK = Description(
    *("janus_pl.DeepReLUClassifier", "network", "normalized", "SGD", False, ("conv1",)),
    loss="square",
    normalization="weight_norm",
    weight_decay=1e-3,
    decay="all",
    num_train=1000,
    batch_size=128,
    seed=0,
    data_seed=0,
)
# The decay of the parameters of a linear problem and its loss are in no name.
LINEAR = replace(
    NETWORK,
    task="janus_pl.LinearRegressor",
    kind="linear",
    loss="mse",
    normalization=None,
    decay="weights",
    weight_decay=0.02,
    batch_size=1,
)
DECAYS = {f"net.{k}": {"acts": "decoupled", "value": 0.01} for k in (0, 2)}
MODULE = Description(
    *("somebody.models.TenClassMLP", "module", "raw", "AdamW", False, ("net.0", "net.2")),
    decays=DECAYS,
    batch_size=32,
    seed=3,
)
WHOLE: dict[str, Any] = {"whole": True, "batch_size": 1000}


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        ({}, "sgd-B128-lam0.001-seed0"),
        (WHOLE, "gd-lam0.001-seed0"),
        ({"loss": "logistic"}, "sgd-B128-lam0.001-logistic-seed0"),
        ({"normalization": "lagrange"}, "sgd-B128-lam0.001-lagrange-seed0"),
        ({"decay": "rho"}, "sgd-B128-lam0.001-rho-seed0"),
        ({"schedule": "constant"}, "sgd-B128-lam0.001-seed0"),
        ({"schedule": "growing"}, "sgd-B128-lam0.001-growing-seed0"),
        ({"hold_norms": 0.5}, "sgd-B128-lam0.001-hold0.5-seed0"),
        (
            {"loss": "exponential", "normalization": "none", "decay": "rho"},
            "sgd-B128-lam0.001-exponential-none-rho-seed0",
        ),
        ({"weight_decay": 0}, "sgd-B128-lam0-seed0"),
        ({"weight_decay": 0.000123456789}, "sgd-B128-lam0.000123457-seed0"),
        ({"seed": 1, "data_seed": 1}, "sgd-B128-lam0.001-seed1"),
        ({"seed": 1}, "sgd-B128-lam0.001-seed1-order0"),
        ({"data_seed": None}, "sgd-B128-lam0.001-seed0"),
        ({"seed": None, "data_seed": None}, "sgd-B128-lam0.001"),
        ({"seed": None, "data_seed": 2}, "sgd-B128-lam0.001-order2"),
        ({"batch_size": None}, "sgd-lam0.001-seed0"),
        ({"weight_decay": None}, "sgd-B128-seed0"),
        ({"loss": None, "normalization": None, "decay": None}, "sgd-B128-lam0.001-seed0"),
        ({"optimizer": "AdamW", "batch_size": 32}, "adamw-B32-lam0.001-seed0"),
        ({"optimizer": "AdamW", **WHOLE}, "full-batch-adamw-lam0.001-seed0"),
        ({"optimizer": "SGD+AdamW"}, "sgd+adamw-B128-lam0.001-seed0"),
    ],
)
def test_the_name_of_a_network(facts: dict[str, Any], name: str) -> None:
    assert run_name(replace(NETWORK, **facts)) == name


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        ({}, "linear-sgd-B1-lam0.02-seed0"),
        (WHOLE, "linear-gd-lam0.02-seed0"),
        ({"seed": 5}, "linear-sgd-B1-lam0.02-seed0"),
        ({"seed": 5, "data_seed": None}, "linear-sgd-B1-lam0.02-seed5"),
        ({"weight_decay": [0.02, 0.1]}, "linear-sgd-B1-lam0.02+0.1-seed0"),
    ],
)
def test_the_name_of_a_linear_problem(facts: dict[str, Any], name: str) -> None:
    assert run_name(replace(LINEAR, **facts)) == name


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        ({}, "TenClassMLP-adamw-B32-wd0.01-seed3"),
        ({"data_seed": 3}, "TenClassMLP-adamw-B32-wd0.01-seed3"),
        ({"data_seed": 4}, "TenClassMLP-adamw-B32-wd0.01-seed3-order4"),
        ({"optimizer": "SGD"}, "TenClassMLP-sgd-B32-wd0.01-seed3"),
        ({"optimizer": "SGD", **WHOLE}, "TenClassMLP-gd-wd0.01-seed3"),
        (WHOLE, "TenClassMLP-full-batch-adamw-wd0.01-seed3"),
        (
            {"decays": {**DECAYS, "net.2": {"acts": "decoupled", "value": 0.1}}},
            "TenClassMLP-adamw-B32-seed3",
        ),
        (
            {"decays": {k: {"acts": "none", "value": 0.0} for k in DECAYS}},
            "TenClassMLP-adamw-B32-seed3",
        ),
        ({"decays": {}, "seed": None, "batch_size": None}, "TenClassMLP-adamw"),
        ({"task": "TenClassMLP"}, "TenClassMLP-adamw-B32-wd0.01-seed3"),
        # What is ours in a description is not theirs.
        (
            {"weight_decay": 7.0, "loss": "logistic", "decay": "rho"},
            "TenClassMLP-adamw-B32-wd0.01-seed3",
        ),
    ],
)
def test_the_name_of_somebody_else_s_module(facts: dict[str, Any], name: str) -> None:
    assert run_name(replace(MODULE, **facts)) == name


@pytest.mark.parametrize(
    ("description", "tags"),
    [
        (NETWORK, ["SGD", "square", "weight_norm"]),
        (replace(NETWORK, **WHOLE), ["GD", "square", "weight_norm"]),
        (replace(NETWORK, optimizer="AdamW"), ["AdamW", "square", "weight_norm"]),
        (
            replace(NETWORK, optimizer="AdamW", **WHOLE),
            ["full-batch AdamW", "square", "weight_norm"],
        ),
        (replace(NETWORK, loss="logistic", normalization="none"), ["SGD", "logistic", "none"]),
        (LINEAR, ["linear", "SGD"]),
        (replace(LINEAR, **WHOLE), ["linear", "GD"]),
        (MODULE, ["AdamW"]),
        (replace(MODULE, optimizer="SGD", **WHOLE), ["GD"]),
    ],
)
def test_tags_are_the_dynamics_as_measured_and_options_of_ours(
    description: Description, tags: list[str]
) -> None:
    assert run_tags(description) == tags
