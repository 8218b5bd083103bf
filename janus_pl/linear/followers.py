"""Who follows the last steps before some looks, and the parts of a piece that somebody follows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from janus_pl.linear.plan import Piece
from janus_pl.training.subject import Take


class Follower(NamedTuple):
    """Somebody who is shown the last `window` steps before some looks.

    Attributes:
        window: The number of steps.
        looks: The looks, in units of time.
        size: The steps in a unit.
        take: Called after each step with the looks that it is followed for.
    """

    window: int
    looks: Sequence[int]
    size: int
    take: Take

    def windows(self) -> list[Piece]:
        """Return the units of time that hold a followed step, for each look.

        >>> Follower(5, [1, 4], 2, print).windows()
        [Piece(first=0, last=1), Piece(first=1, last=4)]
        """
        starts = [max(0, look * self.size - self.window) // self.size for look in self.looks]
        return [Piece(*window) for window in zip(starts, self.looks, strict=True)]

    def first_in(self, unit: int) -> int:
        """Return the first step of a unit, from 0, that is followed; all its steps: none is.

        >>> [Follower(5, [1, 4], 2, print).first_in(unit) for unit in range(5)]
        [0, 1, 0, 0, 2]
        """
        base = unit * self.size
        starts = [look * self.size - self.window - base for look in self.looks if look > unit]
        return min([self.size, *(max(0, start) for start in starts)])

    def show(self, step: int) -> None:
        """Show W after a step, counted from 1, if it is followed."""
        wanted = [k for k in self.looks if k * self.size - self.window < step <= k * self.size]
        if wanted:
            self.take(wanted)


def parts(piece: Piece, followers: Sequence[Follower]) -> Iterator[tuple[Piece, bool]]:
    """Yield the parts of a piece, and whether somebody follows steps of them.

    >>> found = parts(Piece(0, 9), [Follower(5, [4], 2, print)])
    >>> [(*part, followed) for part, followed in found]
    [(0, 1, False), (1, 4, True), (4, 9, False)]
    """
    windows = [window for follower in followers for window in follower.windows()]
    inner = {unit for window in windows for unit in window if piece.first < unit < piece.last}
    for first, last in pairwise([piece.first, *sorted(inner), piece.last]):
        yield Piece(first, last), any(w.first <= first < w.last for w in windows)
