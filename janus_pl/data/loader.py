"""In-memory minibatches: the data live on the training device, and a batch is one gather."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from janus_pl.data.standard import ByteImages
from janus_pl.errors import UsageError, check_integer, is_integer
from janus_pl.observables.onto import onto

BatchSize = int | Literal["full"]
Order = Literal["shuffle", "sequential", "with_replacement"]

DEFAULT_MICRO_BATCH = 250


class Batch(NamedTuple):
    """One minibatch, of all processes together.

    Attributes:
        x: Inputs, (B, C, H, W) in channels_last memory, or (B, d).
        y: Targets: labels of shape (B,), +1/-1 in the dtype of x for two classes or integers 0 to
            K - 1 for K, or (B, m) in the dtype of x for regression.
        micro_batch_size: The number of samples that go through the network at a time.
    """

    x: Tensor
    y: Tensor
    micro_batch_size: int

    def split(self, rank: int = 0, ranks: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (x, y) of at most `micro_batch_size` samples, the remainder last; views, no copy.

        Of several processes each takes every `ranks`-th sample from `rank` on. A process without a
        sample gets one micro-batch of none, so that its gradients are zero and not missing.

        >>> batch = Batch(torch.zeros(5, 2), torch.arange(5.0), 2)
        >>> [len(y) for _, y in batch.split()]
        [2, 2, 1]
        >>> [[y.tolist() for _, y in batch.split(rank, 2)] for rank in (0, 1)]
        [[[0.0, 2.0], [4.0]], [[1.0, 3.0]]]
        >>> [y.tolist() for _, y in batch.split(5, 6)]
        [[]]
        """
        x, y = self.x, self.y
        if ranks > 1:
            x, y = x[rank::ranks], y[rank::ranks]
        if len(y) <= self.micro_batch_size:
            return iter(((x, y),))
        return _slices(x, y, self.micro_batch_size)


