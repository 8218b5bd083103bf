"""The lines of `rows.jsonl`: one row each, with a seal that shows damage, loss and disorder.

The lines of `spectra.jsonl`, one look each, have the same seal.

A line is a JSON object with the keys of the row and, as its last key, the seal: the number of the
line, counted from 0, and the CRC-32 of all bytes of the line before it. Lines of old runs have no
seal; they are numbered by their place.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

FILE = "rows.jsonl"
SPECTRA, SIGMA = "spectra.jsonl", "sigma"  # the file, and its key of the values by layer
SEAL = "_seal"
ENDING = 10  # bytes behind those that are summed: the sum, a quotation mark, a brace


class Lines(NamedTuple):
    """What the lines of a file hold.

    Attributes:
        rows: The sound rows by number, in the order of the numbers.
        sealed: Whether the lines have seals.
        damaged: How many lines cannot be read, or differ from their seal.
        doubled: The numbers of rows that are there more than once; the first one is taken.
        in_order: Whether the numbers only grow.
    """

    rows: dict[int, dict[str, Any]]
    sealed: bool = False
    damaged: int = 0
    doubled: tuple[int, ...] = ()
    in_order: bool = True

    def missing(self, count: int | None = None) -> list[int]:
        """Return the numbers of rows that are not there, of `count` or up to the last one."""
        end = max(self.rows, default=-1) + 1 if count is None else count
        return [number for number in range(end) if number not in self.rows]


def seal(plain: Mapping[str, Any], number: int) -> str:
    """Return a row in plain values as a sealed line, without its end.

    >>> seal({"epoch": 0, "rho": 0.5}, 7)
    '{"epoch": 0, "rho": 0.5, "_seal": "7:b214b8cf"}'
    """
    text = json.dumps(plain)[:-1]
    head = f'{text}{", " if plain else ""}"{SEAL}": "{number}:'
    return f'{head}{crc32(head.encode()):08x}"}}'


def parse(content: bytes) -> Lines:
    """Return what the lines of a file hold; a line without its end may be cut, and then is damaged.

    If any line has a seal, lines without one are damaged: a file that is continued is sealed anew.
    """
    pieces = content.split(b"\n")
    if not pieces[-1]:
        pieces.pop()
    found = [_row(piece) for piece in pieces]
    sealed = any(number is not None for number, _ in found)
    rows: dict[int, dict[str, Any]] = {}
    doubled, in_order, damaged, last = [], True, 0, -1
    for place, (number, row) in enumerate(found):
        at = number if sealed else place
        if row is None or at is None:
            damaged += 1
        elif at in rows:
            doubled.append(at)
        else:
            in_order, last = in_order and at > last, at
            rows[at] = row
    ordered = {number: rows[number] for number in sorted(rows)}
    return Lines(ordered, sealed, damaged, tuple(doubled), in_order)


def ranges(numbers: Sequence[float], most: int = 8) -> str:
    """Return ascending numbers in few words.

    >>> ranges([3, 4, 5, 9])
    '3 to 5, 9'
    """
    groups: list[list[float]] = []
    for number in numbers:
        if groups and number == groups[-1][-1] + 1:
            groups[-1].append(number)
        else:
            groups.append([number])
    said = [f"{g[0]:g}" if len(g) == 1 else f"{g[0]:g} to {g[-1]:g}" for g in groups]
    return ", ".join(said[:most]) + (f" and {len(said) - most} more" if len(said) > most else "")


def count_in(folder: Path, file: str = FILE) -> int | None:
    """Return how many rows were written to a run's folder, by the seal of the last one.

    None if there is no row, or the last line has no sound seal.
    """
    try:
        content = (folder / file).read_bytes()
    except OSError:
        return None
    number, _ = _row(content.removesuffix(b"\n").rpartition(b"\n")[2])
    return None if number is None else number + 1


def _row(line: bytes) -> tuple[int | None, dict[str, Any] | None]:
    """Return the number and the row of a line: no number without a seal, no row if it is damaged.

    Files come from elsewhere: a line may be of any kind, and nested without end.
    """
    try:
        row = json.loads(line)
        if not isinstance(row, dict):
            return None, None
        if SEAL not in row:
            return None, row
        number = row.pop(SEAL).partition(":")[0]
        sound = line[-ENDING:] == f'{crc32(line[:-ENDING]):08x}"}}'.encode()
        return (int(number), row) if sound and int(number) >= 0 else (None, None)
    except (ValueError, AttributeError, RecursionError):
        return None, None
