"""The paper's deep experiment: a homogeneous ReLU network on two classes of images."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric
from torchmetrics.classification import BinaryAccuracy

from janus_pl.data.loader import Batch, InMemoryBatches
from janus_pl.data.regression import LinearProblem
from janus_pl.errors import DivergenceError, UsageError
from janus_pl.losses import LOSSES, PULLS
from janus_pl.nn.deep_relu import DeepReLU
from janus_pl.nn.normalization import PARAMETRIZATIONS, Parametrization
from janus_pl.observables.margins import equilibrium_residual, margin_statistics, output_margins
from janus_pl.optimization import (
    OptimizerFactory,
    Schedule,
    build_optimizer,
    build_scheduler,
    check_end,
    check_schedule,
)
from janus_pl.runtime.divergence import OnDivergence, check_on_divergence, diverged
from janus_pl.runtime.guard import UpdateGuard
from janus_pl.runtime.ranks import backward_alone
from janus_pl.task import JanusTask, Ranks, epochs_of, is_last_epoch, training_samples
from janus_pl.theory.deep import lagrange_multiplier


class TrainingPass(NamedTuple):
    """The whole training set seen by one set of weights.

    Attributes:
        margins: fbar_n = y_n f_W(x_n)/rho of all N samples in data order, shape (N,).
        loss: the mean of the loss over all N samples, without weight decay; shape ().
        error: the share of samples whose margin is not positive; shape ().
        common_mode: the mean of m_n^2, m = (f_0 + f_1)/2 the part of two outputs that no margin
            sees; shape ().
        rho: the scale, the product of the Frobenius norms; shape ().
        rho_learned: the part of rho that is learned; shape ().
        step: the number of optimizer steps behind these weights. Full-batch GD measures in its
            training forward, so before the update: one less than the steps taken.
    """

    margins: Tensor
    loss: Tensor
    error: Tensor
    common_mode: Tensor
    rho: Tensor
    rho_learned: Tensor
    step: int


class DeepReLUClassifier(JanusTask):
    r"""Deep ReLU network with labels +1/-1, trained by SGD or full-batch GD (Section D.5).

    f_W(x) = rho f_V(x) with all V_k of unit Frobenius norm; `normalization` says what of it is
    learned. GD is SGD with `data.batch_size: full`.

    One step on a minibatch of B samples takes the gradient of (1/B) sum_n loss_n, in pieces of
    `data.micro_batch_size` samples where the batch is large; the optimizer adds the weight decay.
    Several processes (`trainer.devices`, strategy ddp) share the B samples of every minibatch and
    the passes that look at the data, every sample once; the sums over samples are added up once a
    step, so the gradient is the same for any number of them.

    Args:
        loss: `square` on outputs coded +1/-1 (Eq. 12), `cross_entropy`, `logistic` (Eq. 16) or
            `exponential` (Section D.5); or any other name in `janus_pl.losses.LOSSES` and `PULLS`.
        learning_rate: eta at the start.
        weight_decay: the paper's lambda.
        decay: what lambda acts on. `all`: gradient lambda w for every learned parameter w, v_k and
            rho (PyTorch's `weight_decay` = lambda); `rho`: Eq. 12, lambda rho^2 in the loss, so
            gradient 2 lambda rho for rho alone (PyTorch's `weight_decay` = 2 lambda).
        schedule: `cosine` (over the run), `constant` or `inverse_sqrt`, or a PyTorch scheduler as
            `class_path` and `init_args`; it steps once an epoch.
        optimizer: a PyTorch optimizer as `class_path` and `init_args`, called with the parameters
            and the learning rate; momentum is given here, weight decay is not.
        strides: the strides of the four convolutions; (2, 2, 2, 2) is ten times cheaper.
        channels: the output channels of the four convolutions.
        hidden: the width of the first dense layer.
        image_size: height and width of the images, in pixels.
        init_scale: the standard deviation of the weights at the start.
        normalization: `weight_norm`, W_k = g_k v_k/||v_k|| with frozen gains g_k and a global rho
            (Fig. A.8b); `per_layer`, W_k = rho_k V_k with every rho_k learned (Fig. A.8a);
            `lagrange`, V_k back on the unit sphere after every step and a global rho (Eq. 1/17),
            which wants learning rates a hundred times lower; `none`, plain weights; or any other
            name in `janus_pl.nn.PARAMETRIZATIONS`.
        on_divergence: a loss, gradient or weight that is not finite ends the run, with the last
            sound weights. `stop`: as an error, exit code 3; `record`: as an outcome, exit code 0.

    Raises:
        UsageError: a value outside its range.
    """

    parametrization: Parametrization

    def __init__(
        self,
        loss: str = "square",
        learning_rate: float = 0.03,
        weight_decay: float = 1e-3,
        decay: Literal["all", "rho"] = "all",
        schedule: Schedule = "cosine",
        optimizer: OptimizerFactory = lambda params, lr: torch.optim.SGD(
            params, lr, momentum=0.9, fused=True
        ),
        strides: Sequence[int] = (1, 2, 1, 2),
        channels: Sequence[int] = (32, 64, 128, 128),
        hidden: int = 1024,
        image_size: int = 32,
        init_scale: float = 0.1,
        normalization: str = "weight_norm",
        on_divergence: OnDivergence = "stop",
    ) -> None:
        super().__init__()
        _check("model.learning_rate", learning_rate, learning_rate > 0, "a finite number above 0")
        _check("model.weight_decay", weight_decay, weight_decay >= 0, "a finite number from 0 up")
        _check("model.init_scale", init_scale, init_scale > 0, "a finite number above 0")
        known = [name for name in LOSSES if name in PULLS]
        if loss not in known:
            raise UsageError("model.loss", loss, ", ".join(known))
        if decay not in ("all", "rho"):
            raise UsageError("model.decay", decay, "all, rho")
        if normalization not in PARAMETRIZATIONS:
            raise UsageError("model.normalization", normalization, ", ".join(PARAMETRIZATIONS))
        check_on_divergence(on_divergence)
        self.save_hyperparameters(ignore=["optimizer", "schedule"], logger=False)
        self.automatic_optimization = False
        self.network = DeepReLU(strides, channels, hidden, image_size, init_scale)
        self.parametrization = PARAMETRIZATIONS[normalization](self.network)
        self.image_size = image_size
        self.loss_name = loss
        self.losses = LOSSES[loss]
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.decay = decay
        self.schedule = schedule
        self.on_divergence: OnDivergence = on_divergence
        self.make_optimizer = optimizer
        self._epoch = _Epoch()
        self._whole_batch = False
        # Every process knows the outputs of all samples: there is nothing to synchronize.
        self.held_out_loss = MeanMetric(nan_strategy="disable", sync_on_compute=False)
        self.held_out_accuracy = BinaryAccuracy(validate_args=False, sync_on_compute=False)
        self._pass: TrainingPass | None = None
        check_schedule(schedule, self._build_optimizer())  # a mistake shows before the start

    # The contract of JanusTask

    def directions(self) -> dict[str, Tensor]:
        return self.parametrization.directions()

    def scale(self) -> Tensor:
        return self.parametrization.scale()

    def velocities(self) -> dict[str, Tensor]:
        return self.parametrization.velocities()

    def velocity_norms(self) -> Tensor:
        return self.parametrization.velocity_norms()

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

    def equilibrium(self) -> dict[str, Tensor]:
        r"""drho/dt, nu and, for the square loss, mu - (M + lambda) rho of the training set.

        Eq. 13, 14 and 16 with the pull of the loss, lambda rho^2 included, in the units of the
        learned rho; the square loss of two outputs adds its common mode. Where every layer learns
        its own norm, `rho_dot/<layer>` are the flows of those:
        d rho_k/dt = (rho/rho_k) (drho/dt without decay) - (PyTorch's weight decay) rho_k.
        """
        seen = self.training_pass()
        numbers = self._equilibrium(seen)
        rho, pull = seen.rho.double(), PULLS[self.loss_name]
        nu = lagrange_multiplier(seen.margins.double(), rho, pull)
        if self.loss_name == "square":
            nu = nu - seen.common_mode
        numbers["nu"] = nu
        flow = 2 * nu  # rho drho/dt without decay, the same for every factor of f_W
        wd = self.weight_decay if self.decay == "all" else 2 * self.weight_decay
        if self.network.rho.requires_grad:
            learned = seen.rho_learned.abs()
            return {**numbers, "rho_dot": flow / learned - wd * learned}
        norms = self.parametrization.factors().abs()
        flows = flow / norms - wd * norms
        return numbers | {f"rho_dot/{k}": v for k, v in zip(self.directions(), flows, strict=True)}

    def output_margins(self, outputs: Tensor, y: Tensor) -> Tensor:
        return output_margins(outputs, y)

    def training_margins(self) -> Tensor:
        return self.training_pass().margins

    def completed(self) -> int:
        return epochs_of(self.trainer)

    @torch.no_grad()
    def training_pass(self) -> TrainingPass:
        """Margins, loss and error over the whole training set, computed once for each step.

        Several processes share the work: all of them have to ask.
        """
        step = self.trainer.global_step
        if self._pass is None or self._pass.step < step - self._whole_batch:
            with parametrize.cached():
                forwards = [(self._shared(x), y) for x, y in training_samples(self.trainer)]
            outputs, y = (torch.cat(parts) for parts in zip(*forwards, strict=True))
            self._pass = self._summarize(outputs, self.losses(outputs, y), y, step)
        return self._pass

    # Training

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        count, parts = len(batch.y), []
        self.guard.clear_gradients()
        with backward_alone(self.trainer.strategy):
            for x, y in batch.split(self.ranks.rank, self.ranks.size):
                outputs = self.network(x)
                losses = self.losses(outputs, y)
                part = losses.sum() / count
                self.manual_backward(part)
                parts.append(part.detach())
                self._epoch.forwards.append((outputs.detach(), losses.detach(), y))
        if self.ranks.size > 1:
            parts = [torch.stack(parts).sum()]
            gradients = [p.grad for p in self.guard.parameters if p.grad is not None]
            self.ranks.add_up([*gradients, *parts])  # with the guard's, all collectives of a step
        if self._whole_batch:
            together = self._epoch.together()
            outputs, losses, y = (self.ranks.gather(part, count) for part in together)
            self._pass = self._summarize(outputs, losses, y, self.trainer.global_step)
        optimizer = self._epoch.optimizer
        self._epoch.eta_t += optimizer.param_groups[0]["lr"]
        self.guard.step(optimizer, *parts)
        self.parametrization.after_step()
        self.guard.settle()

    def setup(self, stage: str) -> None:
        self.ranks = Ranks(self.trainer)
        self.splits_epochs = self.ranks.size == 1  # else each has its own part of the forwards
        self.forget_rows()
        self._pass = None
        self._epoch.forwards.clear()
        self._epoch.eta_t = 0.0

    def on_train_start(self) -> None:
        self.guard = UpdateGuard(self._trained(), self.trainer.global_step)
        loader = self.trainer.train_dataloader
        self._whole_batch = isinstance(loader, InMemoryBatches) and loader.whole
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        self._epoch.optimizer = optimizer
        self._epoch.move_to(self.device)
        if self.trainer.global_step == 0:
            self._complete_row(epoch=0)
            self.write_row()

    def on_train_epoch_start(self) -> None:
        self.write_row()
        self._epoch.forwards.clear()

    def on_train_epoch_end(self) -> None:
        running = self._running()
        self._epoch.forwards.clear()
        bad, sound, loss, error = torch.cat((self.guard.state(), running)).tolist()
        if bad:
            raise self._divergence(int(sound))
        epoch = self.completed()
        if is_last_epoch(self.trainer):
            self.training_pass()
        self.row["train/loss_running"] = loss
        self.row["train/error_running"] = error
        self.row["learning_rate"] = self._epoch.optimizer.param_groups[0]["lr"]
        self._complete_row(epoch)
        if not self.trainer.early_stopping_callbacks:
            self.write_row()  # early stopping decides later, and the last row holds a last look
        scheduler = self.lr_schedulers()
        assert isinstance(scheduler, LRScheduler)
        scheduler.step()

    def on_train_end(self) -> None:
        if self.row_waits:
            self._complete_row(self.completed())
            self.write_row()

    def check_run(self, trainer: Trainer, data: object = None) -> None:
        check_end(self.schedule, trainer)
        if isinstance(data, LinearProblem):
            allowed = "a data module of images, for a DeepReLUClassifier"
            raise UsageError("data", "janus_pl.data.LinearProblem", allowed)
        if trainer.val_check_interval != 1.0:
            allowed = "1.0: a row is an epoch, and so are its val/loss and val/error"
            raise UsageError("trainer.val_check_interval", trainer.val_check_interval, allowed)
        if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
            allowed = "auto or ddp: every process holds the whole network"
            raise UsageError("trainer.strategy", type(trainer.strategy).__name__, allowed)
        image_size = getattr(data, "image_size", self.image_size)
        if image_size != self.image_size:
            raise UsageError("model.image_size", self.image_size, f"{image_size}, as the data")

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self._build_optimizer()
        return [optimizer], [build_scheduler(self.schedule, optimizer, self.trainer)]

    # Held-out data

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._hold_out(batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._hold_out(batch)

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        x, y = batch[:2]
        return self.ranks.gather(self.margins((self.ranks.own(x), self.ranks.own(y))), len(y))

    def on_validation_epoch_end(self) -> None:
        self._held_out_results("val")

    def on_test_epoch_end(self) -> None:
        self._held_out_results("test")

    # State

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if "guard" in vars(self):  # there is none before training
            bad, sound = self.guard.state().tolist()
            if bad:  # in mid-epoch, before the look at its end: the last sound checkpoint stays
                raise self._divergence(int(sound))
        checkpoint["eta_t"] = self._epoch.eta_t
        checkpoint["row"] = self.row_state()
        checkpoint["forwards"] = list(self._epoch.forwards)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._epoch.eta_t = checkpoint["eta_t"]
        self.load_row_state(checkpoint["row"])
        self._epoch.forwards = [tuple(forward) for forward in checkpoint["forwards"]]

    # Parts

    def _build_optimizer(self) -> Optimizer:
        """The learned parameters in groups, each with its own weight decay."""
        groups = self.parametrization.groups(self.weight_decay, self.decay)
        return build_optimizer(self.make_optimizer, groups, self.learning_rate)

    def _shared(self, x: Tensor) -> Tensor:
        """Outputs (n, 2) of samples x (n, ...), every process's share of them put together."""
        return self.ranks.gather(self(self.ranks.own(x)), len(x))

    @torch.enable_grad()
    def _own_gradients(self, x: Tensor, y: Tensor) -> list[Tensor]:
        """Of sum_n loss_n over this process's share by the learned weights.

        Those of the backward pass stay as they are.
        """
        x, y = self.ranks.own(x), self.ranks.own(y)
        weights = [*self.parametrization.weights.values()]
        return [*torch.autograd.grad(self.losses(self(x), y).sum(), weights)]

    def _lambda_rho(self) -> float:
        """The coefficient of rho^2 in the loss: half of PyTorch's weight decay on rho."""
        return self.weight_decay / 2 if self.decay == "all" else self.weight_decay

    def _summarize(self, outputs: Tensor, losses: Tensor, y: Tensor, step: int) -> TrainingPass:
        rho = self.scale()
        margins = self.output_margins(outputs, y) / rho
        error = (margins <= 0).to(margins).mean()
        common_mode = outputs.mean(dim=1).square().mean()
        learned = self.parametrization.learned_scale().clone()
        return TrainingPass(margins, losses.mean(), error, common_mode, rho, learned, step)

    def _running(self) -> Tensor:
        """Loss and error, means over the epoch's minibatches, float64; shape (2,)."""
        outputs, losses, y = self._epoch.together()
        values = losses, (self.output_margins(outputs, y) <= 0).to(losses)
        if self.ranks.size == 1:
            return torch.stack([value.mean() for value in values]).double()
        count = torch.full_like(values[0].sum(), len(y))
        sums = torch.stack((*(value.sum() for value in values), count)).double()
        self.ranks.add_up([sums])
        return sums[:2] / sums[2]

    def _complete_row(self, epoch: int) -> None:
        """The numbers that need no pass, and those of the pass where there was one."""
        step = self.trainer.global_step
        seen = self._pass if self._pass and self._pass.step >= step - self._whole_batch else None
        numbers = {"rho": self.scale(), "rho_learned": self.parametrization.learned_scale()}
        if seen:
            numbers = {"rho": seen.rho, "rho_learned": seen.rho_learned}
            numbers |= {"train/loss": seen.loss, "train/error": seen.error}
            numbers |= {f"equilibrium/{k}": v for k, v in self._equilibrium(seen).items()}
            self.row["measured_step"] = seen.step
        # One transfer, for each makes the host wait.
        values = torch.stack([value.double() for value in numbers.values()]).tolist()
        self.row.update(zip(numbers, values, strict=True))
        eta_t = self._epoch.eta_t
        self.complete_row({"epoch": epoch, "trainer/global_step": step, "eta_t": eta_t})

    def _equilibrium(self, seen: TrainingPass) -> dict[str, Tensor]:
        r"""mu - (M + lambda) rho in the units of the learned rho: square loss, one global rho.

        Its value where drho/dt = 0 is the common mode's part rho mean(mbar^2), which the square
        loss over two outputs has and the paper's scalar loss has not; it is recorded beside it.
        """
        if self.loss_name != "square" or not self.network.rho.requires_grad:
            return {}
        learned = seen.rho_learned.abs()
        statistics = margin_statistics(seen.margins * (seen.rho / learned))
        mu, second_moment = statistics.mean, statistics.second_moment
        residual = equilibrium_residual(mu, second_moment, learned, self._lambda_rho())
        return {
            "residual": residual,
            "common_mode": seen.common_mode / learned,
        }

    def _hold_out(self, batch: Batch) -> None:
        x, y = batch[:2]
        outputs = self._shared(x)
        correct = (self.output_margins(outputs, y) > 0).int()
        self.held_out_loss.update(self.losses(outputs, y))
        self.held_out_accuracy.update(correct, torch.ones_like(correct))

    def _held_out_results(self, split: str) -> None:
        loss = float(self.held_out_loss.compute())
        error = 1 - float(self.held_out_accuracy.compute())
        self.held_out_loss.reset()
        self.held_out_accuracy.reset()
        results = {f"{split}/loss": loss, f"{split}/error": error}
        if self.trainer.sanity_checking:
            return  # a few batches are not the split
        if self.trainer.state.fn == "fit":
            self.row.update(results)
        else:
            self.log_dict(results, sync_dist=self.ranks.size > 1)

    def _trained(self) -> dict[str, nn.Parameter]:
        """The trained parameters: weights by their layer, the others by their own names."""
        layers = {id(p): name for name, p in self.parametrization.weights.items()}
        named = {name: p for name, p in self.named_parameters() if p.requires_grad}
        return {layers.get(id(p), _short(name)): p for name, p in named.items()}

    def _divergence(self, sound: int) -> DivergenceError:
        """Of an epoch that is not sound: what to raise."""
        trainer, eta = self.trainer, self._epoch.optimizer.param_groups[0]["lr"]
        epoch, step = trainer.current_epoch + 1, trainer.global_step
        message = (
            f"{self.guard.culprit()} not finite at epoch {epoch}, step {sound + 1}, learning rate"
            f" {eta:g}, lambda {self.weight_decay:g}; the weights are those of step {sound}"
        )
        axes = {"epoch": epoch, "trainer/global_step": step, "eta_t": self._epoch.eta_t}
        return diverged(trainer, message, sound + 1, axes, self.on_divergence)


class _Epoch:
    """The optimizer, and what the steps of an epoch leave behind until it has ended.

    A plain object, for setting an attribute of a module costs as much as an operation on a tensor.
    """

    def __init__(self) -> None:
        self.optimizer: LightningOptimizer
        self.eta_t = 0.0
        self.forwards: list[tuple[Tensor, Tensor, Tensor]] = []

    def move_to(self, device: torch.device) -> None:
        """What a checkpoint brought of an epoch that was broken off."""
        self.forwards = [(o.to(device), n.to(device), y.to(device)) for o, n, y in self.forwards]

    def together(self) -> tuple[Tensor, Tensor, Tensor]:
        """Outputs (n, 2), losses (n,) and labels (n,) of all samples seen in this epoch."""
        outputs, losses, y = (torch.cat(parts) for parts in zip(*self.forwards, strict=True))
        return outputs, losses, y


def _short(name: str) -> str:
    """A parameter that is no layer's weight, by its layer if it has one.

    >>> _short("network.rho"), _short("network.layers.fc1.parametrizations.weight.original0")
    ('rho', 'rho of fc1')
    """
    layer = re.search(r"(\w+)\.parametrizations\.", name)
    return f"rho of {layer[1]}" if layer else name.removeprefix("network.")


def _check(field: str, value: float, inside: bool, allowed: str) -> None:
    if not (inside and math.isfinite(value)):
        raise UsageError(field, value, allowed)
