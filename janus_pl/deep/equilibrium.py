"""The distance of rho from its equilibrium (Section 2.1, Eq. 13 to 16)."""

from __future__ import annotations

from torch import Tensor

from janus_pl.deep.epoch import TrainingPass
from janus_pl.deep.losses import PULLS
from janus_pl.deep.parametrization import Decay, Parametrization
from janus_pl.observables.margins import equilibrium_residual, margin_statistics
from janus_pl.observables.wide import at_home, wide
from janus_pl.theory.deep import lagrange_multiplier


def residual(seen: TrainingPass, lambda_rho: float) -> dict[str, Tensor]:
    r"""Return mu - (M + lambda) rho in the units of the learned rho, and the common mode.

    Both are of the square loss with one global rho. At drho/dt = 0 the residual is
    rho mean(mbar^2), the part of the common mode: the square loss over two outputs has it, the
    paper's scalar loss does not.

    Args:
        seen: The training set at these weights.
        lambda_rho: The coefficient of rho^2 in the loss.

    Returns:
        `residual` and `common_mode`, shape () each.
    """
    learned = seen.rho_learned.abs()
    statistics = margin_statistics(seen.margins * (seen.rho / learned))
    mu, second_moment = statistics.mean, statistics.second_moment
    return {
        "residual": equilibrium_residual(mu, second_moment, at_home(learned), lambda_rho),
        "common_mode": seen.common_mode / learned,
    }


def multiplier(seen: TrainingPass, loss: str) -> Tensor:
    """Return nu = (1/N) sum_n (pull_n/2) rho fbar_n (Eq. 14) of a loss, by its name; shape ().

    The square loss of two outputs adds its common mode.
    """
    nu = lagrange_multiplier(wide(seen.margins), wide(seen.rho), PULLS[loss])
    return nu - at_home(seen.common_mode) if loss == "square" else nu


def flow(nu: Tensor, learned: Tensor, weight_decay: float) -> Tensor:
    r"""Return the flow of |r| for a learned factor r of f_W, such as rho itself or one rho_k.

    d|r|/dt = 2 nu/|r| - weight_decay |r|. Without decay, the flow times |r| is the same for every
    factor.

    Args:
        nu: The Lagrange multiplier, shape ().
        learned: The factor or factors, shape () or (L,).
        weight_decay: PyTorch's `weight_decay` of the factor.
    """
    size = at_home(learned.abs())
    return 2 * nu / size - weight_decay * size


class Equilibrium:
    r"""The flow of the learned scale, and its multiplier, for a loss and a parametrization.

    Args:
        parametrization: What the network learns.
        loss: The loss, by its name.
        weight_decay: The paper's lambda.
        decay: The parameters that lambda acts on.
    """

    def __init__(
        self, parametrization: Parametrization, loss: str, weight_decay: float, decay: Decay
    ) -> None:
        self._learned, self._loss = parametrization, loss
        # PyTorch's weight decay on the learned scale; lambda rho^2 in the loss is half of it.
        self._decay = weight_decay if decay == "all" else 2 * weight_decay

    @property
    def _global(self) -> bool:
        """Whether one rho is learned for the whole network."""
        return self._learned.rho.requires_grad

    def residual(self, seen: TrainingPass) -> dict[str, Tensor]:
        """Return `residual` and `common_mode`; empty unless the loss is square and rho global."""
        if self._loss != "square" or not self._global:
            return {}
        return residual(seen, self._decay / 2)

    def numbers(self, seen: TrainingPass) -> dict[str, Tensor]:
        r"""Return drho/dt, nu and, if there is one, the residual; values by name, ().

        Eq. 13, 14 and 16 with the pull of the loss, lambda rho^2 included, in the units of the
        learned rho. If every layer learns its own norm, `rho_dot/<layer>` are the flows of the
        norms: d rho_k/dt = (rho/rho_k) (drho/dt without decay) - (PyTorch's weight decay) rho_k.
        """
        nu = multiplier(seen, self._loss)
        numbers = {**self.residual(seen), "nu": nu}
        if self._global:
            return {**numbers, "rho_dot": flow(nu, seen.rho_learned, self._decay)}
        flows = flow(nu, self._learned.factors(), self._decay)
        layers = self._learned.weights
        return numbers | {f"rho_dot/{k}": v for k, v in zip(layers, flows, strict=True)}
