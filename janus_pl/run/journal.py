"""The rows of a run in a file of their own, so that a killed run loses none; its spectra too.

W&B's process writes its record in blocks and dies with the process that it serves. If a run is
resumed offline, this file gives W&B the rows before the checkpoint again: the record of the newest
part is whole.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from lightning.pytorch.utilities import rank_zero_warn

from janus_pl.run.files import write_atomically
from janus_pl.run.lines import FILE, parse, ranges, seal
from janus_pl.run.rows import Value, plain_row, row_of

DAMAGED = ".damaged.jsonl"  # ends the name of the file as it was, if a resumed run has lost rows


class Journal:
    """A file of rows, one sealed line each (`lines`); the system has each row once it is appended.

    Args:
        folder: The run's folder.
        file: The name of the file.
    """

    def __init__(self, folder: Path, file: str = FILE) -> None:
        self.path = folder / file
        self.count = 0
        self._file: IO[str] | None = None
        self._synced = 0  # lines that are on the disk, if the file is open

    def append(self, row: Mapping[str, Value]) -> None:
        """Append a row."""
        self.append_plain(plain_row(row))

    def append_plain(self, line: Mapping[str, Any]) -> None:
        """Append a line of plain values."""
        if self._file is None:
            self._file = self.path.open("a" if self.count else "w", encoding="utf-8")
            self._synced = -1  # a new file, or one that another process has written
        self._file.write(seal(line, self.count) + "\n")
        self._file.flush()
        self.count += 1

    def keep(self, count: int) -> list[dict[str, Value]]:
        """Return the first `count` rows, those of a checkpoint, and remove the others."""
        return [row_of(row) for row in self.keep_plain(count)]

    def keep_plain(self, count: int) -> list[dict[str, Any]]:
        """Return the first `count` lines in plain values, and remove the others.

        Damaged and missing rows do not keep the run from going on. One warning names them, and the
        file stays under a second name as it was. The others keep their numbers, so that readers see
        the gap. Lines without a seal get one.
        """
        lines = parse(self._content() if count else b"")
        kept = {number: row for number, row in lines.rows.items() if number < count}
        lost = lines.missing(count)
        text = "".join(f"{seal(row, number)}\n" for number, row in kept.items())
        before = self.path.with_suffix(DAMAGED) if lost and self.path.exists() else None
        write_atomically(self.path, lambda file: file.write(text.encode()), before)
        if lost:
            rank_zero_warn(_told(self.path, lost, count, before))
        self.count = count
        return list(kept.values())

    def sync(self) -> None:
        """Wait until the rows are on the disk, if some have come since the last wait."""
        if self._file is not None and self._synced != self.count:
            os.fsync(self._file.fileno())
            self._synced = self.count

    def close(self) -> None:
        """Close the file, with its rows on the disk."""
        if self._file is not None:
            try:
                self.sync()
            finally:
                self._file.close()
                self._file = None

    def _content(self) -> bytes:
        try:
            return self.path.read_bytes()
        except OSError:  # what cannot be read is lost, and named
            return b""


def _told(path: Path, lost: Sequence[int], count: int, before: Path | None) -> str:
    kept = f"; the file as it was is {before.name}" if before else ""
    return (
        f"{path}: of the {count} rows before the checkpoint these are damaged or missing:"
        f" {ranges(lost)}. The run goes on without them{kept}"
    )
