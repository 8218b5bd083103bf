"""Spikes of the training loss, and the rank that is lost within and between them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

THRESHOLD = 0.05  # of the loss; 1 is the square loss of a network whose outputs are 0


@dataclass(frozen=True)
class Event:
    """One spike of the running loss.

    Attributes:
        begin: The first epoch whose running loss is above the threshold.
        end: The first epoch after it whose running loss is not; None while the spike lasts.
        peak: The largest running loss in between; NaN if one was.
    """

    begin: int
    end: int | None
    peak: float


class Events:
    """The spikes of a loss that comes epoch by epoch.

    A spike is a longest run of epochs whose running loss is above the threshold, once the loss has
    been at or below it: the descent from the start does not count. A loss that is not finite is
    above.

    Args:
        threshold: The threshold, above 0, in units of the loss.

    Attributes:
        settled: Whether the loss has been at or below the threshold.
        found: The spikes so far; the last one may still last.

    >>> events = Events(0.1)
    >>> for epoch, loss in enumerate([0.9, 0.1, 0.3, 0.2, 0.05, 0.04], 1):
    ...     events.add(epoch, loss)
    >>> events.found
    [Event(begin=3, end=5, peak=0.3)]
    """

    def __init__(self, threshold: float = THRESHOLD) -> None:
        self.threshold = threshold
        self.settled = False
        self.found: list[Event] = []

    def add(self, epoch: int, loss: float) -> None:
        """Take the running loss of the next epoch."""
        above = not loss <= self.threshold
        last = self.found[-1] if self.lasts else None
        if last is not None:
            kept = not above or loss <= last.peak or math.isnan(last.peak)
            peak = last.peak if kept else loss
            self.found[-1] = Event(last.begin, None if above else epoch, peak)
        elif above and self.settled:
            self.found.append(Event(epoch, None, loss))
        self.settled = self.settled or not above

    @property
    def lasts(self) -> bool:
        """Whether the newest epoch is in a spike."""
        return bool(self.found) and self.found[-1].end is None


class RankLost:
    """The rank that each layer loses between looks, within spikes and between them.

    Attributes:
        within: Sum of rank before - rank after over the intervals of two looks that hold an epoch
            of a spike, by layer. A rank that recovers counts as negative.
        between: The same over all other intervals.

    >>> lost = RankLost()
    >>> for rank, spiked in [(100.0, False), (99.0, False), (40.0, True), (50.0, False)]:
    ...     lost.add({"fc1": rank}, spiked)
    >>> lost.within, lost.between
    ({'fc1': 59.0}, {'fc1': -9.0})
    """

    def __init__(self) -> None:
        self.within: dict[str, float] = {}
        self.between: dict[str, float] = {}
        self._last: dict[str, float] = {}

    def state(self) -> dict[str, dict[str, float]]:
        """Return the sums and the last look, in plain values."""
        return {"within": self.within, "between": self.between, "last": self._last}

    def load(self, state: Mapping[str, Mapping[str, float]]) -> None:
        """Go on from a state."""
        self.within, self.between = dict(state["within"]), dict(state["between"])
        self._last = dict(state["last"])

    def add(self, ranks: Mapping[str, float], spiked: bool) -> None:
        """Take the ranks of a look.

        Args:
            ranks: The ranks by layer.
            spiked: Whether an epoch of a spike lies after the last look and up to this one.
        """
        for layer, rank in ranks.items():
            if layer in self._last:
                sums = self.within if spiked else self.between
                sums[layer] = sums.get(layer, 0.0) + self._last[layer] - rank
        self._last = dict(ranks)
