"""What is read of one run at one time: all of it, or what there was until an interruption."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple


class Part(NamedTuple):
    """One of W&B's files of a run, or a run on W&B's server.

    Attributes:
        path: the file; of a run on a server its address.
        id: W&B's id of the run.
        name: its name, the id where it has none.
        group: W&B's group, or None.
        start: when it was started, so that later parts sort behind.
        config: the config of the run, nested.
        items: one for each row, nested keys flat with a dot: `margin/hist._type`.
        exit_code: None where it has not ended.
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
    """A run that was found and is left out."""

    path: Path
    reason: str
