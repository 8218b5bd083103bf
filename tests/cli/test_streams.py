"""Standard streams that fail: what is printed is dropped, and nothing is raised."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from janus_pl.cli.streams import LastingStream, lasting_streams


class Failing(io.StringIO):
    """A stream that fails after so many writes."""

    def __init__(self, writes: int) -> None:
        super().__init__()
        self.left = writes

    def write(self, text: str) -> int:
        self.left -= 1
        if self.left < 0:
            raise BrokenPipeError(32, "Broken pipe")
        return super().write(text)


def test_what_can_be_written_is_written_and_the_rest_is_dropped() -> None:
    inner = Failing(2)
    stream = LastingStream(inner)
    assert [stream.write(text) for text in ("a", "bc", "def", "g")] == [1, 2, 3, 1]
    assert inner.getvalue() == "abc"
    assert stream.getvalue() == "abc", "other attributes are those of the stream"


@pytest.mark.parametrize("error", [ValueError("closed file"), KeyboardInterrupt()])
def test_what_is_no_failure_of_the_system_is_raised(error: BaseException) -> None:
    class Bad(io.StringIO):
        def write(self, text: str) -> int:
            raise error

    with pytest.raises(type(error)):
        LastingStream(Bad()).write("a")


def test_a_pipe_that_nobody_reads_leads_nowhere_afterwards() -> None:
    """Also for writers beside the stream, and for Python's last flush."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        with pytest.raises(BrokenPipeError):
            os.write(writing, b"a")  # the negative control
        stream = LastingStream(pipe)
        stream.write("b")
        stream.flush()
        assert os.write(writing, b"c") == 1
        assert Path(f"/proc/self/fd/{writing}").resolve() == Path("/dev/null")


def test_streams_last_within_the_block_and_are_as_before_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, err = Failing(1), Failing(9)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with pytest.raises(ZeroDivisionError), lasting_streams():
        once: Any = sys.stdout
        with lasting_streams():
            assert sys.stdout is once, "once is enough"
            print("a", end="")
            print("b")
            print("c", file=sys.stderr)
        raise ZeroDivisionError
    assert (sys.stdout, sys.stderr) == (out, err)
    assert (out.getvalue(), err.getvalue()) == ("a", "c\n")


def test_it_is_a_decorator_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Failing(0))

    @lasting_streams()
    def command() -> int:
        print("a")
        return 7

    assert [command(), command()] == [7, 7]
