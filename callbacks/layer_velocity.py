r"""The noise of SGD, layer by layer: the norms of V_k dot (Figs. 3 and 4a)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.optim import Optimizer

from callbacks._observer import Mean, Observer, say_layers, weight_layers
from janus_pl.errors import UsageError, check_integer
from janus_pl.observables.norms import frobenius_norm
from janus_pl.observables.velocity import weight_velocity
from janus_pl.run.rows import Value
from janus_pl.training.task import JanusTask


class LayerVelocity(Observer):
    r"""Logs `velocity/<layer>`: the mean of ||V_k dot||_F over the epoch's minibatches (Eq. 15).

    V_k dot comes from the gradients that the backward pass left, so it costs no backward pass of
    its own. `velocity_full/<layer>`, on request, is the norm for the gradient over the whole
    training set at the weights of the epoch's end: a pass forward and back.

    Any other LightningModule is served for every `nn.Linear` and `nn.Conv*d` with a plain weight:
    V dot = -||W|| (G - <G, V> V); velocities only, since its loss is its own.

    Args:
        every_n_epochs: look at epochs 1, 2, 4, 8, ... up to this number, at its multiples, and at
            the last one; 0 is off.
        full_every_n_epochs: the same for `velocity_full`.
    """

    def __init__(self, every_n_epochs: int = 1, full_every_n_epochs: int = 0) -> None:
        super().__init__(every_n_epochs)
        check_integer("callbacks.LayerVelocity.full_every_n_epochs", full_every_n_epochs, 0)
        self.full = _FullVelocity(full_every_n_epochs)
        self._mean = Mean()
        self._layers: dict[str, nn.Module] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        say_layers("LayerVelocity", pl_module)
        if isinstance(pl_module, JanusTask):
            return
        if self.full.every_n_epochs:
            field = "callbacks.LayerVelocity.full_every_n_epochs"
            raise UsageError(field, self.full.every_n_epochs, "0 for a module that is no JanusTask")
        layers = weight_layers(pl_module)
        self._layers = {k: m for k, m in layers.items() if isinstance(m.weight, nn.Parameter)}
        if lost := layers.keys() - self._layers.keys():
            rank_zero_info(
                f"LayerVelocity skips {', '.join(sorted(lost))}: weights with a parametrization"
            )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._mean.clear()
        self.full.setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.full.on_train_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._mean.clear()

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        if not self.every_n_epochs or not (isinstance(pl_module, JanusTask) or self._layers):
            return
        self._mean.add(self._norms(pl_module))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        self.full.on_train_epoch_end(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_end(trainer, pl_module)
        self.full.on_train_end(trainer, pl_module)

    def observe(self, trainer: Trainer, module: LightningModule) -> Mapping[str, Value]:
        if (means := self._mean.result()) is None:
            return {}
        names = list(module.directions() if isinstance(module, JanusTask) else self._layers)
        return {f"velocity/{name}": mean for name, mean in zip(names, means.tolist(), strict=True)}

    def state_dict(self) -> dict[str, Any]:
        own = {"mean": self._mean.state(), "full": self.full.state_dict()}
        return super().state_dict() | own

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._mean.load(state_dict["mean"])
        self.full.load_state_dict(state_dict["full"])

    @torch.no_grad()
    def _norms(self, module: LightningModule) -> Tensor:
        if isinstance(module, JanusTask):
            return module.velocity_norms()
        return torch.stack([_velocity_norm(layer) for layer in self._layers.values()])


class _FullVelocity(Observer):
    """The norms for the gradient over the whole training set, on a cadence of its own."""

    def observe(self, trainer: Trainer, module: LightningModule) -> Mapping[str, Value]:
        assert isinstance(module, JanusTask)
        norms = module.full_velocity_norms().tolist()
        return {f"velocity_full/{k}": v for k, v in zip(module.directions(), norms, strict=True)}


def _velocity_norm(layer: nn.Module) -> Tensor:
    weight = layer.get_parameter("weight")
    if weight.grad is None:  # the loss did not reach this layer: no velocity to speak of
        return weight.new_full((), torch.nan)
    return frobenius_norm(weight_velocity(weight, weight.grad))
