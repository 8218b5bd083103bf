"""Rows on their way to W&B: a queue, and a thread while there is something in it.

A row for W&B costs about as much as a short epoch. So the training puts it here and goes on. The
rows arrive in their order. The thread ends when the queue is empty, so that there is none over a
fork or after a run.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from weakref import WeakSet

ROOM = 1000  # rows that may wait; the training waits for room after that

Action = Callable[[], object]


class Sender:
    """A queue of actions that a thread of its own takes, one after another.

    Args:
        room: The number of actions that may wait.
    """

    def __init__(self, room: int = ROOM) -> None:
        self._room = room
        self._changed = threading.Condition()
        self._waiting: deque[Action] = deque()
        self._errors: list[Exception] = []
        self._thread: threading.Thread | None = None  # None: nothing waits
        _senders.add(self)

    def __reduce__(self) -> tuple[type[Sender], tuple[int]]:
        """Let a copy of a logger have a queue of its own."""
        return Sender, (self._room,)

    def put(self, action: Action) -> None:
        """Let the thread take an action after those before; wait until there is room."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._waiting) < self._room)
            self._waiting.append(action)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="rows to W&B", daemon=True)
                self._thread.start()

    def flush(self) -> None:
        """Wait until all actions are done and the thread has ended."""
        thread = self._thread
        while thread is not None and thread is not threading.current_thread():
            thread.join()
            thread = self._thread

    def errors(self) -> list[Exception]:
        """Return the errors of actions since the last call."""
        with self._changed:
            taken, self._errors = self._errors, []
        return taken

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._waiting:
                    self._thread = None
                    return
                action = self._waiting[0]
            try:
                action()
            except Exception as error:
                with self._changed:
                    self._errors.append(error)
            finally:
                with self._changed:
                    self._waiting.popleft()
                    self._changed.notify_all()


_senders: WeakSet[Sender] = WeakSet()


def flush_all() -> None:
    """Wait until no row of this process is on its way."""
    for sender in [*_senders]:
        sender.flush()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=flush_all)
