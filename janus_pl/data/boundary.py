"""The boundary between a path and an array: every exception there becomes one line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from janus_pl.errors import UsageError, missing_extra

LONGEST_REASON = 300  # characters of what a library says
NAMED = 3  # names that a count is followed by


class Unusable(ValueError):
    """A file that is not read, with the reason in words."""


@contextmanager
def refused(field: str, value: object, allowed: str) -> Iterator[None]:
    """Turn every exception within into a UsageError that ends with the reason.

    Systems, archives and decoders raise errors of all sorts on what they cannot read (OSError,
    ValueError, RuntimeError, SyntaxError, MemoryError, struct.error, ...), so none is left out. A
    package that is missing is told as such.

    >>> with refused("data.root", "x", "a folder"):
    ...     raise RuntimeError("no\\nfolder")
    Traceback (most recent call last):
    janus_pl.errors.UsageError: data.root: got 'x', allowed: a folder (RuntimeError: no folder)
    """
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        if extra := missing_extra(error):
            raise extra from error  # the file is not at fault
        raise UsageError(field, value, f"{allowed} ({one_line(error)})") from error


def one_line(error: BaseException) -> str:
    """Return the class and the text of an error in one line of bounded length."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= LONGEST_REASON else f"{text[:LONGEST_REASON]}..."


def named(names: Sequence[str], most: int = NAMED) -> str:
    """Return the first names, and the number of the others.

    >>> named(["a", "b", "c", "d", "e"]), named(["a"])
    ("'a', 'b', 'c' and 2 more", "'a'")
    """
    rest = len(names) - most
    return ", ".join(map(repr, names[:most])) + (f" and {rest} more" if rest > 0 else "")
