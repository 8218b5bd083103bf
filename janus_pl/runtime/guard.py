"""Keeps a loss or gradient that is not finite out of the weights; never waits for the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.nn.utils import get_total_norm


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
        self._bad = torch.zeros((), device=parameters[0].device)
        self._sound_steps = torch.full_like(self._bad, steps, dtype=torch.int64)

    def step(self, optimizer: LightningOptimizer, loss: Tensor) -> None:
        """One optimizer step, or nothing where the loss, a gradient or an earlier step is bad."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        sound = torch.isfinite(loss) & torch.isfinite(get_total_norm(gradients))
        self._bad = torch.maximum(self._bad, (~sound).to(self._bad))
        self._sound_steps += self._bad == 0
        inner = optimizer.optimizer
        if getattr(inner, "_step_supports_amp_scaling", False):
            # Fused optimizers skip the step in their own kernel: what GradScaler uses, too.
            inner.grad_scale, inner.found_inf = None, self._bad  # type: ignore[attr-defined]
            optimizer.step()
        else:
            self._step_and_restore(optimizer)

    def state(self) -> Tensor:
        """(bad, sound steps so far), float64 on the device; shape (2,)."""
        return torch.stack((self._bad.double(), self._sound_steps.double()))

    @torch.no_grad()
    def _step_and_restore(self, optimizer: LightningOptimizer) -> None:
        before = [p.detach().clone() for p in self.parameters]
        optimizer.step()
        bad = self._bad > 0
        for parameter, old in zip(self.parameters, before, strict=True):
            parameter.copy_(torch.where(bad, old, parameter))
