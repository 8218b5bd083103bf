r"""The noise of SGD, layer by layer: the norms of V_k dot (Figs. 3 and 4a)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch.optim import Optimizer

from janus_pl.callbacks._observer import LayerObserver, Mean
from janus_pl.errors import check_integer
from janus_pl.run.rows import Value
from janus_pl.training.subject import NotOffered, Subject, offers
from janus_pl.training.subjects import subject_of


class LayerVelocity(LayerObserver):
    r"""Logs `velocity/<layer>`: the mean of ||V_k dot||_F over the epoch's minibatches (Eq. 15).

    V_k dot comes from the gradients that the backward pass left, so it costs no backward pass of
    its own. `velocity_full/<layer>`, on request, is the norm for the gradient over the whole
    training set at the weights of the epoch's end: a pass forward and back.

    Any other LightningModule is served for all its weights: V dot = -||W|| (G - <G, V> V). Its loss
    is its own, so it has no `velocity_full`.

    Args:
        every_n_epochs: The interval n of the looks: epochs 1, 2, 4, 8, ... up to n, the multiples
            of n, and the last epoch. 0 turns the callback off.
        full_every_n_epochs: The interval of `velocity_full`, with the same rule.
        layers: Globs of layers' names, such as `conv*`. Not set: all layers.
    """

    keys = ("velocity/LAYER", "velocity_full/LAYER")

    def __init__(
        self,
        every_n_epochs: int = 1,
        full_every_n_epochs: int = 0,
        layers: Sequence[str | int] | None = None,
    ) -> None:
        super().__init__(every_n_epochs, layers)
        check_integer("callbacks.LayerVelocity.full_every_n_epochs", full_every_n_epochs, 0)
        self.full = _FullVelocity(full_every_n_epochs, layers)
        self._mean = Mean()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._mean.clear()
        if stage == "fit" and self.full.every_n_epochs:
            self.check(subject_of(trainer, pl_module))  # for the full velocity alone, too
        self.full.setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.full.on_train_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._mean.clear()

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        if not self.every_n_epochs or self.refused:
            return
        subject = subject_of(trainer, pl_module)
        try:
            self._mean.add(subject.velocity_norms())
        except NotOffered as reason:
            self.refuse(subject, reason)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        self.full.on_train_epoch_end(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_end(trainer, pl_module)
        self.full.on_train_end(trainer, pl_module)

    def observe(self, trainer: Trainer, subject: Subject) -> Mapping[str, Value]:
        if (means := self._mean.result()) is None:
            return {}
        named = zip(subject.layers(), means.tolist(), strict=True)
        return {f"velocity/{name}": mean for name, mean in named if self.takes(name)}

    def state_dict(self) -> dict[str, Any]:
        own = {"mean": self._mean.state(), "full": self.full.state_dict()}
        return super().state_dict() | own

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._mean.load(state_dict["mean"])
        self.full.load_state_dict(state_dict["full"])


class _FullVelocity(LayerObserver):
    """Norms for the gradient over the whole training set, with an interval of their own."""

    def check(self, subject: Subject) -> None:
        if not offers(subject, "full_velocity_norms"):
            field = "callbacks.LayerVelocity.full_every_n_epochs"
            self.ask_before(field, subject, subject.full_velocity_norms)

    def observe(self, trainer: Trainer, subject: Subject) -> Mapping[str, Value]:
        named = zip(subject.layers(), subject.full_velocity_norms().tolist(), strict=True)
        return {f"velocity_full/{name}": norm for name, norm in named if self.takes(name)}
