"""A sweep file, checked and expanded to its runs' values, the same at every reading."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from janus_pl.errors import UsageError, check_integer, nearest, nearest_file
from janus_pl.run.nested import read_mapping
from janus_pl.sweep.clock import check_clock, check_varied
from janus_pl.sweep.distributions import Parameter, parameter
from janus_pl.sweep.macros import check_command

# W&B's other keys steer its agents: early_terminate, imageuri and so on. `clock` is ours.
KEYS = (
    *("method", "parameters", "command", "run_cap", "metric", "clock"),
    *("program", "name", "description", "project", "entity"),
)
AGENTS = "wandb agent runs the others: `wandb sweep FILE`, then the command that it prints"


@dataclass(frozen=True)
class SweepFile:
    """The checked content of a sweep file.

    Attributes:
        name: The file's name without its ending.
        method: The word `grid` or `random`.
        command: The command line of a run from `fit` on, with W&B's macros.
        parameters: The parameters in the order of their names, as W&B goes through them.
        run_cap: The number of runs of a random sweep, or the most of a grid; None if not given.
        clock: What all runs have as much of: `epochs`, `steps`, `eta_t`; None leaves them as is.
    """

    name: str
    method: str
    command: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    run_cap: int | None = None
    clock: str | None = None

    @property
    def varied(self) -> list[str]:
        """The names of the parameters that may have several values."""
        return [p.name for p in self.parameters if not p.single]


def load(path: str, places: tuple[Path, ...] = ()) -> SweepFile:
    """Read and check a sweep file.

    Args:
        path: The path of the file.
        places: Folders to search after the working directory.

    Raises:
        UsageError: There is no such file, or it is wrong.
    """
    file = _find(path, places)
    content = read_mapping("sweep", path, file, "a file with method: and parameters:")
    if {"model", "data", "trainer"} & content.keys() and "parameters" not in content:
        allowed = f"a file with method: and parameters:; a config is run by `fit --config {path}`"
        raise UsageError("sweep", path, allowed)
    if unknown := [key for key in content if key not in KEYS]:
        allowed = nearest(str(unknown[0]), KEYS)
        if unknown[0] in ("early_terminate", "controller", "launch", "job"):
            allowed = f"grid and random sweeps without it; {AGENTS}"
        raise UsageError(str(unknown[0]), content[unknown[0]], allowed)
    method = content.get("method")
    if method not in ("grid", "random"):
        raise UsageError("method", method, f"grid, random; {AGENTS}")
    given = content.get("parameters")
    if not isinstance(given, dict) or not given:
        raise UsageError("parameters", given, "names of options with their values")
    command = check_command(content.get("command"))
    parameters = tuple(parameter(str(name), given[name]) for name in sorted(given, key=str))
    cap = content.get("run_cap")
    if cap is not None:
        check_integer("run_cap", cap, 1)
    _check_metric(content.get("metric"))
    sweep = SweepFile(file.stem, method, command, parameters, cap, content.get("clock"))
    if "clock" in content:
        check_clock(sweep.clock)
        check_varied(sweep.varied)
    return sweep


def points(sweep: SweepFile, count: int | None = None, seed: int = 0) -> list[dict[str, Any]]:
    """Return the values of every run, in order.

    A grid has W&B's order: parameters by name, the last one fastest. A random sweep with a larger
    count begins with the runs of the smaller one.

    Args:
        sweep: The file.
        count: The number of runs of a random sweep, the most of a grid; None takes `run_cap`.
        seed: The seed of a random sweep.

    Raises:
        UsageError: A random sweep has no count, or a parameter has no grid of values.
    """
    count = count if count is not None else sweep.run_cap
    if sweep.method == "grid":
        names = [p.name for p in sweep.parameters]
        grid = itertools.product(*(p.grid() for p in sweep.parameters))
        return [dict(zip(names, p, strict=True)) for p in itertools.islice(grid, count)]
    if count is None:
        raise UsageError("--count", None, "the number of runs of a random sweep, here or run_cap")
    rng = np.random.default_rng(seed)
    return [{p.name: p.draw(float(rng.random())) for p in sweep.parameters} for _ in range(count)]


def _check_metric(metric: Any) -> None:
    """Check what W&B's page of the sweep ranks the runs by; no method that runs here needs it."""
    if metric is None:
        return
    if not isinstance(metric, dict) or not isinstance(metric.get("name"), str):
        raise UsageError("metric", metric, "name: KEY of a row, and goal: minimize or maximize")
    if (goal := metric.get("goal", "minimize")) not in ("minimize", "maximize"):
        raise UsageError("metric.goal", goal, "minimize, maximize")


def _find(path: str, places: tuple[Path, ...]) -> Path:
    tried = [Path(path), *(place / path for place in places)]
    for file in tried:
        if file.is_file():
            return file
    looked = " or ".join(str(file.absolute()) for file in tried)
    allowed = f"an existing file, looked for as {looked}"
    if folder := next((file for file in tried if file.is_dir()), None):
        allowed = f"an existing file; {folder} is a folder"
    known = [p.relative_to(place) for place in (Path(), *places) for p in place.glob("*.yaml")]
    raise UsageError("sweep", path, allowed + nearest_file(path, known))
