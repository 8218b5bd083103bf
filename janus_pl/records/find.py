"""The records at or below a path: folders of runs, W&B's files, files of recorded runs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from janus_pl.records.archive import SUFFIX
from janus_pl.records.folder import is_run_folder
from janus_pl.run.folder import OUTCOME
from janus_pl.run.lines import FILE

COPY = ".wandb"


class Found(NamedTuple):
    """Records, each once.

    Attributes:
        folders: Folders of runs.
        copies: W&B's files that are in none of them.
        archives: Files of recorded runs.
    """

    folders: list[Path]
    copies: list[Path]
    archives: list[Path]

    def __bool__(self) -> bool:
        return any(map(len, self))


def copies_in(folder: Path) -> list[Path]:
    """Return W&B's files in the folder of a run."""
    return sorted({file.resolve() for file in folder.glob(f"wandb/*/run-*{COPY}")})


def find(paths: Iterable[Path]) -> Found:
    """Return the records at or below some paths; links to folders are followed."""
    files = sorted({file.resolve() for path in paths for file in _files(path)})
    copies = [file for file in files if file.name.endswith(COPY)]
    archives = [file for file in files if file.name.endswith(SUFFIX)]
    places = {file.parent for file in files if file not in copies and file not in archives}
    # W&B's file lies in RUN/wandb/offline-run-.../
    places |= {file.parents[2] for file in copies if len(file.parents) > 2}
    folders = sorted(place for place in places if is_run_folder(place))
    inside = {file for folder in folders for file in copies_in(folder)}
    return Found(folders, [file for file in copies if file not in inside], archives)


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        if path.name == FILE or path.name.endswith((COPY, SUFFIX)):
            yield path
        return
    seen = set()
    for folder, inside, names in os.walk(path, followlinks=True):
        here = os.path.realpath(folder)
        if here in seen:  # a link to a folder above, or W&B's latest-run
            inside.clear()
            continue
        seen.add(here)
        for name in names:
            of_wandb = name.startswith("run-") and name.endswith(COPY)
            if of_wandb or name.endswith(SUFFIX) or name in (FILE, OUTCOME):
                yield Path(folder, name)
