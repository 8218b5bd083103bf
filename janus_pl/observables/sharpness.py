r"""Sharpness: the largest eigenvalue of the Hessian of the loss that training descends.

The Hessian is never formed: `hessian_product` returns H u for the cost of two backward passes, and
`largest_eigenvalue` asks for such products alone. Gradient descent with learning rate eta on a
quadratic loss is stable while the largest eigenvalue is below `stability_threshold`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

Images = tuple[Tensor, Tensor]
DEPENDENT = 1e-6  # a column whose part across the others is this small adds rounding alone
AFRESH = 10  # products of a search from a random vector, beside the one from the last eigenvector
FRESH = 10  # iterations after which H x is computed anew, for sums of images gather rounding errors


class Eigenpair(NamedTuple):
    """An eigenvalue with its vector, and how well it is known.

    Attributes:
        value: The eigenvalue, ().
        vector: Its eigenvector, unit norm, (P,).
        residual: ||H x - value x||; an eigenvalue of H lies within it, ().
        products: The number of products with H that it took.
    """

    value: Tensor
    vector: Tensor
    residual: Tensor
    products: int


def stability_threshold(
    learning_rate: float, momentum: float = 0.0, dampening: float = 0.0, nesterov: bool = False
) -> float:
    r"""Return the curvature above which PyTorch's SGD diverges on a quadratic.

    The step is b <- beta b + (1 - d) g, w <- w - eta b: the threshold is 2(1 + beta)/((1 - d) eta),
    and 2/eta of gradient descent with beta = d = 0. Nesterov's step is w <- w - eta (g + beta b):
    2(1 + beta)/((1 + 2 beta) eta). There the step turns w into -w (an eigenvalue of -1).

    Args:
        learning_rate: eta, above 0.
        momentum: beta, from 0 to below 1.
        dampening: d, below 1; 0 with Nesterov's step, as PyTorch wants it.
        nesterov: Whether the step is Nesterov's.

    >>> stability_threshold(0.5), stability_threshold(0.5, 0.75)
    (4.0, 7.0)
    >>> stability_threshold(0.5, 0.75, nesterov=True), stability_threshold(0.5, 0.75, 0.75)
    (2.8, 28.0)
    """
    along = 1 + 2 * momentum if nesterov else 1 - dampening
    return 2 * (1 + momentum) / (along * learning_rate)


def hessian_product(
    losses: Callable[[], Sequence[Callable[[], Tensor]]], weights: Sequence[Tensor]
) -> Callable[[Tensor], Tensor]:
    r"""Return the function u -> H u with H the Hessian of a sum of losses.

    Args:
        losses: Returns the summands, each of which computes one (), such as the share of a chunk of
            samples. Only one graph is held at a time.
        weights: The weights that H is of, P entries in all.

    Returns:
        A function of (P,) to (P,), in the dtype of the weights.

    Raises:
        RuntimeError: Some part of a loss has no second derivative.
    """

    def product(u: Tensor) -> Tensor:
        pieces = u.split([weight.numel() for weight in weights])
        parts = [piece.view_as(w) for piece, w in zip(pieces, weights, strict=True)]
        total = torch.zeros_like(u)
        for loss in losses():
            with torch.enable_grad():
                first = torch.autograd.grad(
                    loss(), weights, create_graph=True, materialize_grads=True
                )
                pairs = zip(first, parts, strict=True)
                along = torch.stack([(gradient * part).sum() for gradient, part in pairs]).sum()
            if not along.requires_grad:  # the gradient is constant: this summand is linear
                continue
            second = torch.autograd.grad(along, weights, materialize_grads=True)
            total += torch.cat([part.reshape(-1) for part in second])
        return total

    return product


@torch.no_grad()
def largest_eigenvalue(
    product: Callable[[Tensor], Tensor],
    start: Tensor,
    tolerance: float = 1e-3,
    most: int = 100,
    agree: Callable[[bool], bool] = bool,
) -> Eigenpair:
    r"""Return the largest eigenvalue of a symmetric H, by products with it alone.

    Each iteration takes the best vector of the span of x, the residual H x - theta x and the last
    direction of search (LOBPCG with one vector; Knyazev, 2001). It needs the memory of six vectors
    and one product.

    Args:
        product: u -> H u, (P,) to (P,).
        start: The first guess of the eigenvector, not zero, (P,): the last one where H has changed
            little, else a random one.
        tolerance: It stops once the residual is at most this part of |theta|.
        most: It stops after so many products.
        agree: Whether to stop, of several processes that compute the same; each asks it.

    Returns:
        The pair; its `residual` tells how well it is known.

    >>> H = torch.diag(torch.tensor([3.0, 1.0, -7.0], dtype=torch.float64))
    >>> found = largest_eigenvalue(lambda u: H @ u, torch.ones(3, dtype=torch.float64), 1e-9)
    >>> round(float(found.value), 9)
    3.0
    """
    x = start / torch.linalg.vector_norm(start)
    image, count = product(x), 1
    last: Images | None = None  # the direction of search and its image
    while True:
        theta = torch.dot(x, image)
        rest = image - theta * x
        residual = torch.linalg.vector_norm(rest)
        if agree(count >= most or not residual > tolerance * theta.abs()):
            return Eigenpair(theta, x, residual, count)
        new = rest / residual
        new = new - torch.dot(x, new) * x
        columns = [x, new / torch.linalg.vector_norm(new)]
        images = [image, product(columns[1])]
        count += 1
        if last is not None:
            size = torch.linalg.vector_norm(last[0])
            size = torch.where(size > 0, size, 1.0)
            columns.append(last[0] / size)
            images.append(last[1] / size)
        basis, factor = torch.linalg.qr(torch.stack(columns, 1))
        sizes = factor.diagonal().abs()
        kept = sizes > DEPENDENT * sizes.amax()
        # One transfer of all that the host has to know here.
        finite, *of_span = torch.cat((images[1].isfinite().all()[None], kept)).tolist()
        if agree(not finite):
            return Eigenpair(theta, x, residual, count)
        chosen = [k for k, found in enumerate(of_span) if found]
        x, image, last = _best(basis, factor, images, chosen)
        if count % FRESH == 0 and count < most:
            image, count = product(x), count + 1


def tracked_eigenvalue(
    product: Callable[[Tensor], Tensor],
    last: Tensor | None,
    fresh: Tensor,
    tolerance: float = 1e-3,
    most: int = 100,
    agree: Callable[[bool], bool] = bool,
) -> Eigenpair:
    r"""Return the largest eigenvalue of a symmetric H that has changed little since the last time.

    It starts from the last eigenvector plus what a few iterations make of a random one. Alone, the
    last one would be kept when another eigenvalue overtakes its own: it stays an eigenvector.

    Args:
        product: As in `largest_eigenvalue`.
        last: The last eigenvector, of unit norm, (P,); None: there is none.
        fresh: A random vector, not zero, (P,).
        tolerance: As in `largest_eigenvalue`.
        most: As in `largest_eigenvalue`; the few iterations count.
        agree: As in `largest_eigenvalue`.

    >>> H = torch.diag(torch.tensor([3.0, 3.5, -7.0], dtype=torch.float64))
    >>> last, fresh = torch.tensor([[1.0, 0, 0], [1, 1, 1]], dtype=torch.float64)
    >>> round(float(largest_eigenvalue(lambda u: H @ u, last).value), 3)
    3.0
    >>> round(float(tracked_eigenvalue(lambda u: H @ u, last, fresh).value), 3)
    3.5
    """
    if last is None:
        return largest_eigenvalue(product, fresh, tolerance, most, agree)
    first = largest_eigenvalue(product, fresh, tolerance, min(AFRESH, most), agree)
    left = most - first.products
    if left < 1:
        return first
    sign = 1.0 if torch.dot(last, first.vector) >= 0 else -1.0
    found = largest_eigenvalue(product, last + sign * first.vector, tolerance, left, agree)
    return found._replace(products=first.products + found.products)


def directional_curvature(gradient: Tensor, product: Callable[[Tensor], Tensor]) -> Tensor:
    r"""Return g^T H g/||g||^2, the curvature along a gradient g; (); NaN if g is 0.

    Its mean over minibatches, with g and H of the minibatch, is the batch sharpness (Andreyev and
    Beneventano, 2024).

    >>> H = torch.diag(torch.tensor([3.0, 1.0]))
    >>> float(directional_curvature(torch.tensor([1.0, 1.0]), lambda u: H @ u))
    2.0
    """
    return torch.dot(gradient, product(gradient)) / torch.dot(gradient, gradient)


def gradient(
    losses: Callable[[], Sequence[Callable[[], Tensor]]], weights: Sequence[Tensor]
) -> Tensor:
    """Return the gradient of a sum of losses, (P,); arguments as `hessian_product`.

    >>> w = torch.tensor([3.0], requires_grad=True)
    >>> gradient(lambda: [lambda: (w * w).sum()], [w])
    tensor([6.])
    """
    total = torch.cat([torch.zeros_like(w).reshape(-1) for w in weights])
    for loss in losses():
        with torch.enable_grad():
            parts = torch.autograd.grad(loss(), weights, materialize_grads=True)
        total += torch.cat([part.reshape(-1) for part in parts])
    return total


def is_curved(loss: Callable[[Tensor], Tensor], point: Tensor) -> bool:
    """Tell whether the second derivative of a loss is there, and not 0 at every point.

    Args:
        loss: Computes one number for each row of points, (B, k) to (B,).
        point: The points, (B, k).

    >>> points = torch.linspace(-2, 2, 8)[:, None]
    >>> is_curved(lambda s: s[:, 0] ** 2, points)
    True
    >>> is_curved(lambda s: torch.relu(1 - s[:, 0]), points)
    False
    """
    point = point.detach().requires_grad_()
    with torch.enable_grad():
        (first,) = torch.autograd.grad(loss(point).sum(), point, create_graph=True)
        if not first.requires_grad:
            return False
        ramp = torch.linspace(1, 2, point.shape[1]).to(point)
        try:
            (second,) = torch.autograd.grad((first * ramp).sum(), point, materialize_grads=True)
        except RuntimeError:
            return False
    return bool(second.any())


def _best(
    basis: Tensor, factor: Tensor, images: list[Tensor], chosen: list[int]
) -> tuple[Tensor, Tensor, Images]:
    """Return the best vector x of a span, H x, and the part of x that is not along the first.

    Args:
        basis: Q of the columns that span it, (P, k).
        factor: R of them, (k, k).
        images: H times each column.
        chosen: The columns that add to the span.
    """
    basis = torch.stack([basis[:, k] for k in chosen], 1)
    factor = torch.stack([torch.stack([factor[i, k] for k in chosen]) for i in chosen])
    mapped = torch.linalg.solve_triangular(
        factor, torch.stack([images[k] for k in chosen], 1), upper=True, left=False
    )
    small = basis.T @ mapped
    weights = torch.linalg.eigh((small + small.T) / 2).eigenvectors[:, -1]
    along = weights.clone()
    along[0] = 0.0
    return basis @ weights, mapped @ weights, (basis @ along, mapped @ along)
