"""Waits and operations of a run on a device, each with the step or the look that it belongs to."""

from __future__ import annotations

import functools
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop

from janus_pl.callbacks import Observer

ROOT = Path(__file__).resolve().parents[2]
OURS = tuple(str(ROOT / folder) for folder in ("janus_pl", "callbacks", "tests"))
WATCHERS = tuple(
    str(ROOT / "tests" / "pretended" / f"{name}.py") for name in ("watch", "device", "runs")
)


class Wait(NamedTuple):
    """A moment at which the host waits for the device.

    Attributes:
        why: What the host waits for.
        place: The line of the project that asks for it, `FILE:LINE`.
        step: Whether it lies within a training step.
        look: The callback that looks, `` outside of looks; and the number of its look, from 1.
    """

    why: str
    place: str
    step: bool
    look: tuple[str, int]


class Watch:
    """Notes what a run asks of a device.

    Args:
        operations: Gives the operations so far, by name.

    Attributes:
        waits: Every wait, as it came.
        steps: The operations of each training step, by name.
        looks: The number of looks of each callback.
    """

    def __init__(self, operations: Callable[[], Counter[str]] = Counter) -> None:
        self.waits: list[Wait] = []
        self.steps: list[Counter[str]] = []
        self.looks: Counter[str] = Counter()
        self._operations = operations
        self._in_step = False
        self._look = ("", 0)
        self._main = threading.get_ident()

    def note(self, why: str) -> None:
        """Note a wait of this moment; called in the thread that waits."""
        self.waits.append(Wait(why, self._place(), self._in_step, self._look))

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_operations": Counter}  # the device stays in its process

    @contextmanager
    def watching(self) -> Iterator[Watch]:
        """Watch Lightning's training steps and the looks of our callbacks within the block."""
        with ExitStack() as patches:
            for owner, name, around in (
                (_TrainingEpochLoop, "advance", self._step),
                (Observer, "_look", self._one_look),
            ):
                inner = getattr(owner, name)
                patches.enter_context(mock.patch.object(owner, name, _within(inner, around)))
            yield self

    def _step(self, loop: Any, call: Callable[[], Any]) -> Any:
        before, self._in_step = self._operations(), True
        try:
            return call()
        finally:
            self._in_step = False
            self.steps.append(self._operations() - before)

    def _one_look(self, observer: Observer, call: Callable[[], Any]) -> Any:
        name = type(observer).__name__
        self.looks[name] += 1
        before, self._look = self._look, (name, self.looks[name])
        try:
            return call()
        finally:
            self._look = before

    def _place(self) -> str:
        """Return the innermost line of the project, of this thread or else of the main one.

        A backward pass runs in a thread of its own, and has frames of the project there only within
        a backward of ours; the main thread then stands at the call of it.
        """
        for frame in (sys._getframe(), sys._current_frames().get(self._main)):
            for each in traceback.walk_stack(frame):
                file = each[0].f_code.co_filename
                if file.startswith(OURS) and not file.startswith(WATCHERS):
                    return f"{Path(file).relative_to(ROOT)}:{each[1]}"
        return "elsewhere"


def _within(inner: Callable[..., Any], around: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(inner)
    def call(self: Any, *args: Any, **options: Any) -> Any:
        return around(self, lambda: inner(self, *args, **options))

    return call
