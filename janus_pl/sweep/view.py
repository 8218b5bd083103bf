"""The display of a sweep: a live table on a terminal, elsewhere a line at every change."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.table import Table

from janus_pl.sweep.states import ACTIVE, FINAL_STATES, Entry, State, seconds_left

COLOURS = {
    State.WAITING: "dim",
    State.RUNNING: "cyan",
    State.STOPPING: "yellow",
    State.DONE: "green",
    State.DIVERGED: "magenta",
    State.BROKEN: "magenta",
    State.FAILED: "red",
    State.INTERRUPTED: "yellow",
    State.ELSEWHERE: "dim",
}
STOPPING_HINT = "checkpoints are awaited, another Ctrl-C kills"
PERIOD = 0.5  # seconds between two drawings of the table


class View:
    """A display of the runs while the block lasts.

    Args:
        entries: All runs of the sweep.
        jobs: The number of runs side by side.
        console: The console to write to.
    """

    def __init__(self, entries: Sequence[Entry], jobs: int, console: Console) -> None:
        self._entries, self._jobs, self._console = entries, jobs, console
        self._live = None
        self._drawn = 0.0
        if console.is_terminal:
            self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> View:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def changed(self, entry: Entry | None) -> None:
        """Show that a run's state has changed; None says only that time has passed."""
        if self._live is None:
            if entry is not None:
                self._console.print(
                    self._line(entry), markup=False, highlight=False, soft_wrap=True
                )
        elif entry is not None or time.monotonic() > self._drawn + PERIOD:
            self._drawn = time.monotonic()
            self._live.update(self._table(), refresh=True)

    def _line(self, entry: Entry) -> str:
        text = f"{time.strftime('%H:%M:%S')} {entry.run.label}: {state_text(entry)}"
        if entry.state is State.RUNNING:
            text += f"; output in {entry.run.log}"
        elif entry.state is State.STOPPING:
            text += f"; {STOPPING_HINT}"
        else:
            text += f"{_numbers(entry)}; {left_text(self._entries, self._jobs)}"
        return text

    def _table(self) -> Table:
        """Return a table that fits the screen, with the rows of `_window`."""
        room = max(6, self._console.height - 7)
        shown, hidden = _window(self._entries, room)
        table = table_of(shown)
        more = f"{hidden} more runs not shown; " if hidden else ""
        stopping = any(entry.state is State.STOPPING for entry in self._entries)
        hint = STOPPING_HINT if stopping else "Ctrl-C stops, resumably"
        table.caption = f"{more}{left_text(self._entries, self._jobs)}; {hint}"
        return table


def table_of(entries: Sequence[Entry], title: str | None = None) -> Table:
    """Return the table of runs, live or at the end."""
    table = Table(title=title)
    table.add_column("run", overflow="fold")
    table.add_column("state")
    under_way = any(entry.state in ACTIVE for entry in entries)
    for name in ("epoch", "loss", "margin", "time", *(["left"] if under_way else [])):
        table.add_column(name, justify="right", no_wrap=True)
    for entry in entries:
        progress = entry.rows.progress
        left = duration(entry.left) if entry.state in ACTIVE and entry.left is not None else ""
        table.add_row(
            entry.run.label.replace("[", r"\["),
            f"[{COLOURS[entry.state]}]{state_text(entry)}[/]",
            epoch_text(entry),
            "" if progress.loss is None else f"{progress.loss:.4g}",
            "" if progress.margin is None else f"{progress.margin:.2e}",
            duration(entry.seconds) if entry.seconds else "",
            *([left] if under_way else []),
        )
    return table


def state_text(entry: Entry) -> str:
    """Return the state, and whether the run had begun or ended before."""
    if entry.before:
        return f"{entry.state} before"
    if entry.state is State.WAITING and entry.resumed:
        return "to be resumed"
    if entry.state is State.RUNNING and entry.resumed:
        return "running, resumed"
    return str(entry.state)


def epoch_text(entry: Entry) -> str:
    """Return the completed epochs of a run, and of how many."""
    epoch = entry.rows.progress.epoch
    if epoch is None:
        return ""
    return f"{epoch}/{entry.run.max_epochs}" if entry.run.max_epochs else str(epoch)


def left_text(entries: Sequence[Entry], jobs: int) -> str:
    """Return how many runs are left, and how long they may take."""
    left = sum(entry.state in (State.WAITING, *ACTIVE) for entry in entries)
    if not left:
        return "none left"
    seconds = seconds_left(entries, jobs)
    about = "" if seconds is None else f", about {duration(seconds)}"
    return f"{left} of {len(entries)} left{about}"


def duration(seconds: float) -> str:
    """Return a length of time in at most two units.

    >>> duration(9.7), duration(75), duration(7300), duration(200000)
    ('10 s', '1 min 15 s', '2 h 1 min', '2 d 7 h')
    """
    whole = round(seconds)
    for unit, size, below, part in (
        ("d", 86400, "h", 3600),
        ("h", 3600, "min", 60),
        ("min", 60, "s", 1),
    ):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {unit} {rest} {below}" if rest else f"{whole // size} {unit}"
    return f"{whole} s"


def _numbers(entry: Entry) -> str:
    progress = entry.rows.progress
    parts = []
    if progress.epoch is not None:
        parts.append(f"epoch {epoch_text(entry)}")
    if progress.loss is not None:
        parts.append(f"loss {progress.loss:.4g}")
    if progress.margin is not None:
        parts.append(f"margin {progress.margin:.2e}")
    if entry.seconds:
        parts.append(duration(entry.seconds))
    return f" ({', '.join(parts)})" if parts else ""


def _window(entries: Sequence[Entry], room: int) -> tuple[Sequence[Entry], int]:
    """Return the rows around the first run with no final state, and the number of the others."""
    if len(entries) <= room:
        return entries, 0
    first = next((i for i, entry in enumerate(entries) if entry.state not in FINAL_STATES), 0)
    start = min(max(0, first - 2), len(entries) - room)
    return entries[start : start + room], len(entries) - room
