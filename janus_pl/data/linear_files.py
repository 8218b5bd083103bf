"""Linear problems that are given, not drawn: the user's own .npz or .csv, or the toy."""

from __future__ import annotations

import csv
import math
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import ArrayLike, NDArray

from janus_pl.errors import UsageError

Floats = NDArray[np.float64]
Given = tuple[Floats, Floats, Floats | None]  # X (d, N), Y (m, N), W0 (m, d)

SOURCES = '"gaussian", "toy", or an existing .npz or .csv file'
MOST = 1e100  # whose square, and the sum of many squares, is still a number
# Appendix A: its printed gradients, e1 e1^T and e2 e2^T, are 2 (W x_i - y_i) x_i^T for Y = I/2.
TOY: Given = np.eye(3, 2), np.eye(2) / 2, np.array([[1.0, 0.0, 1.0], [0.0, 1.0, -1.0]])


def read_problem(path: str) -> Given:
    """Read and check the X, Y and W0 of an .npz, or the X and Y of a .csv; or a UsageError."""
    read = _read_csv if path.endswith(".csv") else _read_npz
    try:
        x, y, w0 = read(Path(path).expanduser())
        x, y = _real("X", x), _real("Y", y)
        w0 = None if w0 is None else _real("W0", w0)
        if x.shape[1] != y.shape[1]:
            raise ValueError(f"X (d, N) is {x.shape} and Y (m, N) is {y.shape}: N differs")
        if w0 is not None and w0.shape != (len(y), len(x)):
            raise ValueError(f"W0 is {w0.shape}, but X and Y make it (m, d) = {len(y), len(x)}")
        return x, y, w0
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, csv.Error) as error:
        allowed = f"{SOURCES} ({' '.join(str(error).split())})"
        raise UsageError("data.source", path, allowed) from error


def check_asked(source: str, given: Given, asked: dict[str, int | None]) -> dict[str, int]:
    """The sizes of what is given; or a UsageError for an option that asks for anything else."""
    sizes = {"num_train": given[0].shape[1], "dim": len(given[0]), "outputs": len(given[1])}
    fixed = {**sizes, "informative": None, "empty": 0}
    for name, value in asked.items():
        if value not in (None, fixed[name]):
            allowed = f"{fixed[name]}, or not set: {source!r} decides it"
            raise UsageError(f"data.{name}", value, allowed)
    return sizes


def _read_npz(path: Path) -> Given:
    with open(path, "rb") as file, NpzFile(file) as held:
        for name in ("X", "Y"):
            if name not in held:
                raise ValueError(f"it holds no {name}, but {', '.join(held) or 'nothing'}")
        return held["X"], held["Y"], held.get("W0")


def _read_csv(path: Path) -> Given:
    with open(path, newline="", encoding="utf-8-sig") as file:
        header, *rows = [row for row in csv.reader(file) if row] or [[]]
    d = sum(name.strip().startswith("x") for name in header)
    names = [f"x{k + 1}" for k in range(d)] + [f"y{k + 1}" for k in range(len(header) - d)]
    if not 0 < d < len(header) or [name.strip() for name in header] != names:
        raise ValueError("its header is not x1,...,xd,y1,...,ym")
    table = np.full((len(rows), len(names)), np.nan)
    for i, row in enumerate(rows):
        if len(row) != len(names):
            raise ValueError(f"row {i + 1} has {len(row)} values, not {len(names)}")
        for j, cell in enumerate(row):
            with suppress(ValueError):
                table[i, j] = float(cell)
            if not math.isfinite(table[i, j]):
                raise ValueError(f"row {i + 1}, column {names[j]} is {cell!r}, no finite number")
    return table[:, :d].T, table[:, d:].T, None


def _real(name: str, given: ArrayLike) -> Floats:
    array = np.asarray(given)
    if array.ndim != 2 or array.size == 0 or array.dtype.kind not in "fiu":
        kind = f"an array of shape {array.shape} and type {array.dtype}"
        raise ValueError(f"{name} is {kind}, no matrix of real numbers")
    array = array.astype(np.float64)
    for row, column in np.argwhere(~(np.abs(array) <= MOST)):
        where = f"in row {row + 1}, column {column + 1}"
        raise ValueError(f"{name} has {array[row, column]} {where}, not a number up to {MOST}")
    return array
