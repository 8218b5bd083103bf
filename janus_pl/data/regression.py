"""Linear problems W x = y: drawn from a seed, the toy of Appendix A, or the user's own file."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, NamedTuple, final

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info
from numpy.typing import NDArray

from janus_pl.data.csv_files import as_names
from janus_pl.data.fingerprint import DataFacts, fingerprint
from janus_pl.data.linear_files import (
    TOY,
    FileOptions,
    Floats,
    Given,
    Layout,
    check_asked,
    check_options,
    read_problem,
    told,
)
from janus_pl.data.linear_options import OPTIONS, SIZES, Init, LinearOrder, check_ranges, check_size
from janus_pl.data.loader import BatchSize, InMemoryBatches, Order, check_batch_fits
from janus_pl.errors import UsageError

HELD = 256 * 2**20  # bytes of a stream's X and Y that may be held as a whole
CHUNK = 4096  # samples of one generator; a sample depends on the seed and its own number alone
EVAL_CHUNK = 500
# Spawn keys: they set the streams apart from each other and from those of the epochs' orders.
X_STREAM, Y_STREAM, W0_STREAM, TEACHER_STREAM = range(4)


class Problem(NamedTuple):
    """R replicas in float64: inputs x (R, d, N), targets y (R, m, N), the first W w0 (R, m, d)."""

    x: Floats
    y: Floats
    w0: Floats


@final
class LinearProblem(LightningDataModule):
    """X, Y and W0 of a linear regression problem W X = Y, in float64.

    They depend on neither `batch_size` nor `order`, so GD and SGD share them. A smaller `num_train`
    takes the first samples of a larger one.

    Args:
        source: Where X and Y come from. "gaussian": drawn from the seed, X standard normal. "toy":
            Appendix A, X = (e1, e2) in R^3, W0 as printed, Y = I/2 (the gradients are as printed).
            Else a file, which decides N, d and m: an .npz with X (d, N), Y (m, N) and perhaps W0
            (m, d), samples first also X (N, d) and Y (N, m), with y (N,) for m = 1; or a .csv with
            a sample a row, its cells separated by commas, semicolons or tabs.
        num_train: N. Not set: 10, or what the toy holds.
        dim: d, components of x. Not set: 11, or what the toy holds.
        outputs: m, components of y. Not set: 11, or what the toy holds.
        informative: The number of first components of x from which y = A x, A standard normal. Not
            set: y is standard normal, independent of x.
        empty: The number of last components of x without data: zero rows of X, so that the null
            space is known.
        init: W0. "zero"; "gaussian": init_scale times standard normal; "given": as the toy or the
            .npz has it. Not set: "given" where there is one, else "gaussian".
        init_scale: Of the Gaussian W0; a number >= 0.
        batch_size: B, from 1 to N, or "full" for gradient descent, whatever the order.
        order: "sequential" (data order, the paper's), "shuffle" (a new permutation every epoch),
            "with_replacement" (N independent draws an epoch), "online" (one pass, every sample
            once, drawn in chunks as they are used, so that N may be 10^7).
        seed: Decides X, Y, W0 and the order of every epoch; an integer >= 0.
            Not set: 0, on the command line that of `seed_everything`.
        replicas: R problems at once; replica r is the problem of seed + r.
        layout: Of an .npz: "features_first" or "samples_first". Not set: the one that fits.
        x_columns: Names of the columns of a .csv that are x. Not set: x1, ..., xd (or x), or, with
            y_columns, all others.
        y_columns: Names of the columns of a .csv that are y. Not set: y1, ..., ym (or y).

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
        seed: int | None = None,
        replicas: int = 1,
        layout: Layout | None = None,
        x_columns: list[str | int] | None = None,
        y_columns: list[str | int] | None = None,
    ) -> None:
        super().__init__()
        self.source, self.replicas = source, replicas
        self.seed = 0 if seed is None else seed
        self.informative, self.empty, self.order = informative, empty, order
        self.init_scale = init_scale
        self.batch_size: BatchSize = batch_size
        self._file_options = FileOptions(layout, as_names(x_columns), as_names(y_columns))
        self._given: Given | None = None
        self._minibatches: InMemoryBatches | None = None
        self._settled: dict[str, Any] = {}  # the options that N, d, m and all samples are of
        self._asked: dict[str, Any] = {}
        self._take({"num_train": num_train, "dim": dim, "outputs": outputs, "init": init})
        if source == "gaussian":
            self._settle(None)

    def prepare_data(self) -> None:
        """Read the file, if there is one, to see that it can be used."""
        self.setup()

    def setup(self, stage: str = "fit") -> None:
        """Settle N, d and m, and read the file, if there is one; again if an option changed."""
        now = {name: vars(self)[name] for name in OPTIONS if name in vars(self)}
        changed = {name: v for name, v in now.items() if self._settled.get(name, v) != v}
        drawn, toy = self.source == "gaussian", self.source == "toy"
        if not changed and (drawn or self._given is not None):
            return
        self._take({**self._asked, **changed})
        given, read = self._given, self._given is None or "source" in changed
        if read:
            given = TOY if toy else None if drawn else read_problem(self.source, self._file_options)
        if given is not None:
            check_asked(self.source, given, {k: changed[k] for k in SIZES if k in changed})
        self._settle(given)
        if given is not None and read and not toy:
            sizes = {name: self._asked[name] for name in SIZES}
            rank_zero_info(told(self.source, given, sizes))

    def train_dataloader(self) -> Iterable[Any]:
        """Return `epochs_to_run()` of a module that has it and steps by itself, else minibatches.

        These are replica 0's, in the order of `indices`: all N samples are held, online ones too.
        """
        module = None if self.trainer is None else self.trainer.lightning_module
        own = getattr(module, "epochs_to_run", None)
        return self._loader() if own is None else own()

    def predict_dataloader(self) -> list[InMemoryBatches]:
        """Return the samples of replica 0 in data order."""
        x, y = self._loader().x, self._loader().y
        return [InMemoryBatches(x, y, min(EVAL_CHUNK, len(y)), order="sequential")]

    @cached_property
    def problem(self) -> Problem:
        """All samples at once, made when first asked for; after `setup`."""
        return Problem(*self.stream(0, self.num_train), self.w0())

    @cached_property
    def facts(self) -> DataFacts:
        """The facts that the record of a run holds; after `setup`.

        The fingerprint is of the arrays of a file or of the toy, and of the recipe of what is
        drawn. The seed is a part of it if anything is drawn.
        """
        return _facts(self, self._given)

    def w0(self) -> Floats:
        """Return the W to start from, (R, m, d)."""
        if self.init == "gaussian":
            shape = self.outputs, self.dim
            rngs = [_generator(self.seed + r, W0_STREAM) for r in range(self.replicas)]
            return self.init_scale * np.stack([rng.standard_normal(shape) for rng in rngs])
        given = self._given[2] if self._given is not None and self.init == "given" else 0.0
        return np.full((self.replicas, self.outputs, self.dim), given)

    def teacher(self) -> Floats:
        """Return A of y = A x, (R, m, d); zero if y is given, or drawn independently of x."""
        a = np.zeros((self.replicas, self.outputs, self.dim))
        if self.informative is not None:
            a[:, :, : self.informative] = [self._coefficients(r) for r in range(self.replicas)]
        return a

    def stream(self, start: int, stop: int) -> tuple[Floats, Floats]:
        """Return samples start to stop - 1 of every replica: x (R, d, n) and y (R, m, n).

        The same, bitwise, however the samples are cut into calls. Memory is that of one call.
        """
        # Held a sample a row, as they are drawn and as compiled code reads them.
        x = np.zeros((self.replicas, stop - start, self.dim))
        y = np.zeros((self.replicas, stop - start, self.outputs))
        for r in range(self.replicas):
            self._fill(r, start, x[r], y[r])
        return x.swapaxes(1, 2), y.swapaxes(1, 2)

    def compressed(self) -> tuple[Floats, Floats]:
        """Return n = min(N, d + m) columns, x (R, d, n) and y (R, m, n), in place of all N samples.

        X X^T, Y X^T and Y Y^T are theirs, so that, for every W, the sum of ||W x_i - y_i||^2 over
        the samples is ||W x - y||^2 over the columns; gradient, singular values and null space
        follow. x and y themselves where N <= d + m. Made once, by one pass over the stream in
        bounded memory.
        """
        return self._compressed

    @cached_property
    def _compressed(self) -> tuple[Floats, Floats]:
        if self.num_train <= self.dim + self.outputs:
            # What is online is never held as a whole.
            return self.stream(0, self.num_train) if self.order == "online" else self.problem[:2]
        from threadpoolctl import threadpool_limits  # of the extra `linear`

        # The replicas of a file differ in W0 alone.
        different = self.replicas if self._given is None else 1
        # Matrices so narrow are factored ten times as fast by one thread as by two.
        with threadpool_limits(1, user_api="blas"):
            columns = np.stack([self._factor(r, 0, self.num_train).T for r in range(different)])
        columns = columns.repeat(self.replicas // different, axis=0)
        return columns[:, : self.dim], columns[:, self.dim :]

    def indices(self, epoch: int) -> NDArray[np.int64]:
        """Return the order of an epoch, counted from 0, (R, N), cut into minibatches in turn.

        It depends on the seed and the epoch alone. Data order where a batch is the whole set.
        """
        n = self.num_train
        if self.in_data_order:
            return np.tile(np.arange(n), (self.replicas, 1))
        rngs = [np.random.default_rng((self.seed + r, epoch)) for r in range(self.replicas)]
        again = self.order == "with_replacement"
        return np.stack([rng.integers(n, size=n) if again else rng.permutation(n) for rng in rngs])

    def orders(self, first: int, last: int) -> NDArray[np.int64] | None:
        """Return the orders of epochs first to last - 1, (R, E, N); None if each is data order."""
        if self.in_data_order:
            return None
        return np.stack([self.indices(epoch) for epoch in range(first, last)], axis=1)

    @property
    def streamed(self) -> bool:
        """Whether X and Y are drawn as they are used, since they are too large to hold."""
        size = 8 * self.replicas * self.num_train * (self.dim + self.outputs)
        return self.order == "online" and size > HELD

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

    def _take(self, asked: Mapping[str, Any]) -> None:
        """Take sizes and the kind of W0 as asked for, if all options are within their range."""
        given = {name: asked.get(name, vars(self).get(name)) for name in OPTIONS}
        check_ranges(given)
        check_options(self.source, self._file_options)
        self._asked = {name: given[name] for name in (*SIZES, "init")}

    def _settle(self, given: Given | None) -> None:
        """Fix N, d, m and the kind of W0, and forget what was made of others."""
        for name in ("problem", "facts", "_compressed"):
            vars(self).pop(name, None)
        self._given, self._minibatches = given, None
        held = {"num_train": 10, "dim": 11, "outputs": 11}
        asked = {name: self._asked[name] for name in SIZES}
        if given is not None:
            check_asked(self.source, given, {"informative": self.informative, "empty": self.empty})
            if given is TOY:
                check_asked(self.source, given, asked)
            # A file decides over the sizes of a config, which are of drawn problems.
            held, asked = given.sizes, {}
        self.num_train, self.dim, self.outputs = (asked.get(k) or v for k, v in held.items())
        has_w0 = given is not None and given[2] is not None
        self.init: Init = self._asked["init"] or ("given" if has_w0 else "gaussian")
        if self.init == "given" and not has_w0:
            raise UsageError("data.init", "given", f"zero, gaussian ({self.source!r} holds no W0)")
        full = self.dim - self.empty
        if full < 1:
            raise UsageError("data.empty", self.empty, f"from 0 to {self.dim - 1}, below data.dim")
        if self.informative is not None and self.informative > full:
            allowed = f"from 1 to {full}, data.dim less data.empty"
            raise UsageError("data.informative", self.informative, allowed)
        check_batch_fits(self.batch_size, None, self.num_train)
        check_size(vars(self))
        self._settled = {name: vars(self)[name] for name in OPTIONS}

    @torch.inference_mode(False)  # after `predict`, training could not take its tensors
    def _loader(self) -> InMemoryBatches:
        """Return replica 0 on the device; one loader is kept, because it counts the epochs."""
        trainer, n = self.trainer, self.num_train
        device = torch.device("cpu") if trainer is None else trainer.strategy.root_device
        if self._minibatches is None or self._minibatches.device != device:
            x, y = np.zeros((n, self.dim)), np.zeros((n, self.outputs))
            self._fill(0, 0, x, y)
            tensors = torch.from_numpy(x).to(device), torch.from_numpy(y).to(device)
            batch = n if self.batch_size == "full" else self.batch_size
            order: Order = "sequential" if self.order == "online" else self.order
            self._minibatches = InMemoryBatches(*tensors, self.batch_size, batch, order, self.seed)
        return self._minibatches

    def _fill(self, r: int, start: int, x: Floats, y: Floats) -> None:
        """Add the samples of replica r from start on to x (n, d) and y (n, m), which hold zeros."""
        if self._given is not None:
            x[:], y[:] = (a[:, start : start + len(x)].T for a in self._given[:2])
            return
        _draw((self.seed + r, X_STREAM), start, x[:, : self.dim - self.empty])
        if self.informative is None:
            _draw((self.seed + r, Y_STREAM), start, y)
            return
        # No matrix product: its rounding would depend on the number of samples.
        for k, coefficients in enumerate(self._coefficients(r).T):
            y += x[:, k, None] * coefficients

    def _coefficients(self, r: int) -> Floats:
        """Return the coefficients of informative x in replica r's y, (m, informative)."""
        shape = self.outputs, self.informative or 0
        return _generator(self.seed + r, TEACHER_STREAM).standard_normal(shape)

    def _factor(self, r: int, start: int, stop: int) -> Floats:
        """Return R of [X^T Y^T] = Q R, (min(n, d + m), d + m); n = stop - start, replica r.

        Summed up, Y Y^T would lose a residual far below the targets; R keeps it. Halves are
        factored apart, so that rounding and memory grow as log N. A zero row of X stays one to the
        last bit: every reflection maps a zero column to zero.
        """
        if stop - start > CHUNK:
            middle = start + math.ceil((stop - start) / (2 * CHUNK)) * CHUNK
            rows = np.vstack([self._factor(r, start, middle), self._factor(r, middle, stop)])
        else:
            rows = np.zeros((stop - start, self.dim + self.outputs))
            self._fill(r, start, rows[:, : self.dim], rows[:, self.dim :])
        return np.asarray(np.linalg.qr(rows, mode="r"))  # numpy declares a tuple


def _facts(data: LinearProblem, given: Given | None) -> DataFacts:
    drawn = data.init == "gaussian"
    recipe: dict[str, Any] = {"init": data.init, "replicas": data.replicas}
    recipe |= {"init_scale": float(data.init_scale)} if drawn else {}
    if given is None:
        recipe |= {"informative": data.informative, "empty": data.empty, "version": 1}
        recipe |= {"sizes": [data.num_train, data.dim, data.outputs]}
    else:
        recipe |= {"x": given[0], "y": given[1]}
        recipe |= {"w0": given[2]} if data.init == "given" else {}
    pool = fingerprint(**recipe)
    seeded = drawn or given is None
    origin = {"gaussian": f"seed {data.seed}", "toy": "Appendix A"}
    return DataFacts(
        sha256=fingerprint(pool=pool, seed=data.seed) if seeded else pool,
        pool=pool,
        samples={"train": {"all": data.num_train}},
        dim=data.dim,
        outputs=data.outputs,
        source=origin.get(data.source) or os.path.abspath(os.path.expanduser(data.source)),
    )


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
