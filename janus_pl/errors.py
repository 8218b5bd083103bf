"""Errors with their exit codes, and the checks of options.

Every exit code of the program is a member of `Exit`; every other module names it from here.
"""

from __future__ import annotations

import difflib
import errno
import math
import os
import signal
from collections.abc import Iterable
from enum import IntEnum
from importlib.util import find_spec
from os import PathLike
from pathlib import Path


class Exit(IntEnum):
    """The exit codes of `python -m janus_pl`; the help shows the `meaning` of each."""

    DONE = 0
    DEFECT = 1
    USAGE = 2
    DIVERGED = 3
    STORAGE = 4
    BROKEN_THEOREM = 5
    # 128 plus the signal; numbers of signals differ between systems, these comments are Linux's.
    SIGHUP = 128 + signal.SIGHUP  # 129
    SIGINT = 128 + signal.SIGINT  # 130
    SIGUSR1 = 128 + signal.SIGUSR1  # 138
    SIGUSR2 = 128 + signal.SIGUSR2  # 140
    SIGTERM = 128 + signal.SIGTERM  # 143
    SIGXCPU = 128 + signal.SIGXCPU  # 152

    @property
    def meaning(self) -> str:
        """A few words for the help and the documentation."""
        if self in INTERRUPTED:
            return f"stopped by {self.name} after a checkpoint"
        return {
            Exit.DONE: "done",
            Exit.DEFECT: "defect",
            Exit.USAGE: "usage",
            Exit.DIVERGED: "diverged",
            Exit.STORAGE: "storage",
            Exit.BROKEN_THEOREM: "a theorem broken",
        }[self]


# Exit codes of runs that have their result: the last row describes the whole run.
SOUND = (Exit.DONE, Exit.BROKEN_THEOREM)
# Exit codes of runs that would end the same way if they were trained again.
FINAL = (Exit.DONE, Exit.DIVERGED, Exit.BROKEN_THEOREM)
# Exit codes of runs that can go on from their checkpoint.
INTERRUPTED = (*(Exit.SIGHUP, Exit.SIGINT, Exit.SIGUSR1, Exit.SIGUSR2, Exit.SIGTERM, Exit.SIGXCPU),)
# The signals behind them: their default would end the process, and terminals, users and schedulers
# send them. SIGUSR1, SIGUSR2 and SIGXCPU announce a limit: Slurm's --signal, Grid Engine's s_rt and
# -notify, CPU limits of LSF and of the system.
STOPPING = tuple(signal.Signals(code - 128) for code in INTERRUPTED)

# The packages of an extra of the installation, by the names that code imports.
EXTRAS = {
    "numba": "linear",
    "threadpoolctl": "linear",
    "pandas": "report",
    "matplotlib": "report",
    "plotly": "report",
    "wandb_workspaces": "workspace",
}

# Errors of the disk, which never come from a mistake in a path.
DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG}


class UsageError(ValueError):
    """A value that the user gave and that cannot be used.

    The message is one line that names the field, the value and what is allowed.

    >>> str(UsageError("data.batch_size", 0, 'an integer from 1 to N, or "full"'))
    'data.batch_size: got 0, allowed: an integer from 1 to N, or "full"'
    """

    exit_code = Exit.USAGE

    def __init__(self, field: str, value: object, allowed: str) -> None:
        super().__init__(f"{field}: got {value!r}, allowed: {allowed}")
        self.field = field
        self.value = value
        self.allowed = allowed


class TheoremError(ArithmeticError):
    """A theorem that does not hold in this run, so the run is not what it claims to be."""

    exit_code = Exit.BROKEN_THEOREM


class DivergenceError(ArithmeticError):
    """A loss, gradient or weight that is not finite.

    Attributes:
        recorded: Whether `on_divergence: record` asked for this outcome; the run is then done.
    """

    def __init__(self, message: str, recorded: bool = False) -> None:
        super().__init__(message)
        self.recorded = recorded

    @property
    def exit_code(self) -> Exit:
        """DONE if the config asked to record the divergence, else DIVERGED."""
        return Exit.DONE if self.recorded else Exit.DIVERGED


class StorageError(OSError):
    """A file of the run that cannot be written.

    The message is one line that names the file and repeats what the system said.

    >>> str(StorageError("runs/last.ckpt", OSError(28, "No space left on device")))
    'runs/last.ckpt: cannot be written: No space left on device'
    """

    exit_code = Exit.STORAGE

    def __init__(self, path: str | PathLike[str], error: OSError, note: str = "") -> None:
        super().__init__(f"{path}: cannot be written: {error.strerror or error}{note}")


