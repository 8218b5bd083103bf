"""Waiting before and between runs: a sweep against commands, the help, the start of a fit."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

RUNS = 10
A2 = "linear/a2.yaml"
QUIET = {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}


def main(rounds: int = 3) -> None:
    help_time(rounds)
    again_time(rounds)
    sweep_time(rounds)


def help_time(rounds: int) -> None:
    """`fit --help` against the import of Lightning; the first one of all keeps the text."""
    with TemporaryDirectory() as folder:
        ask = ["-m", "janus_pl", "fit", "--help"]
        cache = {"XDG_CACHE_HOME": folder}
        first = _cost(ask, **cache)
        least = _by_turns(
            {
                "help": lambda: _cost(ask, **cache),
                "import": lambda: _cost(["-c", "import lightning.pytorch"]),
            },
            rounds,
        )
    print("python -m janus_pl fit --help / importing lightning, seconds and processor time")
    print(f"  the first time     {_ratio(first, least['import'])}")
    print(f"  from then on       {_ratio(least['help'], least['import'])}  (at most 0.60)")


def again_time(rounds: int) -> None:
    """The fixed cost of a fit: three epochs of linear/a2 in a process that has fitted before."""
    cost = min(json.loads(_output(["-c", AGAIN])) for _ in range(rounds))
    print(f"A fit of three epochs of {A2} in a process that has fitted before")
    print(f"  {cost[0]:.3f} s, processor time {cost[1]:.3f} s")


AGAIN = f"""
import contextlib, io, json, time
from janus_pl.cli.main import main

def fit():
    begun = time.perf_counter(), time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        main(["fit", "--config", "{A2}", "--trainer.max_epochs=3"])
    return time.perf_counter() - begun[0], time.process_time() - begun[1]

fit()
print(json.dumps([min(kind) for kind in zip(*(fit() for _ in range(7)), strict=True)]))
"""


def sweep_time(rounds: int) -> None:
    """Ten runs of linear/a2 as one sweep, one at a time, and as ten commands."""
    least = _by_turns({"sweep": _sweep, "commands": _commands}, rounds)
    print(f"A sweep of {RUNS} runs of {A2} / {RUNS} commands, seconds and processor time")
    print(f"  {_ratio(least['sweep'], least['commands'])}  (at most 0.25)")


Cost = tuple[float, float]  # seconds, and seconds of processor time with all children


def _sweep() -> Cost:
    with TemporaryDirectory() as folder:
        fit = ["python", "-m", "janus_pl", "fit", "--config", A2]
        content = {
            "method": "grid",
            "command": [*fit, "--config", "${args_json_file}"],
            "parameters": {"data.seed": {"values": [*range(RUNS)]}},
        }
        (Path(folder) / "ten.yaml").write_text(json.dumps(content))  # JSON is YAML
        return _cost(["-m", "janus_pl", "sweep", "ten.yaml", "--jobs", "1"], folder)


def _commands() -> Cost:
    with TemporaryDirectory() as folder:
        fit = ["-m", "janus_pl", "fit", "--config", A2, "--data.seed"]
        costs = [_cost([*fit, str(seed)], folder) for seed in range(RUNS)]
    return sum(each[0] for each in costs), sum(each[1] for each in costs)


def _cost(args: list[str], folder: str | None = None, **environment: str) -> Cost:
    """Return what a process of Python costs."""
    wall, used = time.perf_counter(), _used()
    _run(args, folder, **environment)
    return time.perf_counter() - wall, _used() - used


def _output(args: list[str]) -> str:
    """Return what a process of Python says, which runs in a folder of its own."""
    with TemporaryDirectory() as folder:
        return _run(args, folder)


def _run(args: list[str], folder: str | None = None, **environment: str) -> str:
    told = {**os.environ, **QUIET, "PYTHONPATH": str(Path(__file__).parents[1]), **environment}
    command = [sys.executable, *args]
    return subprocess.run(
        command, cwd=folder, env=told, check=True, capture_output=True, text=True
    ).stdout


def _used() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _by_turns(variants: Mapping[str, Callable[[], Cost]], rounds: int) -> dict[str, Cost]:
    """Return the least of several rounds, in which the variants take turns."""
    costs: dict[str, list[Cost]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, run in variants.items():
            costs[name].append(run())
    return {
        name: (min(each[0] for each in found), min(each[1] for each in found))
        for name, found in costs.items()
    }


def _ratio(one: Cost, other: Cost) -> str:
    seconds, used = one[0] / other[0], one[1] / other[1]
    return f"{seconds:.3f} ({one[0]:.1f} s / {other[0]:.1f} s), processor time {used:.3f}"


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 3)
