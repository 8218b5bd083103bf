"""The forker: a fork of the sweep, or `python -m janus_pl.sweep.forking DESCRIPTOR SWEEP'S_PID`.

It imports what runs need, does once what they all do, forks a run for each request, and ends with
the sweep. It trains nothing and starts no thread and no CUDA, because no thread and no CUDA
outlives a fork.

A temporary folder that an import has made would be that of all runs, and the first one to end would
remove it. So the forker removes it, and each run makes its own.

A run is the fork of a fork. The one between ends at once, so that the run becomes a child of the
sweep. It then has a session, an environment, streams and a command line of its own, and goes on as
`python -m PROGRAM ARGUMENTS`.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pydoc import locate
from tempfile import TemporaryDirectory
from typing import Any

from janus_pl.sweep.launch import end_with

LEADS = b"!"  # a run leads its process group


def main() -> None:
    """Serve the sweep that has started this process."""
    leave = register()
    descriptor, sweep = map(int, sys.argv[1:])
    serve(socket.socket(fileno=descriptor), sweep, leave)


def register() -> Leave:
    """Return the end of a run, registered; before all others, so it is the last to be called."""
    leave = Leave()
    atexit.register(leave)
    return leave


def serve(connection: socket.socket, sweep: int, leave: Leave) -> None:
    """Import, and answer requests until there is a run to become, or the sweep is gone.

    Args:
        connection: The connection to the sweep.
        sweep: The process id of the sweep.
        leave: The end of a run.
    """
    request = _serve(connection, sweep)
    # The rest of the process is the program's, with the exit code and the traceback of one.
    with leave:
        if request is not None:
            sys.argv[1:] = request["args"]
            runpy.run_module(request["program"], run_name="__main__", alter_sys=True)


def settle(environment: Mapping[str, str]) -> None:
    """Make a fork of the sweep what a forker that was started by itself is.

    Args:
        environment: The variables of all runs.
    """
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    os.close(nothing)
    for text in (sys.stdout, sys.stderr):  # the output of a run can be followed
        text.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    os.environ.clear()
    os.environ.update(environment)


class Leave:
    """The end of a run that has ended by itself, once all that was registered for it is done.

    Python would then take apart everything that was imported, which takes half a second: each page
    that is shared with the forker is copied first. A program that ends by an error goes Python's
    way.
    """

    def __init__(self) -> None:
        self._code: int | None = None

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            self._code = 0
        elif isinstance(error, SystemExit):
            code = error.code  # Python prints a text and ends with 1
            self._code = code if isinstance(code, int) else 0 if code is None else 1

    def __call__(self) -> None:
        if self._code is not None:
            with suppress(OSError, ValueError):  # the disk is full, or the stream is closed
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(self._code & 0xFF)


def may_fork() -> bool:
    """Tell whether no import has started threads or CUDA."""
    torch = sys.modules.get("torch")
    has_cuda = torch is not None and torch.cuda.is_initialized()
    return threading.active_count() == 1 and not has_cuda


def _serve(connection: socket.socket, sweep: int) -> dict[str, Any] | None:
    """Answer requests; return the request in a run's process, None when the sweep is gone."""
    folders: list[TemporaryDirectory[str]] = []
    first: str | None = None
    gc.unfreeze()  # the sweep has frozen its imports
    with connection, connection.makefile("rb") as requests:
        for line in requests:
            request = json.loads(line)
            if "names" in request:
                first = request["first"]
                import_all(request["names"])
                _call(request["rehearsal"], request["config"])
                folders += _without_folders()
                _reply(connection, {"ready": may_fork()})
                continue
            try:
                pid = _fork(request, sweep)
            except OSError:  # no room for another process, which the sweep finds out by itself
                _reply(connection, {})
                continue
            if pid is None:
                for folder in folders:
                    TemporaryDirectory.__init__(folder)
                if first is not None:
                    _call(first)
                return dict(request)
            _reply(connection, {"pid": pid})
    return None


def _without_folders() -> list[TemporaryDirectory[str]]:
    """Remove the temporary folders that are new, and return the objects that have made them.

    What is here now is shared with the runs, and no collection of garbage copies it. The next call
    leaves it alone, too, for to look through it takes half a second.
    """
    gc.collect()
    found = [each for each in gc.get_objects() if type(each) is TemporaryDirectory]
    for folder in found:
        folder.cleanup()
    gc.freeze()
    return found


def import_all(names: Sequence[str]) -> None:
    """Import modules and classes by their dotted names, as far as they can be."""
    for name in names:
        with suppress(Exception):  # a run that needs it says so itself
            locate(name)


def _call(name: str, *args: Any) -> None:
    """Call a function by its dotted name; a run where the same goes wrong says so itself."""
    function = locate(name)
    if callable(function):
        with suppress(Exception, SystemExit):
            function(*args)


def _reply(connection: socket.socket, message: Mapping[str, Any]) -> None:
    with suppress(OSError):  # the sweep is gone, and the next request does not come
        connection.sendall(json.dumps(message).encode() + b"\n")


def _fork(request: Mapping[str, Any], sweep: int) -> int | None:
    """Return the process id of a new run; None in the run's own process.

    Raises:
        OSError: The system starts no process.
    """
    reader, writer = os.pipe()
    between = os.fork()
    if between == 0:
        os.close(reader)
        between = os.getpid()
        if _is_between(writer):
            os._exit(0)
        _settle(request, between, sweep, writer)
        return None
    os.close(writer)
    os.waitpid(between, 0)
    with os.fdopen(reader, "rb") as told:
        pid = told.read().replace(LEADS, b"")  # until the run leads its group, or has ended
    if not pid:
        raise BlockingIOError
    return int(pid)


def _is_between(writer: int) -> bool:
    """Fork the run, and tell its process id; tell whether this is still the process between."""
    try:
        if run := os.fork():
            os.write(writer, f"{run}\n".encode())
        return run != 0
    except OSError:
        return True


def _settle(request: Mapping[str, Any], between: int, sweep: int, writer: int) -> None:
    """Give a run what a process of its own has."""
    os.setsid()  # a terminal's Ctrl-C is for the sweep alone
    os.write(writer, LEADS)
    os.close(writer)
    while os.getppid() == between:
        time.sleep(0.001)  # the process between is about to end
    end_with(sweep)
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(log)
    os.close(nothing)
    os.environ.clear()
    os.environ.update(request["environment"])


if __name__ == "__main__":
    main()
