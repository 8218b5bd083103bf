r"""JanusTask, an experiment of the paper that trains itself and answers callbacks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.utils import parametrize

from janus_pl.run.rows import Value, pend_objects
from janus_pl.training.clock import epochs_of
from janus_pl.training.ranks import Ranks
from janus_pl.training.row import Row


class Learned(Protocol):
    """The answers to callbacks about the parameters p_k of a network (W_k = s_k p_k/||p_k||)."""

    weights: dict[str, nn.Parameter]

    def kept(self, eta: float, weight_decay: float) -> Tensor:
        """Return a_k, the factor that one step of SGD without momentum keeps of p_k; (L,)."""

    def step_parts(self, weight_decay: float) -> Tensor:
        """Return the norms of the gradient, decay and projection of one step, (3, L)."""


class JanusTask(LightningModule, ABC):
    """One experiment of the paper: its mathematics, and the row of its record.

    V_k is the weight of layer k as a matrix (out, in * kh * kw), divided by its Frobenius norm.
    Layers are in the order of the forward pass.

    Attributes:
        row: The epoch's row.
        parametrization: The parameters of a network, if Lightning's own steps train it; else None.
        splits_epochs: Whether a checkpoint within an epoch of the trainer holds all that the rest
            of the epoch needs. If not, a run stops only at an epoch's end.
        ranks: The processes that share the samples.
        planned: The length of the run in the units of `completed`, if a progress bar should show
            the whole run and not an epoch; else None.
    """

    parametrization: Learned | None = None
    splits_epochs: bool = True

    def __init__(self) -> None:
        super().__init__()
        self.ranks = Ranks()
        self.row = Row()
        self.planned: int | None = None

    @abstractmethod
    def directions(self) -> dict[str, Tensor]:
        """Return V_k by layer: unit Frobenius norm, shape (out, in * kh * kw), detached."""

    @abstractmethod
    def scale(self) -> Tensor:
        """Return rho, the product of the Frobenius norms of all effective weights.

        Shape (), positive.
        """

    @abstractmethod
    def velocities(self) -> dict[str, Tensor]:
        r"""Return V_k dot of the last minibatch (Eq. 15), from the gradients of its backward pass.

        Shapes as `directions`. It is the loss's part alone: weight decay moves no V_k.
        """

    @abstractmethod
    def velocity_norms(self) -> Tensor:
        """Return the Frobenius norms of `velocities`, shape (L,), without forming them."""

    @abstractmethod
    def full_velocity_norms(self) -> Tensor:
        """Return the same norms for the gradient over the whole training set at these weights."""

    def velocities_of(self, batch: Sequence[Any]) -> dict[str, Tensor]:
        """Return V_k dot of the mean loss over a batch (x, y, ...) at these weights.

        Neither the weights nor the gradients of the last backward pass change. Several processes
        share the work: each has to ask, with the same batch.

        Raises:
            NotImplementedError: The task does not offer it.
        """
        raise NotImplementedError

    def equilibrium(self) -> dict[str, Tensor]:
        """Return the scale's distance from rest over the whole training set: values by name, ().

        It is empty if the task has no scale of its own.
        """
        return {}

    @abstractmethod
    def output_margins(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return y_n f_W(x_n), the margins in the outputs' own units; shape (B,)."""

    @abstractmethod
    def training_margins(self) -> Tensor:
        """Return fbar_n = y_n f_W(x_n)/rho of all N training samples, data order, shape (N,)."""

    @abstractmethod
    def completed(self) -> int:
        """Return the completed epochs, by which callbacks count; in a pass over a stream, steps."""

    def check_run(self, trainer: Trainer, data: object = None) -> None:
        """Refuse options that do not go together, before anything has started.

        Raises:
            UsageError: The options do not go together.
        """

    @torch.no_grad()
    def margins(self, batch: Sequence[Any]) -> Tensor:
        """Return fbar_n = y_n f_W(x_n)/rho of a batch (x, y, ...); shape (B,)."""
        x, y = batch[:2]
        with parametrize.cached():
            return self.output_margins(self(x), y) / self.scale()


def put(trainer: Trainer, module: LightningModule, values: Mapping[str, Value]) -> None:
    """Add values to the row of this epoch, for any module.

    A JanusTask collects its own row. Any other module logs through Lightning, whose epoch-end
    metrics make the row; objects wait for it in W&B's pending row.
    """
    if isinstance(module, JanusTask):
        module.row.put(values)
        return
    numbers = {k: v for k, v in values.items() if isinstance(v, int | float)}
    tensors = {k: torch.tensor(v, dtype=torch.float64) for k, v in numbers.items()}
    module.log_dict(tensors, sync_dist=trainer.world_size > 1)
    pend_objects(trainer, values)


def completed_epochs(trainer: Trainer, module: LightningModule) -> int:
    """Return the epochs that have been completed, the one that just ended among them."""
    return module.completed() if isinstance(module, JanusTask) else epochs_of(trainer)
