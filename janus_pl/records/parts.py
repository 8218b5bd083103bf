"""Parts of the record of a run: the whole of it, or the rows until an interruption."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple


class Part(NamedTuple):
    """One of W&B's files of a run, or a run on W&B's server.

    Attributes:
        path: The file; for a run on a server its address.
        id: W&B's id of the run.
        name: The run's name, or its id if it has none.
        group: W&B's group, or None.
        start: The time of its start; later parts sort behind.
        config: The config of the run, nested.
        items: One for each row, nested keys flat with a dot: `margin/hist._type`.
        exit_code: The exit code; None if the run has not ended.
    """

    path: Path
    id: str
    name: str
    group: str | None
    start: str
    config: dict[str, Any]
    items: list[dict[str, Any]]
    exit_code: int | None


class Skipped(NamedTuple):
    """A run that was found and is left out, with the reason."""

    path: Path
    reason: str
