"""The states of the runs of a sweep."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from janus_pl.errors import FINAL, Exit
from janus_pl.run.folder import CONFIG, exit_code_of, is_held
from janus_pl.sweep.plan import PlannedRun
from janus_pl.sweep.progress import RowReader


class State(StrEnum):
    """The state of one run, in the words of the table."""

    WAITING = "waiting"
    RUNNING = "running"
    STOPPING = "stopping"
    DONE = "done"
    DIVERGED = "diverged"
    BROKEN = "theorem broken"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    ELSEWHERE = "elsewhere"


ENDS: dict[int | None, State] = {
    Exit.DONE: State.DONE,
    Exit.DIVERGED: State.DIVERGED,
    Exit.BROKEN_THEOREM: State.BROKEN,
}
FINAL_STATES = tuple(ENDS[code] for code in FINAL)
ACTIVE = (State.RUNNING, State.STOPPING)


@dataclass
class Entry:
    """A run and what has become of it.

    Attributes:
        run: The planned run.
        state: Its state now.
        before: Whether it had ended before this sweep could start it, and is skipped.
        resumed: Whether it had begun before this sweep started it.
        seconds: The seconds that it took, or has taken so far, in this sweep.
        note: Why it failed, diverged or broke a theorem, in one line.
        rows: The reader of its rows.
    """

    run: PlannedRun
    state: State = State.WAITING
    before: bool = False
    resumed: bool = False
    seconds: float = 0.0
    note: str = ""
    rows: RowReader = field(init=False)
    _started: float = 0.0

    def __post_init__(self) -> None:
        self.rows = RowReader(self.run.folder)

    def start(self) -> None:
        """Mark the run as running from now on."""
        self.state, self._started = State.RUNNING, time.monotonic()
        self.rows = RowReader(self.run.folder)

    def tick(self) -> None:
        """Update the time and the rows of a run under way."""
        self.seconds = time.monotonic() - self._started
        self.rows.read()

    @property
    def left(self) -> float | None:
        """Seconds until its end; None if they are not known yet, or not given in epochs."""
        progress, epochs = self.rows.progress, self.run.max_epochs
        if progress.per_epoch is None or progress.epoch is None or epochs is None:
            return None
        return progress.per_epoch * max(0, epochs - progress.epoch)


def look(run: PlannedRun) -> Entry:
    """Return a run with the state of its folder; start nothing."""
    entry = Entry(run)
    entry.state = state_of(run)
    entry.before = entry.state in FINAL_STATES
    entry.resumed = (run.folder / CONFIG).is_file() and not entry.before
    if entry.before or entry.resumed:
        entry.rows.read()
    return entry


def state_of(run: PlannedRun) -> State:
    """Return the state of a run: ended, under way in another process, or waiting."""
    if is_held(run.folder):
        return State.ELSEWHERE
    return ENDS.get(exit_code_of(run.folder), State.WAITING)


def exit_code(entries: Sequence[Entry]) -> int:
    """Return the exit code of the whole sweep: the worst of its runs.

    A run under way in another process is no failure of this sweep.
    """
    states = {entry.state for entry in entries}
    if states & {State.FAILED, State.INTERRUPTED, State.WAITING}:
        return Exit.DEFECT
    if State.BROKEN in states:
        return Exit.BROKEN_THEOREM
    return Exit.DIVERGED if State.DIVERGED in states else Exit.DONE


def seconds_left(entries: Sequence[Entry], jobs: int) -> float | None:
    """Return the seconds until the sweep ends, from the mean time of an epoch; None if unknown."""
    active = [entry for entry in entries if entry.state in ACTIVE]
    rates = [rate for entry in entries if (rate := _rate(entry)) is not None]
    if not rates or any(entry.left is None for entry in active):
        return None
    mean = sum(rates) / len(rates)
    waiting = [entry for entry in entries if entry.state is State.WAITING]
    if any(entry.run.max_epochs is None for entry in waiting):
        return None
    ahead = sum(mean * ((e.run.max_epochs or 0) - (e.rows.progress.epoch or 0)) for e in waiting)
    running = [entry.left or 0.0 for entry in active]
    return max([(sum(running) + ahead) / jobs, *running])


def _rate(entry: Entry) -> float | None:
    """Return the seconds of an epoch; for a whole run made here, with its start and end."""
    epoch = entry.rows.progress.epoch
    if entry.state is State.DONE and not entry.before and not entry.resumed and epoch:
        return entry.seconds / epoch
    return entry.rows.progress.per_epoch if entry.state in ACTIVE else None
