"""Sweep files: what they expand to, beside W&B's own answers, and mistakes in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from janus_pl.cli.config_files import CONFIGS
from janus_pl.errors import UsageError
from janus_pl.sweep.distributions import DISTRIBUTIONS, parameter
from janus_pl.sweep.file import load, points
from janus_pl.sweep.macros import arguments, check_command

COMMAND = ["${env}", "python", "-m", "janus_pl", "fit", "--config", "${args_json_file}"]


def write(folder: Path, **content: Any) -> str:
    path = folder / "some.yaml"
    path.write_text(yaml.safe_dump({"method": "grid", "command": COMMAND, **content}))
    return str(path)


# The grids, in this order, are what `next_run` of W&B's package sweeps 0.3.0 gave for them.
GRIDS: list[tuple[dict[str, Any], list[dict[str, Any]]]] = [
    (
        {"b": {"values": [1, 2]}, "a": {"values": ["x", None]}, "c": {"value": 7}},
        [
            {"a": "x", "b": 1, "c": 7},
            {"a": "x", "b": 2, "c": 7},
            {"a": None, "b": 1, "c": 7},
            {"a": None, "b": 2, "c": 7},
        ],
    ),
    ({"a": {"values": [1, 1, 2]}}, [{"a": 1}, {"a": 2}]),
    (
        {"a": {"min": 1, "max": 3}, "b": {"value": None}},
        [{"a": 1, "b": None}, {"a": 2, "b": None}, {"a": 3, "b": None}],
    ),
    (
        {"a": {"distribution": "q_uniform", "min": 0, "max": 1, "q": 0.25}},
        [{"a": 0.0}, {"a": 0.25}, {"a": 0.5}, {"a": 0.75}],
    ),
    (
        {"a": {"values": [[1, 2], [3]]}, "B": {"values": [{"x": 1}]}},
        [{"B": {"x": 1}, "a": [1, 2]}, {"B": {"x": 1}, "a": [3]}],
    ),
    ({"c": {"value": 7}}, [{"c": 7}]),
]


@pytest.mark.parametrize(("parameters", "expected"), GRIDS)
def test_a_grid_is_wandbs(parameters: Any, expected: Any, tmp_path: Path) -> None:
    assert points(load(write(tmp_path, parameters=parameters))) == expected


# Quantiles 0.1, 0.5 and 0.9 as `HyperParameter.ppf` of W&B's package sweeps 0.3.0 gave them.
DRAWN: list[tuple[dict[str, Any], list[Any]]] = [
    ({"values": ["a", "b", "c"]}, ["a", "b", "c"]),
    ({"values": ["a", "b"], "probabilities": [0.2, 0.8]}, ["a", "b", "b"]),
    ({"min": 1, "max": 5}, [1, 3, 5]),
    ({"min": 0.5, "max": 2.0}, [0.65, 1.25, 1.85]),
    (
        {"distribution": "log_uniform", "min": -3.0, "max": 1.0},
        [0.07427357821433388, 0.36787944117144233, 1.822118800390509],
    ),
    (
        {"distribution": "log_uniform_values", "min": 0.0001, "max": 1.0},
        [0.00025118864315095817, 0.01, 0.39810717055349737],
    ),
    ({"distribution": "normal"}, [-1.2815515655446004, 0.0, 1.2815515655446004]),
    (
        {"distribution": "log_normal", "mu": 0.5, "sigma": 0.3},
        [1.1224732732590723, 1.6487212707001282, 2.4216895789122748],
    ),
    ({"distribution": "q_uniform", "min": 0.0, "max": 10.0, "q": 3}, [0, 6, 9]),
    ({"distribution": "q_normal", "mu": 1.0, "sigma": 5.0, "q": 2}, [-6, 0, 8]),
]


@pytest.mark.parametrize(("given", "expected"), DRAWN)
def test_a_quantile_is_wandbs(given: Any, expected: Any) -> None:
    drawn = [parameter("p", given).draw(u) for u in (0.1, 0.5, 0.9)]
    if isinstance(expected[0], float):
        assert drawn == pytest.approx(expected, rel=1e-12, abs=1e-15)
    else:
        assert drawn == expected


def test_values_that_are_drawn_are_plain_and_within_bounds() -> None:
    """JSON takes them, for every distribution at both ends."""
    ends = {"min": 1, "max": 2, "values": [1, 2], "value": 1}
    for name, kind in DISTRIBUTIONS.items():
        given = {key: ends[key] for key in kind.required}
        drawn = [parameter("p", {"distribution": name, **given}).draw(u) for u in (1e-9, 1 - 1e-9)]
        assert all(type(value) in (int, float) for value in drawn), name
        if name.endswith(("uniform_values", "int_uniform", "q_uniform", "categorical")):
            assert all(1 <= value <= 2 for value in drawn), name


RANDOM = {"lr": {"distribution": "log_uniform_values", "min": 0.001, "max": 1.0}}
RANDOM |= {"b": {"values": [1, 2, 3]}}


def test_a_longer_random_sweep_begins_with_the_shorter_one(tmp_path: Path) -> None:
    sweep = load(write(tmp_path, method="random", parameters=RANDOM, run_cap=3))
    short, long = points(sweep), points(sweep, count=10)
    assert (len(short), len(long)) == (3, 10)
    assert long[:3] == short
    assert points(sweep, count=10) == long
    assert points(sweep, count=10, seed=1) != long
    assert len({point["lr"] for point in long}) == 10


def test_a_grid_may_be_capped(tmp_path: Path) -> None:
    sweep = load(write(tmp_path, parameters={"a": {"values": [1, 2, 3]}}, run_cap=2))
    assert points(sweep) == [{"a": 1}, {"a": 2}]
    assert points(sweep, count=1) == [{"a": 1}]


@pytest.mark.parametrize("file", sorted((CONFIGS / "sweeps").glob("*.yaml")), ids=lambda f: f.stem)
def test_every_shipped_file_expands(file: Path) -> None:
    sweep = load(file.name, (CONFIGS / "sweeps",))
    expanded = points(sweep, count=4)
    assert expanded
    assert all(point.keys() == {p.name for p in sweep.parameters} for point in expanded)


# The command


def test_the_command_hands_values_over_as_wandbs_agent_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ROOT", "/data")
    monkeypatch.delenv("NOWHERE", raising=False)
    command = check_command(
        [
            *(*COMMAND[:5], "--data.root=${envvar:ROOT}/x", "${envvar:NOWHERE}"),
            *("${args}", "${args_no_equals}", "a b; c", "--config", "${args_json_file}"),
        ]
    )
    assert arguments(command, {"a": 1, "b": [2]}, Path("v.json")) == [
        *("fit", "--data.root=/data/x", "NOWHERE", "--a=1", "--b=[2]", "--a", "1", "--b", "[2]"),
        *("a b; c", "--config", "v.json"),
    ]


FIT = "python -m janus_pl fit"
COMMANDS: list[tuple[Any, str]] = [
    (None, "command: got None, allowed: a list"),
    ("python -m janus_pl fit", "command: got 'python"),
    ([], "command: got []"),
    (["${env}"], "command: got '${env}'"),
    (["python", "train.py", "${args}"], "command: got 'python train.py ${args}'"),
    (["bash", "-m", "janus_pl", "fit", "${args}"], "command: got 'bash"),
    (["python", "-m", "janus_pl", "test", "${args}"], "command: got 'python -m janus_pl test"),
    ([*FIT.split(), "${program}", "${args}"], "command: got '${program}'"),
    ([*FIT.split(), "--x=${args_json_file}"], "command: got '${args_json_file}'"),
    ([*FIT.split(), "--config", "sgd.yaml"], "allowed: the values handed over"),
]


@pytest.mark.parametrize(("command", "says"), COMMANDS)
def test_a_command_that_starts_no_run_is_refused(command: Any, says: str) -> None:
    with pytest.raises(UsageError) as error:
        check_command(command)
    assert says in str(error.value)


def test_null_goes_through_a_file_alone() -> None:
    with pytest.raises(UsageError, match=r"parameters.name: got None, allowed: a value, for null"):
        arguments(["fit", "${args}"], {"name": None}, Path("v.json"))
    assert arguments(["fit", "${args_json_file}"], {"name": None}, Path("v.json"))


# Mistakes

A = {"values": [1]}
MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"method": "bayes"}, "method: got 'bayes', allowed: grid, random; wandb agent runs the"),
    ({"method": None}, "method: got None"),
    ({"parameters": None}, "parameters: got None"),
    ({"parameters": {}}, "parameters: got {}"),
    ({"parameters": [1]}, "parameters: got [1]"),
    ({"parameter": {"a": A}}, "parameter: got"),
    ({"early_terminate": {"type": "hyperband"}}, "early_terminate: got"),
    ({"run_cap": 0}, "run_cap: got 0, allowed: an integer from 1 up"),
    ({"run_cap": True}, "run_cap: got True"),
    ({"metric": "train/loss"}, "metric: got 'train/loss', allowed: name: KEY of a row, and goal:"),
    ({"metric": {"goal": "minimize"}}, "metric: got {'goal': 'minimize'}"),
    (
        {"metric": {"name": "train/loss", "goal": "least"}},
        "metric.goal: got 'least', allowed: minimize, maximize",
    ),
    ({"parameters": {"a": 1}}, "parameters.a: got 1, allowed: value: V"),
    ({"parameters": {"a": {}}}, "parameters.a.distribution: got None"),
    ({"parameters": {"a": {"parameters": {"b": A}}}}, "parameters.a.parameters: got"),
    ({"parameters": {"a": {"values": []}}}, "parameters.a.values: got []"),
    ({"parameters": {"a": {"values": 3}}}, "parameters.a.values: got 3"),
    ({"parameters": {"a": {"values": ["1e-3"]}}}, "parameters.a: got '1e-3', allowed: numbers"),
    ({"parameters": {"a": {"value": "1e5"}}}, "parameters.a: got '1e5'"),
    ({"parameters": {"a": {"value": 1, "min": 2}}}, "parameters.a.min: got 2"),
    ({"parameters": {"a": {"distribution": "zipf"}}}, "parameters.a.distribution: got 'zipf'"),
    ({"parameters": {"a": {"min": 1}}}, "parameters.a.distribution: got None"),
    ({"parameters": {"a": {"min": 0.5, "max": 2.5}}}, "parameters.a: got 'uniform', allowed:"),
    (
        {"parameters": {"a": {"values": [1, 2], "probabilities": [0.5, 0.5]}}},
        "parameters.a: got 'probabilities', allowed: value, values,",
    ),
]
UNIFORM = {"distribution": "uniform", "min": 0, "max": 1}
RANDOM_MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"values": [1, 2], "probabilities": [1]}, "parameters.a.probabilities: got [1]"),
    ({"values": [1, 2], "probabilities": [0.5, 0.6]}, "parameters.a.probabilities: got"),
    ({**UNIFORM, "min": 2}, "parameters.a.min: got 2, allowed: a number up to max, 1"),
    ({**UNIFORM, "max": "1e-3"}, "parameters.a.max: got '1e-3', allowed: a number, as 0.001"),
    ({**UNIFORM, "max": float("inf")}, "parameters.a.max: got inf"),
    ({**UNIFORM, "q": 1}, "parameters.a.q: got 1, allowed: min, max (uniform)"),
    ({**UNIFORM, "distribution": "int_uniform", "max": 1.5}, "parameters.a.max: got 1.5"),
    ({**UNIFORM, "distribution": "log_uniform_values"}, "parameters.a.min: got 0, allowed: a num"),
    ({**UNIFORM, "distribution": "q_uniform", "q": 0}, "parameters.a.q: got 0"),
    ({"distribution": "normal", "sigma": -1}, "parameters.a.sigma: got -1"),
    ({"distribution": "uniform", "min": 1}, "parameters.a: got {'distribution': 'uniform', 'min'"),
]
MISTAKES += [
    ({"method": "random", "run_cap": 1, "parameters": {"a": given}}, says)
    for given, says in RANDOM_MISTAKES
]
MISTAKES.append(({"method": "random", "parameters": {"a": A}}, "--count: got None"))


@pytest.mark.parametrize(("content", "says"), MISTAKES)
def test_a_mistake_is_one_line(content: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        points(load(write(tmp_path, **{"parameters": {"a": A}, **content})))
    assert str(error.value).startswith(says)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "- 1", "a: [", "\xff", "!!python/object:os.system {}"])
def test_a_file_that_is_no_sweep_is_one_line(text: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=r"^sweep: got .*bad.yaml'.*$"):
        load(str(file))


def test_a_name_is_looked_up_here_and_then_among_the_shipped_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = (CONFIGS / "sweeps",)
    assert [p.name for p in load("linear_toy.yaml", shipped).parameters] == [
        "data.batch_size",
        "tags",
    ]
    Path("linear_toy.yaml").write_text(
        yaml.safe_dump({"method": "grid", "command": COMMAND, "parameters": {"a": A, "b": A}})
    )
    assert [p.name for p in load("linear_toy.yaml", shipped).parameters] == ["a", "b"]
    with pytest.raises(UsageError, match=r"an existing file, looked for as .*nothing.yaml or"):
        load("nothing.yaml", shipped)