class InMemoryBatches:
    """Minibatches of tensors that live on the training device.

    Images are stored as (N, H, W, C), so that a batch is (B, C, H, W) in channels_last memory. A
    batch that is a run of the data (`order` "sequential", or the whole set) is a view of them.
    Images that are held as bytes become floats a batch at a time.

    The order of an epoch depends on (seed, epoch) alone; no global random state is read or moved.

    Args:
        x: Inputs, (N, C, H, W) or (N, d), or images as bytes.
        y: Targets, (N,) or (N, m), on the device of x.
        batch_size: Samples in a batch, 1 to N, the last batch of an epoch may be smaller; or
            "full" for the whole set in data order, whatever the `order`.
        micro_batch_size: Samples that go through the network at a time, 1 to the batch size.
            None: the batch size, at most 250.
        order: "shuffle" (a new permutation every epoch), "sequential" (data order) or
            "with_replacement" (N independent draws an epoch, cut into batches).
        seed: Integer >= 0.

    Attributes:
        num_samples: N.
        whole: Whether a batch is the whole set, every sample once, in data order.

    Raises:
        UsageError: An option is out of its range.
        ValueError: x and y differ in length, or hold no sample.

    >>> loader = InMemoryBatches(torch.zeros(10, 3), torch.ones(10), batch_size=4)
    >>> [len(batch.y) for batch in loader]
    [4, 4, 2]
    """

    # The epoch is read when the first batch is asked for, not when the iterator is made: Lightning
    # makes its first iterator before it sets the epoch.

    # Lightning reads this from every loader that has a `sampler`.
    batch_sampler = None

    def __init__(
        self,
        x: Tensor | ByteImages,
        y: Tensor,
        batch_size: BatchSize,
        micro_batch_size: int | None = None,
        order: Order = "shuffle",
        seed: int = 0,
    ) -> None:
        check_batch_options(batch_size, micro_batch_size, order, seed)
        if len(x) != len(y) or len(x) == 0:
            raise ValueError(f"x and y hold {len(x)} and {len(y)} samples, not the same number > 0")
        check_batch_fits(batch_size, micro_batch_size, len(x))
        self.num_samples = len(x)
        self.batch_size = self.num_samples if batch_size == "full" else batch_size
        self.micro_batch_size = micro_batch_size or min(self.batch_size, DEFAULT_MICRO_BATCH)
        self.order = order
        self.seed = seed
        self.epoch = 0
        self._position = 0
        self._broken_off: tuple[int, int] | None = None
        self.x: Any = x if isinstance(x, ByteImages) else _channels_last(x)
        self.y = y
        visits_all = order != "with_replacement"
        self.whole = batch_size == "full" or (visits_all and self.batch_size == self.num_samples)
        self._in_data_order = self.whole or order == "sequential"

    def __len__(self) -> int:
        return math.ceil(self.num_samples / self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        epoch, position = self._broken_off or (self.epoch, 0)
        self._broken_off = None
        first = position if epoch == self.epoch else 0
        for number, (x, y) in enumerate(self._batches(first), start=first + 1):
            self._position = number
            yield Batch(x, y, self.micro_batch_size)

    def _batches(self, first: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Return samples and targets of an epoch's batches, from the one of this number on."""
        start = first * self.batch_size
        if self._in_data_order:
            yield from _slices(self.x, self.y, self.batch_size, start)
            return
        order = onto(self.indices(self.epoch)[start:], self.device)
        for index in torch.split(order, self.batch_size):
            yield self._at(index)

    def state_dict(self) -> dict[str, int]:
        """Return the epoch and the number of its batches handed out, for checkpoints."""
        return {"epoch": self.epoch, "position": self._position}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next pass, if it is of that epoch, begin where the epoch was broken off."""
        self._broken_off = state["epoch"], state["position"]

    @property
    def sampler(self) -> InMemoryBatches:
        """Itself: Lightning calls `dataloader.sampler.set_epoch` at the start of every epoch."""
        return self

    @property
    def device(self) -> torch.device:
        """Where the data live."""
        return self.y.device

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, counted from 0, whose order the next pass follows."""
        self.epoch = epoch

    def indices(self, epoch: int) -> Tensor:
        """Return the order of an epoch: int64 indices (N,) on the CPU, cut into batches in turn.

        Data order where a batch is the whole set: a permutation would only cost a copy.
        """
        if self._in_data_order:
            return torch.arange(self.num_samples)
        # numpy, since torch's CPU generator keeps only 32 bits of its seed.
        rng = np.random.default_rng((self.seed, epoch))
        if self.order == "with_replacement":
            return torch.from_numpy(rng.integers(self.num_samples, size=self.num_samples))
        return torch.from_numpy(rng.permutation(self.num_samples))

    def in_order(self, chunk: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (x, y) of at most `chunk` samples in data order, every sample once; views."""
        return _slices(self.x, self.y, chunk)

    def chosen(self, index: Tensor, chunk: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (x, y) of at most `chunk` of the samples with these indices, in that order."""
        return map(self._at, torch.split(index.to(self.device), chunk))

    def _at(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Gather samples and targets, images in channels_last memory."""
        y = self.y.index_select(0, index)
        if isinstance(self.x, ByteImages):
            return self.x[index], y
        if self.x.dim() != 4:
            return self.x.index_select(0, index), y
        rows = self.x.permute(0, 2, 3, 1)
        return rows.index_select(0, index).permute(0, 3, 1, 2), y


def check_batch_options(
    batch_size: object, micro_batch_size: object, order: object, seed: object
) -> None:
    """Check what can be checked before N is known.

    Raises:
        UsageError: Naming data.batch_size, data.micro_batch_size, data.order or data.seed.
    """
    if batch_size != "full" and not is_integer(batch_size, least=1):
        raise UsageError("data.batch_size", batch_size, 'an integer from 1 to N, or "full"')
    if micro_batch_size is not None:
        limit = None if batch_size == "full" else batch_size
        _check_micro_batch(micro_batch_size, limit)
    if order not in get_args(Order):
        raise UsageError("data.order", order, ", ".join(get_args(Order)))
    check_integer("data.seed", seed, 0)


def check_batch_fits(batch_size: BatchSize, micro_batch_size: int | None, num_samples: int) -> None:
    """Check options that passed `check_batch_options` against the number of samples N.

    Raises:
        UsageError: Naming data.batch_size or data.micro_batch_size.
    """
    if batch_size != "full" and batch_size > num_samples:
        allowed = f'an integer from 1 to {num_samples} (the number of samples), or "full"'
        raise UsageError("data.batch_size", batch_size, allowed)
    if micro_batch_size is not None:
        _check_micro_batch(micro_batch_size, num_samples if batch_size == "full" else batch_size)


def _check_micro_batch(value: object, limit: object) -> None:
    """Refuse a size outside 1 to `limit`, the batch size; None if that is not known yet."""
    above = isinstance(value, int) and isinstance(limit, int) and value > limit
    if above or not is_integer(value, least=1):
        upper = "N" if limit is None else limit
        raise UsageError(
            "data.micro_batch_size", value, f"an integer from 1 to {upper} (the batch size)"
        )


def _channels_last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2) if x.dim() == 4 else x


def _slices(
    x: Tensor | ByteImages, y: Tensor, size: int, first: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(first, len(y), size):
        yield x[start : start + size], y[start : start + size]
