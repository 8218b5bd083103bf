"""Runs side by side, each in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from janus_pl.errors import INTERRUPTED, STOPPING
from janus_pl.run.files import write_atomically
from janus_pl.sweep.launchers import SHOWN, Launcher, Running
from janus_pl.sweep.plan import PlannedRun
from janus_pl.sweep.progress import last_line
from janus_pl.sweep.resources import environment_of
from janus_pl.sweep.states import ACTIVE, ENDS, FINAL_STATES, Entry, State, look, state_of

POLL = 0.2  # seconds between two looks at the processes, at the most
GRACE = 60.0  # seconds to wait for runs of other processes when nothing else is left


class StopRequest:
    """A handler of signals in a block: the first asks to stop, a SIGINT after it to kill.

    The signals are those that stop a run; one that is ignored stays ignored.

    Attributes:
        signum: The number of the first signal, 0 if none came.
        kill: Whether to kill the runs instead of waiting for them.
    """

    def __init__(self) -> None:
        self.signum = 0
        self.kill = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        for signum in STOPPING:
            if signal.getsignal(signum) != signal.SIG_IGN:
                self._before[signum] = signal.signal(signum, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        self.kill = self.kill or (self.signum != 0 and signum == signal.SIGINT)
        self.signum = self.signum or signum


class Scheduler:
    """A scheduler that runs the waiting entries in their order, several at a time.

    Args:
        entries: All runs of the sweep.
        jobs: The number of runs at a time.
        devices: The GPUs.
        changed: Called with every entry whose state has changed, and with None at every look.
        stop: The request for an early end.
        launcher: The launcher that starts the runs.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        jobs: int,
        devices: Sequence[str],
        changed: Callable[[Entry | None], None],
        stop: StopRequest,
        launcher: Launcher,
    ) -> None:
        self._entries, self._jobs, self._devices = entries, jobs, devices
        self._changed, self._stop, self._launcher = changed, stop, launcher
        self._slots: dict[int, tuple[Entry, Running]] = {}
        self._told = False

    def run(self) -> None:
        """Run until all runs have ended; after a request to stop, until those under way have."""
        try:
            patience = time.monotonic() + GRACE
            while True:
                self._collect()
                if self._stop.signum:
                    self._end()
                else:
                    self._fill()
                if self._slots:
                    patience = time.monotonic() + GRACE
                elif self._stop.signum or not self._has_more(patience):
                    return
                self._changed(None)
                self._launcher.wait([running for _, running in self._slots.values()], POLL)
        finally:
            self._signal(signal.SIGKILL)  # leave no process behind, whatever goes wrong

    def _has_more(self, until: float) -> bool:
        """Tell whether there is something to wait for: the launcher, or runs of other processes.

        Those of a killed sweep may be ending; they are waited for until some time.
        """
        states = {entry.state for entry in self._entries}
        held = State.ELSEWHERE in states and time.monotonic() < until
        return held or State.WAITING in states

    def _fill(self) -> None:
        """Start as many runs as there is room for."""
        free = [slot for slot in range(self._jobs) if slot not in self._slots]
        for entry in self._entries:
            if not free or not self._launcher.is_ready():
                return
            if entry.state in (State.WAITING, State.ELSEWHERE):
                self._take(entry, free)

    def _take(self, entry: Entry, free: list[int]) -> None:
        """Start a run, unless another process has it or has ended it by now."""
        now = look(entry.run)
        entry.resumed = now.resumed
        if now.state is State.WAITING:
            slot = free.pop(0)
            self._slots[slot] = entry, self._start(entry.run, slot)
            entry.start()
            self._changed(entry)
        elif now.state is not entry.state:
            entry.state, entry.before = now.state, now.before
            entry.rows.read()
            self._changed(entry)

    def _start(self, run: PlannedRun, slot: int) -> Running:
        text = json.dumps(dict(run.values), indent=1).encode()
        # Under a name of its own first: another sweep may be starting the same run.
        file = run.values_file.with_name(f"{run.id}.{os.getpid()}.json")
        write_atomically(file, lambda opened: opened.write(text))
        os.replace(file, run.values_file)
        own = environment_of(slot, self._jobs, self._devices)
        return self._launcher.start(
            run.args, {**os.environ, **own, **SHOWN, "WANDB_RUN_ID": run.id}, run.log
        )

    def _collect(self) -> None:
        for slot, (entry, process) in list(self._slots.items()):
            entry.tick()
            if (code := process.poll()) is not None:
                del self._slots[slot]
                entry.tick()
                self._ended(entry, code)

    def _ended(self, entry: Entry, code: int) -> None:
        folder = state_of(entry.run)
        if folder is State.ELSEWHERE or (folder in FINAL_STATES and code not in ENDS):
            entry.state = folder  # another process was there first
        elif code in ENDS:
            entry.state = ENDS[code]
        elif code in INTERRUPTED or (self._stop.signum and code < 0):
            entry.state = State.INTERRUPTED
        else:
            entry.state = State.FAILED
        if entry.state in (State.FAILED, State.DIVERGED, State.BROKEN):
            entry.note = _reason(code, entry.run.log)
        self._changed(entry)

    def _end(self) -> None:
        if not self._told:
            self._told = True
            self._signal(signal.SIGTERM)
            for entry, _ in self._slots.values():
                entry.state = State.STOPPING
                self._changed(entry)
        if self._stop.kill:
            self._signal(signal.SIGKILL)

    def _signal(self, signum: int) -> None:
        for _, process in self._slots.values():
            if signum == signal.SIGKILL:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signum)  # kills W&B's process and the data's workers too
            else:
                process.send_signal(signum)


def _reason(code: int, log: Path) -> str:
    """Return why a run ended as it did, in one line."""
    if code < 0:
        return (
            f"killed by {signal.Signals(-code).name}; the last line of its output: {last_line(log)}"
        )
    return last_line(log) or f"exit code {code}"


def unfinished(entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries that another start of the sweep would run."""
    return [
        entry for entry in entries if entry.state not in (*FINAL_STATES, *ACTIVE, State.ELSEWHERE)
    ]
