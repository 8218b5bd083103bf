"""Slow, obvious float64 references, written from the paper's equations alone.

Nothing here imports the package under test. A network is a list of weights in depth order: the
4-D ones are convolutions, one stride each, the 2-D ones dense layers. Equation numbers are the
paper's, with the signs and factors mended.

Symbols: `V_k` is layer k at unit Frobenius norm, `f_V` the network of the `V_k`, `rho` the product
of all norms, so that `f_W = rho f_V`. With two outputs the scalar output is `(f_1 - f_0)/2`, the
common mode `(f_0 + f_1)/2`. `fbar_n` is the margin of sample n, `mbar_n` its common mode, both of
`f_V`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

LOSSES = ("square", "logistic", "cross_entropy", "exponential")


# Networks


def unit(weight: Tensor) -> Tensor:
    """`V = W / ||W||`, one Frobenius norm for the whole tensor."""
    weight = weight.detach().double()
    return weight / weight.square().sum().sqrt()


def forward(weights: Sequence[Tensor], strides: Sequence[int], x: Tensor) -> Tensor:
    """`W_L relu(W_{L-1} ... relu(W_1 x))`, Appendix C; (B, 3, H, W) to (B, 2)."""
    convolutions = [w for w in weights if w.ndim == 4]
    dense = [w for w in weights if w.ndim == 2]
    for weight, stride in zip(convolutions, strides, strict=True):
        x = torch.clamp(F.conv2d(x, weight, stride=stride), min=0)
    x = x.reshape(x.shape[0], -1)
    for weight in dense[:-1]:
        x = torch.clamp(x @ weight.T, min=0)
    return x @ dense[-1].T


def margins(weights: Sequence[Tensor], strides: Sequence[int], x: Tensor, y: Tensor) -> Tensor:
    """`fbar_n = y_n f_V(x_n)` (Eq. 12), through `f_V` itself: no division by a product of norms."""
    outputs = forward([unit(w) for w in weights], strides, x.double())
    return y.double() * (outputs[:, 1] - outputs[:, 0]) / 2


def common_modes(weights: Sequence[Tensor], strides: Sequence[int], x: Tensor) -> Tensor:
    """`mbar_n = (f_0 + f_1)/2` of `f_V`: what the scalar theory leaves out of two outputs."""
    outputs = forward([unit(w) for w in weights], strides, x.double())
    return (outputs[:, 0] + outputs[:, 1]) / 2


def fully_connected_size(strides: Sequence[int], channels: int, image_size: int) -> int:
    """Features that four 3x3 convolutions without padding leave, counting positions one by one."""
    size = image_size
    for stride in strides:
        size = len([i for i in range(0, size, stride) if i + 3 <= size])
    return channels * size * size


# Losses


def loss_value(loss: str, outputs: Tensor, y: Tensor) -> np.ndarray:
    """Per-sample loss of two outputs, (B,).

    Square loss: mean over the outputs of `(f_c - t_c)^2` with `t = (-y, +y)`. Logistic loss:
    `log(1 + exp(-s))` of the signal `s = y (f_1 - f_0)/2`. Cross entropy: the same of `2 s`.
    """
    f, sign = outputs.detach().double().numpy(), y.double().numpy()
    if loss == "square":
        return ((f[:, 0] + sign) ** 2 + (f[:, 1] - sign) ** 2) / 2
    signal = sign * (f[:, 1] - f[:, 0]) / 2
    if loss == "exponential":
        return np.exp(-signal)
    return np.logaddexp(0.0, -signal if loss == "logistic" else -2 * signal)


def sigmoid(z: float) -> float:
    """`1 / (1 + exp(-z))`, written so that neither tail overflows or cancels."""
    return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))


def pull(loss: str, signal: float) -> float:
    """Minus the slope of the loss in the signal `rho fbar_n`.

    Square loss, Eq. 15: `2 l_n = 2 (1 - rho fbar_n)`. Logistic loss, Eq. 16 without its factor 2,
    which the loss `log(1 + exp(-rho fbar))` does not have: `sigmoid(-rho fbar_n)`. Cross entropy
    is the logistic loss of `2 rho fbar_n`: `2 sigmoid(-2 rho fbar_n)`. Exponential loss: itself.
    """
    pulls = {
        "square": lambda: 2 * (1 - signal),
        "logistic": lambda: sigmoid(-signal),
        "cross_entropy": lambda: 2 * sigmoid(-2 * signal),
        "exponential": lambda: math.exp(-signal),
    }
    return pulls[loss]()


# Gradient flow


def velocities(
    loss: str,
    weights: Sequence[Tensor],
    strides: Sequence[int],
    x: Tensor,
    y: Tensor,
    rho: float,
) -> list[Tensor]:
    r"""`V_k` dot from one derivative per sample, Eq. 15 and 16, each as (out, rest).

    .. math:: \dot V_k = \frac{\rho}{N} \sum_n p_n \Bigl(\frac{\partial \bar f_n}{\partial V_k}
              - \bar f_n V_k\Bigr), \qquad p_n = \text{pull}(\rho \bar f_n).

    The square loss over two outputs is `(1 - rho fbar_n)^2 + (rho mbar_n)^2`, because `f_0 = m - s`
    and `f_1 = m + s` give `((m - s + y)^2 + (m + s - y)^2)/2 = m^2 + (s - y)^2`. Its second term
    adds `-(2 rho^2/N) sum_n mbar_n (d mbar_n/dV_k - mbar_n V_k)`. The subtracted multiples of `V_k`
    are projections: `f_V` is homogeneous of degree one in each `V_k`, so by Euler
    `<d fbar_n/dV_k, V_k> = fbar_n`, and the same for `mbar_n`.

    `rho` is in the paper's units (all `V_k` of unit norm) and keeps its sign.
    """
    V = [unit(w) for w in weights]
    flow = [torch.zeros_like(v) for v in V]
    for x_n, y_n in zip(x, y.tolist(), strict=True):
        fbar, slopes, mbar, common_slopes = sample_derivatives(V, strides, x_n, y_n)
        strength = rho * pull(loss, rho * fbar) / len(x)
        drag = 2 * rho**2 * mbar / len(x) if loss == "square" else 0.0
        for k, v in enumerate(V):
            flow[k] += strength * (slopes[k] - fbar * v)
            flow[k] -= drag * (common_slopes[k] - mbar * v)
    return [change.flatten(1) for change in flow]


def sample_derivatives(
    directions: Sequence[Tensor], strides: Sequence[int], x_n: Tensor, y_n: float
) -> tuple[float, list[Tensor], float, list[Tensor]]:
    """`fbar_n`, `d fbar_n/dV_k`, `mbar_n` and `d mbar_n/dV_k` of one sample."""
    V = [v.clone().requires_grad_() for v in directions]
    f_0, f_1 = forward(V, strides, x_n.double()[None])[0]
    fbar, mbar = y_n * (f_1 - f_0) / 2, (f_0 + f_1) / 2
    slopes = torch.autograd.grad(fbar, V, retain_graph=True)
    common_slopes = torch.autograd.grad(mbar, V)
    return fbar.item(), list(slopes), mbar.item(), list(common_slopes)


def rho_flow(
    loss: str, margins: Tensor, common_modes: Tensor, rho: float, lam: float = 0.0
) -> float:
    """`d rho/dt` of Eq. 15 and 16, with the common mode of the square loss.

    `(1/N) sum_n pull_n fbar_n - 2 lam rho`, and for the square loss `-(2 rho/N) sum_n mbar_n^2`.
    It holds in either unit: with `P` the product of the gains, the paper's `rho` goes with
    `fbar_n, mbar_n`, the learned `rho/P` with `P fbar_n, P mbar_n`. `lam` is the coefficient of
    the square of the same `rho`.
    """
    total = 0.0
    for fbar, mbar in zip(margins.tolist(), common_modes.tolist(), strict=True):
        total += pull(loss, rho * fbar) * fbar
        total -= 2 * rho * mbar**2 if loss == "square" else 0.0
    return total / len(margins) - 2 * lam * rho


def multiplier(loss: str, margins: Tensor, common_modes: Tensor, rho: float) -> float:
    """Lagrange multiplier `nu_k` of Eq. 14, the same for every layer.

    `nu = (1/N) sum_n (pull_n/2) rho fbar_n`, and for the square loss `-(1/N) sum_n (rho mbar_n)^2`.
    Half of `rho` times the flow of `rho` at `lam = 0`.
    """
    return rho * rho_flow(loss, margins, common_modes, rho) / 2


def weight_norm_gradient(g: float, v: Tensor, gradient: Tensor) -> Tensor:
    """`dLoss/dv = (g/||v||) (G - <G, V> V)` for `W = g v/||v||` and `G = dLoss/dW`.

    Salimans & Kingma (2016), Eq. 3, with one Frobenius norm for the layer.
    """
    v, gradient = v.detach().double(), gradient.detach().double()
    V = unit(v)
    return g / v.square().sum().sqrt() * (gradient - (gradient * V).sum() * V)


# Margins


def margin_moments(values: Sequence[float]) -> tuple[float, float, float]:
    """`mu`, `sigma = sqrt(M - mu^2)` and `M` (below Eq. 12) in exact rational arithmetic."""
    exact = [Fraction(value) for value in values]
    mu = sum(exact) / len(exact)
    M = sum(value**2 for value in exact) / len(exact)
    # A fraction of subnormal size would round before the root, so scale by an even power of two.
    variance = M - mu**2
    return float(mu), math.sqrt(float(variance * 2**600)) / 2.0**300, float(M)


# Ranks


def singular_values(matrix: Tensor) -> np.ndarray:
    """All singular values, descending, from the SVD of the whole matrix in float64."""
    return np.linalg.svd(matrix.detach().double().numpy(), compute_uv=False)


def numerical_rank(matrix: Tensor, tolerance: float, relative: bool = True) -> int:
    """`#{s_i > tol s_1}`, or `#{s_i > tol}`."""
    s = singular_values(matrix)
    return int((s > tolerance * (s[0] if relative else 1.0)).sum())


def stable_rank(matrix: Tensor) -> float:
    """`||W||_F^2 / ||W||_2^2`."""
    s = singular_values(matrix)
    return float((s**2).sum() / s[0] ** 2)


def effective_rank(matrix: Tensor) -> float:
    """`exp(-sum p_i log p_i)` with `p_i = s_i / sum s`: Roy & Vetterli (2007)."""
    s = singular_values(matrix)
    p = [value / s.sum() for value in s if value > 0]
    return math.exp(-math.fsum(value * math.log(value) for value in p))


def with_spectrum(m: int, n: int, spectrum: Sequence[float], seed: int) -> Tensor:
    """A random (m, n) float64 matrix whose singular values are `spectrum`, then zeros."""
    random = np.random.default_rng(seed)
    left, _ = np.linalg.qr(random.standard_normal((m, len(spectrum))))
    right, _ = np.linalg.qr(random.standard_normal((n, len(spectrum))))
    return torch.from_numpy(left * np.asarray(spectrum) @ right.T)


def orthogonal(size: int, seed: int) -> Tensor:
    """A random orthogonal (size, size) float64 matrix."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((size, size)))
    return torch.from_numpy(q)
