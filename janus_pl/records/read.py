"""Run records, read back: the config, the rows and the end of each run.

A run's folder is read first; W&B's file is its copy, and the record of runs without such a folder.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from janus_pl.errors import SOUND, UsageError
from janus_pl.records.archive import read_archive
from janus_pl.records.checked import histogram_of, numbers_in
from janus_pl.records.find import COPY, copies_in, find
from janus_pl.records.folder import Folder
from janus_pl.records.online import WANTED, is_online, read_online
from janus_pl.records.parts import (
    Part,
    Skipped,
    in_turn,
    joined,
    joined_config,
    joined_spectra,
)
from janus_pl.records.run import Histogram, Run
from janus_pl.records.spectra import looks_of
from janus_pl.records.wandb_file import EMPTY, read_wandb_file
from janus_pl.run.lines import FILE
from janus_pl.run.text import all_printable, printable


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
    with without_collector():
        return _read(paths, unfinished)


def _read(paths: Iterable[str | Path], unfinished: bool) -> Records:
    parts = read_parts(paths)
    by_id: dict[str, list[Part]] = {}
    for part in parts:
        if isinstance(part, Part):
            by_id.setdefault(part.id, []).append(part)
    merged = [_merge(in_turn(_first_hand(same)), unfinished) for same in by_id.values()]
    runs = sorted((r for r in merged if isinstance(r, Run)), key=lambda run: (run.name, run.id))
    skipped = [r for r in [*parts, *merged] if isinstance(r, Skipped)]
    return Records(runs, [r for r in skipped if not _is_redone(r, by_id)])


@contextmanager
def without_collector() -> Iterator[None]:
    """Keep Python's collector of cycles away: it would go through all rows again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def told(records: Records) -> list[str]:
    """Return a line for each run that is left out, or whose record is damaged."""
    left_out = [f"left out: {path}: {reason}" for path, reason in records.skipped]
    damaged = [f"damaged: {r.name} ({r.id}): {'; '.join(r.notes)}" for r in records.runs if r.notes]
    return [printable(line) for line in [*left_out, *damaged]]


def _first_hand(parts: Sequence[Part]) -> Sequence[Part]:
    """Return the parts of a run without W&B's copies, if its folder is among them."""
    if all(part.path.name != FILE for part in parts):
        return parts
    return [part for part in parts if not part.path.name.endswith(COPY)]


def _is_redone(part: Skipped, by_id: Mapping[str, Sequence[Part]]) -> bool:
    """Tell whether a run was killed before W&B's first record of it, and has another part.

    Offline, a part has all rows from the first on, so nothing is missing. Online, it has only its
    own rows, and some may be missing.
    """
    offline = part.path.parent.name.startswith("offline-run-")
    return offline and part.reason == EMPTY and part.path.stem.removeprefix("run-") in by_id


def read_parts(paths: Iterable[str | Path]) -> list[Part | Skipped]:
    """Return the parts that `read` merges; arguments and errors are those of `read`."""
    parts: list[Part | Skipped] = []
    places: list[Path] = []
    for path in map(str, paths):
        if is_online(path):
            parts += read_online(path)
            continue
        if not path.strip() or not find([Path(path)]):  # an empty one would be all below here
            raise UsageError("RUN", path, WANTED)
        places.append(Path(path))
    found = find(places)
    folders = [Folder(path) for path in found.folders]
    inside = {f.path: copies_in(f.path) if f.needs_copy else [] for f in folders}
    files = [*found.copies, *(file for held in inside.values() for file in held)]
    with ThreadPoolExecutor() as pool:  # W&B's reader is a program of its own
        copies = dict(zip(files, pool.map(read_wandb_file, files), strict=True))
    for folder in folders:
        own = (copies[file] for file in inside[folder.path])
        parts.append(folder.part(part for part in own if part is not None))
    parts += [part for file in found.copies if (part := copies[file]) is not None]
    damaged: list[UsageError] = []
    with ThreadPoolExecutor() as pool:  # one unpacks while another is parsed
        for archive, held in zip(found.archives, pool.map(_archive, found.archives), strict=True):
            if isinstance(held, UsageError):
                parts.append(Skipped(archive, f"not {held.allowed}"))
                damaged.append(held)
            else:
                parts += held
    if damaged and not any(isinstance(part, Part) for part in parts):
        raise damaged[0]
    return parts


def _archive(path: Path) -> list[Part] | UsageError:
    try:
        return read_archive(path)
    except UsageError as error:
        return error


def _merge(parts: Sequence[Part], unfinished: bool) -> Run | Skipped:
    """Merge parts of one run, oldest first."""
    last = parts[-1]
    if last.broken_off and not unfinished:
        return Skipped(last.path, "it has not ended, or was interrupted")
    if not last.broken_off and last.exit_code not in SOUND:
        return Skipped(last.path, f"it ended with exit code {last.exit_code}")
    items = joined(parts)
    if not items:
        return Skipped(last.path, "no rows with an epoch")
    rows = pd.DataFrame([numbers_in(item) for item in items])
    rows.columns = pd.Index([printable(key) for key in rows])
    return Run(
        id=printable(last.id),
        name=printable(last.name),
        group=None if last.group is None else printable(last.group),
        path=last.path,
        config=all_printable(joined_config(parts)),
        exit_code=last.exit_code,
        rows=rows,
        histograms=_Histograms(items),
        notes=tuple(dict.fromkeys(printable(note) for part in parts for note in part.notes)),
        spectra=[
            look._replace(sigma={printable(k): values for k, values in look.sigma.items()})
            for look in looks_of(joined_spectra(parts))
        ],
    )


class _Histograms(Mapping[str, Sequence[Histogram]]):
    """The histograms of a run's rows, made when one is asked for; `verify` needs none."""

    def __init__(self, items: Sequence[Mapping[str, Any]]) -> None:
        self._items = items

    @cached_property
    def _made(self) -> dict[str, list[Histogram]]:
        made: dict[str, list[Histogram]] = {}
        for item in self._items:
            for key, histogram in _histograms(item):
                made.setdefault(printable(key), []).append(histogram)
        self._items = ()
        return made

    def __getitem__(self, key: str) -> Sequence[Histogram]:
        return self._made[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)


def _histograms(item: Mapping[str, Any]) -> Iterator[tuple[str, Histogram]]:
    for key, value in item.items():
        if value == "histogram" and key.endswith("._type"):
            name = key.removesuffix("._type")
            counts, edges = (item.get(f"{name}.{part}") for part in ("values", "bins"))
            if (histogram := histogram_of(item["epoch"], counts, edges)) is not None:
                yield name, histogram
