"""The answers to callbacks that follow from a network and its parametrization alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from janus_pl.deep.curvature import check_curved
from janus_pl.deep.descent import Descends
from janus_pl.deep.epoch import Epoch
from janus_pl.deep.losses import Loss
from janus_pl.deep.network import DeepReLU
from janus_pl.deep.parametrization import trained_parameters
from janus_pl.deep.steps import bounded_of, shares_of, step_of
from janus_pl.observables.margins import output_margins
from janus_pl.observables.update import decay_of
from janus_pl.training.clock import epochs_of
from janus_pl.training.descended import Descended
from janus_pl.training.descending import descended_by
from janus_pl.training.optimizers import decays_of, has_no_memory, learning_rate_of
from janus_pl.training.samples import chosen_samples, noisy_samples, steps_per_epoch
from janus_pl.training.subject import Bounded, Buffers, NotOffered


class Answers(Descends):
    """A task of a network in a parametrization; what callbacks ask of its weights and steps.

    Attributes:
        network: The network.
        loss_name: The name of the loss.
        losses: The loss of each sample.
    """

    keys: Sequence[str] = (
        *("rho", "rho_learned", "learning_rate", "measured_step"),
        *("train/loss", "train/error", "train/loss_running", "train/error_running"),
        *("equilibrium/residual", "equilibrium/common_mode"),
    )
    network: DeepReLU
    loss_name: str
    losses: Loss
    _epoch: Epoch

    def layers(self) -> Sequence[str]:
        return list(self.parametrization.weights)

    def directions(self) -> dict[str, Tensor]:
        return self.parametrization.directions()

    def scale(self) -> Tensor:
        return self.parametrization.scale()

    def unit(self) -> Tensor:
        """Return the unit of the margins, by which those of the outputs are divided; ()."""
        return self.scale()

    def output_margins(self, outputs: Tensor, y: Tensor) -> Tensor:
        return output_margins(outputs, y)

    def completed(self) -> int:
        return epochs_of(self.trainer)

    def velocities(self) -> dict[str, Tensor]:
        return self.parametrization.velocities()

    def velocity_norms(self) -> Tensor:
        return self.parametrization.velocity_norms()

    def matrices(self) -> dict[str, Tensor]:
        return {name: p.detach().flatten(1) for name, p in self.parametrization.weights.items()}

    def learning_rates(self) -> Tensor:
        optimizer = self.trainer.optimizers[0]
        weights = self.parametrization.weights.values()
        return torch.tensor([learning_rate_of(optimizer, p) for p in weights], dtype=torch.float64)

    def running_loss(self) -> Tensor:
        return self._epoch.running(self.ranks, self.output_margins)[0]

    def check_curvature(self) -> None:
        check_curved(self.losses, self.loss_name)

    def descended(self) -> Descended:
        trained = [*trained_parameters(self, self.parametrization.weights).values()]
        return descended_by(self.trainer, trained, self._losses_of, self.ranks)

    def _losses_of(self, x: Tensor, y: Tensor) -> Tensor:
        return self.losses(self.network(x), y)

    def noisy(self) -> Tensor | None:
        return noisy_samples(self.trainer)

    def sample(self, count: int) -> Sequence[Any]:
        return chosen_samples(self.trainer, count)

    def steps_per_unit(self) -> int:
        return steps_per_epoch(self.trainer)

    def parts(self) -> Mapping[str, nn.Module]:
        return dict(self.network.layers.named_children())

    def split_layers(self) -> Sequence[str]:
        return self.layers()

    def step(self, optimizer: Optimizer, buffers: Buffers) -> dict[str, dict[str, Tensor]]:
        if self.grows and not has_no_memory(optimizer):
            raise NotOffered(
                "v_k's first momentum buffer under model.schedule: growing is no part of gradient,"
                " decay or projection"
            )
        return step_of(self.parametrization, optimizer, buffers)

    def step_shares(self, optimizer: Optimizer, buffers: Buffers) -> Tensor:
        if has_no_memory(optimizer):
            return shares_of(self.parametrization, self._decay(optimizer))
        return super().step_shares(optimizer, buffers)

    def bounded(self) -> Mapping[str, Bounded]:
        return bounded_of(self.network, self.parametrization)

    def kept(self, optimizer: Optimizer) -> Tensor:
        rate = learning_rate_of(optimizer, self._a_weight)
        return self.parametrization.kept(rate, self._decay(optimizer))

    def facts(self) -> dict[str, Any]:
        return {
            "kind": "network",
            "loss": self.loss_name,
            "normalization": self.normalization,
            "weight_decay": self.weight_decay,
            "decay": self.decay,
            "schedule": self._schedule_name(),
            "hold_norms": self.hold_norms,
            "decays": decays_of(self.trainer.optimizers, self.parametrization.weights),
        }

    def _schedule_name(self) -> str:
        """Return the schedule's name, or the class of the scheduler that trains."""
        if isinstance(self.schedule, str):
            return self.schedule
        return type(self.trainer.lr_scheduler_configs[0].scheduler).__name__

    @property
    def _a_weight(self) -> nn.Parameter:
        """Return one p_k; all of them are in one group of the optimizer."""
        return next(iter(self.parametrization.weights.values()))

    def _decay(self, optimizer: Optimizer) -> float:
        return decay_of(optimizer, self._a_weight)[1]
