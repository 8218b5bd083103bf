"""The rows of a run in a file of its own, so that a killed run loses none of them.

W&B's process writes its record in blocks and dies with the process that it serves. If a run is
resumed offline, this file gives W&B the rows before the checkpoint again: the record of the newest
part is whole.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from janus_pl.run.files import write_atomically
from janus_pl.run.rows import Value, plain_row, row_of

FILE = "rows.jsonl"


class Journal:
    """A file of rows, one JSON object a line; the system has each row once it is appended.

    Args:
        folder: The run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self.count = 0
        self._file: IO[str] | None = None

    def append(self, row: Mapping[str, Value]) -> None:
        """Append a row."""
        if self._file is None:
            self._file = self.path.open("a" if self.count else "w", encoding="utf-8")
        self._file.write(json.dumps(plain_row(row)) + "\n")
        self._file.flush()
        self.count += 1

    def keep(self, count: int) -> list[dict[str, Value]]:
        """Return the first `count` rows, those of a checkpoint, and remove the others."""
        lines = self.path.read_text(encoding="utf-8").splitlines()[:count] if count else []
        if len(lines) < count:
            raise RuntimeError(f"{self.path} has {len(lines)} rows, the checkpoint {count}")
        text = "".join(f"{line}\n" for line in lines)
        write_atomically(self.path, lambda file: file.write(text.encode()))
        self.count = count
        return [row_of(json.loads(line)) for line in lines]

    def sync(self) -> None:
        """Wait until the rows are on the disk."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
