"""R replicas of a linear problem in training; they take the steps of `LinearRegressor`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from janus_pl.data.regression import LinearProblem
from janus_pl.errors import UsageError
from janus_pl.linear import (
    Piece,
    Plan,
    Watch,
    full_batch_equivalent,
    log_spaced,
    run_epochs,
    run_epochs_torch,
)
from janus_pl.linear.epochs import LAMBDA_FACTOR, DecayConvention
from janus_pl.linear.followers import Follower, parts
from janus_pl.linear.landscape import Landscape
from janus_pl.linear.watch import Moments
from janus_pl.theory import decay_factor
from janus_pl.theory.threads import threads_for
from janus_pl.training.restoring import check_options
from janus_pl.training.schedules import ScheduleName, multipliers
from janus_pl.training.subject import Take

PROBES = 32  # the first inputs, whose predictions are watched
# Steps that a watch looks at between two rows: one in 64, since a look costs as much as twenty
# steps, but from the first number up to the second, or a whole epoch of at most the third number.
LOOKS = 8, 64, 4096
# Options of the data that must not change when a run goes on.
MADE_OF = (
    *("batch_size", "order", "num_train", "dim", "outputs", "informative", "empty", "init"),
    *("init_scale", "seed", "replicas"),
)
STREAM_LOOKS = 512  # of a stream, whose unit of time is the step
PIECE = 2.5e8  # multiplications in a piece: about a quarter of a second
STRETCH = 20  # pieces from one look, and checkpoint, to the next: a few seconds
SAMPLES_AT_ONCE = 65_536  # of a stream


class Snapshot(NamedTuple):
    """The state of the replicas at a record, after `done` units of time.

    Shapes: weight (R, m, d), the others (R,). `watch` is of the steps since the record before; at
    the start it is None.
    """

    done: int
    weight: Tensor
    log_decay: Tensor
    eta_t: Tensor
    learning_rate: Tensor
    watch: Watch | None
    window: Window | None


class Window(NamedTuple):
    """All steps between two rows: their number, the mean of W, the variances of W and W x.

    Shapes: mean (R, m, d), variances (R,).
    """

    steps: int
    mean: Tensor
    variance: Tensor
    prediction_variance: Tensor


class LinearTraining:
    """All combinations of the data's seeds, lambdas and learning rates, a replica each.

    The seed varies slowest and the learning rate fastest. The unit of time is the epoch; of a
    stream, which is a single epoch, it is the step.

    Args:
        data: The problem, after its `setup`.
        lambdas: The weight decays.
        rates: The learning rates; "auto" is 0.5/sigma_max(X).
        schedule: The schedule, a factor of the learning rate.
        decay_convention: The decay of W, as in `run_epochs`.
        epochs: The number of epochs to run.
        records_per_decade: The number of epochs to record in a factor of ten.
        looks_per_decade: The number of epochs in a factor of ten at which callbacks run.
        weight: W, (R, m, d), float64. It is changed in place: on a CPU by compiled code, on other
            devices in batched PyTorch.

    Attributes:
        sound: W before the last piece, (R, m, d).
        seed, lam, eta: The seed, lambda and first learning rate of each replica, (R,).
        eta_t: The sum of the learning rates of all steps, (R,).
        log_decay: The log of the product of |1 - 2 eta lambda| over all steps, (R,).
        moments: The sums over all steps since the last record; None before the last fifth.
        diverged: The unit of time after which W was first not finite; -1 if it is finite; (R,).
    """

    def __init__(
        self,
        data: LinearProblem,
        lambdas: Sequence[float],
        rates: Sequence[float | str],
        schedule: ScheduleName,
        decay_convention: DecayConvention,
        epochs: int,
        records_per_decade: int,
        looks_per_decade: int,
        weight: Tensor,
    ) -> None:
        self.data, self.schedule, self.decay_convention = data, schedule, decay_convention
        self.weight, self.sound, self.device = weight, weight.clone(), weight.device
        self.compiled = self.device.type == "cpu"
        self.in_steps = data.order == "online" and not data.whole
        self.steps_per_unit = 1 if self.in_steps else data.steps_per_epoch
        total = data.steps_per_epoch if self.in_steps else epochs
        seed, row, column = np.indices((data.replicas, len(lambdas), len(rates))).reshape(3, -1)
        self._replica = seed
        self.seed = data.seed + seed
        self.lam = self._tensor(np.array(lambdas, dtype=np.float64)[row])
        x, y = (self._tensor(a[seed]) for a in data.compressed())
        w0 = self._tensor(data.w0()[seed])
        decay = self.lam * LAMBDA_FACTOR[decay_convention]
        self.landscape = Landscape(x, y, w0, decay, data.num_train)
        self.eta = self._learning_rates(rates)[torch.arange(len(seed)), torch.as_tensor(column)]
        self._x, self._y = self._columns(x, y)
        first = data.stream(0, min(PROBES, data.num_train))[0]
        self.probes = self._tensor(first[seed]).mT
        self.eta_t, self.log_decay = torch.zeros_like(self.eta), torch.zeros_like(self.eta)
        self.diverged = torch.full((len(seed),), -1, device=self.device)
        multiplications = len(seed) * w0.shape[1] * w0.shape[2] * 4
        per_unit = multiplications * (data.num_train if not self.in_steps else self._batch)
        size = max(1, int(PIECE / per_unit))
        stretch = STRETCH * size
        if self.in_steps:
            size = max(1, min(size, SAMPLES_AT_ONCE // self._batch))
        records, looks = (log_spaced(total, n) for n in (records_per_decade, looks_per_decade))
        self.plan = Plan(total, records, looks, size, stretch)
        self._images: Tensor | None = None
        self._followers: list[Follower] = []
        self._begin()

    @property
    def learning_rate(self) -> Tensor:
        """The learning rate of the last step, or of the first if none was taken, (R,)."""
        last = max(self.plan.done - 1, 0)
        return self.eta * float(self.multipliers(last, last + 1)[0])

    def multipliers(self, first: int, last: int) -> NDArray[np.float64]:
        """Return the factors of eta in the units of time first to last - 1."""
        return multipliers(self.schedule, first, last, self.plan.total)

    def newest_rates(self) -> Tensor:
        """Return the learning rate of the newest step, or of the first one to come; (R,)."""
        last = max(self.plan.done, 1)
        return self.eta.cpu().double() * float(self.multipliers(last - 1, last)[0])

    def run(self, piece: Piece) -> bool:
        """Take the steps of a piece; tell whether it ends at a record."""
        ends = piece.last == self.plan.record
        if self.watch.taken >= self.watch.steps:
            self._begin()
        self.sound = self.weight.clone()
        m = self.multipliers(*piece)
        lost = self._take_piece(piece, m)
        new = (lost >= 0) & (self.diverged < 0)
        self.diverged = torch.where(new, piece.first + lost, self.diverged)
        rates = self._tensor(m)[:, None] * self.eta
        keep = torch.as_tensor(decay_factor(rates, self.lam, self.decay_convention))
        with threads_for(math.isqrt(keep.numel())):  # a second one is asked for 100 logarithms
            self.log_decay += self.steps_per_unit * keep.abs().log().sum(0)
        self.eta_t += self.steps_per_unit * rates.sum(0)
        self.plan.done = piece.last
        return ends

    def snapshot(self) -> Snapshot:
        """Return the state of the replicas for a record."""
        watch = self.watch if self.watch.taken else None
        state = self.weight.clone(), self.log_decay.clone(), self.eta_t.clone()
        found = window(self.moments) if watch is not None and self.moments is not None else None
        return Snapshot(self.plan.done, *state, self.learning_rate, watch, found)

    def epochs(self, done: int) -> float:
        """Return units of time in epochs; a whole stream is one epoch."""
        return done / (self.data.steps_per_epoch if self.in_steps else 1)

    def state(self) -> dict[str, Any]:
        """Return the values of a checkpoint beside W."""
        state = {"done": self.plan.done, "eta_t": self.eta_t, "log_decay": self.log_decay}
        of_run = {"total": self.plan.total, "schedule": self.schedule}
        made_of = _made_of(self.data, len(self.seed) // self.data.replicas)
        return {**state, **of_run, "made_of": made_of}

    def load(self, state: Mapping[str, Any], had_ended: bool = False) -> None:
        """Go on from a checkpoint; lambda and the learning rate may differ from here on.

        Args:
            state: The values that `state` returned.
            had_ended: Whether the checkpoint is the end of this very run, with no step left.

        Raises:
            UsageError: As `check_state`; or the checkpoint has no step left.
        """
        check_state(state, self.data, len(self.seed) // self.data.replicas)
        check_plan(state, self.schedule, self.plan.total)
        if not had_ended:
            check_left(state, self.plan.total)
        self.plan.done = state["done"]
        self.eta_t.copy_(state["eta_t"])
        self.log_decay.copy_(state["log_decay"])
        self._begin()

    @property
    def _batch(self) -> int:
        size = self.data.batch_size
        return self.data.num_train if size == "full" else size

    def _tensor(self, array: object) -> Tensor:
        return torch.as_tensor(np.ascontiguousarray(array)).to(self.device)

    def _learning_rates(self, rates: Sequence[float | str]) -> Tensor:
        """Return the learning rate of each replica's problem, (R, len(rates))."""
        auto = 0.5 / self.landscape.sigma_max
        if "auto" in rates and not torch.isfinite(auto).all():
            raise UsageError("model.learning_rate", "auto", "a number: X is zero")
        columns = [auto if eta == "auto" else torch.full_like(auto, float(eta)) for eta in rates]
        return torch.stack(columns, 1)

    def _columns(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the samples of the steps, a sample a row in memory: (R, d, n), (R, m, n)."""
        if self.data.whole:
            share = math.sqrt(x.shape[2] / self.data.num_train)
            few = full_batch_equivalent((x * share).cpu().numpy(), (y * share).cpu().numpy())
        elif self.in_steps:
            return x, y  # not used: a stream is read in pieces
        else:
            few = self.data.problem.x[self._replica], self.data.problem.y[self._replica]
        rows = (self._tensor(a.swapaxes(1, 2)) for a in few)
        return next(rows).mT, next(rows).mT

    def _begin(self) -> None:
        """Begin to watch the steps up to the next record, and in the last fifth all of them."""
        self.watch = self._new_watch()
        counted = self.plan.done >= self.plan.total * 8 // 10
        self.moments = Moments(self.weight, self.probes) if counted else None
        held = self.compiled and not self.in_steps and self._images is None
        if self.moments is not None and held:
            self._images = self.moments.images(self._x.mT)

    def _new_watch(self) -> Watch:
        units = self.plan.record - self.plan.done
        steps = max(1, units * self.steps_per_unit)
        epoch = min(self.steps_per_unit, LOOKS[2])
        least, most = max(LOOKS[0], epoch), max(LOOKS[1], epoch)
        most = STREAM_LOOKS if self.in_steps else min(most, max(least, steps // 64))
        return Watch(self.weight, self.probes, steps, self.steps_per_unit, most)

    def follow(self, count: int, due: Callable[[int], bool], take: Take) -> None:
        """Call `take` after each of the last `count` steps before a due look, with those looks."""
        looks = [look for look in self.plan.looks if due(look) or look == self.plan.total]
        self._followers.append(Follower(count, looks, self.steps_per_unit, take))

    def _take_piece(self, piece: Piece, rates: NDArray[np.float64]) -> Tensor:
        """Take all steps; tell after which unit of the piece W was first not finite, or -1; (R,).

        Steps that somebody follows are taken one at a time, to the same bits.
        """
        lost = torch.full_like(self.diverged, -1)
        for part, followed in parts(piece, self._followers):
            start = part.first - piece.first
            m = rates[start : part.last - piece.first]
            if followed:
                found = self._take_singly(part, m)
            else:
                found = self._take_steps(part, m[None] if self.in_steps else m[:, None])
            lost = torch.where((lost < 0) & (found >= 0), start + found, lost)
        return lost

    def _take_singly(self, part: Piece, rates: NDArray[np.float64]) -> Tensor:
        """Take the followed steps one at a time, and show W after each."""
        lost, size = torch.full_like(self.diverged, -1), self.steps_per_unit
        for number, unit in enumerate(range(*part)):
            start = min(follower.first_in(unit) for follower in self._followers)
            for first, last in pairwise(sorted({0, *range(start, size + 1)})):
                m = rates[number : number + 1, None]
                found = self._take_steps(Piece(unit, unit + 1), m, slice(first, last))
                lost = torch.where((lost < 0) & (found >= 0), number, lost)
                for follower in self._followers:
                    follower.show(unit * size + last)
        return lost

    def _take_steps(
        self, piece: Piece, rates: NDArray[np.float64], steps: slice | None = None
    ) -> Tensor:
        """Take all steps of a piece, or some of its only unit."""
        data, batch = self.data, self.data.batch_size
        x, y, order = self._x, self._y, None
        if self.in_steps:
            start, stop = (min(i * self._batch, data.num_train) for i in piece)
            samples = data.stream(start, stop)
            batch = min(self._batch, stop - start)  # a last minibatch may be smaller
            x, y = (self._tensor(a.swapaxes(1, 2)[self._replica]).mT for a in samples)
        elif data.whole:
            batch = "full"
        elif (orders := data.orders(*piece)) is not None:
            order = orders[self._replica]
        if steps is not None and self.steps_per_unit > 1 and batch != "full":
            every = np.arange(data.num_train)[None, None] if order is None else order
            order = every[:, :, steps.start * batch : steps.stop * batch]
            batch = min(batch, order.shape[2])  # a last minibatch may be smaller
        convention = self.decay_convention
        if self.compiled:
            w, rows, targets = (a.numpy() for a in (self.weight, x, y))
            lam, eta = self.lam.numpy(), self.eta.numpy()
            images = None if self.in_steps else self._images
            lost = run_epochs(
                *(w, rows, targets, order, batch, rates, lam, eta, convention, self.watch),
                moments=self.moments,
                images=images,
            )
            return torch.from_numpy(lost)
        index = None if order is None else self._tensor(order)
        return run_epochs_torch(
            *(self.weight, x, y, index, batch, rates, self.lam, self.eta, convention),
            self.watch,
            self.moments,
        )


def window(moments: Moments) -> Window:
    """Return the window of steps that moments are of."""
    return Window(moments.steps, moments.mean, moments.variance, moments.probe_variance)


def pooled(windows: Sequence[Window], probes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the variances over the steps of all windows: of W and of its predictions, (R,)."""
    total = sum(window.steps for window in windows)
    mean = sum(window.mean * (window.steps / total) for window in windows)
    variance = prediction = torch.zeros(())
    for window in windows:
        moved = window.mean - mean
        moved_outputs = (moved @ probes.mT).square().sum((1, 2)) / probes.shape[1]
        share = window.steps / total
        variance = variance + share * (window.variance + moved.square().sum((1, 2)))
        prediction = prediction + share * (window.prediction_variance + moved_outputs)
    return variance, prediction


def check_state(state: Mapping[str, Any], data: LinearProblem, combinations: int) -> None:
    """Refuse a checkpoint of other samples, another W0 or other minibatches.

    Args:
        state: The values that `LinearTraining.state` returned.
        data: The problem, after its `setup`.
        combinations: The replicas of each seed.

    Raises:
        UsageError: An option of the data, or the samples of a file, differ.
    """
    check_options(_made_of(data, combinations), state["made_of"])


def check_plan(state: Mapping[str, Any], schedule: ScheduleName, total: int) -> None:
    """Refuse a checkpoint of a cosine over another number of epochs.

    Raises:
        UsageError: Both are a cosine, and the numbers of epochs differ.
    """
    if schedule == state.get("schedule", schedule) == "cosine" and state["total"] != total:
        allowed = f"{state['total']}, which the checkpoint's cosine is for"
        raise UsageError("trainer.max_epochs", total, allowed)


def check_left(state: Mapping[str, Any], total: int) -> None:
    """Refuse a checkpoint that leaves no step.

    Raises:
        UsageError: It is at the end.
    """
    if state["done"] >= total:
        allowed = f"above {state['done']}, where the checkpoint is"
        raise UsageError("trainer.max_epochs", total, allowed)


def _made_of(data: LinearProblem, combinations: int) -> dict[str, Any]:
    """Return the values that must not change when a run goes on: samples, W0, batches."""
    arrays = (*data.compressed(), data.w0())
    # A replica after the other; those of a seed share its samples.
    held = (np.repeat(array, combinations, axis=0).tobytes() for array in arrays)
    return {
        **{f"data.{name}": getattr(data, name) for name in MADE_OF},
        "data": f"X, Y and W0 of sha256 {sha256(b''.join(held)).hexdigest()[:12]}",
    }
