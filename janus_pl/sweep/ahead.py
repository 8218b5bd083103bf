"""The forker that imports what runs need while the sweep itself imports, reads and plans."""

from __future__ import annotations

import atexit
import glob
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from janus_pl.sweep.launchers import IMPORTED, SHOWN, Forks, Launcher, Processes, can_fork
from janus_pl.sweep.resources import THREADS, VISIBLE, cores, default_jobs, environment_of

_begun: list[Forks] = []


def begin(args: Sequence[str]) -> None:
    """Start the forker if the command line and the machine say how many threads a run has.

    If the guess is wrong, `take` starts another one.

    Args:
        args: The command line of the sweep, the name of the file among them.
    """
    own = args[: args.index("--")] if "--" in args else args
    jobs = _jobs(own)
    if jobs is not None and can_fork() and not {"-h", "--help", "--dry-run"} & {*own}:
        _begun.append(Forks(environment_for(jobs), IMPORTED))
        atexit.register(_end_unused)


def take(jobs: int, names: Sequence[str], config: Mapping[str, Any] | None = None) -> Launcher:
    """Return the launcher of the runs.

    Args:
        jobs: The number of runs side by side.
        names: Dotted names of modules and classes to import, beside `IMPORTED`.
        config: The part of a run's config that names its classes, for a rehearsal.
    """
    environment = environment_for(jobs)
    for forks in _begun:
        _begun.clear()
        if all(forks.environment.get(name) == environment.get(name) for name in THREADS):
            forks.prepare(names, config)
            return forks
        forks.__exit__()
    if not can_fork():
        return Processes()
    forks = Forks(environment, IMPORTED)
    forks.prepare(names, config)
    return forks


def _end_unused() -> None:
    """End the forker of a sweep that has started nothing."""
    for forks in _begun:
        forks.__exit__()
    _begun.clear()


def environment_for(jobs: int) -> Mapping[str, str]:
    """Return the variables that all runs share."""
    return {**os.environ, **environment_of(0, jobs, []), **SHOWN}


def _jobs(args: Sequence[str]) -> int | None:
    """Return the number of runs side by side; None if a look at the GPUs decides it."""
    given = re.search(r"(?:^| )--jobs[ =](\d+)(?: |$)", " ".join(args))
    if given is not None:
        return max(1, int(given[1]))
    if glob.glob("/dev/nvidia[0-9]*") and os.environ.get(VISIBLE) != "":
        return None
    return default_jobs(0, cores())
