"""Every shipped sweep file: valid for `wandb sweep`, and each of its runs parses and trains."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from janus_pl.cli.config_files import CONFIGS
from janus_pl.cli.main import main
from janus_pl.cli.sweep import Resolver
from janus_pl.records.described import described
from janus_pl.run.name import run_name, run_tags
from janus_pl.sweep.file import load, points
from janus_pl.sweep.macros import arguments
from janus_pl.sweep.plan import plan

FILES = sorted(path.name for path in (CONFIGS / "sweeps").glob("*.yaml"))
# One file for each figure of several runs.
FIGURES = {"fig1", "fig2a", "fig2b", "fig3_fig4", "fig5a", "batch_sizes", "seeds"}
TINY = ["--data=janus_pl.data.DigitsPair", "--data.num_train=40", "--model.strides=[2,2,2,2]"]
TINY += ["--model.channels=[2,3,4,4]", "--model.hidden=8"]
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
# The learning rate of the paper may start above the limit of stability, and then it is said.
pytestmark = pytest.mark.filterwarnings("ignore:model.learning_rate. .* is above:UserWarning")


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["janus_pl"])


def shipped(name: str) -> Any:
    return load(name, (CONFIGS / "sweeps",))


def smaller(name: str, values: Mapping[str, Any]) -> list[str]:
    """Options that make a run of a sweep small, and keep what it varies where that can be."""
    if name.startswith("low_rank"):
        return []  # digits, and an MLP
    if name.startswith("linear"):
        return ["--data.num_train=100"] if name == "linear_a5.yaml" else []
    large = isinstance(batch := values.get("data.batch_size"), int) and batch > 40
    inherited = "data.batch_size" not in values
    return [*TINY, *(["--data.batch_size=16"] if large or inherited else [])]


def train(name: str, values: Mapping[str, Any]) -> int:
    file = Path("values.json")
    file.write_text(json.dumps(values))
    args = [*arguments(shipped(name).command, values, file), *smaller(name, values)]
    return main([*args, "--trainer.fast_dev_run=2", *QUIET])


def test_there_is_one_for_each_figure_of_several_runs() -> None:
    assert {f"{name}.yaml" for name in FIGURES} <= set(FILES)
    assert sum(name.startswith("linear_") for name in FILES) >= 7


@pytest.mark.parametrize("name", FILES)
def test_it_is_as_wandb_wants_it_and_says_what_it_is_for(name: str) -> None:
    text = (CONFIGS / "sweeps" / name).read_text()
    assert [line.split(":")[0] for line in text.splitlines()[:3]] == [
        "# Claim",
        "# Cost",
        "# Command",
    ]
    assert f"configs/sweeps/{name}" in text.splitlines()[2]
    spec = yaml.safe_load(text)
    assert spec["command"][-2:] == ["--config", "${args_json_file}"]
    for key, held in spec["parameters"].items():
        assert held.keys() <= {"value", "values"}, key
        for value in held.get("values", [held.get("value")]):
            assert not (isinstance(value, str) and "e-" in value), f"YAML reads {value} as text"


@pytest.mark.parametrize(
    "name",
    [
        name
        if name in ("seeds.yaml", "linear_a2.yaml")
        else pytest.param(name, marks=pytest.mark.soak)
        for name in FILES
    ],
)
def test_its_runs_have_a_group_tags_and_names_that_tell_them_apart(name: str) -> None:
    sweep = shipped(name)
    values = points(sweep)
    runs = plan(sweep, values, [], Resolver())
    spec = yaml.safe_load((CONFIGS / "sweeps" / name).read_text())
    sizes = [len(held.get("values", [None])) for held in spec["parameters"].values()]
    assert len(runs) == len(values) == math.prod(sizes)
    described_runs = [described(run.config) for run in runs]
    assert {each.kind for each in described_runs} <= {"network", "linear", "classifier"}
    names = [run_name(each) for each in described_runs]
    assert len(set(names)) == len(names), names
    for run, description in zip(runs, described_runs, strict=True):
        assert run.config["group"]
        assert run.config["name"] is None
        assert run.config["tags"]
        whole = run.config["data"]["init_args"]["batch_size"] == "full"
        assert ("GD" if whole else "SGD") in run_tags(description)


@pytest.mark.parametrize("name", FILES)
def test_its_first_and_last_run_train_two_steps(name: str) -> None:
    values = points(shipped(name))
    assert [train(name, values[i]) for i in (0, -1)] == [0, 0]


@pytest.mark.soak
@pytest.mark.parametrize("name", FILES)
def test_all_its_runs_train_two_steps(name: str) -> None:
    assert {train(name, values) for values in points(shipped(name))} == {0}
