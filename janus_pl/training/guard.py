"""The guard that keeps the weights finite on every rank, without a wait for the device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from janus_pl.observables.wide import wide
from janus_pl.training.flat import Flat, flats_of


class UpdateGuard:
    """Optimizer steps until a loss, gradient or weight is not finite; then the last weights stay.

    The decision is made on the device, so the host never waits within an epoch; it reads `state`
    when it has to wait anyway. The guard keeps a copy of the weights after the last sound step.
    From the first bad step on, the weights are that copy. The guard also notes the numbers that
    were not finite in the first bad step. Under DDP every rank decides the same.

    A norm that overflows counts as not finite. All state changes in place, in fixed memory.

    Args:
        parameters: All trained parameters by the names of their layers, in depth order.
        steps: The number of steps taken before.
        flats: The parameters as `flats_of` has them, in any order; None: made here.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        steps: int = 0,
        flats: Sequence[Flat] | None = None,
    ) -> None:
        self.names = [*parameters]
        self.parameters: list[Tensor] = [*parameters.values()]
        self.flats = flats_of(parameters.values()) if flats is None else flats
        self._sound_weights = [flat.values.clone() for flat in self.flats]
        device = self.parameters[0].device
        kinds = [flat.values.dtype.to_real() for flat in self.flats]
        dtype = reduce(torch.promote_types, kinds)
        # The loss; by Flat the sizes of gradients, weights before the step and after it; the
        # largest size that is noted. Gradients and weights after the step come by row.
        self._counts = [
            n for f in self.flats for n in (len(f.values), len(f.parameters), len(f.values))
        ]
        count = sum(self._counts) + 1
        self._sizes = torch.zeros(count + 1, dtype=dtype, device=device)
        self._parts = self._by_flat(self._sizes)
        self._now, self._loss = self._sizes[:count], self._sizes[0]
        self._largest = self._sizes[count]
        self._noted = torch.zeros_like(self._now)  # of the first bad step, or of the last one
        self._peak = torch.zeros_like(self._loss)
        self._sound = torch.ones((), dtype=torch.bool, device=device)
        self._step_sound = torch.ones_like(self._sound)
        self._found = torch.zeros((), dtype=torch.float32, device=device)
        self._sound_steps = torch.full((), steps, dtype=torch.int64, device=device)
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        self._ranks = torch.distributed.get_world_size() if distributed else 1

    @torch.no_grad()
    def begin(self) -> None:
        """Begin a step: forget the gradients of the last one, and measure the weights."""
        for flat, (_, before, _) in zip(self.flats, self._parts, strict=True):
            for parameter in flat.parameters:
                parameter.grad = None
            flat.take_in()
            flat.norms(flat.values, out=before)

    def norms(self, count: int) -> Tensor:
        """Return the norms of the first `count` parameters as this step began; (count,), a view."""
        return self._parts[0][1][:count]

    @torch.no_grad()
    def step(self, optimizer: LightningOptimizer, *losses: Tensor) -> None:
        """Take one optimizer step; `settle` then decides whether it stays."""
        self._loss.copy_(losses[0] if len(losses) == 1 else torch.stack(losses).sum())
        for flat, (gradients, _, _) in zip(self.flats, self._parts, strict=True):
            flat.collect()
            _row_norms(flat.gradients, gradients)
        inner = optimizer.optimizer
        if getattr(inner, "_step_supports_amp_scaling", False):
            # Fused optimizers leave out a bad step in their own kernel, as GradScaler asks them to,
            # so their own state stays sound as well.
            _largest_of(self._sizes, self._peak)
            torch.lt(self._peak, torch.inf, out=self._step_sound)
            torch.logical_not(self._step_sound, out=self._found)
            inner.grad_scale = None  # type: ignore[attr-defined]
            inner.found_inf = self._found  # type: ignore[attr-defined]
        optimizer.step()

    @torch.no_grad()
    def settle(self) -> None:
        """Keep the weights of this step or, from the first bad step on, the last sound ones."""
        for flat, (_, _, after) in zip(self.flats, self._parts, strict=True):
            flat.take_in()  # a callback may have given a parameter other memory
            _row_norms(flat.values, after)
        if self._ranks > 1:
            # One reduction a step is enough: a loss or gradient that was bad on one rank came to
            # all ranks with the sum of the gradients.
            flags = (~self._now.isfinite()).float()
            torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX)
            self._now.masked_fill_(flags > 0, torch.inf)
        torch.where(self._sound, self._now, self._noted, out=self._noted)
        _largest_of(self._noted, self._largest)
        torch.lt(self._largest, torch.inf, out=self._sound)
        for flat, sound in zip(self.flats, self._sound_weights, strict=True):
            torch.where(self._sound, flat.values, sound, out=flat.values)
            sound.copy_(flat.values)
        self._sound_steps += self._sound

    def state(self) -> Tensor:
        """Return (bad, sound steps so far), in float64; shape (2,)."""
        return wide(torch.stack(((~self._sound).long(), self._sound_steps)))

    def culprit(self) -> str:
        """Name the number that was not finite in the first bad step, and its layer; the host waits.

        It is a parameter, if one was bad, since all else follows from it. Else it is the bad
        gradient that the backward pass reaches first, the last in depth, and the loss if it was
        bad.
        """
        bad = (~self._noted.isfinite()).cpu()
        found = {id(parameter): flags for parameter, *flags in self._by_parameter(bad)}
        named = [(name, *found[id(p)]) for name, p in zip(self.names, self.parameters, strict=True)]
        reached = [name for name, flag, _, _ in named if flag]
        weights = [name for name, _, before, _ in named if before]
        if not (weights or reached or bad[0]):  # for a bad gradient makes bad weights
            weights = [name for name, _, _, after in named if after]
        if weights:
            return f"parameter {weights[0]}"
        return " and ".join(["loss"] * bool(bad[0]) + [f"gradient of {n}" for n in reached[-1:]])

    def message(self, epoch: int, sound: int, rate: float, weight_decay: float) -> str:
        """Say in one line what was not finite, where, and which weights are left.

        Args:
            epoch: The epoch of the first bad step.
            sound: The sound steps before it.
            rate: The learning rate.
            weight_decay: The paper's lambda.
        """
        return (
            f"{self.culprit()} not finite at epoch {epoch}, step {sound + 1}, learning rate"
            f" {rate:g}, lambda {weight_decay:g}; the weights are those of step {sound}"
        )

    def _by_flat(self, sizes: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Return the sizes of gradients, weights before and weights after, by Flat; views."""
        parts = iter(sizes[1 : 1 + sum(self._counts)].split(self._counts))
        return [*zip(parts, parts, parts, strict=True)]

    def _by_parameter(self, bad: Tensor) -> Iterator[tuple[Tensor, bool, bool, bool]]:
        """Yield each parameter; is its gradient bad, its weight before the step, and after it?"""
        for flat, (gradients, before, after) in zip(self.flats, self._by_flat(bad), strict=True):
            for k, (parameter, span) in enumerate(zip(flat.parameters, flat.spans, strict=True)):
                of_gradient, of_after = (bool(part[span].any()) for part in (gradients, after))
                yield parameter, of_gradient, bool(before[k]), of_after


def _row_norms(buffer: Tensor, out: Tensor) -> None:
    """Write the norms of the rows of a buffer (R, ROW) to (R,), which may be of a wider dtype."""
    if buffer.dtype.to_real() == out.dtype:
        torch.linalg.vector_norm(buffer, dim=1, out=out)
    else:
        out.copy_(torch.linalg.vector_norm(buffer, dim=1))


def _largest_of(sizes: Tensor, out: Tensor) -> None:
    """Write the largest absolute value; NaN, if there is one."""
    torch.linalg.vector_norm(sizes, torch.inf, out=out)
