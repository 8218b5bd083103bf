r"""How fast the directions V_k turn, layer by layer, and the rate of a step that turns them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from janus_pl.callbacks._observer import LayerObserver, Mean
from janus_pl.errors import check_integer
from janus_pl.observables.norms import frobenius_norm
from janus_pl.observables.rotation import angle, effective_rate
from janus_pl.observables.wide import wide
from janus_pl.run.rows import Value
from janus_pl.training.clock import is_last_epoch
from janus_pl.training.subject import Subject
from janus_pl.training.subjects import subject_of


class LayerRotation(LayerObserver):
    r"""Logs the effective learning rate of each V_k, and the angles by which it turns.

        weight_norm/<layer>     ||p_k|| of the parameter with V_k = p_k/||p_k||: v_k under weight
                                normalization, W_k of plain weights
        effective_rate/<layer>  eta/||p_k||^2, the rate of V_k in a step of SGD (Eq. 15)
        rotation/<layer>        the angle of V_k in one step, in radians: the mean over the last
                                `steps` steps of the epoch
        rotation_since/<layer>  the angle of V_k since the last look, in radians

    Weight decay moves no V_k. It shrinks ||p_k||, and so acts on V_k through the effective rate
    alone. A module whose epochs have no known number of steps has no `rotation`.

    Args:
        every_n_epochs: The interval n of the looks: epochs 0, 1, 2, 4, 8, ... up to n, the
            multiples of n, and the last epoch. 0 turns the callback off.
        steps: The number of steps at the end of an epoch whose angles are averaged.
        layers: Globs of layers' names, such as `conv*`. Not set: all layers.
    """

    keys = (
        *("weight_norm/LAYER", "effective_rate/LAYER"),
        *("rotation/LAYER", "rotation_since/LAYER"),
    )

    def __init__(
        self, every_n_epochs: int = 10, steps: int = 8, layers: Sequence[str | int] | None = None
    ) -> None:
        super().__init__(every_n_epochs, layers)
        check_integer("callbacks.LayerRotation.steps", steps, 1)
        self.steps = steps
        self._turned = Mean()
        self._before: dict[str, Tensor] | None = None
        self._seen: dict[str, Tensor] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._turned.clear()
        self._before, self._seen = None, {}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._turned.clear()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        subject = subject_of(trainer, pl_module)
        batches = trainer.num_training_batches
        last = math.isfinite(batches) and batch_idx >= batches - self.steps
        due = self.is_due(subject.completed() + 1) or (
            self.every_n_epochs and is_last_epoch(trainer)
        )
        if last and due and not self.refused:
            self._before = self._copies(subject)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._before is not None:
            now = subject_of(trainer, pl_module).matrices()
            self._turned.add(_angles(self._before, now))
            self._before = None

    def observe(self, trainer: Trainer, subject: Subject) -> Mapping[str, Value]:
        chosen = [k for k, name in enumerate(subject.layers()) if self.takes(name)]
        now = self._copies(subject)
        columns = {"weight_norm": torch.stack([frobenius_norm(wide(p)) for p in now.values()])}
        if (turned := self._turned.result()) is not None:
            columns["rotation"] = turned
        if self._seen:
            columns["rotation_since"] = _angles(self._seen, now)
        self._seen = now
        rows = torch.stack([wide(column) for column in columns.values()]).cpu()  # the one wait
        columns = dict(zip(columns, rows, strict=True))
        rates = subject.learning_rates()[chosen].cpu()
        columns["effective_rate"] = effective_rate(rates, columns["weight_norm"])
        return {
            f"{key}/{name}": value
            for key, column in columns.items()
            for name, value in zip(now, column.tolist(), strict=True)
            if math.isfinite(value)
        }

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"turned": self._turned.state(), "seen": self._seen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._turned.load(state_dict["turned"])
        self._seen = dict(state_dict["seen"])

    def _copies(self, subject: Subject) -> dict[str, Tensor]:
        return {k: p.clone() for k, p in subject.matrices().items() if self.takes(k)}


def _angles(before: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> Tensor:
    """Return the angle between two p_k by layer, (L,), in float64: angles of 1e-8 are usual."""
    pairs = [(wide(p.to(now[k].device)), wide(now[k])) for k, p in before.items()]
    return torch.stack([angle(a / frobenius_norm(a), b / frobenius_norm(b)) for a, b in pairs])
