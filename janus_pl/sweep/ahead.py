"""The forker of a sweep that is a command: a fork of the sweep itself.

The sweep needs all that runs need, so it is imported once. The fork is made before the sweep reads
and plans, for that may start threads. It rehearses a run meanwhile.
"""

from __future__ import annotations

import atexit
import gc
import glob
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from socket import socket
from typing import Any

from janus_pl.sweep.forking import Leave, import_all, may_fork, register, serve, settle
from janus_pl.sweep.launchers import (
    IMPORTED,
    SHOWN,
    Forker,
    Forks,
    Launcher,
    Processes,
    can_fork,
    started,
)
from janus_pl.sweep.resources import THREADS, VISIBLE, cores, default_jobs, environment_of

_begun: list[Forks] = []


def begin(args: Sequence[str]) -> None:
    """Import, and start the forker, if the command line and the machine say a run's threads.

    If the guess is wrong, `take` starts another one, with imports of its own.

    Args:
        args: The command line of the sweep, the name of the file among them.
    """
    own = args[: args.index("--")] if "--" in args else args
    jobs = _jobs(own)
    if jobs is not None and can_fork() and not {"-h", "--help", "--dry-run"} & {*own}:
        environment = environment_for(jobs)
        leave = register()
        with _threads_of(environment), _without_collections():
            import_all(IMPORTED)
        _begun.append(Forks(environment, IMPORTED, partial(_forked, leave=leave)))
        atexit.register(_end_unused)


def _forked(environment: Mapping[str, str], ours: socket, theirs: socket, leave: Leave) -> Any:
    """Return the process of the forker, which begins as a copy of this one."""
    if not may_fork():
        return started(environment, ours, theirs)
    sys.stdout.flush()
    sys.stderr.flush()
    sweep = os.getpid()
    if pid := os.fork():
        return Forker(pid)
    ours.close()
    settle(environment)
    serve(theirs, sweep, leave)
    raise SystemExit


@contextmanager
def _without_collections() -> Iterator[None]:
    """Collect no garbage in a block, and never look through what it leaves.

    An import leaves half a million objects, and each whole collection looks through all of them:
    a sixth of the time.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collects:
            gc.enable()


@contextmanager
def _threads_of(environment: Mapping[str, str]) -> Iterator[None]:
    """Set the numbers of threads, which libraries read at their import, in a block."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update({name: environment[name] for name in THREADS})
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def rehearse(names: Sequence[str], config: Mapping[str, Any] | None, first: str | None) -> None:
    """Let the forker that has begun, if any, prepare for the runs beside the rest of the plan.

    Args:
        names: As of `take`.
        config: As of `take`.
        first: As of `take`.
    """
    for forks in _begun:
        forks.prepare(names, config, first)


def take(
    jobs: int,
    names: Sequence[str],
    config: Mapping[str, Any] | None = None,
    first: str | None = None,
) -> Launcher:
    """Return the launcher of the runs.

    Args:
        jobs: The number of runs side by side.
        names: Dotted names of modules and classes to import, beside `IMPORTED`.
        config: The part of a run's config that names its classes, for a rehearsal.
        first: The dotted name of a function that each run calls before all else.
    """
    environment = environment_for(jobs)
    for forks in _begun:
        _begun.clear()
        if all(forks.environment.get(name) == environment.get(name) for name in THREADS):
            forks.prepare(names, config, first)
            return forks
        forks.__exit__()
    if not can_fork():
        return Processes()
    forks = Forks(environment, IMPORTED)
    forks.prepare(names, config, first)
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
