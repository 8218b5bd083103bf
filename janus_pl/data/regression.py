"""Linear problems W x = y: drawn from a seed, the toy of Appendix A, or the user's own file."""

from __future__ import annotations

import csv
import math
import zipfile
import zlib
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple, final, get_args

import numpy as np
from lightning.pytorch import LightningDataModule
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from janus_pl.data.loader import BatchSize, check_batch_fits, check_batch_options, is_integer
from janus_pl.errors import UsageError

Floats = NDArray[np.float64]
LinearOrder = Literal["sequential", "shuffle", "with_replacement", "online"]
Init = Literal["zero", "gaussian", "given"]
Given = tuple[Floats, Floats, Floats | None]  # X (d, N), Y (m, N), W0 (m, d)

CHUNK = 4096  # samples of one generator; a sample depends on the seed and its own number alone
SOURCES = '"gaussian", "toy", or an existing .npz or .csv file'
# Spawn keys: they set the streams apart from each other and from those of the epochs' orders.
X_STREAM, Y_STREAM, W0_STREAM, TEACHER_STREAM = range(4)
# Appendix A: its printed gradients, e1 e1^T and e2 e2^T, are 2 (W x_i - y_i) x_i^T for Y = I/2.
TOY: Given = np.eye(3, 2), np.eye(2) / 2, np.array([[1.0, 0.0, 1.0], [0.0, 1.0, -1.0]])


class Problem(NamedTuple):
    """R replicas in float64: inputs x (R, d, N), targets y (R, m, N), the first W w0 (R, m, d)."""

    x: Floats
    y: Floats
    w0: Floats


