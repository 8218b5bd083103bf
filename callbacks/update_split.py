r"""What moves the weights: gradient, weight decay and projection (Eq. 1 and 17)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.optim import Optimizer

from callbacks._observer import Mean, Observer, plain_layers, weight_decay_of
from janus_pl.observables.norms import frobenius_norm
from janus_pl.run.rows import Value
from janus_pl.training.task import JanusTask

PARTS = ("gradient", "decay", "projection")


class UpdateSplit(Observer):
    r"""Logs `update/<part>/<layer>`: the shares of gradient, decay and projection in a step.

    A minibatch adds to the parameter p_k of W_k = s_k p_k/||p_k|| (times -eta)

        (s_k/||p_k||) G_k - (s_k/||p_k||) <G_k, V_k> V_k + wd p_k,     G_k = dLoss/dW_k,

    the gradient, the projection by the Lagrange multiplier (Eq. 14) and the weight decay wd of
    PyTorch. A share is the norm of one part over the sum of the three norms, averaged over the
    epoch's minibatches; shares of a layer add up to 1. Plain weights have no projection. Momentum
    sums these parts over steps and does not change them.

    Any other LightningModule is served for every `nn.Linear` and `nn.Conv*d` with a plain weight,
    as if its weight decay were added to the gradient (SGD, Adam; not AdamW).

    Args:
        every_n_epochs: look at epochs 1, 2, 4, 8, ... up to this number, at its multiples, and at
            the last one; 0 is off.
    """

    def __init__(self, every_n_epochs: int = 1) -> None:
        super().__init__(every_n_epochs)
        self._mean = Mean()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._mean.clear()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if isinstance(pl_module, JanusTask) and pl_module.parametrization is None:
            rank_zero_info("UpdateSplit reads nothing: the steps are not Lightning's")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._mean.clear()

    @torch.no_grad()
    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        if not self.every_n_epochs:
            return
        parts = _parts(pl_module, optimizer)
        if parts is not None:
            self._mean.add(parts / parts.sum(0))

    def observe(self, trainer: Trainer, module: LightningModule) -> Mapping[str, Value]:
        if (means := self._mean.result()) is None:
            return {}
        layers = [*(module.directions() if isinstance(module, JanusTask) else plain_layers(module))]
        return {
            f"update/{part}/{layer}": share
            for part, row in zip(PARTS, means.tolist(), strict=True)
            for layer, share in zip(layers, row, strict=True)
        }

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"mean": self._mean.state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._mean.load(state_dict["mean"])


def _parts(module: LightningModule, optimizer: Optimizer) -> Tensor | None:
    """Norms of the parts by layer, (3, L)."""
    if isinstance(module, JanusTask):
        if module.parametrization is None:
            return None
        weights = [*module.parametrization.weights.values()]
        decay = weight_decay_of(optimizer, weights[0])
        return module.parametrization.step_parts(decay)
    columns = []
    for weight in plain_layers(module).values():
        if weight.grad is None:  # the loss did not reach this layer
            columns.append(weight.new_full((3,), torch.nan))
            continue
        decayed = weight_decay_of(optimizer, weight) * frobenius_norm(weight)
        parts = (frobenius_norm(weight.grad), decayed, torch.zeros_like(decayed))
        columns.append(torch.stack(parts))
    return torch.stack(columns, dim=1) if columns else None
