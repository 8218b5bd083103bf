r"""The parts of each step: gradient, weight decay and projection (Eq. 1 and 17)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from janus_pl.callbacks._observer import LayerObserver, beside
from janus_pl.observables.update import PARTS
from janus_pl.run.rows import Value
from janus_pl.training.subject import Buffers, NotOffered, Subject
from janus_pl.training.subjects import subject_of


class UpdateSplit(LayerObserver):
    r"""Logs `update/<part>/<layer>`: the shares of gradient, decay and projection in a step.

    The gradient that an optimizer gets for the parameter p_k of W_k = s_k p_k/||p_k|| is

        (s_k/||p_k||) G_k - (s_k/||p_k||) <G_k, V_k> V_k + wd p_k,     G_k = dLoss/dW_k,

    the gradient, the projection by the Lagrange multiplier (Eq. 14) and PyTorch's weight decay wd.
    Plain weights have no projection. A step is linear in its first moment, so each part has a
    buffer that follows the optimizer's own recursion, over the step's own denominator; the decay
    of AdamW acts apart. The parts sum to the step (`janus_pl.observables.update`). A share is the
    norm of one part over the sum of the three norms, averaged over the epoch's steps; shares of a
    layer add up to 1. The step is the optimizer's: norms that are put back after it (`lagrange`,
    `model.hold_norms`) are no part. With momentum, `model.schedule: growing` has no shares.

    Any other LightningModule is served for its weights without a parametrization. Another
    optimizer than those of `janus_pl.observables.update`, or gradient clipping, is said once.

    Args:
        every_n_epochs: The interval n of the looks: epochs 1, 2, 4, 8, ... up to n, the multiples
            of n, and the last epoch. 0 turns the callback off.
        layers: Globs of layers' names, such as `conv*`. Not set: all layers.
    """

    keys = ("update/gradient/LAYER", "update/decay/LAYER", "update/projection/LAYER")

    def __init__(self, every_n_epochs: int = 1, layers: Sequence[str | int] | None = None) -> None:
        super().__init__(every_n_epochs, layers)
        self._buffers: Buffers = {}
        self._total: Tensor | None = None
        self._steps: Tensor | None = None  # of each layer

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._buffers, self._total, self._steps = {}, None, None

    def readable(self, subject: Subject) -> Sequence[str]:
        return self.ask_before("callbacks.UpdateSplit", subject, subject.split_layers)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._buffers = {  # a checkpoint's were loaded to the CPU
            layer: {part: buffer.to(pl_module.device) for part, buffer in parts.items()}
            for layer, parts in self._buffers.items()
        }
        super().on_train_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._total = self._steps = None

    @torch.no_grad()
    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        if not self.every_n_epochs or self.refused:
            return
        subject = subject_of(trainer, pl_module)
        try:
            shares = subject.step_shares(optimizer, self._buffers)
        except NotOffered as reason:
            self.refuse(subject, reason)
            return
        if self._total is None or self._steps is None:
            self._total, self._steps = shares.nan_to_num(0.0), (~shares.isnan()).int()
            return
        self._total = beside(self._total, shares) + shares.nan_to_num(0.0)
        self._steps = beside(self._steps, shares) + (~shares.isnan()).int()

    def observe(self, trainer: Trainer, subject: Subject) -> Mapping[str, Value]:
        if self._total is None or self._steps is None:
            return {}
        means = (self._total / self._steps).tolist()  # NaN of a layer without a step
        return {
            f"update/{part}/{layer}": share
            for part, row in zip(PARTS, means, strict=True)
            for layer, share in zip(subject.split_layers(), row, strict=True)
            if self.takes(layer)
        }

    def state_dict(self) -> dict[str, Any]:
        # A copy, for the buffers of a layer are replaced while training goes on.
        buffers = {layer: dict(parts) for layer, parts in self._buffers.items()}
        own = {"buffers": buffers, "total": self._total, "steps": self._steps}
        return super().state_dict() | own

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._buffers = {layer: dict(parts) for layer, parts in state_dict["buffers"].items()}
        self._total, self._steps = state_dict["total"], state_dict["steps"]