@final
class LinearProblem(LightningDataModule):
    """X, Y and W0 of a linear regression problem W X = Y, in float64.

    They depend on neither `batch_size` nor `order`, so that GD and SGD share them. Fewer samples
    (`num_train`) are the first ones of more.

    Args:
        source: Where X and Y come from. "gaussian": drawn from the seed, X standard normal. "toy":
            Appendix A, X = (e1, e2) in R^3, W0 as printed, Y = I/2 (the gradients are as printed).
            Else a file: an .npz with X (d, N), Y (m, N) and perhaps W0 (m, d), or a .csv with the
            header x1,...,xd,y1,...,ym and a sample a row.
        num_train: N. Not set: 10, or what the toy or the file holds.
        dim: d, components of x. Not set: 11, or what the toy or the file holds.
        outputs: m, components of y. Not set: 11, or what the toy or the file holds.
        informative: y = A x from so many first components of x, A standard normal. Not set: y is
            standard normal, independent of x.
        empty: So many last components of x carry no data: zero rows of X, so that the null space
            is known.
        init: W0. "zero"; "gaussian": init_scale times standard normal; "given": as the toy or the
            .npz has it. Not set: "given" where there is one, else "gaussian".
        init_scale: Of the Gaussian W0; a number >= 0.
        batch_size: B, from 1 to N, or "full" for gradient descent, whatever the order.
        order: "sequential" (data order, the paper's), "shuffle" (a new permutation every epoch),
            "with_replacement" (N independent draws an epoch), "online" (one pass, every sample
            once, drawn in chunks as they are used, so that N may be 10^7).
        seed: Decides X, Y, W0 and the order of every epoch; an integer >= 0.
        replicas: R problems at once; replica r is the problem of seed + r.

    Raises:
        UsageError: An option is out of its range or contradicts the file, or the file is no good.
    """

    def __init__(
        self,
        source: str = "gaussian",
        num_train: int | None = None,
        dim: int | None = None,
        outputs: int | None = None,
        informative: int | None = None,
        empty: int = 0,
        init: Init | None = None,
        init_scale: float = 0.1,
        batch_size: BatchSize = 1,
        order: LinearOrder = "sequential",
        seed: int = 0,
        replicas: int = 1,
    ) -> None:
        super().__init__()
        self._asked = {"num_train": num_train, "dim": dim, "outputs": outputs}
        for name, value in {**self._asked, "informative": informative}.items():
            _check_integer(name, 1 if value is None else value, 1)
        _check_integer("empty", empty, 0)
        _check_integer("replicas", replicas, 1)
        check_batch_options(batch_size, None, "sequential", seed)
        if order not in get_args(LinearOrder):
            raise UsageError("data.order", order, ", ".join(get_args(LinearOrder)))
        if init not in (None, *get_args(Init)):
            raise UsageError("data.init", init, ", ".join(get_args(Init)))
        if not (isinstance(init_scale, int | float) and 0 <= init_scale < math.inf):
            raise UsageError("data.init_scale", init_scale, "a finite number >= 0")
        if source not in ("gaussian", "toy") and Path(source).suffix not in (".npz", ".csv"):
            raise UsageError("data.source", source, SOURCES)
        self.source, self.seed, self.replicas = source, seed, replicas
        self.informative, self.empty, self.order = informative, empty, order
        self._asked_init, self.init_scale = init, init_scale
        self.batch_size: BatchSize = batch_size
        self._given: Given | None = None
        if source == "gaussian":
            self._settle(None)

    def prepare_data(self) -> None:
        """Read the file, if there is one, to see that it can be used."""
        self.setup()

    def setup(self, stage: str = "fit") -> None:
        """Settle N, d and m, and read the file, if there is one; once, whatever the stage."""
        if self.source != "gaussian" and self._given is None:
            given = TOY if self.source == "toy" else read_problem(self.source)
            self._settle(given)
            self._given = given

    @cached_property
    def problem(self) -> Problem:
        """All samples at once, made when first asked for; after `setup`."""
        return Problem(*self.stream(0, self.num_train), self.w0())

    def w0(self) -> Floats:
        """The W to start from, (R, m, d)."""
        if self.init == "gaussian":
            return self.init_scale * self._normal(W0_STREAM, (self.outputs, self.dim))
        given = self._given[2] if self._given is not None and self.init == "given" else 0.0
        return np.full((self.replicas, self.outputs, self.dim), given)

    def teacher(self) -> Floats:
        """A of y = A x, (R, m, d); zero where y is drawn independently of x, or given."""
        a = np.zeros((self.replicas, self.outputs, self.dim))
        if self.informative is not None:
            shape = self.outputs, self.informative
            a[:, :, : self.informative] = self._normal(TEACHER_STREAM, shape)
        return a

    def stream(self, start: int, stop: int) -> tuple[Floats, Floats]:
        """Samples start to stop - 1 of every replica: x (R, d, n) and y (R, m, n).

        The same, bitwise, however the samples are cut into calls. Memory is that of one call.
        """
        if self._given is not None:
            given_x, given_y = (a[None, :, start:stop] for a in self._given[:2])
            return given_x.repeat(self.replicas, axis=0), given_y.repeat(self.replicas, axis=0)
        # Held a sample a row, as they are drawn and as compiled code reads them.
        x = np.zeros((self.replicas, stop - start, self.dim))
        y = np.zeros((self.replicas, stop - start, self.outputs))
        teacher = self.teacher()
        for r in range(self.replicas):
            _draw((self.seed + r, X_STREAM), start, x[r, :, : self.dim - self.empty])
            if self.informative is None:
                _draw((self.seed + r, Y_STREAM), start, y[r])
            # No matrix product: its rounding would depend on the number of samples.
            for k in range(self.informative or 0):
                y[r] += x[r, :, k, None] * teacher[r, :, k]
        return x.swapaxes(1, 2), y.swapaxes(1, 2)

    def indices(self, epoch: int) -> NDArray[np.int64]:
        """The order of an epoch, counted from 0, (R, N), cut into minibatches in turn.

        It depends on the seed and the epoch alone. Data order where a batch is the whole set.
        """
        n = self.num_train
        if self.in_data_order:
            return np.tile(np.arange(n), (self.replicas, 1))
        rngs = [np.random.default_rng((self.seed + r, epoch)) for r in range(self.replicas)]
        again = self.order == "with_replacement"
        return np.stack([rng.integers(n, size=n) if again else rng.permutation(n) for rng in rngs])

    def orders(self, first: int, last: int) -> NDArray[np.int64] | None:
        """The orders of epochs first to last - 1, (R, E, N); None where each is data order."""
        if self.in_data_order:
            return None
        return np.stack([self.indices(epoch) for epoch in range(first, last)], axis=1)

    @property
    def whole(self) -> bool:
        """Whether a minibatch is the whole set, every sample once: gradient descent."""
        every = self.num_train if self.order != "with_replacement" else None
        return self.batch_size in ("full", every)

    @property
    def in_data_order(self) -> bool:
        """Whether every epoch visits the samples as they are stored."""
        return self.whole or self.order in ("sequential", "online")

    @property
    def steps_per_epoch(self) -> int:
        """ceil(N/B)."""
        return 1 if self.batch_size == "full" else math.ceil(self.num_train / self.batch_size)

    def _settle(self, given: Given | None) -> None:
        """Fix N, d, m and the kind of W0."""
        held = {"num_train": 10, "dim": 11, "outputs": 11}
        if given is not None:
            held = {"num_train": given[0].shape[1], "dim": len(given[0]), "outputs": len(given[1])}
            fixed = {**held, "informative": None, "empty": 0}
            asked = {**self._asked, "informative": self.informative, "empty": self.empty}
            for name, value in asked.items():
                if value not in (None, fixed[name]):
                    allowed = f"{fixed[name]}, or not set: {self.source!r} decides it"
                    raise UsageError(f"data.{name}", value, allowed)
        self.num_train, self.dim, self.outputs = (self._asked[k] or v for k, v in held.items())
        has_w0 = given is not None and given[2] is not None
        self.init: Init = self._asked_init or ("given" if has_w0 else "gaussian")
        if self.init == "given" and not has_w0:
            raise UsageError("data.init", "given", f"zero, gaussian ({self.source!r} holds no W0)")
        full = self.dim - self.empty
        if full < 1:
            raise UsageError("data.empty", self.empty, f"from 0 to {self.dim - 1}, below data.dim")
        if self.informative is not None and self.informative > full:
            allowed = f"from 1 to {full}, data.dim less data.empty"
            raise UsageError("data.informative", self.informative, allowed)
        check_batch_fits(self.batch_size, None, self.num_train)

    def _normal(self, stream: int, shape: tuple[int, int]) -> Floats:
        rngs = (_generator(self.seed + r, stream) for r in range(self.replicas))
        return np.stack([rng.standard_normal(shape) for rng in rngs])


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


def _real(name: str, array: Floats) -> Floats:
    if array.ndim != 2 or array.size == 0 or array.dtype.kind not in "fiu":
        kind = f"an array of shape {array.shape} and type {array.dtype}"
        raise ValueError(f"{name} is {kind}, no matrix of real numbers")
    array = array.astype(np.float64)
    for row, column in np.argwhere(~np.isfinite(array)):
        raise ValueError(f"{name} has {array[row, column]} in row {row + 1}, column {column + 1}")
    return array


def _draw(key: tuple[int, int], start: int, out: Floats) -> None:
    """Fill out (n, width) with the standard normal rows start to start + n - 1 of a stream."""
    stop, width = start + len(out), out.shape[1]
    for chunk in range(start // CHUNK, math.ceil(stop / CHUNK)):
        zero = chunk * CHUNK
        first, last = max(start, zero), min(stop, zero + CHUNK)
        rows = _generator(*key, chunk).standard_normal((last - zero, width))
        out[first - start : last - start] = rows[first - zero :]


def _generator(seed: int, *stream: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=stream))


def _check_integer(name: str, value: object, least: int) -> None:
    if not is_integer(value, at_least=least):
        raise UsageError(f"data.{name}", value, f"an integer >= {least}")
