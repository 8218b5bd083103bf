r"""The Janus effect of SGD against GD, high noise and low rank, in one file of PyTorch to read.

Equations of "The Janus effects of SGD vs GD" (Xu et al., 2023), slips mended as in
docs/equations.md. Besides PyTorch: NumPy for the order of samples, scikit-learn for the images.
"""

import math
from collections import deque
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

Layers = list[Tensor]
Run = Iterator[tuple[Any, ...]]


def digits() -> tuple[Tensor, Tensor]:
    """The 285 training images x_n (3, 32, 32) of 3 (y_n = -1) and 8 (y_n = +1), ||x_n|| = 1."""
    pixels, digit = load_digits(return_X_y=True)
    pair = np.flatnonzero(np.isin(digit, (3, 8)))
    rows = np.sort(train_test_split(pair, test_size=0.2, stratify=digit[pair], random_state=0)[0])
    x = F.interpolate(torch.from_numpy(pixels[rows]).view(-1, 1, 8, 8), (32, 32), mode="bilinear")
    x = ((x - x.mean()) / x.std(correction=0)).expand(-1, 3, -1, -1)
    x = x / x.square().sum((1, 2, 3), keepdim=True).sqrt()
    return x.float(), torch.from_numpy(np.where(digit[rows] == 8, 1, -1)).float()


def network() -> Layers:
    """v_k ~ N(0, 0.1^2): four 3x3 convolutions and two dense layers without bias (Section D.5)."""
    torch.manual_seed(0)
    layers: list[Any] = [nn.Conv2d(a, b, 3, bias=False) for a, b in pairwise((3, 32, 64, 128, 128))]
    layers += [nn.Linear(128, 1024, bias=False), nn.Linear(1024, 2, bias=False)]
    return [nn.init.normal_(layer.weight, std=0.1).detach() for layer in layers]


def f_V(V: Layers, x: Tensor) -> Tensor:
    """V_6 relu(V_5 relu(... relu(V_1 x))) = (f_0, f_1), (B, 2); f_W = rho f_V (Appendix C)."""
    for V_k in V[:4]:
        x = F.relu(F.conv2d(x, V_k, stride=2))
    return F.relu(x.flatten(1) @ V[4].T) @ V[5].T


def loss(f: Tensor, y: Tensor) -> Tensor:
    """Eq. 12 but for decay: mean (1 - rho fbar_n)^2, and of two outputs also ((f_0 + f_1)/2)^2."""
    return (f - torch.stack((-y, y), dim=1)).square().mean()


def tangent(G_k: Tensor, V_k: Tensor) -> Tensor:
    """G_k - <G_k, V_k> V_k: the multiplier 2 nu_k = -<G_k, V_k> keeps ||V_k|| = 1 (Eq. 14)."""
    return G_k - (G_k * V_k).sum() * V_k


def flow(rho: Tensor, V: Layers, x: Tensor, y: Tensor) -> tuple[Tensor, Layers]:
    r"""drho/dt but for decay (Eq. 13), and V_k dot (Eq. 15), of a minibatch.

    G_k = dL/dV_k = -(2 rho/B) sum_n l_n dfbar_n/dV_k with l_n = 1 - rho fbar_n, so that V_k dot is
    (2 rho/B) sum_n l_n (dfbar_n/dV_k - fbar_n V_k), whose norm is Eq. 24.
    """
    rho, *leaves = [w.detach().requires_grad_() for w in (rho, *V)]
    slope, *G = torch.autograd.grad(loss(rho * f_V(leaves, x), y), (rho, *leaves))
    return -slope, [-tangent(G_k, V_k) for G_k, V_k in zip(G, V, strict=True)]


def sgd(x: Tensor, y: Tensor, v: Layers, B: int, lam: float, epochs: int, seed: int = 0) -> Run:
    r"""SGD (B = N: GD) from v; after every epoch (steps, rho, V, mean ||V_k dot|| of its steps).

    W_k = g_k v_k/||v_k||, g_k frozen at the first ||v_k||; rho = r prod_k g_k, r learned from 1.
    The force on v_k is V_k dot/||v_k||. Momentum 0.9, eta = 0.03; decay lambda w of every w = r,
    v_k (`decay: all`; in Eq. 12 it is 2 lambda rho of rho alone).
    """
    r, g, N = x.new_ones(()), math.prod(v_k.norm() for v_k in v), len(y)
    v = [v_k.clone() for v_k in v]
    momenta = [torch.zeros_like(w) for w in (r, *v)]
    for epoch in range(epochs):
        order = torch.from_numpy(np.random.default_rng((seed, epoch)).permutation(N))
        speeds = []
        for S in order.split(B) if B < N else [torch.arange(N)]:
            norms = [v_k.norm() for v_k in v]
            V = [v_k / norm for v_k, norm in zip(v, norms, strict=True)]
            rho_dot, V_dot = flow(r * g, V, x[S], y[S])
            forces = [g * rho_dot, *(d / norm for d, norm in zip(V_dot, norms, strict=True))]
            for w, force, momentum in zip((r, *v), forces, momenta, strict=True):
                momentum.mul_(0.9).add_(force - lam * w)
                w += 0.03 * momentum
            speeds.append(torch.stack([d.norm() for d in V_dot]))
        V = [v_k / v_k.norm() for v_k in v]
        yield (epoch + 1) * len(speeds), r * g, V, torch.stack(speeds).mean(0)