def missing_extra(error: BaseException) -> UsageError | None:
    """Return the mistake behind an import that failed, if the package is of an extra; else None.

    >>> print(missing_extra(ModuleNotFoundError("No module named 'numba'", name="numba")))
    package numba: got 'not installed', allowed: the extra linear: pip install 'janus-pl[linear]'
    """
    package = (getattr(error, "name", None) or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or package not in EXTRAS:
        return None
    return UsageError(f"package {package}", "not installed", how_to_install(package))


def check_extras(*extras: str) -> None:
    """Refuse to begin if a package of these extras of the installation is missing.

    Raises:
        UsageError: One is missing.
    """
    for package, extra in EXTRAS.items():
        if extra in extras and find_spec(package) is None:
            raise UsageError(f"package {package}", "not installed", how_to_install(package))


def how_to_install(package: str) -> str:
    """Return the words that say how to install a package of an extra."""
    extra = EXTRAS[package]
    return f"the extra {extra}: pip install 'janus-pl[{extra}]'"


def storage_message(error: OSError) -> str | None:
    """Return one line for an error of the disk, None for any other error.

    >>> storage_message(OSError(28, "No space left on device", "runs/a.png"))
    'runs/a.png: No space left on device'
    """
    if isinstance(error, StorageError):
        return str(error)
    if error.errno in DISK:
        file = error.filename2 or error.filename or "a file of the run"
        return f"{file}: {error.strerror}"
    return None


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint at the valid key nearest to an unknown one; all valid keys if none is near.

    >>> nearest("batchsize", [])
    'no key here'

    >>> nearest("batchsize", ["batch_size", "order"])
    'a valid key, the nearest is batch_size'
    """
    known = sorted(known)
    if not known:
        return "no key here"
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"a valid key, the nearest is {close[0]}" if close else f"one of {', '.join(known)}"


def nearest_file(name: str, files: Iterable[Path]) -> str:
    """Return a hint at the file that is nearest to a name; empty if none is near.

    >>> nearest_file("a22.yaml", [Path("linear/a2.yaml"), Path("gd.yaml")])
    '; the nearest is linear/a2.yaml'

    Args:
        name: The name of a file that does not exist, with or without a folder and an ending.
        files: The paths to choose from, as a user would give them; earlier ones win.
    """
    known: dict[str, Path] = {}
    for file in files:
        for each in (str(file), file.name, file.stem):
            known.setdefault(each, file)
    for tried in (Path(name).name, name):
        if close := difflib.get_close_matches(tried, known, n=1, cutoff=0.6):
            return f"; the nearest is {known[close[0]]}"
    return ""


def is_integer(value: object, least: float = -math.inf, most: float = math.inf) -> bool:
    """Tell whether a value is an integer, not a bool, from `least` to `most`.

    >>> is_integer(3, least=1), is_integer(True), is_integer(3.0)
    (True, False, False)
    """
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def is_number(value: object) -> bool:
    """Tell whether a value is a finite integer or float, not a bool.

    >>> is_number(0.5), is_number(float("nan")), is_number(True)
    (True, False, False)
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    try:
        return number and math.isfinite(value)  # type: ignore[arg-type]
    except OverflowError:  # an integer that no float can hold
        return False


def check_integer(field: str, value: object, least: int, most: int | None = None) -> None:
    """Refuse an option that is not an integer within its range.

    Args:
        field: The option's name.
        value: Its value.
        least: The smallest allowed integer.
        most: The largest allowed integer; None if there is no upper end.

    Raises:
        UsageError: The value is not such an integer.
    """
    if not is_integer(value, least, math.inf if most is None else most):
        allowed = "up" if most is None else f"to {most}"
        raise UsageError(field, value, f"an integer from {least} {allowed}")


def check_number(field: str, value: object, above: float | None = None) -> None:
    """Refuse an option that is not a finite number above a bound, or from 0 up without one.

    Args:
        field: The option's name.
        value: Its value.
        above: The bound, which is not allowed itself; None allows 0 and everything above.

    Raises:
        UsageError: The value is not such a number.
    """
    inside = is_number(value) and (value >= 0 if above is None else value > above)  # type: ignore[operator]
    if not inside:
        allowed = "from 0 up" if above is None else f"above {above:g}"
        raise UsageError(field, value, f"a finite number {allowed}")


def check_name(field: str, name: object, known: Iterable[str]) -> None:
    """Refuse a name that is not among the known ones.

    Raises:
        UsageError: The name is not known.
    """
    if name not in (names := [*known]):
        raise UsageError(field, name, ", ".join(names))


def check_memory(field: str, value: object, size: float) -> None:
    """Refuse sizes that do not fit into the machine's memory.

    Args:
        field: The option that decides the size.
        value: Its value.
        size: Bytes that are needed.

    Raises:
        UsageError: The machine has less memory.
    """
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if size > memory:
        allowed = (
            f"a size that fits into {memory / 2**30:.3g} GiB, where this takes {size / 2**30:.3g}"
        )
        raise UsageError(field, value, allowed)
