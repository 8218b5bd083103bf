"""The processes of a run, as Lightning started them; they share samples and add up sums."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import ParallelStrategy, Strategy
from torch import Tensor


class Ranks:
    """This process among those of a run; without a trainer, the only one.

    Process r of R takes the samples r, r + R, r + 2 R, ... of a batch. No sample is taken twice,
    and nothing is padded, so a share may be empty.

    `add_up` and `gather` are one collective each: all processes have to call them in the same
    order. For a single process they do nothing.

    Attributes:
        rank: The number r of this process, from 0.
        size: The number R of processes.
    """

    def __init__(self, trainer: Trainer | None = None) -> None:
        self.rank = 0 if trainer is None else trainer.global_rank
        self.size = 1 if trainer is None else trainer.world_size
        self._trainer = trainer

    def own(self, samples: Tensor) -> Tensor:
        """Return this process's share of samples (n, ...), a view."""
        return samples if self.size == 1 else samples[self.rank :: self.size]

    @torch.no_grad()
    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace every tensor by its sum over all processes, in place and the same on each."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        torch.distributed.all_reduce(flat)
        sums = flat.split([tensor.numel() for tensor in tensors])
        for tensor, total in zip(tensors, sums, strict=True):
            tensor.copy_(total.view(tensor.shape))

    @torch.no_grad()
    def gather(self, share: Tensor, count: int) -> Tensor:
        """Return the results (count, ...) of the `own` samples of all processes, in their order."""
        if self.size == 1:
            return share
        whole = share.new_zeros((count, *share.shape[1:]))
        whole[self.rank :: self.size] = share
        torch.distributed.all_reduce(whole)  # every entry is a number plus zeros: exact
        return whole

    def agree(self, answer: bool) -> bool:
        """Return whether every process answers yes, so that all of them go the same way."""
        if self._trainer is None or self.size == 1:
            return answer
        votes = torch.full((), float(answer), device=self._trainer.strategy.root_device)
        self.add_up([votes])
        return bool(votes == self.size)


def backward_alone(strategy: Strategy) -> AbstractContextManager[None]:
    """Keep DDP from averaging gradients within the block: each process gets its own.

    DDP's mean over processes is not the mean over samples, and a micro-batch is not the end of a
    batch.
    """
    if isinstance(strategy, ParallelStrategy):
        return strategy.block_backward_sync()
    return nullcontext()
