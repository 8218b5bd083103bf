"""Parameters and gradients as views of two buffers, so that one operation reaches all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

ROW = 1024  # entries that one sum adds up; in float32 a longer sum loses digits


class Flat:
    """Parameters of one dtype, side by side in a buffer; each begins a row of its own.

    A parameter stays the object that it is, with its shape and its memory format, and its values
    move into the buffer. What is left of its last row is zero, in both buffers, so norms of rows
    are norms of parameters.

    Args:
        parameters: The parameters, on one device and of one dtype.

    Attributes:
        parameters: The parameters in their order.
        values: All values, (R, ROW).
        gradients: All gradients, (R, ROW).
        spans: The rows of each parameter.
        grads: The gradients in the shapes of the parameters, views.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = [*parameters]
        self.spans: list[slice] = []
        rows = 0
        for p in self.parameters:
            self.spans.append(slice(rows, rows := rows - (-p.numel() // ROW)))
        like = self.parameters[0].detach()
        self.values = like.new_zeros((rows, ROW))
        self.gradients = torch.zeros_like(self.values)
        self.grads = self.views(self.gradients)
        self._sizes = torch.empty(rows, device=like.device, dtype=like.dtype.to_real())
        self._segments = [self._sizes[span] for span in self.spans]
        counts = torch.tensor([span.stop - span.start for span in self.spans])
        self._owners = torch.arange(len(counts)).repeat_interleave(counts).to(like.device)
        self._filled = [False] * len(self.parameters)
        self._places: list[int] = []
        self.take_in()

    def views(self, buffer: Tensor, count: int | None = None) -> list[Tensor]:
        """Return the parts of a buffer (R, ROW) in the shapes and layouts of the parameters.

        Args:
            buffer: The buffer.
            count: The number of parameters, the first ones; None: all.
        """
        found = []
        for p, span in zip(self.parameters[:count], self.spans, strict=False):
            strides = torch.empty_like(p, device="meta").stride()  # dense, whatever p is
            start = buffer.storage_offset() + span.start * ROW
            found.append(buffer.as_strided(p.shape, strides, start))
        return found

    def lines(self, buffer: Tensor, count: int | None = None) -> list[Tensor]:
        """Return the parts of a buffer (R, ROW) as vectors in the order of memory."""
        pairs = zip(self.parameters[:count], self.spans, strict=False)
        return [buffer.view(-1)[s.start * ROW :][: p.numel()] for p, s in pairs]

    @torch.no_grad()
    def take_in(self) -> None:
        """Move the values into the buffer, unless they are there; the host does not wait."""
        if self.holds():
            return
        views = self.views(self.values)
        for p, view in zip(self.parameters, views, strict=True):
            view.copy_(p)
            p.data = view
        self._places = [p.data_ptr() for p in self.parameters]

    def holds(self) -> bool:
        """Tell whether all values are in the buffer: nobody gave a parameter other memory."""
        return self._places == [p.data_ptr() for p in self.parameters]

    @torch.no_grad()
    def collect(self) -> None:
        """Move the gradients into their buffer; a parameter without a gradient keeps none."""
        into, given = [], []
        for k, (p, view) in enumerate(zip(self.parameters, self.grads, strict=True)):
            if p.grad is None and self._filled[k]:
                view.zero_()
            elif p.grad is not None and p.grad is not view:
                into.append(view)
                given.append(p.grad)
                p.grad = view
            self._filled[k] = p.grad is not None
        if given:
            torch._foreach_copy_(into, given)

    def norms(self, buffer: Tensor, count: int | None = None, out: Tensor | None = None) -> Tensor:
        """Return the Frobenius norm of each part of a buffer (R, ROW), row by row; (count,)."""
        whole = count is None or count == len(self.spans)
        rows = self._sizes.shape[0] if whole else self.spans[count - 1].stop  # type: ignore[operator]
        torch.linalg.vector_norm(buffer[:rows], dim=1, out=self._sizes[:rows])
        return torch.stack(torch._foreach_norm(self._segments[:count]), out=out)

    def by_row(self, numbers: Tensor, out: Tensor | None = None) -> Tensor:
        """Return the number of the first parameters, (count,), for each of their rows: (rows, 1).

        Args:
            numbers: The numbers.
            out: Memory for the result, (rows,).
        """
        rows = self.spans[len(numbers) - 1].stop
        return torch.index_select(numbers, 0, self._owners[:rows], out=out)[:, None]

    def holds_gradients(self, count: int) -> bool:
        """Tell whether the gradients of the first parameters are in the buffer, too."""
        pairs = zip(self.parameters[:count], self.grads, strict=False)
        return self.holds() and all(p.grad is view for p, view in pairs)


def flats_of(parameters: Iterable[nn.Parameter]) -> list[Flat]:
    """Return the parameters of each dtype as one `Flat`, in the order of the first of each."""
    kinds: dict[torch.dtype, list[nn.Parameter]] = {}
    for p in parameters:
        kinds.setdefault(p.dtype, []).append(p)
    return [Flat(some) for some in kinds.values()]
