"""The processes of a run, as Lightning started them: each takes its share, and sums cover all."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import ParallelStrategy, Strategy
from torch import Tensor


class Ranks:
    """This process among those of a run; without a trainer, the only one.

    The samples of a batch go round: process r of R takes numbers r, r + R, r + 2 R, ... of it, none
    twice, and nothing is padded, so a share may be empty.

    `add_up` and `gather` are one collective each: every process has to call them, in one order. A
    process alone pays nothing for them.

    Attributes:
        rank: r, from 0.
        size: R.
    """

    def __init__(self, trainer: Trainer | None = None) -> None:
        self.rank = 0 if trainer is None else trainer.global_rank
        self.size = 1 if trainer is None else trainer.world_size

    def own(self, samples: Tensor) -> Tensor:
        """This process's share of samples (n, ...), a view."""
        return samples if self.size == 1 else samples[self.rank :: self.size]

    @torch.no_grad()
    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Every tensor becomes its sum over all processes, in place and the same on each."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        torch.distributed.all_reduce(flat)
        sums = flat.split([tensor.numel() for tensor in tensors])
        for tensor, total in zip(tensors, sums, strict=True):
            tensor.copy_(total.view(tensor.shape))

    @torch.no_grad()
    def gather(self, share: Tensor, count: int) -> Tensor:
        """What all processes found for their `own` samples, (count, ...), in the samples' order."""
        if self.size == 1:
            return share
        whole = share.new_zeros((count, *share.shape[1:]))
        whole[self.rank :: self.size] = share
        torch.distributed.all_reduce(whole)  # every entry is a number plus zeros: exact
        return whole


def backward_alone(strategy: Strategy) -> AbstractContextManager[None]:
    """Within it a backward pass leaves this process's gradients: DDP does not average them.

    Its mean over processes is not the mean over samples, and a micro-batch is not the end of a
    batch.
    """
    if isinstance(strategy, ParallelStrategy):
        return strategy.block_backward_sync()
    return nullcontext()
