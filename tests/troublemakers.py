"""Callbacks that make trouble at a chosen moment, for a config of a test to name."""

from __future__ import annotations

import os
import signal
from typing import Any

from lightning.pytorch import Callback


class SendSignal(Callback):
    """Sends a signal to its own process, once, in a hook after so many calls of it.

    Args:
        signal_name: as `SIGTERM`.
        hook: the name of a hook, as `on_train_batch_start`.
        calls: how many calls of the hook to let pass.
    """

    def __init__(self, signal_name: str, hook: str, calls: int = 0) -> None:
        self.signum = signal.Signals[signal_name]
        self.calls = calls
        setattr(self, hook, self._count)

    def _count(self, *args: Any, **kwargs: Any) -> None:
        self.calls -= 1
        if self.calls == -1:
            os.kill(os.getpid(), self.signum)
