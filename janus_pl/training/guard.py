"""The guard that keeps the weights finite on every rank, without a wait for the device."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from janus_pl.observables.wide import wide


class UpdateGuard:
    """Optimizer steps until a loss, gradient or weight is not finite; then the last weights stay.

    The decision is made on the device, so the host never waits within an epoch; it reads `state`
    when it has to wait anyway. The guard keeps a copy of the weights after the last sound step.
    From the first bad step on, the weights are that copy. The guard also notes the numbers that
    were not finite in the first bad step. Under DDP every rank decides the same.

    A norm that overflows counts as not finite.

    Args:
        parameters: All trained parameters by the names of their layers, in depth order.
        steps: The number of steps taken before.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], steps: int = 0) -> None:
        self.names = [*parameters]
        self.parameters: list[Tensor] = [*parameters.values()]
        self._sound_weights = [p.detach().clone() for p in self.parameters]
        device = self.parameters[0].device
        self._zero = torch.zeros((), device=device)
        # In this order: the loss, gradients, weights before the step, weights after it.
        self._bad = torch.zeros(1 + 3 * len(self.names), dtype=torch.bool, device=device)
        self._sound_steps = torch.full((), steps, dtype=torch.int64, device=device)
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        self._ranks = torch.distributed.get_world_size() if distributed else 1

    def clear_gradients(self) -> None:
        """Forget the gradients of the last step."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, optimizer: LightningOptimizer, *losses: Tensor) -> None:
        """Take one optimizer step; `settle` then decides whether it stays."""
        gradients = [self._zero if p.grad is None else p.grad for p in self.parameters]
        loss = torch.stack(losses).sum()
        self._note(0, loss, *torch._foreach_norm(gradients), *torch._foreach_norm(self.parameters))
        inner = optimizer.optimizer
        if getattr(inner, "_step_supports_amp_scaling", False):
            # Fused optimizers leave out a bad step in their own kernel, as GradScaler asks them to,
            # so their own state stays sound as well.
            inner.grad_scale = None  # type: ignore[attr-defined]
            inner.found_inf = self._bad.any().float()  # type: ignore[attr-defined]
        optimizer.step()

    @torch.no_grad()
    def settle(self) -> None:
        """Keep the weights of this step or, from the first bad step on, the last sound ones."""
        self._note(1 + 2 * len(self.names), *torch._foreach_norm(self.parameters))
        if self._ranks > 1:
            # One reduction a step is enough: a loss or gradient that was bad on one rank came to
            # all ranks with the sum of the gradients.
            flags = self._bad.float()
            torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX)
            self._bad.copy_(flags > 0)
        bad = self._bad.any()
        for parameter, sound in zip(self.parameters, self._sound_weights, strict=True):
            torch.where(bad, sound, parameter, out=parameter)
        torch._foreach_copy_(self._sound_weights, self.parameters)
        self._sound_steps += ~bad

    def state(self) -> Tensor:
        """Return (bad, sound steps so far), in float64; shape (2,)."""
        return wide(torch.stack((self._bad.any().long(), self._sound_steps)))

    def culprit(self) -> str:
        """Name the number that was not finite in the first bad step, and its layer; the host waits.

        It is a parameter, if one was bad, since all else follows from it. Else it is the bad
        gradient that the backward pass reaches first, the last in depth, and the loss if it was
        bad.
        """
        flags, count = self._bad.tolist(), len(self.names)
        losses, (gradients, before, after) = flags[0], zip(*[iter(flags[1:])] * count, strict=True)
        weights = [n for n, *bad in zip(self.names, before, after, strict=True) if any(bad)]
        if weights:
            return f"parameter {weights[0]}"
        reached = [name for name, bad in zip(self.names, gradients, strict=True) if bad]
        parts = ["loss"] * losses + [f"gradient of {name}" for name in reached[-1:]]
        return " and ".join(parts)

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

    def _note(self, first: int, *sizes: Tensor) -> None:
        """Note which sizes are not finite, unless an earlier note was bad."""
        now = ~torch.stack(sizes).isfinite()
        noted = self._bad[first : first + len(sizes)]
        torch.logical_or(noted, now & ~self._bad.any(), out=noted)
