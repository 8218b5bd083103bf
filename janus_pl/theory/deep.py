r"""The deep network f_W = rho f_V (Section 2, Appendices C and D): flows, equilibrium, rank bounds.

Margins are fbar_n = y_n f_V(x_n) with all V_k of unit norm, their gradients d fbar_n/dV_k those of
the unconstrained V_k. A loss enters by its pull, a function of rho fbar_n:

    pull_n = -d loss_n/d(rho fbar_n);  square loss: 2 l_n = 2 (1 - rho fbar_n)

(`PULLS` in `janus_pl.deep.losses`), so that Eq. 13 to 15, printed for the square loss, hold for
every loss.

All of it is about a scalar output. The square loss of two outputs has a second one, their common
mode: mbar_n of f_V in place of fbar_n, with the pull -2 rho mbar_n and no lambda. The functions
`rho_dot`, `direction_flow` and `lagrange_multiplier` of the two outputs add up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from janus_pl.theory.linear import Number

Pull = Callable[[Tensor], Tensor]


class SGDStep(NamedTuple):
    """The scale rho, shape (), and the unit-norm V_k after one step."""

    rho: Tensor
    directions: dict[str, Tensor]


class TailBound(NamedTuple):
    """What is left of a weight beyond a rank, and what its decay allows.

    Attributes:
        tail: sqrt(sum_{i > rank} sigma_i(W_T)^2), shape (...).
        bound: prod |a_t| ||W_(T-n)||, shape (...); `tail` is at most this, up to rounding.
        vacuous: there is no sigma_i beyond that rank, so the tail is 0 and the bound says nothing.
    """

    tail: Tensor
    bound: Tensor
    vacuous: bool


# Flows


def rho_dot(margins: Tensor, rho: Number, lam: Number, pull: Pull) -> Tensor:
    r"""Return drho/dt = (1/N) sum_n pull_n fbar_n - 2 lambda rho (Eq. 13, 15, 16), (...).

    Minus the derivative in rho of (1/N) sum_n loss_n + lambda rho^2. Eq. 16 prints twice the pull
    of the logistic loss. It holds in either unit: margins y_n f_W/rho for the rho that lambda acts
    on. Shapes: margins (..., N), rho and lam (...).

    >>> margins = torch.tensor([0.5, 0.25], dtype=torch.float64)
    >>> float(rho_dot(margins, 2.0, 0.125, pull=lambda signal: 2 * (1 - signal)))
    -0.375
    """
    return _mean_pull(margins, rho, pull) - 2 * lam * rho


def direction_flow(
    margin_gradients: Tensor, margins: Tensor, v: Tensor, rho: Number, pull: Pull
) -> Tensor:
    r"""Return V_k dot = (rho/N) sum_n pull_n (d fbar_n/dV_k - fbar_n V_k) (Eq. 15, 16), as V_k.

    Minus the gradient in V_k, made tangent to the sphere by the multiplier of Eq. 14. Shapes:
    margin_gradients (N, ...) for v (...), margins (N,), rho ().

    >>> v, x = torch.tensor([[0.6, 0.8]]), torch.tensor([[1.0, 0.0]])  # f_V(x) = <v, x>, y = 1
    >>> direction_flow(x[None], torch.tensor([0.6]), v, 0.5, pull=lambda signal: 2 * (1 - signal))
    tensor([[ 0.4480, -0.3360]])
    """
    pulls = pull(rho * margins)
    total = torch.tensordot(pulls, margin_gradients, dims=1)
    return rho / len(margins) * (total - (pulls * margins).sum() * v)


def lagrange_multiplier(margins: Tensor, rho: Number, pull: Pull) -> Tensor:
    r"""Return nu_k = (1/N) sum_n (pull_n/2) rho fbar_n (Eq. 14), the same for every layer k, (...).

    For the square loss (1/N) sum_n rho fbar_n (1 - rho fbar_n); Eq. 14 prints f_n for the second
    fbar_n. By homogeneity -2 nu = <W_k, dLoss/dW_k>, which is rho dLoss/drho without weight decay.
    Shapes: margins (..., N), rho (...).

    >>> margins = torch.tensor([0.5, 0.25], dtype=torch.float64)
    >>> float(lagrange_multiplier(margins, 2.0, pull=lambda signal: 2 * (1 - signal)))
    0.125
    """
    return rho * _mean_pull(margins, rho, pull) / 2


def sgd_step(
    rho: Tensor,
    directions: Mapping[str, Tensor],
    rho_flow: Tensor,
    direction_flows: Mapping[str, Tensor],
    eta: Number,
) -> SGDStep:
    r"""Return one step on a minibatch (Eq. 1 and 17), from its flows at the weights before it.

        rho <- rho + eta rho dot,  V_k <- V_k + eta V_k dot,  then V_k <- V_k/||V_k||,

    with `rho_dot` and `direction_flow` of the minibatch. Printed are a minus before both sums, no
    eta (Eq. 1) or no rho (Eq. 17) before that of V_k, and no normalization, without which ||V_k||
    grows by eta^2 ||V_k dot||^2/2 a step.

    >>> before = {"fc1": torch.tensor([[0.0, 1.0]])}
    >>> flows = {"fc1": torch.tensor([[1.5, 0.0]])}
    >>> sgd_step(torch.tensor(2.0), before, torch.tensor(-1.0), flows, eta=0.5)
    SGDStep(rho=tensor(1.5000), directions={'fc1': tensor([[0.6000, 0.8000]])})
    """
    moved = {k: v + eta * direction_flows[k] for k, v in directions.items()}
    unit = {k: v / torch.linalg.vector_norm(v) for k, v in moved.items()}
    return SGDStep(rho + eta * rho_flow, unit)


# Equilibrium


def equilibrium_rho(mu: Number, second_moment: Number, lam: Number) -> Number:
    r"""Return rho = mu/(M + lambda), where drho/dt = 0 under the square loss (Section 2.1), (...).

    mu and M are the means of fbar_n and fbar_n^2.

    >>> equilibrium_rho(0.5, 0.25, 0.0), equilibrium_rho(0.5, 0.25, 0.75)
    (2.0, 0.5)
    """
    return mu / (second_moment + lam)


def equilibrium_loss(mu: Number, variance: Number, lam: Number) -> Number:
    r"""Return (sigma^2 + lambda)/(mu^2 + sigma^2 + lambda), the square loss at its best rho, (...).

    It is Eq. 12 at `equilibrium_rho`, with lambda rho^2. The paper does not print it, but names its
    two ends: it is 0 for lambda = 0 and equal margins alone, and above 0 for lambda > 0. mu and
    sigma^2 = M - mu^2 are the mean and the variance of fbar_n.

    >>> equilibrium_loss(0.5, 0.0, 0.0), equilibrium_loss(0.5, 0.0, 0.75)
    (0.0, 0.75)
    """
    return (variance + lam) / (mu * mu + variance + lam)


def velocity_norm(
    margin_gradients: Tensor, margins: Tensor, v: Tensor, rho: Number, pull: Pull
) -> Tensor:
    r"""Return ||V_k dot|| of a minibatch S of B samples (Eq. 24), shape ().

    ||V_k dot|| = ||(rho/B) sum_{n in S} pull_n (d fbar_n/dV_k - fbar_n V_k)||. Eq. 24 prints a sum
    over the minibatch divided by N, and f_n for fbar_n. Shapes as in `direction_flow`.

    >>> v, x = torch.tensor([[0.6, 0.8]]), torch.tensor([[1.0, 0.0]])
    >>> velocity_norm(x[None], torch.tensor([0.6]), v, 0.5, pull=lambda signal: 2 * (1 - signal))
    tensor(0.5600)
    """
    return torch.linalg.vector_norm(direction_flow(margin_gradients, margins, v, rho, pull))


def velocity_floor(values: Tensor, multiplier: Tensor, rank: int) -> Tensor:
    r"""Return 2 |nu| sqrt(sum_{i > B m} sigma_i(V_k)^2) <= ||V_k dot||, a floor of Eq. 24, (...).

    A minibatch at rest, with nu other than 0, needs a V_k of rank B m.

    Shapes: values (..., r), the singular values of V_k, largest first; multiplier (...), the
    minibatch's `lagrange_multiplier`; rank is B m.

    >>> float(velocity_floor(torch.tensor([0.8, 0.6]), torch.tensor(-0.5), rank=1))
    0.6000000238418579
    """
    # Eq. 23 in general: V_k dot = (rho/B) sum_n pull_n d fbar_n/dV_k - 2 nu V_k, whose first term
    # has rank B m at most (`gradient_rank_bound`) and so leaves all of V_k beyond it, by Eckart and
    # Young. The paper says this in words below Eq. 24.
    return 2 * multiplier.abs() * tail_norm(values, rank)


# Homogeneity and rank


def homogeneity_residual(margin_gradients: Tensor, margins: Tensor, v: Tensor) -> Tensor:
    r"""Return <V_k, d fbar_n/dV_k> - fbar_n, 0 for a homogeneous network (Appendix C), (N,).

    f is of degree one in each V_k, so Euler's theorem gives 0 in every layer without bias. The same
    holds for W_k, f_W and d f_W/dW_k. Shapes: margin_gradients (N, ...) for v (...), margins (N,).

    >>> v = torch.tensor([[0.6, 0.8]])
    >>> homogeneity_residual(torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]), v[0], v)
    tensor([0., 0.])
    """
    return torch.tensordot(margin_gradients, v, dims=v.dim()) - margins


def gradient_rank(jacobian: Tensor, tolerance: float = 1e-10) -> Tensor:
    r"""Return #{sigma_i > tolerance sigma_1} of each d f_n/dV_k as a matrix (out, in kh kw), (N,).

    `jacobian` is (N, out, ...), one gradient a sample. In float64, NaN where it is not finite.

    >>> gradient_rank(torch.stack([torch.eye(3), torch.ones(3, 3), torch.zeros(3, 3)]))
    tensor([3., 1., 0.], dtype=torch.float64)
    """
    matrices = jacobian.flatten(2).double()
    finite = matrices.isfinite().all(-1).all(-1)
    values = torch.linalg.svdvals(torch.where(finite[:, None, None], matrices, 0.0))
    ranks = (values > tolerance * values[:, :1]).sum(-1).double()
    return torch.where(finite, ranks, torch.nan)


def gradient_rank_bound(shape: Sequence[int], positions: int = 1, samples: int = 1) -> int:
    r"""Return the largest rank of d f/dV_k, or of its sum over `samples` samples: B m, or full.

    For one output and one sample 1 in a dense layer (proof of Lemma 1: a b^T); in a convolution
    with m output positions a sum of m such terms, where the proof says 1 as well. True for any
    number of outputs, since a b^T only changes its a. `shape` is that of V_k, (out, in, ...).

    >>> gradient_rank_bound((1024, 3200)), gradient_rank_bound((64, 32, 3, 3), positions=49)
    (1, 49)
    >>> gradient_rank_bound((64, 32, 3, 3), positions=49, samples=2)
    64
    """
    columns = 1
    for size in shape[1:]:
        columns *= size
    return min(samples * positions, shape[0], columns)


def lemma_1_bound(shape: Sequence[int], positions: int = 1) -> int:
    r"""Return the rank of V_k at an equilibrium of all minibatches at once (Lemma 1): at most 2 m.

    2 for a dense layer, 2 m for a convolution with m output positions, where Lemma 1 says 2. The
    conditions: B < N, no margin 0, rho not 0, and one pull at least not 0, which lambda > 0 brings.

    >>> lemma_1_bound((1024, 3200)), lemma_1_bound((128, 128, 3, 3), positions=25)
    (2, 50)
    """
    # The paper combines two samples; Eq. 21, whose numerator has a plus for a minus, then says
    #     V_k = (l_i d fbar_i/dV_k - l_j d fbar_j/dV_k)/(l_i fbar_i - l_j fbar_j).
    # In truth m is enough: by Eq. 20 all samples have the same l_n (d fbar_n/dV_k - fbar_n V_k), by
    # Eq. 19 any B of these add up to 0, so each is 0, and V_k = (d fbar_n/dV_k)/fbar_n.
    return gradient_rank_bound(shape, positions, samples=2)


# Tails: what weight decay leaves of a weight after n steps


def plain_decay(etas: Tensor, weight_decay: float, momentum: float) -> Tensor:
    r"""Return a_t = 1 - eta_t wd, what a step keeps of a plain weight (arXiv 2206.05794), (n,).

    W <- a_t W - eta_t G with G = dLoss/dW of rank B m at most. `weight_decay` is PyTorch's wd, that
    adds wd W to the gradient.

    >>> plain_decay(torch.tensor([0.5, 0.25]), weight_decay=0.5, momentum=0.0)
    tensor([0.7500, 0.8750])

    Raises:
        ValueError: momentum other than 0: its buffer holds gradients from before the window, of
            any rank.
    """
    _check_momentum(momentum)
    return 1 - etas * weight_decay


def weight_norm_decay(
    etas: Tensor, weight_decay: float, radial: Tensor, v_norms: Tensor, momentum: float
) -> Tensor:
    r"""Return a_t = 1 - eta_t wd + eta_t (g/||v||^2) <G, V>, the same for v of W = g v/||v||, (n,).

    v <- a_t v - eta_t (g/||v||) G with G = dLoss/dW: G has rank B m at most, dLoss/dv has not.
    Shapes, one entry a step, at the weights before it: etas (n,); v_norms (n,), ||v||; radial (n,),
    <G, W> = g <G, V> of the minibatch. By homogeneity that is -2 nu (`lagrange_multiplier`) and
    rho dLoss/drho without weight decay, the same for every layer, rho being any factor of f_W.

    >>> etas, radial, v_norms = torch.tensor([0.5]), torch.tensor([-2.0]), torch.tensor([2.0])
    >>> weight_norm_decay(etas, 0.5, radial, v_norms, momentum=0.0)
    tensor([0.5000])

    Raises:
        ValueError: momentum other than 0, as in `plain_decay`.
    """
    _check_momentum(momentum)
    return 1 - etas * weight_decay + etas * radial / v_norms.square()


def tail_norm(values: Tensor, rank: int) -> Tensor:
    r"""Return sqrt(sum_{i > rank} sigma_i^2), how far a matrix is from those of that rank, (...).

    `values` (..., r) are its singular values, largest first.

    >>> float(tail_norm(torch.tensor([5.0, 4.0, 3.0]), rank=1))
    5.0
    """
    if rank < 0:
        raise ValueError(f"rank is {rank}, not 0 or more")
    return torch.linalg.vector_norm(values[..., rank:], dim=-1)


def tail_bound(values: Tensor, start_norm: Tensor, decays: Tensor, rank: int) -> TailBound:
    r"""Return both sides of the bound on the singular values that n steps cannot reach.

        sqrt(sum_{i > n B m} sigma_i(W_T)^2) <= prod_t |a_t| ||W_(T-n)||      (arXiv 2206.05794)

    Shapes: values (..., r), all singular values of W_T (or of v_T), largest first; start_norm
    (...), its Frobenius norm n steps before; decays (..., n), the a_t by `plain_decay` or
    `weight_norm_decay`; rank is n B m, the sum of B m over the steps.

    >>> tail_bound(torch.tensor([5.0, 0.5]), torch.tensor(4.0), torch.tensor([0.5, -0.5]), rank=1)
    TailBound(tail=tensor(0.5000), bound=tensor(1.), vacuous=False)
    """
    # W_T = (prod_t a_t) W_(T-n) + U, where U has the rank of n gradients, n B m at most: true of
    # every run without momentum, up to rounding, which adds some eps ||W|| of full rank a step.
    bound = decays.abs().prod(-1) * start_norm
    return TailBound(tail_norm(values, rank), bound, rank >= values.shape[-1])


def _mean_pull(margins: Tensor, rho: Number, pull: Pull) -> Tensor:
    """Return (1/N) sum_n pull_n fbar_n, (...)."""
    rho = torch.as_tensor(rho, dtype=margins.dtype, device=margins.device)
    return (pull(rho.unsqueeze(-1) * margins) * margins).mean(-1)


def _check_momentum(momentum: float) -> None:
    if momentum != 0:
        raise ValueError(f"momentum is {momentum}, but the tail bound holds for 0 alone")
