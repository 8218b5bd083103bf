"""The forward passes of an epoch, and the training set seen by one set of weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor

from janus_pl.observables.wide import wide
from janus_pl.training.held import HeldWeights
from janus_pl.training.ranks import Ranks

Margins = Callable[[Tensor, Tensor], Tensor]


class TrainingPass(NamedTuple):
    """The whole training set, seen by one set of weights.

    Attributes:
        margins: The fbar_n = y_n f_W(x_n)/rho of all N samples in data order, shape (N,); where the
            network is not homogeneous, in the units of the outputs.
        loss: The mean of the loss over all N samples, without weight decay; shape ().
        error: The share of samples whose margin is not positive; shape ().
        common_mode: The mean of m_n^2, where m_n is the mean of a sample's outputs: the part that
            no margin sees; shape ().
        rho: The scale, the product of the Frobenius norms; shape ().
        rho_learned: The part of rho that is learned; shape ().
        weights: The weights that saw it.
    """

    margins: Tensor
    loss: Tensor
    error: Tensor
    common_mode: Tensor
    rho: Tensor
    rho_learned: Tensor
    weights: HeldWeights

    @classmethod
    def of(
        cls,
        outputs: Tensor,
        raw: Tensor,
        losses: Tensor,
        unit: Tensor,
        rho: Tensor,
        rho_learned: Tensor,
        weights: HeldWeights,
    ) -> TrainingPass:
        """Summarize the outputs (N, K), raw margins (N,) and losses (N,) of all samples."""
        margins = raw / unit
        error = (margins <= 0).to(margins).mean()
        common_mode = outputs.mean(dim=1).square().mean()
        return cls(margins, losses.mean(), error, common_mode, rho, rho_learned.clone(), weights)


class Epoch:
    """The optimizer, the sum of the learning rates, and the forward passes of the epoch under way.

    It is a plain object, because setting an attribute of a module costs as much as an operation on
    a tensor.

    Attributes:
        optimizer: Lightning's optimizer.
        eta_t: The sum of the learning rates of all steps so far.
        forwards: Outputs (n, K), losses (n,) and labels (n,) of each forward pass of the epoch.
    """

    def __init__(self) -> None:
        self.optimizer: LightningOptimizer
        self.eta_t = 0.0
        self.forwards: list[tuple[Tensor, Tensor, Tensor]] = []

    @property
    def learning_rate(self) -> float:
        """The learning rate of the step to come, of the last group: rho's, if rho is learned.

        All groups have the same one, unless the rate of the v_k grows.
        """
        return self.optimizer.param_groups[-1]["lr"]

    def count_step(self) -> float:
        """Count the step to come in eta_t, and return its learning rate."""
        rate = self.learning_rate
        self.eta_t += rate
        return rate

    def move_to(self, device: torch.device) -> None:
        """Move the forward passes that a checkpoint within an epoch brought."""
        self.forwards = [(o.to(device), n.to(device), y.to(device)) for o, n, y in self.forwards]

    def together(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return outputs (n, K), losses (n,) and labels (n,) of all samples seen in the epoch."""
        outputs, losses, y = (torch.cat(parts) for parts in zip(*self.forwards, strict=True))
        return outputs, losses, y

    def running(self, ranks: Ranks, margins: Margins) -> Tensor:
        """Return the means of loss and error over the epoch's samples, float64; shape (2,).

        Args:
            ranks: The processes of the run.
            margins: The margins of outputs and labels.
        """
        outputs, losses, y = self.together()
        values = losses, (margins(outputs, y) <= 0).to(losses)
        if ranks.size == 1:
            return wide(torch.stack([value.mean() for value in values]))
        count = torch.full_like(values[0].sum(), len(y))
        sums = wide(torch.stack((*(value.sum() for value in values), count)))
        ranks.add_up([sums])
        return sums[:2] / sums[2]
