"""The loss that training descends, at these weights: gradients, products with its Hessian.

Several processes share the samples, as everywhere; each has to ask for the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from janus_pl.observables.edge import Edge
from janus_pl.observables.onto import onto
from janus_pl.observables.sharpness import gradient, hessian_product
from janus_pl.training.ranks import Ranks

CHUNK = 100  # samples in a graph of second derivatives
Samples = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Descended:
    """A loss over samples, and the decay; neither weights nor their `grad` change.

    Attributes:
        parameters: The trained parameters, P entries in all.
        losses: The loss of each sample (x, y) at these parameters, (n,).
        decay: Returns the curvature wd of the decay, of which the loss has (wd/2) ||p||^2; by
            entry, (P,).
        samples: Yields all N training samples in chunks, in data order if it is known.
        drawn: Returns the samples of a minibatch, and whether they are drawn with replacement.
        edge: Returns the limit of the optimizer's next step; raises NoLimit.
        ranks: The processes that share the samples.
    """

    parameters: Sequence[Tensor]
    losses: Callable[[Tensor, Tensor], Tensor]
    decay: Callable[[], Tensor]
    samples: Callable[[], Iterable[Samples]]
    drawn: Callable[[], tuple[int, bool]]
    edge: Callable[[], Edge]
    ranks: Ranks

    def over(self, x: Tensor, y: Tensor) -> Mean:
        """Return the mean loss over some samples with the decay."""
        return Mean(self, x, y)


class Mean:
    """The mean of a loss over n samples, with the decay.

    Args:
        of: The loss.
        x: Inputs, (n, ...).
        y: Targets, (n, ...).
    """

    def __init__(self, of: Descended, x: Tensor, y: Tensor) -> None:
        self._of = of
        self._count = len(y)
        own = of.ranks.own(x), of.ranks.own(y)
        self._chunks = [*zip(*(part.split(CHUNK) for part in own), strict=True)]
        self._decay = of.decay()
        self._product = hessian_product(self._shares, of.parameters)

    def product(self, u: Tensor) -> Tensor:
        """Return H u, (P,)."""
        image = self._product(u)
        self._of.ranks.add_up([image])
        return image + self._decay * u

    def gradient(self) -> Tensor:
        """Return the gradient, (P,)."""
        total = self.loss_gradient()
        at = torch.cat([p.detach().reshape(-1) for p in self._of.parameters])
        return total + self._decay * at

    def loss_gradient(self) -> Tensor:
        """Return the gradient without the decay, (P,)."""
        total = gradient(self._shares, self._of.parameters)
        self._of.ranks.add_up([total])
        return total

    def _shares(self) -> list[Callable[[], Tensor]]:
        return [partial(self._share, x, y) for x, y in self._chunks if len(y)]

    def _share(self, x: Tensor, y: Tensor) -> Tensor:
        return self._of.losses(x, y).sum() / self._count


def pick(samples: Iterable[Samples], *indices: Tensor) -> list[Samples]:
    """Return the samples of several lists of numbers, in one pass over chunks that hold them all.

    Numbers count through all chunks. Samples come chunk by chunk, and within a chunk in the order
    of their numbers in the list.

    >>> chunks = [(torch.zeros(2, 1), torch.tensor(y)) for y in ([0, 1], [2, 3])]
    >>> [y.tolist() for _, y in pick(chunks, torch.tensor([3, 1, 2]), torch.tensor([0]))]
    [[1, 3, 2], [0]]
    """
    start = 0
    parts: list[list[Samples]] = [[] for _ in indices]
    for x, y in samples:
        for index, found in zip(indices, parts, strict=True):
            own = index[(index >= start) & (index < start + len(y))] - start
            own = onto(own, y.device)
            found.append((x[own], y[own]))
        start += len(y)
    together = (zip(*found, strict=True) for found in parts)
    return [(torch.cat(xs), torch.cat(ys)) for xs, ys in together]
