"""The progress of a run, from its rows as they are written."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

from janus_pl.run.lines import FILE

LOSSES = ("train/loss_running", "train/loss")


@dataclass
class Progress:
    """The newest numbers of a run.

    Attributes:
        epoch: Completed epochs.
        loss: The loss of the newest row that has one.
        margin: The margins' mean of the newest row that has one.
        per_epoch: Seconds that an epoch takes, since the first read; None before two rows.
    """

    epoch: int | None = None
    loss: float | None = None
    margin: float | None = None
    per_epoch: float | None = None


class RowReader:
    """A reader that follows the rows of a run, and reads each byte once.

    Args:
        folder: The run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.progress = Progress()
        self._path = folder / FILE
        self._inode, self._offset = 0, 0
        self._begin: tuple[float, int] | None = None

    def read(self) -> Progress:
        """Read the new rows, and return the progress."""
        lines = self._new_lines()
        for line in lines:
            self._take(line)
        epoch, now = self.progress.epoch, time.monotonic()
        if lines and epoch is not None:
            if self._begin is None or epoch < self._begin[1]:
                self._begin = now, epoch  # rows from before a resumption give no time
            elif epoch > self._begin[1]:
                self.progress.per_epoch = (now - self._begin[0]) / (epoch - self._begin[1])
        return self.progress

    def _new_lines(self) -> list[bytes]:
        """Return the whole lines that are new; a run that is resumed starts a new file."""
        try:
            with self._path.open("rb") as file:
                inode = self._path.stat().st_ino
                if inode != self._inode or self._path.stat().st_size < self._offset:
                    self._inode, self._offset = inode, 0
                file.seek(self._offset)
                text = file.read()
        except OSError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        return whole.splitlines()

    def _take(self, line: bytes) -> None:
        try:
            row = json.loads(line)
        except ValueError:
            return
        if not isinstance(row, dict):
            return
        self.progress.epoch = int(row.get("epoch", self.progress.epoch or 0))
        loss = next((row[key] for key in LOSSES if key in row), self.progress.loss)
        self.progress.loss = loss
        self.progress.margin = row.get("margin/mean", self.progress.margin)


def last_line(log: Path) -> str:
    """Return the last line of a log that is not blank."""
    try:
        text = log.read_bytes()[-20_000:].decode(errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines()]
    return next((line for line in reversed(lines) if line), "")
