"""Keeps a loss or gradient that is not finite out of the weights; never waits for the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn


class UpdateGuard:
    """Applies optimizer steps until a loss or gradient is not finite, then freezes the weights.

    The decision is a number on the device (0 sound, 1 not), so that the host never waits within an
    epoch; it looks at `state()` when it has a reason to wait anyway. Once set it stays set: the
    weights remain those before the first bad step.

    Args:
        parameters: all trained parameters.
        steps: the steps that have been taken before.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], steps: int = 0) -> None:
        self.parameters = parameters
        # 0 while all is sound and NaN from then on, since NaN plus anything is NaN.
        self._latch = torch.zeros((), device=parameters[0].device)
        self._sound_steps = torch.full_like(self._latch, steps, dtype=torch.int64)

    def clear_gradients(self) -> None:
        """Forget the gradients of the last step."""
        for parameter in self.parameters:
            parameter.grad = None

    def step(self, optimizer: LightningOptimizer, *losses: Tensor) -> None:
        """One optimizer step, or nothing where a loss, a gradient or an earlier step is bad."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        sizes = torch.stack((*losses, *torch._foreach_norm(gradients)))
        self._latch += sizes.sum() * 0  # of an infinity, too, this is NaN
        bad = self._latch.isnan()
        self._sound_steps += ~bad
        inner = optimizer.optimizer
        if getattr(inner, "_step_supports_amp_scaling", False):
            # Fused optimizers skip the step in their own kernel: what GradScaler uses, too.
            inner.grad_scale, inner.found_inf = None, bad.float()  # type: ignore[attr-defined]
            optimizer.step()
        else:
            self._step_and_restore(optimizer, bad)

    def state(self) -> Tensor:
        """(bad, sound steps so far), float64 on the device; shape (2,)."""
        return torch.stack((self._latch.isnan().double(), self._sound_steps.double()))

    @torch.no_grad()
    def _step_and_restore(self, optimizer: LightningOptimizer, bad: Tensor) -> None:
        before = [p.detach().clone() for p in self.parameters]
        optimizer.step()
        for parameter, old in zip(self.parameters, before, strict=True):
            parameter.copy_(torch.where(bad, old, parameter))
