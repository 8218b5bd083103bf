"""The training of a classifier step by step, and the rows that it writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.nn.utils import parametrize

from janus_pl.deep.answers import Answers
from janus_pl.deep.checks import batches_of
from janus_pl.deep.compiled import StepPass, step_pass
from janus_pl.deep.epoch import Epoch, TrainingPass
from janus_pl.deep.parametrization import gradients_of, trained_parameters
from janus_pl.errors import DivergenceError
from janus_pl.observables.wide import wide
from janus_pl.training.allocator import keep_freed_memory
from janus_pl.training.clock import epochs_reached, is_last_epoch
from janus_pl.training.divergence import OnDivergence, diverged
from janus_pl.training.flat import flats_of
from janus_pl.training.guard import UpdateGuard
from janus_pl.training.held import HeldWeights
from janus_pl.training.precision import full_precision
from janus_pl.training.ranks import Ranks, backward_alone
from janus_pl.training.samples import training_samples
from janus_pl.training.schedules import step_schedules
from janus_pl.training.weights import evaluating


class Trains(Answers):
    """A classifier of ours that trains itself; what it is made of, its subclasses say.

    A step on a minibatch of B samples takes the gradient of (1/B) sum_n loss_n, in pieces of at
    most `data.micro_batch_size` samples. The optimizer adds the weight decay. Several processes
    (`trainer.devices`, strategy ddp) share the samples of every minibatch and of every other pass
    over the data; each sample is computed once. The processes add up their sums over samples once
    a step, so the gradient is the same for any number of processes.

    Attributes:
        on_divergence: The end of a run if a loss, gradient or weight is not finite.
    """

    on_divergence: OnDivergence
    _step_pass: StepPass

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self._epoch = Epoch()
        self._pass: TrainingPass | None = None
        self._of_row: HeldWeights | None = None  # of a row that early stopping holds back

    def residuals(self, seen: TrainingPass) -> dict[str, Tensor]:
        """Return numbers of the row that follow from a pass over the training set, by key."""
        return {}

    # The contract of JanusTask

    def full_velocity_norms(self) -> Tensor:
        total = [torch.zeros_like(weight) for weight in self.parametrization.weights.values()]
        count = 0
        for x, y in training_samples(self.trainer):
            torch._foreach_add_(total, self._own_gradients(x, y))
            count += len(y)
        self.ranks.add_up(total)
        torch._foreach_div_(total, count)
        return self.parametrization.velocity_norms(total)

    def velocities_of(self, batch: Sequence[Any]) -> dict[str, Tensor]:
        x, y = batch[:2]
        gradients = self._own_gradients(x, y)
        self.ranks.add_up(gradients)
        torch._foreach_div_(gradients, len(y))
        return self.parametrization.velocities(gradients)

    def margins(self) -> Tensor:
        return self.training_pass().margins

    @torch.no_grad()
    def training_pass(self) -> TrainingPass:
        """Return margins, loss and error over the whole training set, once for the same weights.

        Several processes share the work, so each has to ask.
        """
        if (seen := self._current_pass()) is None:
            with full_precision(self.device), parametrize.cached(), evaluating(self):
                forwards = [(self.outputs_of(x), y) for x, y in training_samples(self.trainer)]
                outputs, y = (torch.cat(parts) for parts in zip(*forwards, strict=True))
                margins, losses = self.output_margins(outputs, y), self.losses(outputs, y)
                scales = self.unit(), self.scale(), self.parametrization.learned_scale()
                held = HeldWeights(self.network)
                seen = TrainingPass.of(outputs, margins, losses, *scales, held)
            self._pass = seen
        return seen

    # Training

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        batch, parts = self.minibatch(batch), []
        self.guard.begin()
        with backward_alone(self.trainer.strategy), self.parametrization.once():
            for x, y in batch.split(self.ranks.rank, self.ranks.size):
                outputs, losses = self._step_pass(x, y)
                part = losses.sum() / len(batch.y)
                self.manual_backward(part)
                parts.append(part.detach())
                self._epoch.forwards.append((outputs.detach(), losses.detach(), y))
        if self.ranks.size > 1:
            parts = [torch.stack(parts).sum()]
            gradients = [p.grad for p in self.guard.parameters if p.grad is not None]
            self.ranks.add_up([*gradients, *parts])  # a step's one collective beside the guard's
        self.row.put({"learning_rate": self._epoch.count_step()})
        self.guard.step(self._epoch.optimizer, *parts)
        self.parametrization.after_step()
        self.guard.settle()
        step_schedules(self.trainer, "step")

    def setup(self, stage: str) -> None:
        super().setup(stage)
        self.ranks = Ranks(self.trainer)
        self.splits_epochs = self.ranks.size == 1  # else each process holds a part of an epoch
        self.row.forget()
        self._pass = self._of_row = self._validated = None
        self._epoch.forwards.clear()
        self._epoch.eta_t = 0.0

    def on_train_start(self) -> None:
        keep_freed_memory()
        trained = trained_parameters(self, self.parametrization.weights)
        leading = self.parametrization.leading()
        known = {id(p) for p in leading}
        rest = [p for p in trained.values() if id(p) not in known]
        flats = flats_of([*(p for p in leading if p.requires_grad), *rest])
        self.guard = UpdateGuard(trained, self.trainer.global_step, flats)
        # Otherwise some weights are frozen, or of another dtype.
        together = len(flats) == 1 and all(p.requires_grad for p in leading)
        norms = self.guard.norms(len(self.parametrization.weights))
        self.parametrization.use(flats[0] if together else None, norms)
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        self._epoch.optimizer = optimizer
        self._epoch.move_to(self.device)
        self._step_pass = step_pass(self.network, self.losses, self.compiled)
        if self.trainer.global_step == 0:
            self._start(optimizer.optimizer)
            self._complete_row(epoch=0)
            self.row.write(self.trainer)

    def on_train_epoch_start(self) -> None:
        self.row.write(self.trainer)
        self._epoch.forwards.clear()
        self._pass = None

    def on_train_epoch_end(self) -> None:
        running = self._epoch.running(self.ranks, self.output_margins)
        self._epoch.forwards.clear()
        bad, sound, loss, error = torch.cat((self.guard.state(), running)).tolist()
        if bad:
            raise self._divergence(int(sound))
        if is_last_epoch(self.trainer):
            self.training_pass()
        self.row.put({"train/loss_running": loss, "train/error_running": error})
        self._complete_row(epochs_reached(self.trainer))
        # Early stopping decides later; if it stops the run, callbacks add to this row once more.
        if self.trainer.early_stopping_callbacks:
            self._of_row = HeldWeights(self)
        else:
            self.row.write(self.trainer)
        step_schedules(self.trainer, "epoch")

    def on_train_end(self) -> None:
        if self.row.waits:
            if self._of_row is None or self.ranks.agree(self._of_row.unchanged()):
                self._complete_row(epochs_reached(self.trainer))
            else:
                self.row.back()
            self.row.write(self.trainer)

    # State

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if "guard" in vars(self):  # the guard is made when training starts
            bad, sound = self.guard.state().tolist()
            if bad:  # within an epoch; the last sound checkpoint stays
                raise self._divergence(int(sound))
        checkpoint["eta_t"] = self._epoch.eta_t
        checkpoint["row"] = self.row.state()
        checkpoint["forwards"] = list(self._epoch.forwards)
        if self._epoch.forwards:  # within an epoch
            checkpoint["batches"] = batches_of(self.trainer.train_dataloader)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self._epoch.eta_t = checkpoint["eta_t"]
        self.row.load(checkpoint["row"])
        self._epoch.forwards = [tuple(forward) for forward in checkpoint["forwards"]]

    # Parts

    def _own_gradients(self, x: Tensor, y: Tensor) -> list[Tensor]:
        """Return the gradients of sum_n loss_n over this process's share, by the weights."""
        x, y = self.ranks.own(x), self.ranks.own(y)
        with evaluating(self):
            return gradients_of(lambda: self.losses(self(x), y).sum(), self.parametrization.weights)

    def _current_pass(self) -> TrainingPass | None:
        """Return the pass over the training set that was made by the weights of this moment."""
        if self._pass is not None and not self.ranks.agree(self._pass.weights.unchanged()):
            self._pass = None
        return self._pass

    def _complete_row(self, epoch: float) -> None:
        """Complete the row with the scale and, if there was a training pass, with its numbers."""
        self._check_validated()
        numbers = {"rho": self.scale(), "rho_learned": self.parametrization.learned_scale()}
        if seen := self._current_pass():
            numbers |= {"train/loss": seen.loss, "train/error": seen.error}
            numbers |= self.residuals(seen)
            self.row.put({"measured_step": self.trainer.global_step})
        # One transfer, since each makes the host wait.
        values = torch.stack([wide(value) for value in numbers.values()]).tolist()
        self.row.put(dict(zip(numbers, values, strict=True)))
        self.row.complete(self.trainer, self._axes(epoch))

    def _divergence(self, sound: int) -> DivergenceError:
        trainer, rate = self.trainer, self._epoch.learning_rate
        epoch = trainer.current_epoch + 1
        message = self.guard.message(epoch, sound, rate, self.weight_decay)
        axes = self._axes(epoch)
        return diverged(trainer, message, sound + 1, axes, self.on_divergence)

    def _axes(self, epoch: float) -> dict[str, float]:
        step = self.trainer.global_step
        return {"epoch": epoch, "trainer/global_step": step, "eta_t": self._epoch.eta_t}
