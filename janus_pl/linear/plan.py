"""The plan of a long run: the epochs to record, the looks of callbacks, and the pieces to run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple


class Piece(NamedTuple):
    """The epochs first to last - 1, counted from 0; of a stream, the steps."""

    first: int
    last: int


def log_spaced(total: int, per_decade: int) -> list[int]:
    """Return epochs from 1 to `total`: all small numbers, then `per_decade` a decade, and the last.

    Except for the last, they do not depend on `total`: a longer run has those of a shorter one.

    >>> log_spaced(100, per_decade=5)
    [1, 2, 3, 4, 6, 10, 16, 25, 40, 63, 100]
    """
    decades = range(math.ceil(per_decade * math.log10(total)) + 1)
    spaced = {round(10 ** (k / per_decade)) for k in decades}
    return sorted({epoch for epoch in spaced if epoch <= total} | {total})


def tenths(total: int) -> list[int]:
    """Return the epochs at which the last two tenths of a run begin, except 0."""
    return [border for border in (total * 8 // 10, total * 9 // 10) if border > 0]


class Plan:
    """The epochs still to run; each iteration yields the pieces up to the next look.

    At a look callbacks run and checkpoints are made.

    Args:
        total: The number of all epochs; of a stream, of all steps.
        records: The epochs to record.
        looks: The epochs to look at; they are recorded as well.
        size: The most epochs in a piece.
        stretch: The most epochs from one look to the next. A longer stretch gets further looks at
            its records.

    Attributes:
        done: The epochs completed so far; the runner of the pieces sets it.
    """

    def __init__(
        self, total: int, records: Sequence[int], looks: Sequence[int], size: int, stretch: int
    ) -> None:
        self.total, self.size, self.done = total, size, 0
        self.records = sorted({*records, *looks, *tenths(total), total})
        self.looks: list[int] = []
        for record, following in zip(self.records, [*self.records[1:], math.inf], strict=True):
            before = self.looks[-1] if self.looks else 0
            if record in (*looks, total) or following - before > stretch:
                self.looks.append(record)

    @property
    def record(self) -> int:
        """The next epoch to record, or the last one of all."""
        return next((record for record in self.records if record > self.done), self.total)

    @property
    def look(self) -> int:
        """The next epoch to look at, or the last one of all."""
        return next((look for look in self.looks if look > self.done), self.total)

    def __iter__(self) -> Iterator[Piece]:
        first, look = self.done, self.look
        borders = [record for record in self.records if first < record <= look]
        for border in borders:
            for start in range(first, border, self.size):
                yield Piece(start, min(start + self.size, border))
            first = border
