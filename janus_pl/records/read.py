"""Run records, read back: the config, the rows and the end of each run.

W&B's own reader prints a run's file as JSON. The program behind `wandb leet inspect --json` is
called directly: with Python around it, it takes thirty times as long.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from wandb.util import get_core_path

from janus_pl.errors import INTERRUPTED, SOUND, UsageError
from janus_pl.records.archive import SUFFIX, read_archive
from janus_pl.records.online import WANTED, is_online, read_online
from janus_pl.records.parts import Part, Skipped
from janus_pl.records.run import STEP, Histogram, Run

EMPTY = "not a readable record: no run in it"
GIVES_CONFIG = ("run", "config")  # types of records
HEADER = 7  # bytes of W&B's file before its first record


class Records(NamedTuple):
    """Runs in the order of their names, and the runs that were left out."""

    runs: list[Run]
    skipped: list[Skipped]


def read(paths: Iterable[str | Path], unfinished: bool = False) -> Records:
    """Return the runs at or below some paths that have their result (exit code 0 or 5).

    Args:
        paths: Folders of runs, of one run, or W&B's own folders of a run; files of recorded runs
            (`janus_pl.records.archive`), or folders of such files; `entity/project` or
            `entity/project/group` on W&B.
        unfinished: Whether to add runs that are under way or were interrupted, as far as they got.

    Raises:
        UsageError: A path has no record of a run.
    """
    parts = read_parts(paths)
    by_id: dict[str, list[Part]] = {}
    for part in parts:
        if isinstance(part, Part):
            by_id.setdefault(part.id, []).append(part)
    merged = [
        _merge(sorted(same, key=lambda part: part.start), unfinished) for same in by_id.values()
    ]
    runs = sorted((r for r in merged if isinstance(r, Run)), key=lambda run: (run.name, run.id))
    skipped = [r for r in [*parts, *merged] if isinstance(r, Skipped)]
    return Records(runs, [r for r in skipped if not _is_redone(r, by_id)])


def _is_redone(part: Skipped, by_id: Mapping[str, Sequence[Part]]) -> bool:
    """Tell whether a run was killed before W&B's first record of it, and has another part.

    Offline, a part has all rows from the first on, so nothing is missing. Online, it has only its
    own rows, and some may be missing.
    """
    offline = part.path.parent.name.startswith("offline-run-")
    return offline and part.reason == EMPTY and part.path.stem.removeprefix("run-") in by_id


def read_parts(paths: Iterable[str | Path]) -> list[Part | Skipped]:
    """Return the parts that `read` merges; arguments and errors are those of `read`."""
    files: dict[Path, None] = {}
    parts: list[Part | Skipped] = []
    for path in map(str, paths):
        if is_online(path):
            parts += read_online(path)
            continue
        found = _files(Path(path))
        if not found:
            raise UsageError("RUN", path, WANTED)
        files |= dict.fromkeys(found)
    archives = [file for file in files if file.name.endswith(SUFFIX)]
    parts += [part for archive in archives for part in read_archive(archive)]
    with ThreadPoolExecutor() as pool:  # the reader is a program of its own
        read_each = pool.map(_read_part, (file for file in files if file not in archives))
        parts += [part for part in read_each if part is not None]
    return parts


def _files(path: Path) -> list[Path]:
    if path.is_file() and path.name.endswith((".wandb", SUFFIX)):
        return [path.resolve()]
    # W&B's latest-run is a link to one of the others.
    kinds = ("**/run-*.wandb", f"**/*{SUFFIX}")
    return sorted({file.resolve() for kind in kinds for file in path.glob(kind)})


def _read_part(file: Path) -> Part | Skipped | None:
    """Return the part in a file; None for a report's file, which has figures and no rows."""
    command = [get_core_path(), "leet", "inspect", "--json", "--no-observability"]
    command += ["--run-file", str(file), str(file.parent.parent)]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        lines = (line for line in told.stdout.splitlines() if not _is_of_no_use(line))
        records = [json.loads(line) for line in lines]
    except json.JSONDecodeError as error:
        return Skipped(file, f"W&B's reader printed no JSON: {error}")
    heads = [r["run"] for r in records if r.get("type") == "run"]
    if any(head.get("job_type") == "report" for head in heads):
        return None
    if not heads:
        ended = f"W&B's reader ended with {told.returncode}"  # below 0: killed by a signal
        said = " ".join(told.stderr.split()) or (ended if told.returncode else "")
        # The reader does not always say that a file is cut off: its size does.
        size = file.stat().st_size
        if not said and size > HEADER:
            said = f"no run in its {size} bytes"
        return Skipped(file, f"not a readable record: {said}" if said else EMPTY)
    config: dict[str, Any] = {}
    given = [r["run"] if r["type"] == "run" else r for r in records if r["type"] in GIVES_CONFIG]
    for each in given:
        config |= (each.get("config") or {}).get("update", {})
    # A name that is set after the start is another record of the run.
    named = {key: value for head in heads for key, value in head.items()}
    ends = [r["exit"].get("exit_code", 0) for r in records if r["type"] == "exit"]
    return Part(
        path=file,
        id=heads[0]["run_id"],
        name=named.get("display_name") or heads[0]["run_id"],
        group=named.get("run_group"),
        start=heads[0].get("start_time", ""),
        config=config,
        items=[r["history"]["item"] for r in records if r["type"] == "history"],
        exit_code=ends[-1] if ends else None,
    )


def _is_of_no_use(line: str) -> bool:
    """Tell whether a record repeats a row or describes the machine: two thirds of the bytes."""
    head = line[:64]
    return '"type":"summary"' in head or '"type":"stats"' in head


def _merge(parts: Sequence[Part], unfinished: bool) -> Run | Skipped:
    """Merge parts of one run, oldest first; a later part replaces rows from its first step on."""
    last = parts[-1]
    broken_off = last.exit_code is None or last.exit_code in INTERRUPTED
    if broken_off and not unfinished:
        return Skipped(last.path, "it has not ended, or was interrupted")
    if not broken_off and last.exit_code not in SOUND:
        return Skipped(last.path, f"it ended with exit code {last.exit_code}")
    items: list[dict[str, Any]] = []
    for part in parts:
        own = [item for item in part.items if "epoch" in item and STEP in item]
        if own:
            items = [item for item in items if item[STEP] < own[0][STEP]] + own
    if not items:
        return Skipped(last.path, "no rows with an epoch")
    config: dict[str, Any] = {}
    for part in parts:
        config |= part.config
    rows = pd.DataFrame([dict(_numbers(item)) for item in items])
    histograms: dict[str, list[Histogram]] = {}
    for item in items:
        for key, histogram in _histograms(item):
            histograms.setdefault(key, []).append(histogram)
    code = last.exit_code
    return Run(last.id, last.name, last.group, last.path, config, code, rows, histograms)


def _numbers(item: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for key, value in item.items():
        # W&B's own columns begin with an underscore; those of its objects have a dot.
        if isinstance(value, int | float) and not key.startswith("_") and "." not in key:
            yield key, float(value)


def _histograms(item: Mapping[str, Any]) -> Iterator[tuple[str, Histogram]]:
    for key, value in item.items():
        name = key.removesuffix("._type")
        if name != key and value == "histogram":
            counts, edges = (np.asarray(item[f"{name}.{part}"]) for part in ("values", "bins"))
            yield name, Histogram(item["epoch"], counts, edges)
