"""X and Y of a table: a .csv file with a sample a row."""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from janus_pl.errors import is_integer

DELIMITERS = {",": "','", ";": "';'", "\t": "tabs"}
NUMBERED = re.compile(r"([xy])(\d+)")
Names = Sequence[str] | None


def as_names(given: Sequence[str | int] | None) -> Names:
    """Return names of columns; an integer is a name, and anything else is for others to refuse."""
    if not isinstance(given, list | tuple):
        return given  # type: ignore[return-value]
    return [str(each) if is_integer(each) else each for each in given]


class Table:
    """A table with named columns.

    Attributes:
        names: The names of the columns.
        rows: The cells as text.
        delimiter: What separates the cells.
    """

    def __init__(self, path: Path) -> None:
        with open(path, newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            counts = {delimiter: first.count(delimiter) for delimiter in DELIMITERS}
            self.delimiter = max(counts, key=lambda delimiter: counts[delimiter])
            file.seek(0)
            rows = [row for row in csv.reader(file, delimiter=self.delimiter) if row]
        header, *self.rows = rows or [[]]
        self.names = [name.strip() for name in header]
        twice = [name for name, count in Counter(self.names).items() if count > 1]
        if twice:
            raise ValueError(f"its header has {twice[0]!r} twice")

    def columns(self, x: Names, y: Names) -> tuple[list[str], list[str]]:
        """Return the names of the columns of x and of y.

        Args:
            x: Those of x; None for x1, ..., xd (or x), or for all but those of y if y is given.
            y: Those of y; None for y1, ..., ym (or y).

        Raises:
            ValueError: There are no such columns.
        """
        ys = self._named("y") if y is None else [*y]
        if x is not None:
            xs = [*x]
        else:
            xs = self._named("x") if y is None else [name for name in self.names if name not in ys]
        missing = [name for name in xs + ys if name not in self.names]
        if missing or not xs or not ys:
            wanted = "x1,...,xd,y1,...,ym (or y), nor are data.x_columns and data.y_columns its own"
            lacks = f": {', '.join(missing)} missing" if missing else ""
            raise ValueError(f"its header {','.join(self.names)[:200]!r} is not {wanted}{lacks}")
        return xs, ys

    def numbers(self, names: Sequence[str], most: float) -> NDArray[np.float64]:
        """Return columns as an array (number of names, number of rows).

        Raises:
            ValueError: A row has too few or too many cells, or a cell is no number up to `most`.
        """
        places = [self.names.index(name) for name in names]
        table = np.full((len(names), len(self.rows)), np.nan)
        for i, row in enumerate(self.rows):
            if len(row) != len(self.names):
                raise ValueError(f"row {i + 1} has {len(row)} values, not {len(self.names)}")
            for k, j in enumerate(places):
                with suppress(ValueError):
                    table[k, i] = float(row[j])
                if not abs(table[k, i]) <= most:
                    finite = math.isfinite(table[k, i])
                    limit = f"no number up to {most}" if finite else "no finite number"
                    raise ValueError(f"row {i + 1}, column {names[k]} is {row[j][:50]!r}, {limit}")
        return table

    def _named(self, letter: str) -> list[str]:
        """Return x1, ..., xd or y1, ..., ym up to the last that the header has; or x or y alone."""
        found = [match for name in self.names if (match := NUMBERED.fullmatch(name))]
        numbers = [int(match[2]) for match in found if match[1] == letter]
        if not numbers and letter in self.names:
            return [letter]
        last = min(max(numbers, default=0), len(self.names))  # beyond, one is missing before
        return [f"{letter}{k + 1}" for k in range(last)]
