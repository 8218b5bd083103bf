"""How the processes of runs are started: each by itself, or forked from one that has imported all.

Importing PyTorch and Lightning takes seconds, and a short run takes less. So on Linux one process,
the forker (`forking`), imports them once, and each run is a fork of it. The forks are children of
the sweep: it signals them and waits for them as for processes that it has started itself. Where
nothing can be forked, each run is a process with imports of its own.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from janus_pl.errors import Exit
from janus_pl.sweep.launch import is_subreaper, make_subreaper

PROGRAM = "janus_pl"  # the module that a run is: `python -m janus_pl`
LAUNCHER = Path(__file__).with_name("launch.py")
FORKER = "janus_pl.sweep.forking"
SHOWN = {"PYTHONUNBUFFERED": "1"}  # the output of a run can be followed
# By every run; the last two only once it trains.
IMPORTED: tuple[str, ...] = (
    *("janus_pl.cli.main", "janus_pl.callbacks", "wandb"),
    *("rich.emoji", "torch.utils.serialization"),
)
REHEARSAL = "janus_pl.cli.rehearsal.rehearse"  # the function that does what runs have in common
FIRST = "janus_pl.run.service.begin"  # of each run of W&B in one process


class Running(Protocol):
    """A run under way, as the scheduler sees it."""

    @property
    def pid(self) -> int:
        """The id of its process, which leads a process group."""

    def poll(self) -> int | None:
        """Return its exit code, below 0 if a signal killed it; None if it goes on."""

    def send_signal(self, sig: int) -> None:
        """Send a signal, unless it has ended."""


class Launcher(Protocol):
    """A way to start runs."""

    def __enter__(self) -> Launcher: ...

    def __exit__(self, *_: object) -> None: ...

    def is_ready(self) -> bool:
        """Tell whether a run can be started now."""

    def wait(self, runs: Sequence[Running], seconds: float) -> None:
        """Wait some time, less if something may have happened: a run has ended, or can be started.

        Args:
            runs: The runs under way.
            seconds: The longest time.
        """

    def start(self, args: Sequence[str], environment: Mapping[str, str], log: Path) -> Running:
        """Start a run.

        Args:
            args: The command line, `fit` first.
            environment: All variables of the run.
            log: The file to which its output is appended.
        """


class Processes:
    """A launcher that starts each run as a process with imports of its own."""

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def is_ready(self) -> bool:
        return True

    def wait(self, runs: Sequence[Running], seconds: float) -> None:
        time.sleep(seconds)  # nothing beside seconds of imports

    def start(self, args: Sequence[str], environment: Mapping[str, str], log: Path) -> Running:
        command = [sys.executable, "-m", PROGRAM, *args]
        with log.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-I", str(LAUNCHER), str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                start_new_session=True,  # a terminal's Ctrl-C is for the sweep alone
            )


class Fork:
    """A run that the forker has forked; by now it is a child of this process.

    Args:
        pid: The id of its process.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None

    def poll(self) -> int | None:
        if self._code is None:
            try:
                ended, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # somebody else was told its code; the run's folder knows it
                self._code = Exit.DEFECT
            else:
                self._code = os.waitstatus_to_exitcode(status) if ended else None
        return self._code

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:  # else the id may be somebody else's
            os.kill(self.pid, sig)


class Forker(Fork):
    """A forker that is a fork of this process.

    Args:
        pid: The id of its process.
    """

    def kill(self) -> None:
        """Kill it, unless it has ended."""
        self.send_signal(signal.SIGKILL)

    def wait(self) -> None:
        """Wait until it has ended."""
        if self._code is None:
            with suppress(ChildProcessError):
                os.waitpid(self.pid, 0)
            self._code = -signal.SIGKILL


