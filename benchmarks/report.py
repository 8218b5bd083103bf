"""`python -m benchmarks.report [CHECKOUT]`: `report` and `verify` of 27 recorded runs.

User time, since others use the machine, too; with a checkout of another state, the two take turns.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

HERE = Path(__file__).parents[1]
RECORDS = ("small", "two_cores_fig1", "default_network", "linear-a2", "two_cores_theory")
TURNS = 5


def user_time(checkout: Path, *args: str) -> float:
    """Return the seconds of user time that a command of a checkout takes."""
    runs = [str(HERE / "docs" / "results" / f"{name}.jsonl.xz") for name in RECORDS]
    command = [sys.executable, "-m", "janus_pl", args[0], *runs, *args[1:]]
    variables = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    subprocess.run(command, cwd=checkout, env=variables, stdout=subprocess.DEVNULL, check=True)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before


def main() -> None:
    checkouts = [HERE, *(Path(given).resolve() for given in sys.argv[1:])]
    with tempfile.TemporaryDirectory() as out:
        for args in (("report", "--out", out), ("verify",)):
            turns = [[user_time(checkout, *args) for checkout in checkouts] for _ in range(TURNS)]
            for checkout, seconds in zip(checkouts, zip(*turns, strict=True), strict=True):
                told = f"median {median(seconds):.2f} s, least {min(seconds):.2f} s"
                print(f"{args[0]} of 27 runs, {checkout}: {told}")
            for k in range(1, len(checkouts)):
                ratio = median(turn[0] / turn[k] for turn in turns)
                print(f"{args[0]}, this checkout over {checkouts[k]}: {ratio:.2f}")


if __name__ == "__main__":
    main()
