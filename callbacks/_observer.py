"""When callbacks look, and at which layers of a module that is no JanusTask."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.optim import Optimizer

from janus_pl.errors import check_integer
from janus_pl.observables.norms import frobenius_norm
from janus_pl.run.rows import Value
from janus_pl.training.clock import is_last_epoch
from janus_pl.training.row import write_whole
from janus_pl.training.task import JanusTask, completed_epochs, put


class Mean:
    """The mean over an epoch's steps of a tensor, which a checkpoint within the epoch keeps."""

    def __init__(self) -> None:
        self.total: Tensor | None = None
        self.steps = 0

    def clear(self) -> None:
        """A new epoch begins."""
        self.total, self.steps = None, 0

    def add(self, value: Tensor) -> None:
        """One more step."""
        self.total = value if self.total is None else self.total.to(value.device) + value
        self.steps += 1

    def result(self) -> Tensor | None:
        """The mean so far; None without a step."""
        return None if self.total is None else self.total / self.steps

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {"total": self.total, "steps": self.steps}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.total, self.steps = state["total"], state["steps"]


class Observer(Callback, ABC):
    """Looks at log-spaced epochs and then every n-th, at the start, and always at the last one.

    Epochs are counted when completed: 0 is the initialization. Up to n the epochs 1, 2, 4, 8, ...
    are due, from then on the multiples of n; n = 0 turns the callback off. Linear regression
    records log-spaced epochs by itself (of a stream: steps), and of those the due ones are looked
    at.

    Args:
        every_n_epochs: n.

    Raises:
        UsageError: n is no integer from 0 up.
    """

    def __init__(self, every_n_epochs: int) -> None:
        check_integer(f"callbacks.{type(self).__name__}.every_n_epochs", every_n_epochs, 0)
        self.every_n_epochs = every_n_epochs
        self._last_seen = -1

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._last_seen = -1  # of an earlier fit
        foreign = not isinstance(pl_module, JanusTask)
        if foreign and stage == "fit" and self.every_n_epochs and trainer.world_size > 1:
            rank_zero_info(
                f"{type(self).__name__}: each of {trainer.world_size} processes looks by itself,"
                " at gradients after DDP's reduction and at all training samples; recorded are the"
                " means over processes, and the histograms of the first"
            )

    @property
    def state_key(self) -> str:
        # Two of a kind, with other options, may look at the same run.
        options = {k: v for k, v in vars(self).items() if not k.startswith("_")}
        simple = {k: v for k, v in options.items() if isinstance(v, int | float | str | tuple)}
        return self._generate_state_key(**simple)

    def state_dict(self) -> dict[str, Any]:
        return {"last_seen": self._last_seen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._last_seen = state_dict["last_seen"]

    @abstractmethod
    def observe(self, trainer: Trainer, module: LightningModule) -> Mapping[str, Value]:
        """The values of this callback for the weights as they are."""

    def is_due(self, epoch: int) -> bool:
        n = self.every_n_epochs
        if n == 0:
            return False
        return epoch % n == 0 or (epoch < n and epoch & (epoch - 1) == 0)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # A module of somebody else has no row for epoch 0: Lightning cannot log there.
        if isinstance(pl_module, JanusTask) and pl_module.completed() == 0 and self.is_due(0):
            self._look(trainer, pl_module, epoch=0)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = completed_epochs(trainer, pl_module)
        if self.is_due(epoch) or (self.every_n_epochs > 0 and is_last_epoch(trainer)):
            self._look(trainer, pl_module, epoch)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Early stopping decides after this callback has had its turn.
        epoch = completed_epochs(trainer, pl_module)
        late = self.every_n_epochs > 0 and self._last_seen < epoch
        if late and isinstance(pl_module, JanusTask):
            self._look(trainer, pl_module, epoch)
        elif late:  # Lightning logs nothing more: a row of its own
            axes = {"epoch": epoch - 1, "trainer/global_step": trainer.global_step}
            write_whole(trainer, {**self.observe(trainer, pl_module), **axes})

    def _look(self, trainer: Trainer, module: LightningModule, epoch: int) -> None:
        self._last_seen = epoch
        put(trainer, module, self.observe(trainer, module))


BINS = 512  # the most that W&B keeps of a histogram


def weight_layers(module: LightningModule) -> dict[str, Any]:
    """The layers of any module whose weight is a matrix out x rest: `nn.Linear` and `nn.Conv*d`.

    Keys are the modules' names, with underscores for dots.
    """
    kinds = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
    return {
        name.replace(".", "_") or "weight": layer
        for name, layer in module.named_modules()
        if isinstance(layer, kinds)
    }


def directions(module: LightningModule) -> dict[str, Tensor]:
    """V_k of every layer, as matrices (out, rest) of unit Frobenius norm."""
    if isinstance(module, JanusTask):
        return module.directions()
    with torch.no_grad():
        weights = {k: layer.weight.flatten(1) for k, layer in weight_layers(module).items()}
        return {k: w / frobenius_norm(w) for k, w in weights.items()}


def say_layers(name: str, module: LightningModule) -> None:
    """Say once which layers of a module without the contract are read and which are not."""
    if isinstance(module, JanusTask):
        return
    read = list(weight_layers(module))
    skipped = sorted(
        key.replace(".", "_")
        for key, layer in module.named_modules()
        if key.replace(".", "_") not in read
        and next(layer.parameters(recurse=False), None) is not None
    )
    rank_zero_info(
        f"{name} reads {', '.join(read) or 'no layer'}; skips {', '.join(skipped) or 'none'}"
    )


def plain_layers(module: LightningModule) -> dict[str, nn.Parameter]:
    """The weights of `weight_layers` that no parametrization computes."""
    layers = weight_layers(module)
    return {k: m.weight for k, m in layers.items() if isinstance(m.weight, nn.Parameter)}


def learning_rate_of(optimizer: Optimizer, parameter: nn.Parameter) -> float:
    """Of the group that holds the parameter."""
    return _group_of(optimizer, parameter)["lr"]


def weight_decay_of(optimizer: Optimizer, parameter: nn.Parameter) -> float:
    """Of the group that holds the parameter, 0 where none does."""
    return _group_of(optimizer, parameter).get("weight_decay", 0.0)


def _group_of(optimizer: Optimizer, parameter: nn.Parameter) -> dict[str, Any]:
    for group in optimizer.param_groups:
        if any(parameter is held for held in group["params"]):
            return group
    return {"lr": 0.0}
