"""Runs on W&B's server: `entity/project` or `entity/project/group`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from janus_pl.errors import Exit, UsageError
from janus_pl.records.parts import Part, Skipped
from janus_pl.run.account import has_account
from janus_pl.run.sent import received

FORM = re.compile(r"[\w.-]+/[\w.-]+(/.+)?")
ENDS = {
    "finished": Exit.DONE,
    **dict.fromkeys(("failed", "crashed", "killed"), Exit.DEFECT),
}
WANTED = (
    "a folder with W&B's records (run-*.wandb), folders of runs (rows.jsonl) or recorded runs"
    " (*.jsonl.xz), or ENTITY/PROJECT[/GROUP] on W&B"
)


def is_online(path: str) -> bool:
    """Tell whether a path can only be a project on W&B, because no such file or folder exists."""
    return FORM.fullmatch(path) is not None and not Path(path).exists()


def read_online(path: str) -> list[Part | Skipped]:
    """Return all runs of a project or a group, through `wandb.Api`, without reports of ours.

    A failed run has the exit code 1, whatever it was, because W&B keeps only that it failed.

    Raises:
        UsageError: There is no such project, no run in it, no account, or no network.
    """
    if not has_account():  # W&B would ask for a key and wait
        nobody = "no account is configured (`wandb login`)"
        raise UsageError("RUN", path, f"{WANTED}; there is no such folder, and for W&B {nobody}")
    import wandb

    entity, project, *group = path.split("/", 2)
    filters = {"jobType": {"$ne": "report"}, **({"group": group[0]} if group else {})}
    try:
        api = wandb.Api(timeout=30)
        found = api.runs(f"{entity}/{project}", filters, "+created_at", lazy=False)
        runs = [run for run in found]  # noqa: C416 - list() would hide an error of its length
    except (wandb.errors.Error, ValueError, OSError) as error:
        raise _refusal(path, error) from error
    if not runs:
        raise UsageError("RUN", path, f"{WANTED}; W&B has no run there")
    return [_part(run) for run in runs]


def _part(run: Any) -> Part | Skipped:
    import wandb

    place = Path(f"{run.entity}/{run.project}/{run.id}")
    try:
        items = [dict(_flat(row)) for row in run.scan_history()]
    except (wandb.errors.Error, ValueError, OSError) as error:
        return Skipped(place, f"its history cannot be read: {_line(error)}")
    return Part(
        path=place,
        id=run.id,
        name=run.name or run.id,
        group=run.group,
        start=str(run.created_at),
        config=received(run.config),
        items=items,
        exit_code=ENDS.get(run.state),
    )


def _flat(row: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Flatten a row as W&B's own reader of files does; values that are not finite are words."""
    for key, value in row.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", value


def _refusal(path: str, error: Exception) -> UsageError:
    return UsageError("RUN", path, f"{WANTED}; there is no such folder, and W&B: {_line(error)}")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
