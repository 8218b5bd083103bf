"""The name of a run whose config has only half of what a name is made of."""

from __future__ import annotations

from typing import Any

import pytest

from janus_pl.run.name import run_name

MODEL = {"weight_decay": 0.001}
DATA = {"batch_size": 8, "seed": 0}


@pytest.mark.parametrize(
    ("model", "data", "name"),
    [
        (MODEL, DATA, "sgd-B8-lam0.001-seed0"),
        ({}, DATA, None),
        (MODEL, {"seed": 0}, None),
        ({}, {}, None),
    ],
)
def test_a_name_needs_a_weight_decay_and_a_batch_size(
    model: dict[str, Any], data: dict[str, Any], name: str | None
) -> None:
    config = {"seed_everything": 0, "model": {"init_args": model}, "data": {"init_args": data}}
    assert run_name(config) == name
