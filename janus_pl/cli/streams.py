"""Standard streams that outlive their readers: a `head` that has closed, a terminal that is gone.

A run is hours of work and what it prints is for somebody who looks. If nobody can read it any more,
the run goes on in silence and ends with its own exit code.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO


class LastingStream:
    """A text stream that writes to another one until that fails, then to nowhere.

    Args:
        stream: The stream to write to; its other attributes are those of this object.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text, or drop it."""
        try:
            return self._stream.write(text)
        except OSError:
            self._abandon()
            return len(text)

    def flush(self) -> None:
        """Hand over what is buffered, or drop it."""
        try:
            self._stream.flush()
        except OSError:
            self._abandon()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _abandon(self) -> None:
        """Point the descriptor at nowhere, so that later flushes and writers do not fail."""
        with suppress(OSError):  # a stream without a descriptor
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            self._stream.flush()


@contextmanager
def lasting_streams() -> Iterator[None]:
    """Let what is printed within the block fail without harm; also a decorator."""
    before = sys.stdout, sys.stderr
    streams: Any = [s if isinstance(s, LastingStream) else LastingStream(s) for s in before]
    sys.stdout, sys.stderr = streams
    try:
        yield
    finally:
        for stream in streams:
            stream.flush()
        sys.stdout, sys.stderr = before