def look(x: Tensor, y: Tensor, steps: int, rho: Tensor, V: Layers, speed: Tensor) -> Any:
    """A row: loss, margins fbar_n = y_n (f_1 - f_0)/2 of f_V, exp(entropy of sigma_i/sum sigma)."""
    f = f_V(V, x)
    fbar = (rho.sign() * y * (f[:, 1] - f[:, 0]) / 2).double()  # (-rho, -V_6) is (rho, V_6)
    mean, std = float(fbar.mean()), float(fbar.std(correction=0))
    row = {"steps": steps, "training loss": float(loss(rho * f, y)), "margin, mean": mean}
    row |= {"margin, std": std, "margin, std/mean": std / mean}
    row |= {f"||V_{k} dot||": float(norm) for k, norm in enumerate(speed, 1)}
    for k, V_k in enumerate(V, 1):
        sigma = torch.linalg.svdvals(V_k.flatten(1).double())
        row[f"effective rank, V_{k}"] = float(torch.special.entr(sigma / sigma.sum()).sum().exp())
    return row


def linear(X: Tensor, Y: Tensor, W: Tensor, B: int, lam: float, epochs: int) -> Run:
    r"""W x = y by SGD (B = N: GD); an epoch's (steps, W, ||W_perp||, closed form, mean ||W dot||).

    L = (1/N) sum_i ||W x_i - y_i||^2 + lambda ||W||^2 (Eq. 2). Data act in their span alone: pi the
    projection on it, W_perp = W (I - pi) shrinks by 1 - 2 eta lambda a step whatever B is (Eq. 9),
    so N/B times an epoch (Theorem 1).
    """
    eta, I_pi = 0.5 / torch.linalg.matrix_norm(X, 2), torch.eye(len(X)) - X @ X.pinverse()
    start, steps = (W @ I_pi).norm(), 0
    for _ in range(epochs):
        speeds = []
        for S in torch.arange(X.shape[1]).split(B):
            W_dot = -2 / len(S) * (W @ X[:, S] - Y[:, S]) @ X[:, S].T - 2 * lam * W  # Eq. 4, 5
            W, steps = W + eta * W_dot, steps + 1
            speeds.append(W_dot.norm())
        closed = start * (1 - 2 * eta * lam) ** steps
        yield steps, W, (W @ I_pi).norm(), closed, torch.stack(speeds).mean()


def main() -> None:
    """Print both. SGD with decay is chaotic: where it ends is up to the last bit, or seed."""
    print("Digits 3 and 8, 150 epochs: two runs of a minute on a core, and a short one", flush=True)
    x, y = digits()
    runs = [(0.002, "SGD", 8), (0.0, "SGD", 8), (0.002, "GD", len(y))]
    rows = [look(x, y, *deque(sgd(x, y, network(), B, lam, 150), 1)[0]) for lam, _, B in runs]
    print(f"{'lambda':20}", *(f"{lam:>6} {name:>3}" for lam, name, _ in runs))
    for key in rows[0]:
        print(f"{key:20}", *(f"{row[key]:10.4g}" for row in rows))
    torch.manual_seed(0)
    X, Y, W = torch.randn(3, 6, 6, dtype=torch.float64)
    X[5] = 0  # as in Fig. A.7
    print("\nepoch, then ||W_perp||, its closed form and ||W dot|| of SGD with B = 1, and of GD")
    both = (linear(X, Y, 0.1 * W, B, 0.01, 400) for B in (1, 6))
    for epoch, ends in list(enumerate(zip(*both, strict=True), 1))[99::100]:
        print(f"{epoch:5}", *(f"{end[i]:10.4g}" for end in ends for i in (2, 3, 4)))


if __name__ == "__main__":
    main()
