"""What can go wrong, and who is meant: the user (`UsageError`), the run (`DivergenceError`) or the
disk (`StorageError`)."""

from __future__ import annotations

from os import PathLike


class UsageError(ValueError):
    """A value that the user gave and that cannot be used; the command line ends with exit code 2.

    The message is one line that names the field, the value and what is allowed.

    >>> str(UsageError("data.batch_size", 0, 'an integer from 1 to N, or "full"'))
    'data.batch_size: got 0, allowed: an integer from 1 to N, or "full"'
    """

    def __init__(self, field: str, value: object, allowed: str) -> None:
        super().__init__(f"{field}: got {value!r}, allowed: {allowed}")
        self.field = field
        self.value = value
        self.allowed = allowed


class TheoremError(ArithmeticError):
    """A theorem does not hold in this run, so the run is not what it says; the exit code is 5."""


class DivergenceError(ArithmeticError):
    """Training met a loss, gradient or weight that is not finite; the exit code is 3.

    Attributes:
        recorded: whether that is the outcome that `on_divergence: record` asked for; then it is 0.
    """

    def __init__(self, message: str, recorded: bool = False) -> None:
        super().__init__(message)
        self.recorded = recorded


class StorageError(OSError):
    """A file of the run that cannot be written; the exit code is 4.

    The message is one line that names the file and what the system said.

    >>> str(StorageError("runs/last.ckpt", OSError(28, "No space left on device")))
    'runs/last.ckpt: cannot be written: No space left on device'
    """

    def __init__(self, path: str | PathLike[str], error: OSError, note: str = "") -> None:
        super().__init__(f"{path}: cannot be written: {error.strerror or error}{note}")
