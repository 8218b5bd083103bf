"""Which epochs of a long run are recorded, and in which pieces it is computed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class Piece(NamedTuple):
    """Epochs first to last - 1, counted from 0; of a stream, steps."""

    first: int
    last: int


def log_spaced(total: int, per_decade: int) -> list[int]:
    """The marks from 1 to `total`: all small numbers, then so many a decade.

    And the beginning of each of the last two tenths, so that noise can be compared between them.
    Marks below `total` do not depend on it otherwise: a longer run has the marks of a shorter one.

    >>> log_spaced(100, per_decade=5)
    [1, 2, 3, 4, 6, 10, 16, 25, 40, 63, 80, 90, 100]
    """
    powers, marks, k = 1, {total}, 0
    while powers <= total:
        marks.add(powers)
        k += 1
        powers = round(10 ** (k / per_decade))
    return sorted(marks | {max(1, total * 8 // 10), max(1, total * 9 // 10)})


class Plan:
    """The epochs still to run: an iterable of the pieces up to the next mark, once for each mark.

    Args:
        total: All epochs; of a stream, steps.
        marks: What is recorded, ascending, the last one `total`.
        size: The most epochs in a piece.
        done: Epochs completed before.

    Attributes:
        done: Epochs completed so far: for whoever runs the pieces to set.
    """

    def __init__(self, total: int, marks: list[int], size: int, done: int = 0) -> None:
        self.total, self.size, self.done = total, size, done
        self._marks = marks

    @property
    def mark(self) -> int:
        """The next epoch to record, or the last one of all."""
        return next((mark for mark in self._marks if mark > self.done), self.total)

    @property
    def marks_left(self) -> int:
        """How many are still to be recorded."""
        return sum(mark > self.done for mark in self._marks)

    def __iter__(self) -> Iterator[Piece]:
        mark = self.mark
        for first in range(self.done, mark, self.size):
            yield Piece(first, min(first + self.size, mark))
