"""The history of a run: from which step on its options are other ones, and its parent.

`config.yaml` has the options of now. Each line of `history.jsonl` is a change that came with a
checkpoint: the step, the checkpoint's epoch, the changed options with both values and, for a run
that started from another run's checkpoint, that run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from janus_pl.run.files import write_atomically
from janus_pl.run.folder import CHECKPOINTS, CONFIG, changes, config_of

FILE = "history.jsonl"
KEY = "history"  # in W&B's config
HELD = "config"  # in a checkpoint: the resolved config of its run


def entry_of(
    path: Path, checkpoint: Mapping[str, Any], config: Mapping[str, Any], resumes: bool
) -> dict[str, Any]:
    """Return the line of a run that goes on from a checkpoint with a config.

    Args:
        path: The checkpoint's file.
        checkpoint: Its content.
        config: The resolved config of now.
        resumes: Whether the run itself is resumed. If not, the line names the checkpoint.
    """
    before = checkpoint.get(HELD) or _config_beside(path)
    changed = changes(before, config) if before else {}
    entry: dict[str, Any] = {"step": int(checkpoint["global_step"])}
    if not resumes:
        entry |= {"parent": _run_of(path), "checkpoint": str(path.absolute())}
    return entry | {"changed": {key: list(values) for key, values in changed.items()}}


def told(entry: Mapping[str, Any]) -> str | None:
    """Say in one line what changes; None if nothing does.

    >>> told({"step": 12, "changed": {"model.weight_decay": [0.001, 0.1]}})
    'From step 12 on: model.weight_decay is 0.1 (0.001 in the checkpoint).'
    """
    if not entry["changed"]:
        return None
    parts = [
        f"{k} is {new} ({old} in the checkpoint)" for k, (old, new) in entry["changed"].items()
    ]
    return f"From step {entry['step']} on: {'; '.join(parts)}."


def add(folder: Path, entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Add a line to the history of a run, unless it says nothing, and return all lines.

    A change at the same step or a later one goes: no step was kept that was taken after it. A run
    that starts once more from another run's checkpoint has no other lines.
    """
    before = read(folder)
    lines = [line for line in before if line["step"] < entry["step"] or "parent" in line]
    if "parent" in entry:
        lines = []
    if entry["changed"] or "parent" in entry:
        lines.append(dict(entry))
    if lines != before:
        text = "".join(json.dumps(line) + "\n" for line in lines)
        write_atomically(folder / FILE, lambda file: file.write(text.encode()))
    return lines


def read(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's history, oldest first."""
    try:
        text = (folder / FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text.splitlines()]


def _config_beside(path: Path) -> dict[str, Any]:
    """Return the config of the run whose checkpoint this is; empty if it is not known."""
    return {} if _run_of(path) is None else config_of(path.absolute().parent.parent)


def _run_of(path: Path) -> str | None:
    """Return the id of the run whose folder a checkpoint lies in; None if it lies elsewhere."""
    folder = path.absolute().parent.parent
    return folder.name if path.parent.name == CHECKPOINTS and (folder / CONFIG).is_file() else None
