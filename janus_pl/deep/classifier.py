"""The paper's deep experiment: a homogeneous ReLU network on two classes of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.nn.utils import parametrize

from janus_pl.deep.answers import Answers
from janus_pl.deep.checks import batches_of
from janus_pl.deep.epoch import Epoch, TrainingPass
from janus_pl.deep.equilibrium import Equilibrium
from janus_pl.deep.losses import LOSSES, PULLS
from janus_pl.deep.network import DeepReLU
from janus_pl.deep.normalizations import PARAMETRIZATIONS, parametrized
from janus_pl.deep.optimizers import OptimizerFactory
from janus_pl.deep.parametrization import gradients_of, trained_parameters
from janus_pl.errors import DivergenceError, check_name, check_number
from janus_pl.training.clock import epochs_reached, is_last_epoch
from janus_pl.training.divergence import OnDivergence, check_on_divergence, diverged
from janus_pl.training.guard import UpdateGuard
from janus_pl.training.held import HeldWeights
from janus_pl.training.optimizers import is_sgd
from janus_pl.training.precision import full_precision
from janus_pl.training.ranks import Ranks, backward_alone
from janus_pl.training.samples import training_samples
from janus_pl.training.schedules import Interval, Schedule, step_schedules
from janus_pl.training.subject import NotOffered


class DeepReLUClassifier(Answers):
    r"""Deep ReLU network with labels +1/-1, trained by SGD or full-batch GD (Section D.5).

    f_W(x) = rho f_V(x), where every V_k has unit Frobenius norm. `normalization` decides which
    parameters are learned. GD is SGD with `data.batch_size: full`.

    A step on a minibatch of B samples takes the gradient of (1/B) sum_n loss_n, in pieces of at
    most `data.micro_batch_size` samples. The optimizer adds the weight decay. Several processes
    (`trainer.devices`, strategy ddp) share the samples of every minibatch and of every other pass
    over the data; each sample is computed once. The processes add up their sums over samples once
    a step, so the gradient is the same for any number of processes.

    Args:
        loss: The loss, a name in `LOSSES` and `PULLS` of `janus_pl.deep.losses`: `square` on
            outputs coded +1/-1 (Eq. 12), `cross_entropy`, `logistic` (Eq. 16), `exponential`
            (Section D.5), or another.
        learning_rate: The learning rate eta at the start.
        weight_decay: The paper's lambda.
        decay: The parameters that lambda acts on. `all`: every learned parameter w, v_k and rho,
            gets the gradient lambda w (PyTorch's `weight_decay` = lambda). `rho`: the loss gets
            lambda rho^2 (Eq. 12), so rho alone gets the gradient 2 lambda rho (PyTorch's
            `weight_decay` = 2 lambda).
        schedule: The schedule: `cosine` (over the run), `constant`, `inverse_sqrt`, or a PyTorch
            scheduler as `class_path` and `init_args`. `growing`: in place of decay on v_k a rate of
            v_k that grows after every step, with which all V_k are those of `constant`. It is of
            `weight_norm`, `decay: all` and SGD; rho keeps rate and decay.
        optimizer: A PyTorch optimizer as `class_path` and `init_args`, called with the parameters
            and the learning rate. It takes the momentum, but no weight decay.
        strides: The strides of the four convolutions; (2, 2, 2, 2) is ten times cheaper.
        channels: The output channels of the four convolutions.
        hidden: The width of the first dense layer.
        image_size: The height and width of the images, in pixels.
        init_scale: The standard deviation of the weights at the start.
        normalization: The parametrization, a name in `janus_pl.deep.PARAMETRIZATIONS`.
            `weight_norm`: W_k = g_k v_k/||v_k|| with frozen gains g_k and a global rho (Fig. A.8b).
            `per_layer`: W_k = rho_k V_k with every rho_k learned (Fig. A.8a). `lagrange`: V_k back
            on the unit sphere after every step and a global rho (Eq. 1/17); it needs learning
            rates a hundred times lower. `none`: plain weights.
        on_divergence: The end of a run if a loss, gradient or weight is not finite. It keeps the
            last sound weights. `stop`: an error, exit code 3. `record`: an outcome, exit code 0.
        schedule_interval: What the schedule steps after, and a cosine runs over: `epoch` or `step`;
            `growing` always steps after a step.
        hold_norms: The factor c above 0: ||v_k|| is put back to c times its start after every step,
            and starts there, so the effective rate of V_k is held. It is of `weight_norm`. Not set:
            ||v_k|| goes where the steps take it.

    Raises:
        UsageError: A value is outside its range.
    """

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
        schedule_interval: Interval = "epoch",
        hold_norms: float | None = None,
    ) -> None:
        super().__init__()
        check_number("model.learning_rate", learning_rate, above=0)
        check_number("model.weight_decay", weight_decay)
        check_number("model.init_scale", init_scale, above=0)
        check_name("model.loss", loss, [name for name in LOSSES if name in PULLS])
        check_name("model.decay", decay, ("all", "rho"))
        check_name("model.schedule_interval", schedule_interval, ("epoch", "step"))
        check_name("model.normalization", normalization, PARAMETRIZATIONS)
        check_on_divergence(on_divergence)
        self.save_hyperparameters(ignore=["optimizer", "schedule"], logger=False)
        self.automatic_optimization = False
        self.network = DeepReLU(strides, channels, hidden, image_size, init_scale)
        self.parametrization = parametrized(self.network, normalization, hold_norms)
        self.image_size = image_size
        self.loss_name = loss
        self.losses = LOSSES[loss]
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.decay = decay
        self.normalization = normalization
        self.schedule = schedule
        self.schedule_interval = schedule_interval
        self.hold_norms = hold_norms
        self.on_divergence: OnDivergence = on_divergence
        self.make_optimizer = optimizer
        self._equilibrium = Equilibrium(self.parametrization, loss, weight_decay, decay)
        self._epoch = Epoch()
        self._pass: TrainingPass | None = None
        self._of_row: HeldWeights | None = None  # of a row that early stopping holds back
        self.check_options()  # a mistake shows before the start

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

    def equilibrium(self) -> dict[str, Tensor]:
        if not is_sgd(optimizer := self.trainer.optimizers[0]):
            raise NotOffered(
                f"its equilibrium is known for SGD, not for {type(optimizer).__name__}"
            )
        return self._equilibrium.numbers(self.training_pass())

    def margins(self) -> Tensor:
        return self.training_pass().margins

    @torch.no_grad()
    def training_pass(self) -> TrainingPass:
        """Return margins, loss and error over the whole training set, once for the same weights.

        Several processes share the work, so each has to ask.
        """
        if (seen := self._current_pass()) is None:
            with full_precision(self.device), parametrize.cached():
                forwards = [(self.outputs_of(x), y) for x, y in training_samples(self.trainer)]
                outputs, y = (torch.cat(parts) for parts in zip(*forwards, strict=True))
                scales = self.scale(), self.parametrization.learned_scale()
                held = HeldWeights(self.network)
                seen = TrainingPass.of(outputs, self.losses(outputs, y), y, *scales, held)
            self._pass = seen
        return seen

    # Training

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        batch, parts = self.minibatch(batch), []
        self.guard.clear_gradients()
        with backward_alone(self.trainer.strategy):
            for x, y in batch.split(self.ranks.rank, self.ranks.size):
                outputs = self.network(x)
                losses = self.losses(outputs, y)
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
        trained = trained_parameters(self, self.parametrization.weights)
        self.guard = UpdateGuard(trained, self.trainer.global_step)
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        self._epoch.optimizer = optimizer
        self._epoch.move_to(self.device)
        if self.trainer.global_step == 0:
            self._start(optimizer.optimizer)
            self._complete_row(epoch=0)
            self.row.write(self.trainer)

    def on_train_epoch_start(self) -> None:
        self.row.write(self.trainer)
        self._epoch.forwards.clear()
        self._pass = None

    def on_train_epoch_end(self) -> None:
        running = self._epoch.running(self.ranks)
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
            if is_sgd(self.trainer.optimizers[0]):
                residual = self._equilibrium.residual(seen)
                numbers |= {f"equilibrium/{k}": v for k, v in residual.items()}
            self.row.put({"measured_step": self.trainer.global_step})
        # One transfer, since each makes the host wait.
        values = torch.stack([value.double() for value in numbers.values()]).tolist()
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
