r"""JanusTask, an experiment of the paper that trains itself and answers callbacks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn.utils import parametrize

from janus_pl.run.description import MarginKind
from janus_pl.training.ranks import Ranks
from janus_pl.training.row import Row
from janus_pl.training.subject import Subject
from janus_pl.training.subjects import Describes


class JanusTask(LightningModule, Subject):
    """One experiment of the paper: its mathematics, and the row of its record.

    It answers callbacks by itself (`janus_pl.training.subject`). Layers are in the order of the
    forward pass.

    Attributes:
        splits_epochs: Whether a checkpoint within an epoch of the trainer holds all that the rest
            of the epoch needs. If not, a run stops only at an epoch's end.
        ranks: The processes that share the samples.
    """

    margin: MarginKind = "normalized"
    splits_epochs: bool = True

    def __init__(self) -> None:
        super().__init__()
        self.ranks = Ranks()
        self.row = Row()
        self.planned: int | None = None

    def configure_callbacks(self) -> list[Callback]:
        """Return the callback that measures and records a fit, unless the trainer has it."""
        given: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        return [] if any(isinstance(each, Describes) for each in given) else [Describes()]

    def layers(self) -> Sequence[str]:
        return list(self.directions())

    @abstractmethod
    def scale(self) -> Tensor:
        """Return rho, the product of the Frobenius norms of all effective weights.

        Shape (), positive.
        """

    @abstractmethod
    def output_margins(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return y_n f_W(x_n), the margins in the outputs' own units; shape (B,)."""

    @abstractmethod
    def margins(self) -> Tensor:
        """Return fbar_n = y_n f_W(x_n)/rho of all N training samples, data order, shape (N,)."""

    def check_run(self, trainer: Trainer, data: object = None) -> None:
        """Refuse options that do not go together, before anything has started.

        Raises:
            UsageError: The options do not go together.
        """

    @torch.no_grad()
    def margins_of(self, batch: Sequence[Any]) -> Tensor:
        """Return fbar_n = y_n f_W(x_n)/rho of a batch (x, y); shape (B,)."""
        x, y = batch[:2]
        with parametrize.cached():
            return self.output_margins(self(x), y) / self.scale()
