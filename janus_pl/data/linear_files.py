"""Linear problems that are given, not drawn: the user's own .npz or .csv, or the toy."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from janus_pl.data.boundary import refused
from janus_pl.data.csv_files import DELIMITERS, Names, Table
from janus_pl.data.npz_files import read_npz
from janus_pl.errors import UsageError

Floats = NDArray[np.float64]
Layout = Literal["features_first", "samples_first"]

SOURCES = '"gaussian", "toy", or an existing .npz or .csv file'
SUFFIXES = (".npz", ".csv")
MOST = 1e100  # whose square, and the sum of many squares, is still a number
LEAST = 1e-100  # the same at the lower end
SHOWN = 10  # names in a line


class Given(NamedTuple):
    """A problem that is given.

    Attributes:
        x: X (d, N).
        y: Y (m, N).
        w0: W0 (m, d), if there is one.
        told: What was understood of a file, in a few words.
    """

    x: Floats
    y: Floats
    w0: Floats | None
    told: str = ""

    @property
    def sizes(self) -> dict[str, int]:
        """N, d and m by their options."""
        return {"num_train": self.x.shape[1], "dim": len(self.x), "outputs": len(self.y)}


# Appendix A: its printed gradients, e1 e1^T and e2 e2^T, are 2 (W x_i - y_i) x_i^T for Y = I/2.
TOY = Given(np.eye(3, 2), np.eye(2) / 2, np.array([[1.0, 0.0, 1.0], [0.0, 1.0, -1.0]]))


class FileOptions(NamedTuple):
    """The options of a file: the layout of an .npz, the columns of a .csv."""

    layout: Layout | None = None
    x_columns: Names = None
    y_columns: Names = None


UNSET = FileOptions()


def check_options(source: str, options: FileOptions) -> None:
    """Refuse options that the source has no use for, or that are none.

    Raises:
        UsageError: An option is out of its range, or would be ignored.
    """
    kind = Path(source).suffix.lower()
    for name, value in options._asdict().items():
        suffix = ".npz" if name == "layout" else ".csv"
        if value is not None and kind != suffix:
            raise UsageError(f"data.{name}", value, f"not set: it is of {suffix} files")
    if options.layout not in (None, *get_args(Layout)):
        raise UsageError("data.layout", options.layout, ", ".join(get_args(Layout)))
    used: list[str] = []
    for name, names in (("x_columns", options.x_columns), ("y_columns", options.y_columns)):
        listed = [*names] if isinstance(names, list | tuple) else []
        used += listed
        good = all(isinstance(each, str) for each in used) and len({*used}) == len(used)
        if names is not None and not (good and listed):
            allowed = "different names of columns, each in one of x_columns and y_columns"
            raise UsageError(f"data.{name}", names, allowed)


def read_problem(path: str, options: FileOptions = UNSET) -> Given:
    """Read and check the X, Y and W0 of an .npz, or the X and Y of a .csv.

    Raises:
        UsageError: The file cannot be used, or can be read in two ways.
    """
    read = _read_csv if path.lower().endswith(".csv") else _read_npz
    with refused("data.source", path, SOURCES):
        file = Path(os.path.expanduser(path))
        if not stat.S_ISREG(os.stat(file).st_mode):
            raise IsADirectoryError("a directory") if file.is_dir() else OSError("no regular file")
        given = read(file, options)
        for name, array in (("X", given.x), ("W0", given.w0), *_targets(given.y)):
            largest = 0.0 if array is None else np.abs(array).max()
            if 0 < largest < LEAST:
                raise ValueError(f"{name} has no entry above {largest:.3g}, and squares vanish")
        return given


def told(source: str, given: Given, asked: Mapping[str, int | None]) -> str:
    """Return in one line what was understood of a file, and the sizes that do not count."""
    sizes = given.sizes
    others = [f"{name} {n}" for name, n in asked.items() if n not in (None, sizes[name])]
    decides = f"; it decides, not {', '.join(others)}" if others else ""
    return f"data.source: {source!r} holds {given.told}{decides}"


def check_asked(source: str, given: Given, asked: Mapping[str, int | None]) -> None:
    """Refuse options that ask for other than what is given.

    Raises:
        UsageError: The value of such an option, with the value that it has to have.
    """
    fixed = {**given.sizes, "informative": None, "empty": 0}
    for name, value in asked.items():
        if value not in (None, fixed[name]):
            allowed = f"{fixed[name]}, or not set: {source!r} decides it"
            raise UsageError(f"data.{name}", value, allowed)


def _targets(y: Floats) -> list[tuple[str, Floats]]:
    """Return the targets of the sample that is smallest and not zero, if there is one."""
    largest = np.abs(y).max(0)
    smallest = np.where(largest > 0, largest, np.inf).argmin()
    return [(f"Y of sample {smallest + 1}", y[:, smallest])]


def _read_npz(path: Path, options: FileOptions) -> Given:
    arrays, ignored = read_npz(path)
    x, y = _real("X", arrays["X"]), _real("Y", arrays["Y"], flat=True)
    w0 = _real("W0", arrays["W0"], flat=True) if "W0" in arrays else None
    layout = options.layout or _noted(arrays.get("layout"))
    given = {each: _arranged(x, y, w0, each) for each in get_args(Layout)}
    fits = [each for each in given if given[each] is not None and layout in (None, each)]
    if not fits:
        raise ValueError(_misfit(x, y, w0, layout))
    if len(fits) == 2 and not _equal(*given.values()):
        shapes = f"X is {x.shape} and Y is {y.shape}"
        allowed = f"features_first (X is (d, N)) or samples_first (X is (N, d)): {shapes} fit both"
        raise UsageError("data.layout", None, allowed)
    found = given[fits[0]]
    assert found is not None
    return found._replace(told=_told(found, [f"X as {fits[0]}"], ignored))


def _read_csv(path: Path, options: FileOptions) -> Given:
    table = Table(path)
    names = table.columns(options.x_columns, options.y_columns)
    x, y = (_real(k, table.numbers(c, MOST)) for k, c in zip(("X", "Y"), names, strict=True))
    told = [f"x is {_some(names[0])}", f"y is {_some(names[1])}"]
    told += [f"separated by {DELIMITERS[table.delimiter]}"] * (table.delimiter != ",")
    ignored = [name for name in table.names if name not in names[0] + names[1]]
    given = Given(x, y, None)
    return given._replace(told=_told(given, told, ignored))


def _told(given: Given, how: list[str], ignored: Sequence[str]) -> str:
    n, d, m = given.sizes.values()
    parts = [f"N = {n}, d = {d}, m = {m}", *how, "W0 given" if given.w0 is not None else "no W0"]
    parts += [f"ignored: {_some(ignored)}"] * bool(ignored)
    return ", ".join(parts)


def _some(names: Sequence[str]) -> str:
    rest = len(names) - SHOWN
    return " ".join(names[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _arranged(x: Floats, y: Floats, w0: Floats | None, layout: Layout) -> Given | None:
    """Return X (d, N), Y (m, N) and W0 (m, d) of arrays in a layout; None if they do not fit."""
    if layout == "samples_first":
        x, y = x.T, y.T
    y = np.atleast_2d(y)
    w0 = None if w0 is None else np.atleast_2d(w0)
    fits = x.shape[1] == y.shape[1] and (w0 is None or w0.shape == (len(y), len(x)))
    return Given(x, y, w0) if fits else None


def _misfit(x: Floats, y: Floats, w0: Floats | None, layout: Layout | None) -> str:
    layouts = get_args(Layout) if layout is None else (layout,)
    for each in layouts:
        if w0 is not None and (given := _arranged(x, y, None, each)) is not None:
            return f"W0 is {w0.shape}, but X and Y make it (m, d) = {len(given.y), len(given.x)}"
    shapes = f"X (d, N) is {x.shape} and Y (m, N) is {y.shape}: N differs"
    return f"{shapes}, read as {' or as '.join(layouts)}"


def _equal(a: Given | None, b: Given | None) -> bool:
    """Tell whether two readings of a file are one problem."""
    if a is None or b is None:
        return False
    return all(
        np.array_equal(np.asarray(p), np.asarray(q)) for p, q in zip(a[:3], b[:3], strict=True)
    )


def _noted(array: NDArray[Any] | None) -> Layout | None:
    """Return the layout that a file notes itself, as `problem.npz` of a run does."""
    noted = None if array is None else array.tolist()
    if noted not in (None, *get_args(Layout)):
        raise ValueError(f"its layout is {noted!r:.50}, neither {' nor '.join(get_args(Layout))}")
    return noted


def _real(name: str, given: ArrayLike, flat: bool = False) -> Floats:
    """Return a matrix, or with `flat` a vector, of numbers up to MOST."""
    array = np.asarray(given)
    good_shape = array.ndim == 2 or (flat and array.ndim == 1)
    if not good_shape or array.size == 0 or array.dtype.kind not in "fiu":
        kind = f"an array of shape {array.shape} and type {array.dtype}"
        raise ValueError(f"{name} is {kind}, no matrix of real numbers")
    with np.errstate(over="ignore"):
        array = array.astype(np.float64)
    for place in np.argwhere(~(np.abs(array) <= MOST)):
        axes = ("row", "column")[-array.ndim :]
        where = ", ".join(f"{axis} {k + 1}" for axis, k in zip(axes, place, strict=True))
        raise ValueError(f"{name} has {array[tuple(place)]} in {where}, not a number up to {MOST}")
    return array
