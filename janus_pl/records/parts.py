"""Parts of the record of a run: the whole of it, or the rows until an interruption."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from janus_pl.errors import INTERRUPTED, is_number

STEP = "trainer/global_step"


class Histogram(NamedTuple):
    """One histogram of a run: the row's epoch, counts (bins,), edges (bins + 1,)."""

    epoch: float
    counts: NDArray[np.float64]
    edges: NDArray[np.float64]


class Look(NamedTuple):
    """One look at the singular values of the V_k.

    Attributes:
        epoch: The row's epoch.
        step: The optimizer's steps so far.
        eta_t: The accumulated learning rate.
        sigma: The singular values by layer, largest first.
    """

    epoch: float
    step: float
    eta_t: float
    sigma: Mapping[str, NDArray[np.float64]]


class Part(NamedTuple):
    """A run's folder, one of W&B's files of a run, or a run on W&B's server.

    Attributes:
        path: The file; for a run on a server its address.
        id: The id of the run.
        name: The run's name, or its id if it has none.
        group: W&B's group, or None.
        start: The time of its start, or an empty text.
        config: The config of the run, nested.
        items: One for each row, nested keys flat with a dot: `margin/hist._type`.
        exit_code: The exit code; None if the run has not ended.
        notes: What is damaged, doubled or missing in it, each in a few words.
        spectra: The lines of its singular values, one a look; the run's folder alone has them.
    """

    path: Path
    id: str
    name: str
    group: str | None
    start: str
    config: dict[str, Any]
    items: list[dict[str, Any]]
    exit_code: int | None
    notes: tuple[str, ...] = ()
    spectra: Sequence[dict[str, Any]] = ()

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The items that are rows of the record: those with an epoch and a step."""
        return [item for item in self.items if _is_row(item)]

    @property
    def broken_off(self) -> bool:
        """Whether it is under way or was interrupted, so that another part may go on with it."""
        return self.exit_code is None or self.exit_code in INTERRUPTED


class Skipped(NamedTuple):
    """A run that was found and is left out, with the reason."""

    path: Path
    reason: str


def in_turn(parts: Iterable[Part]) -> list[Part]:
    """Return the parts of a run in the order in which they were trained, oldest first.

    A later part gets further: the order is that of the last steps, and not of clocks, which may be
    set back. A part that has ended comes after one that was broken off and that it overlaps, for
    then it began anew and was shorter. Among equal parts the clock decides.
    """
    parts = list(parts)
    spans = {id(part): _span(part.rows) for part in parts}
    open_ends = [spans[id(part)] for part in parts if part.broken_off]

    def place(part: Part) -> tuple[float, bool, str]:
        first, last = spans[id(part)]
        if not part.broken_off:
            reached = (end for start, end in open_ends if start <= last or first > last)
            last = max([last, *reached])
        return last, not part.broken_off, part.start

    return sorted(parts, key=place)


def joined(parts: Sequence[Part]) -> list[dict[str, Any]]:
    """Return the rows of parts, oldest first; a later part has all from its first step on."""
    return _joined(part.rows for part in parts)


def joined_spectra(parts: Iterable[Part]) -> list[dict[str, Any]]:
    """Return the lines of the parts' singular values, as `joined` does with rows."""
    return _joined(part.spectra for part in parts)


def _joined(parts: Iterable[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for own in parts:
        if own:
            first = _span(own)[0]
            rows = [row for row in rows if row[STEP] < first] + [*own]
    return rows


def joined_config(parts: Iterable[Part]) -> dict[str, Any]:
    """Return the config of a run's parts, oldest first; a later part's values win."""
    config: dict[str, Any] = {}
    for part in parts:
        config |= part.config
    return config


def _is_row(item: Mapping[str, Any]) -> bool:
    return is_number(item.get("epoch")) and is_number(item.get(STEP))


def _span(rows: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Return the first and the last step; without rows, an empty span."""
    steps = [row[STEP] for row in rows]
    return min(steps, default=math.inf), max(steps, default=-math.inf)
