"""The noise of the minibatches, and the covariance of W that it keeps up at a constant rate."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from janus_pl.theory.linear import regularized_solution


class Moments(NamedTuple):
    """H = E[x x^T], (d, d), and E[(x kron x)(x kron x)^T], (d^2, d^2), of what a step draws."""

    second: Tensor
    fourth: Tensor


def sample_moments(x: Tensor) -> Moments:
    """Return the moments of a draw, with replacement, from the columns of X (d, N)."""
    pairs = (x[:, None] * x).flatten(0, 1)
    return Moments(x @ x.T / x.shape[1], pairs @ pairs.T / x.shape[1])


def gaussian_moments(second: Tensor) -> Moments:
    """Return the moments of fresh x ~ N(0, H) (online): E[x_i x_j x_k x_l] by Isserlis' theorem."""
    pairings = ("ij,kl->ijkl", "ik,jl->ijkl", "il,jk->ijkl")
    fourth = sum(torch.einsum(pairing, second, second) for pairing in pairings)
    return Moments(second, torch.as_tensor(fourth).reshape(len(second) ** 2, -1))


def sample_noise(x: Tensor, y: Tensor, lam: float) -> Tensor:
    r"""Return the covariance of the gradient of one drawn sample at W*, (m, m, d, d).

    Entry [a, b] is 4 Cov[r_a x, r_b x] with r = W* x - y: rows a and b of the gradient.
    """
    gradients = 2 * (regularized_solution(x, y, lam) @ x - y)[:, None] * x
    gradients = gradients - gradients.mean(-1, keepdim=True)
    return torch.einsum("ain,bjn->abij", gradients, gradients) / x.shape[1]


def gaussian_noise(second: Tensor, teacher: Tensor, noise: float, lam: float) -> Tensor:
    r"""Return `sample_noise` for fresh x ~ N(0, H), y = T x + noise N(0, I), T (m, d).

    The mean of W is T H (H + lambda I)^-1.
    """
    eye = torch.eye(len(second), dtype=second.dtype)
    p = teacher @ (second @ torch.linalg.pinv(second + lam * eye) - eye)
    ph = p @ second
    strength = ph @ p.T + noise**2 * torch.eye(len(p), dtype=p.dtype)
    return 4 * (strength[..., None, None] * second + torch.einsum("bi,aj->abij", ph, ph))


def stationary_covariance(
    moments: Moments, noise: Tensor, eta: float, lam: float, batch_size: int = 1
) -> Tensor:
    r"""Return the covariance of W under SGD of constant rate, B draws a step, (m, m, d, d).

    Exact, to any order in eta. Entry [a, b, i, j] is Cov[W_ai, W_bj]: the fixed point of

        C <- E[A_S C A_S] + eta^2 noise/B,   A_S = (1 - 2 eta lambda) I - (2 eta/B) X_S X_S^T,

    a linear equation of size d^2 for every pair of rows, one matrix for all: O(d^6) time, 1.6 MB at
    d = 10, some 130 MB at d = 64. W_perp, without noise, is left at 0.

    Raises:
        ValueError: eta is not below `mean_square_limit`.
    """
    p, q = second_moment_map(moments, lam, batch_size)
    limit = second_moment_limit(p, q)
    if not 0 < eta < limit:
        raise ValueError(f"eta is {eta}, not between 0 and {limit}, where the variance is finite")
    inverse = torch.linalg.pinv(2 * p - 4 * eta * q, hermitian=True)
    return (noise.flatten(2) @ inverse * (eta / batch_size)).view_as(noise)


def second_moment_map(moments: Moments, lam: float, batch_size: int) -> tuple[Tensor, Tensor]:
    """Return P and Q, (d^2, d^2), of E[A_S kron A_S] = I - 2 eta P + 4 eta^2 Q."""
    h, fourth = moments
    eye = torch.eye(len(h), dtype=h.dtype)
    k = h + lam * eye
    p = torch.kron(k, eye) + torch.kron(eye, k)
    return p, torch.kron(k, k) + (fourth - torch.kron(h, h)) / batch_size


def second_moment_limit(p: Tensor, q: Tensor) -> float:
    """Return 1/(2 max eig(P^-1 Q)); below this eta, I - 2 eta P + 4 eta^2 Q shrinks everything."""
    values, vectors = torch.linalg.eigh(p)
    kept = values > values[-1] * len(p) * torch.finfo(p.dtype).eps
    half = vectors[:, kept] * values[kept].rsqrt()
    return float(0.5 / torch.linalg.eigvalsh(half.T @ q @ half)[-1])
