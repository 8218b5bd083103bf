"""One of W&B's own files of a run, read by W&B's reader.

The program behind `wandb leet inspect --json` prints a file as JSON. It is called directly: with
Python around it, it takes thirty times as long.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from janus_pl.records.parts import Part, Skipped
from janus_pl.run.nested import check_nesting
from janus_pl.run.sent import received

EMPTY = "not a readable record: no run in it"
GIVES_CONFIG = ("run", "config")  # types of records
HEADER = 7  # bytes of W&B's file before its first record
NUMBER = re.compile(r'\{"num":(\d+)')


def read_wandb_file(file: Path) -> Part | Skipped | None:
    """Return the part in a file; None for a report's file, which has figures and no rows."""
    from wandb.util import get_core_path  # half a second, and most records are rows.jsonl

    command = [get_core_path(), "leet", "inspect", "--json", "--no-observability"]
    command += ["--run-file", str(file), str(file.parent.parent)]
    told = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    lines = told.stdout.splitlines()
    try:
        records = [json.loads(line) for line in lines if not _is_of_no_use(line)]
    except (ValueError, RecursionError) as error:
        return Skipped(file, f"W&B's reader printed no JSON: {error}")
    heads = [r["run"] for r in records if r.get("type") == "run"]
    if any(head.get("job_type") == "report" for head in heads):
        return None
    if not heads:
        return Skipped(file, _why_empty(file, told))
    config: dict[str, Any] = {}
    given = [r["run"] if r["type"] == "run" else r for r in records if r["type"] in GIVES_CONFIG]
    for each in given:
        config |= (each.get("config") or {}).get("update", {})
    try:
        check_nesting(config)
    except ValueError as error:
        return Skipped(file, f"its config cannot be read: {error}")
    # A name that is set after the start is another record of the run.
    named = {key: value for head in heads for key, value in head.items()}
    ends = [r["exit"].get("exit_code", 0) for r in records if r["type"] == "exit"]
    items = [r["history"]["item"] for r in records if r["type"] == "history"]
    return Part(
        path=file,
        id=heads[0]["run_id"],
        name=named.get("display_name") or heads[0]["run_id"],
        group=named.get("run_group"),
        start=heads[0].get("start_time", ""),
        config=received(config),
        items=items,
        exit_code=ends[-1] if ends else None,
        notes=_losses(lines, items, told.stderr),
    )


def _is_of_no_use(line: str) -> bool:
    """Tell whether a record repeats a row or describes the machine: two thirds of the bytes."""
    head = line[:64]
    return '"type":"summary"' in head or '"type":"stats"' in head


def _why_empty(file: Path, told: subprocess.CompletedProcess[str]) -> str:
    ended = f"W&B's reader ended with {told.returncode}"  # below 0: killed by a signal
    said = " ".join(told.stderr.split()) or (ended if told.returncode else "")
    # The reader does not always say that a file is cut off: its size does.
    size = file.stat().st_size
    if not said and size > HEADER:
        said = f"no run in its {size} bytes"
    return f"not a readable record: {said}" if said else EMPTY


def _losses(lines: Iterable[str], items: Sequence[Mapping[str, Any]], said: str) -> tuple[str, ...]:
    """Return a note on what a damaged file has lost; W&B numbers its records, and its rows."""
    lost = _gaps(int(found[1]) for line in lines if (found := NUMBER.match(line)))
    rows = _gaps(item["_step"] for item in items if isinstance(item.get("_step"), int))
    if not lost and "corrupt" not in said:
        return ()
    among = f", {rows} of them rows" if rows else ""
    return (f"W&B's file is damaged and lacks {lost or 'some'} of its records{among}",)


def _gaps(numbers: Iterable[int]) -> int:
    """Return how many whole numbers are missing among those of a growing sequence."""
    return sum(max(0, after - before - 1) for before, after in pairwise(numbers))
