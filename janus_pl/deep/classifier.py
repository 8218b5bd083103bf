"""The paper's deep experiment: a homogeneous ReLU network on two classes of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from janus_pl.deep.epoch import TrainingPass
from janus_pl.deep.equilibrium import Equilibrium
from janus_pl.deep.losses import LOSSES, PULLS
from janus_pl.deep.network import DeepReLU
from janus_pl.deep.normalizations import PARAMETRIZATIONS, parametrized
from janus_pl.deep.optimizers import OptimizerFactory
from janus_pl.deep.trains import Trains
from janus_pl.errors import check_name, check_number
from janus_pl.training.divergence import OnDivergence, check_on_divergence
from janus_pl.training.optimizers import is_sgd
from janus_pl.training.schedules import Interval, Schedule
from janus_pl.training.subject import NotOffered


class DeepReLUClassifier(Trains):
    r"""Deep ReLU network with labels +1/-1, trained by SGD or full-batch GD (Section D.5).

    f_W(x) = rho f_V(x), where every V_k has unit Frobenius norm. `normalization` decides which
    parameters are learned. GD is SGD with `data.batch_size: full`.

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
        hidden: The width of all dense layers but the last.
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
        depth: L, the number of weights: the four convolutions and L - 4 dense layers; 5 or more.
        kernel_size: The height and width of each convolution's kernel, in pixels.
        compile: Whether the passes of training steps go through `torch.compile`, which takes some
            ten seconds or more at the start. Looks do not.

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
        depth: int = 6,
        kernel_size: int = 3,
        compile: bool = False,
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
        self.network = DeepReLU(
            strides, channels, hidden, image_size, init_scale, depth, kernel_size
        )
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
        self.compiled = compile
        self._equilibrium = Equilibrium(self.parametrization, loss, weight_decay, decay)
        self.check_options()  # a mistake shows before the start

    def equilibrium(self) -> dict[str, Tensor]:
        if not is_sgd(optimizer := self.trainer.optimizers[0]):
            raise NotOffered(
                f"its equilibrium is known for SGD, not for {type(optimizer).__name__}"
            )
        return self._equilibrium.numbers(self.training_pass())

    def residuals(self, seen: TrainingPass) -> dict[str, Tensor]:
        if not is_sgd(self.trainer.optimizers[0]):
            return {}
        residual = self._equilibrium.residual(seen)
        return {f"equilibrium/{key}": value for key, value in residual.items()}
