r"""JanusTask, an experiment of the paper that trains itself and answers callbacks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.utils import parametrize

from janus_pl.run.description import MarginKind
from janus_pl.training.callback_checks import check_callbacks
from janus_pl.training.features import features_of, forwards_of, last_dense, named_parts
from janus_pl.training.monitors import settle_monitors
from janus_pl.training.options import check_trainer_options
from janus_pl.training.precision import prefer_ieee
from janus_pl.training.ranks import Ranks
from janus_pl.training.restoring import Restoring, check_options, check_steps_left
from janus_pl.training.row import Row
from janus_pl.training.subject import Features, Forward, Subject
from janus_pl.training.subjects import Describes


class JanusTask(LightningModule, Subject):
    """One experiment of the paper: its mathematics, and the row of its record.

    It answers callbacks by itself (`janus_pl.training.subject`). Layers are in the order of the
    forward pass.

    Attributes:
        splits_epochs: Whether a checkpoint within an epoch of the trainer holds all that the rest
            of the epoch needs. If not, a run stops only at an epoch's end.
        in_float64: Whether it computes in float64, whatever the trainer's precision.
        ranks: The processes that share the samples.
    """

    margin: MarginKind = "normalized"
    splits_epochs: bool = True
    in_float64: bool = False

    def __init__(self) -> None:
        super().__init__()
        self.ranks = Ranks()
        self.row = Row()
        self.planned: int | None = None
        self._stage: str | None = None

    def configure_callbacks(self) -> list[Callback]:
        """Return the callbacks that go on from a checkpoint, and measure and record a fit."""
        given: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        if self.trainer.state.fn == "fit":
            check_callbacks(self.trainer, self)  # before the callbacks' own `setup`
            settle_monitors(self.trainer, self)
        described = any(isinstance(each, Describes) for each in given)
        return [Restoring()] if described else [Restoring(), Describes()]

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

    def setup(self, stage: str) -> None:
        """Check the options of the trainer; a script computes by IEEE (`training.precision`)."""
        self._stage = stage
        prefer_ieee()
        check_trainer_options(self.trainer, self, stage)
        if stage == "fit":
            self.check_run(self.trainer, getattr(self.trainer, "datamodule", None))

    def features(self) -> Features:
        return features_of(self.trainer, self, last_dense(self), self.ranks)

    def parts(self) -> Mapping[str, nn.Module]:
        return named_parts(self)

    def forwards(self, names: Sequence[str]) -> Iterator[Forward]:
        chosen = {name: self.parts()[name] for name in names}
        return forwards_of(self.trainer, self, chosen, self.ranks)

    # Going on from a checkpoint

    def fixed_options(self, training: bool) -> dict[str, Any]:
        """Return the options, by field, that a checkpoint of other ones does not go with.

        Args:
            training: Whether training goes on. If not, the weights alone are taken.
        """
        return {}

    def check_fixed(self, checkpoint: Mapping[str, Any], training: bool) -> None:
        """Refuse a checkpoint of a model with other fixed options.

        Raises:
            UsageError: An option differs.
        """
        then = checkpoint.get("hyper_parameters") or {}
        fields = {f"model.{name}": value for name, value in then.items()}
        check_options(self.fixed_options(training), fields)

    def check_restored(
        self,
        checkpoint: Mapping[str, Any],
        trainer: Trainer,
        data: object = None,
        resumes: bool = True,
    ) -> None:
        """Refuse a checkpoint that training cannot go on from with these data and options.

        Args:
            checkpoint: Its content.
            trainer: The trainer before its fit.
            data: The data module after its `setup`, or None.
            resumes: Whether the run itself is resumed; it may have been killed at its very end.

        Raises:
            UsageError: Something cannot be carried over, or no step is left.
        """
        check_steps_left(checkpoint, trainer.max_epochs, trainer.max_steps, resumes)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self._stage is None:  # `load_from_checkpoint`
            return
        training = self._stage == "fit"
        self.check_fixed(checkpoint, training)
        if training:
            self.check_restored(checkpoint, self.trainer, getattr(self.trainer, "datamodule", None))

    @torch.no_grad()
    def margins_of(self, batch: Sequence[Any]) -> Tensor:
        """Return fbar_n = y_n f_W(x_n)/rho of a batch (x, y); shape (B,)."""
        x, y = batch[:2]
        with parametrize.cached():
            return self.output_margins(self(x), y) / self.scale()