def started(environment: Mapping[str, str], ours: socket.socket, theirs: socket.socket) -> Any:
    """Return the process of a forker with imports of its own.

    Args:
        environment: The variables of all runs.
        ours: The sweep's end of the connection.
        theirs: The forker's end of it.
    """
    return subprocess.Popen(
        [sys.executable, "-m", FORKER, str(theirs.fileno()), str(os.getpid())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=dict(environment),
        pass_fds=(theirs.fileno(),),
        start_new_session=True,
    )


class Forks:
    """A launcher that forks each run from a process that has imported what runs need.

    If that process cannot fork, or ends, the runs are processes with imports of their own.
    A start needs `is_ready` before it.

    Args:
        environment: The variables of all runs. Those that are read at an import, as the numbers of
            threads, must be among them.
        names: Dotted names of the modules and classes to import.
        start: Starts the forker and returns its process.

    Attributes:
        environment: As the argument.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        names: Sequence[str],
        start: Callable[[Mapping[str, str], socket.socket, socket.socket], Any] = started,
    ) -> None:
        self.environment = dict(environment)
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = start(self.environment, ours, theirs)
        # Unbuffered: what is left in the socket are the replies that were not read yet.
        self._socket, self._replies = ours, ours.makefile("rb", buffering=0)
        self._importing = 0  # replies to come
        self._told: object = None  # what it prepares, or has prepared last
        self._others: Processes | None = None  # in its place
        self.prepare(names)

    def prepare(
        self,
        names: Sequence[str],
        config: Mapping[str, Any] | None = None,
        first: str | None = None,
    ) -> None:
        """Let the forker import modules and classes by their dotted names, and rehearse a run.

        The same again is told once.

        Args:
            names: The names.
            config: The part of a run's config that names its classes, if they are known.
            first: The dotted name of a function that each run calls before all else.
        """
        told = {"names": list(names), "rehearsal": REHEARSAL, "config": config, "first": first}
        if told != self._told:
            self._told = told
            self._importing += 1
            self._say(told)

    def __enter__(self) -> Forks:
        return self

    def __exit__(self, *_: object) -> None:
        """End the forker; the runs, which are no children of its, go on."""
        self._replies.close()
        self._socket.close()
        self._process.kill()
        self._process.wait()

    def is_ready(self) -> bool:
        while self._importing and select.select([self._socket], [], [], 0)[0]:
            self._importing -= 1
            if not self._hear().get("ready"):
                self._importing, self._others = 0, Processes()
        return not self._importing

    def wait(self, runs: Sequence[Running], seconds: float) -> None:
        news: list[int] = [self._socket.fileno()] if self._importing else []
        ends: list[int] = []
        try:
            for run in runs:
                ends.append(os.pidfd_open(run.pid))
            select.select([*news, *ends], [], [], seconds)
        except (AttributeError, OSError, ValueError):  # an old system, or too many open files
            time.sleep(seconds)
        finally:
            for descriptor in ends:
                os.close(descriptor)

    def start(self, args: Sequence[str], environment: Mapping[str, str], log: Path) -> Running:
        log.touch()  # an error here is the sweep's
        if self._others is None:
            told = {"program": PROGRAM, "args": list(args), "log": str(log.absolute())}
            before = is_subreaper()
            make_subreaper(True)  # so that the run becomes a child of this process
            try:
                self._say({**told, "environment": dict(environment)})
                pid = self._hear().get("pid")
            finally:
                make_subreaper(before)
            if pid is not None:
                return Fork(pid)
            self._others = Processes()
        return self._others.start(args, environment, log)

    def _say(self, message: Mapping[str, Any]) -> None:
        with suppress(OSError):  # it has ended, which the next reply says
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def _hear(self) -> dict[str, Any]:
        """Return the next message; an empty one if the process has ended."""
        try:
            return dict(json.loads(self._replies.readline() or b"{}"))
        except (OSError, ValueError):
            return {}


def can_fork() -> bool:
    """Tell whether this system lets a sweep be the parent of what its forker has forked."""
    return sys.platform == "linux" and signal.getsignal(signal.SIGCHLD) != signal.SIG_IGN
