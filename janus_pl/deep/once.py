r"""Weight normalization of all layers at once, and once a step for any number of micro-batches.

A step has one set of weights W_k = g_k v_k/||v_k||. They are computed at its start, in one buffer.
The passes of the micro-batches add up G_k = dLoss/dW_k there. The gradients of v_k and g_k follow
at the end, as in `janus_pl.deep.weight_norm`:

    dLoss/dv_k = (g_k/||v_k||) (G_k - <G_k, v_k>/||v_k||^2 v_k),   dLoss/dg_k = <G_k, v_k>/||v_k||
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from janus_pl.deep.weight_norm import FrobeniusWeightNorm
from janus_pl.training.flat import Flat

HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")  # of a parameter, as of W&B's `watch`


class Once:
    """The weights of a step, for layers whose v_k are the first parameters of a `Flat`.

    All memory is reserved here; every step writes into the same.

    Args:
        flat: Begins with v_1 ... v_L, and goes on with g_1 ... g_L if they are learned.
        layers: The normalizations of the L layers.
        gains: The g_k; frozen ones become views of one vector.
        norms: The norms of v_1 ... v_L at the start of a step, which the caller measures; (L,).
    """

    def __init__(
        self,
        flat: Flat,
        layers: Sequence[FrobeniusWeightNorm],
        gains: Sequence[nn.Parameter],
        norms: Tensor,
    ) -> None:
        self._flat, self._layers, self._gains, self._norms = flat, layers, gains, norms
        count, rows = len(layers), flat.spans[len(layers) - 1].stop
        self._vs = flat.parameters[:count]
        self._values, self._gradients = flat.values[:rows], flat.gradients[:rows]
        self._lines = flat.lines(flat.values, count)
        self._weights = torch.zeros_like(self._values)
        self._leaves = [w.detach().requires_grad_() for w in flat.views(self._weights, count)]
        self._inner, self._along, self._scales = (torch.zeros_like(norms) for _ in range(3))
        self._by_row = self._values.new_zeros(rows)
        self._learned = gains[0].requires_grad
        if self._learned:
            self._gain_values = flat.values[rows : rows + count, 0]
            self._gain_gradients = flat.gradients[rows : rows + count, 0]
        else:
            self._gain_values = torch.zeros_like(norms)
        self._take_in()

    @contextmanager
    def step(self) -> Iterator[None]:
        """Give the layers their weights within the block, and v_k and g_k their gradients after it.

        If a parameter has a hook on its gradient, autograd computes the gradient, so that the hook
        is called.
        """
        if any(getattr(v, name, None) for v in self._vs for name in HOOKS):
            yield
            return
        self._forward()
        try:
            for layer, leaf in zip(self._layers, self._leaves, strict=True):
                layer.held.weight, leaf.grad = leaf, None
            yield
        finally:
            for layer in self._layers:
                layer.held.weight = None
        self._backward()

    @torch.no_grad()
    def _take_in(self) -> None:
        """Make frozen gains views of the vector, unless they are."""
        if self._learned:
            return
        for gain, entry in zip(self._gains, self._gain_values, strict=True):
            if gain.data_ptr() != entry.data_ptr():
                entry.copy_(gain)
                gain.data = entry

    @torch.no_grad()
    def _forward(self) -> None:
        self._take_in()
        torch.div(self._gain_values, self._norms, out=self._scales)
        torch.mul(self._values, self._flat.by_row(self._scales, self._by_row), out=self._weights)

    @torch.no_grad()
    def _backward(self) -> None:
        given = {k: leaf.grad for k, leaf in enumerate(self._leaves) if leaf.grad is not None}
        for k, G in given.items():
            torch.dot(_line(G, self._leaves[k]), self._lines[k], out=self._inner[k])
        torch.div(self._inner, self._norms, out=self._along)
        grads, count = self._flat.grads, len(self._layers)
        if self._learned:
            self._gain_gradients.copy_(self._along)
        self._along.div_(self._norms)
        for k, G in given.items():
            torch.addcmul(G, self._vs[k], self._along[k], value=-1, out=grads[k])
        self._gradients.mul_(self._by_row[:, None])
        for k in given:
            self._vs[k].grad = grads[k]
            if self._learned:
                self._gains[k].grad = grads[count + k]
            self._leaves[k].grad = None


def _line(gradient: Tensor, weight: Tensor) -> Tensor:
    """Return a gradient as a vector, in the order of memory of its weight."""
    strides = zip(gradient.shape, gradient.stride(), weight.stride(), strict=True)
    if any(one != other for size, one, other in strides if size > 1):
        gradient = torch.empty_like(weight).copy_(gradient)
    return gradient.as_strided((gradient.numel(),), (1,))
