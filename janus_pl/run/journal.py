"""The rows of a run in a file of its own, so that a killed run loses none of them.

W&B's process writes its record in blocks and dies with the process that it serves. A run that is
resumed offline hands the rows before its checkpoint to W&B again, from here: the record of the
newest part is whole.
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
    """Rows, one JSON object a line; each is with the system as soon as it is appended.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self.count = 0
        self._file: IO[str] | None = None

    def append(self, row: Mapping[str, Value]) -> None:
        """One more row."""
        if self._file is None:
            self._file = self.path.open("a" if self.count else "w", encoding="utf-8")
        self._file.write(json.dumps(plain_row(row)) + "\n")
        self._file.flush()
        self.count += 1

    def keep(self, count: int) -> list[dict[str, Value]]:
        """The first rows, which a checkpoint has behind it; the others are forgotten."""
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
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
