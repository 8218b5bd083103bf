"""Records of runs in one compressed file: to keep, to hand on, and to read like their folders.

One line of JSON for each `janus_pl.records.parts.Part`, as W&B recorded it, and with the singular
values that its folder has. Facts about the machine
stay out: paths lose their folders, and of W&B's own columns only the run's time is kept.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from janus_pl.errors import UsageError
from janus_pl.records.checked import part_of
from janus_pl.records.parts import Part
from janus_pl.run.files import write_atomically

SUFFIX = ".jsonl.xz"
TIME = "_runtime"  # seconds since the start; W&B alone records it
# Records shrink to a tenth, seldom to a hundredth: what grows more was made to fill memories.
RATIO, SMALL = 300, 2**26


def write_archive(path: Path, parts: Iterable[Part]) -> None:
    """Write records to a file, in the order of their ids; equal records make equal bytes.

    Args:
        path: The file, named `*.jsonl.xz`; an older file is replaced in one step.
        parts: Parts from `janus_pl.records.read.read_parts`, without the skipped ones.
    """
    ordered = sorted(parts, key=lambda part: (part.id, part.start))
    text = "".join(json.dumps(_portable(part), sort_keys=True) + "\n" for part in ordered)
    packed = lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME)
    write_atomically(path, lambda file: file.write(packed))


def read_archive(path: Path) -> list[Part]:
    """Return the records in a file that `write_archive` has written.

    Raises:
        UsageError: The file is damaged, is not such a file, or unpacks to more than records do.
    """
    try:
        return [part_of(path, json.loads(line)) for line in _lines(path)]
    except (OSError, EOFError, lzma.LZMAError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        allowed = f"a file of recorded runs, unharmed ({reason})"
        raise UsageError("RUN", str(path), allowed) from error


def _lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file, as far as their size is one that records may have."""
    left = limit = max(SMALL, RATIO * path.stat().st_size)
    with lzma.open(path) as file:
        while line := file.readline(left + 1):
            if (left := left - len(line)) < 0:
                raise ValueError(f"more than {limit} bytes in it, which no record has")
            yield line


def _portable(part: Part) -> dict[str, Any]:
    items = [{k: v for k, v in item.items() if _is_of_the_run(k, item)} for item in part.items]
    config = _without_folders({k: v for k, v in part.config.items() if not k.startswith("_")})
    kept = part._replace(items=items, config=config)._asdict()
    del kept["path"]
    for field in ("notes", "spectra"):
        if not kept[field]:
            del kept[field]
    return kept


def _is_of_the_run(key: str, item: Mapping[str, Any]) -> bool:
    """Tell whether a key is of a number or a histogram; tables and pictures are own files."""
    name, dot, _ = key.partition(".")
    return item.get(f"{name}._type") == "histogram" if dot else key == TIME or key[0] != "_"


def _without_folders(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_folders(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_folders(each) for each in value]
    if isinstance(value, str) and PurePath(value).is_absolute():
        return PurePath(value).name
    return value
