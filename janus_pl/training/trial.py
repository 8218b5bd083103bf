"""The loss of somebody else's training step, tried on a copy that nobody else sees."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrize

from janus_pl.observables.velocity import weight_velocity
from janus_pl.training.descended import Descended
from janus_pl.training.descending import descended_by
from janus_pl.training.generators import kept_generators
from janus_pl.training.held import same_weights
from janus_pl.training.ranks import Ranks
from janus_pl.training.subject import NotOffered, Subject
from janus_pl.training.weights import Weight, weights_of

FEW = 16  # samples by which it is tried whether a loss is a mean over samples
TOLERANCE = 1e-3  # of float32


class Trial:
    """A module's loss of chosen samples at its weights, in evaluation.

    It calls the `training_step` of a copy, so buffers, metrics and whatever else a step changes are
    the copy's. The copy logs nothing, and random generators are put back. In evaluation BatchNorm
    takes its running statistics and dropout nothing away: the loss of a minibatch is then the mean
    of the losses of its samples, which is tried.

    Args:
        trainer: The trainer of the fit.
        module: The module.

    Attributes:
        copy: The copy.

    Raises:
        NotOffered: The module cannot be copied, or steps its optimizers itself.
    """

    def __init__(self, trainer: Trainer, module: LightningModule) -> None:
        if not module.automatic_optimization:
            raise NotOffered("its training_step steps the optimizers itself")
        self._module = module
        try:
            self.copy = copy.deepcopy(module)
        except Exception as error:  # somebody else's module may hold anything
            raise NotOffered(f"it cannot be copied ({_line(error)})") from error
        for part in self.copy.modules():
            if isinstance(part, LightningModule):
                _silence(part)
        self.copy.trainer = trainer
        self.copy.eval()
        self._tried = False

    def is_of_now(self) -> bool:
        """Tell whether the module's weights and buffers are still those of the copy."""
        return same_weights(self._module, self.copy)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the mean loss of samples, () with its graph.

        Raises:
            NotOffered: The step cannot take them, or its loss is no mean over samples.
        """
        if not self._tried:
            self._try(x[:FEW], y[:FEW])
            self._tried = True
        return self._step(x, y)

    def losses(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the mean loss for each sample, (n,): their sums are those of the losses."""
        return self.loss(x, y).expand(len(y))

    def gradients(self, x: Tensor, y: Tensor, weights: Sequence[Weight]) -> dict[str, Tensor]:
        """Return the gradient of the mean loss by weight, as matrices (out, rest)."""
        own = weights_of(self.copy)[0]
        with torch.enable_grad(), parametrize.cached():
            tensors = [getattr(own[w.name].owner, w.key) for w in weights]
            known = [tensor.requires_grad for tensor in tensors]
            found = torch.autograd.grad(
                self.loss(x, y),
                [t for t, learned in zip(tensors, known, strict=True) if learned],
                materialize_grads=True,
            )
        parts = iter(found)
        return {
            w.name: w.read(next(parts) if learned else torch.zeros_like(tensor))
            for w, tensor, learned in zip(weights, tensors, known, strict=True)
        }

    def _try(self, x: Tensor, y: Tensor) -> None:
        """Refuse a loss that is no mean over samples, such as a sum or one over pairs."""
        with torch.no_grad():
            whole = float(self._step(x, y))
            parts = [float(self._step(x[n : n + 1], y[n : n + 1])) for n in range(len(y))]
        mean = sum(parts) / len(parts)
        if not abs(whole - mean) <= TOLERANCE * max(map(abs, parts)) and mean == mean:
            raise NotOffered(
                f"its loss is no mean over samples: {whole:.6g} of {len(y)} together,"
                f" {mean:.6g} as the mean of each by itself"
            )

    def _step(self, x: Tensor, y: Tensor) -> Tensor:
        step: Callable[..., Any] = self.copy.training_step
        given = [(x, y), 0][: len(inspect.signature(step).parameters)]
        # The other kernels of attention have no second derivative.
        with kept_generators(self.copy.device), sdpa_kernel(SDPBackend.MATH):
            try:
                loss = step(*given)
            except Exception as error:  # somebody else's code may raise anything
                raise NotOffered(f"its training_step cannot be tried ({_line(error)})") from error
        loss = loss.get("loss") if isinstance(loss, dict) else loss
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            raise NotOffered("its training_step returns no loss")
        return loss.reshape(())


class Tries(Subject):
    """The questions of a LightningModule's loss that a trial of its `training_step` answers.

    Attributes:
        trainer: The trainer of the fit.
        module: The module.
    """

    trainer: Trainer
    module: LightningModule
    _weights: dict[str, Weight]
    _trial: Trial | None = None

    def velocities_of(self, batch: Sequence[Any]) -> dict[str, Tensor]:
        x, y = batch[:2]
        gradients = self._tried().gradients(x, y, [*self._weights.values()])
        return {
            name: weight_velocity(self._weights[name].matrix(), gradient)
            for name, gradient in gradients.items()
        }

    def check_curvature(self) -> None:
        return  # whether there are second derivatives shows at the first look

    def descended(self) -> Descended:
        trial = self._tried()
        held = {id(p) for o in self.trainer.optimizers for g in o.param_groups for p in g["params"]}
        learned = {
            name: p
            for name, p in self.module.named_parameters()
            if p.requires_grad and id(p) in held
        }
        copies = dict(trial.copy.named_parameters())
        loss = descended_by(self.trainer, [*learned.values()], trial.losses, Ranks())
        return replace(loss, parameters=[copies[name] for name in learned])

    def drop_trial(self) -> None:
        """Let go of the copy, which needs the memory of the weights."""
        self._trial = None

    def _tried(self) -> Trial:
        """Return the trial of the weights as they are."""
        if self._trial is None or not self._trial.is_of_now():
            self._trial = Trial(self.trainer, self.module)
        return self._trial


def _silence(module: LightningModule) -> None:
    """Let a module log nothing: an object of a class of its own, without loggers."""
    quiet = {"log": _nothing, "log_dict": _nothing, "print": _nothing, "logger": None}
    module.__class__ = type(type(module).__name__, (type(module),), {**quiet, "loggers": []})


def _nothing(*args: Any, **options: Any) -> None:
    """Take what a step logs."""


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
