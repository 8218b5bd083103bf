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


def stability_threshold(learning_rate: float, momentum: float = 0.0) -> float:
    r"""Return 2(1 + beta)/eta, above which heavy-ball descent of a quadratic diverges.

    The step is b <- beta b + g, w <- w - eta b (PyTorch's SGD without dampening). beta = 0 gives
    2/eta of gradient descent.

    Args:
        learning_rate: eta, above 0.
        momentum: beta, from 0 to below 1.

    >>> stability_threshold(0.5), stability_threshold(0.5, 0.75)
    (4.0, 7.0)
    """
    return 2 * (1 + momentum) / learning_rate


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
        if not residual > tolerance * theta.abs() or count >= most:
            return Eigenpair(theta, x, residual, count)
        new = rest / residual
        new = new - torch.dot(x, new) * x
        columns = [x, new / torch.linalg.vector_norm(new)]
        images = [image, product(columns[1])]
        count += 1
        if last is not None and (size := torch.linalg.vector_norm(last[0])) > 0:
            columns.append(last[0] / size)
            images.append(last[1] / size)
        x, image, last = _best(columns, images)
        if count % FRESH == 0 and count < most:
            image, count = product(x), count + 1


def _best(columns: list[Tensor], images: list[Tensor]) -> tuple[Tensor, Tensor, Images]:
    """Return the best vector x of a span, H x, and the part of x that is not along the first."""
    basis, factor = torch.linalg.qr(torch.stack(columns, 1))
    sizes = factor.diagonal().abs()
    kept = sizes > DEPENDENT * sizes.amax()
    basis, factor = basis[:, kept], factor[kept][:, kept]
    mapped = torch.linalg.solve_triangular(
        factor, torch.stack(images, 1)[:, kept], upper=True, left=False
    )
    small = basis.T @ mapped
    weights = torch.linalg.eigh((small + small.T) / 2).eigenvectors[:, -1]
    along = weights.clone()
    along[0] = 0.0
    return basis @ weights, mapped @ weights, (basis @ along, mapped @ along)
