"""The passes of a training step, as they are or through `torch.compile`."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from janus_pl.deep.losses import Loss
from janus_pl.errors import UsageError

StepPass = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def step_pass(network: nn.Module, losses: Loss, compiled: bool) -> StepPass:
    """Return the function that gives outputs and losses of samples, with gradients behind them.

    Compiled code is made at the first call for each number of samples, so that it does not depend
    on the numbers seen before, and a resumed run goes on with the same code. Random numbers (of
    dropout) are PyTorch's own, as without compilation.

    Args:
        network: The network.
        losses: The loss of each sample.
        compiled: Whether forward and backward pass go through `torch.compile`.
    """

    def outputs_and_losses(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        outputs = network(x)
        return outputs, losses(outputs, y)

    if not compiled:
        return outputs_and_losses
    return torch.compile(
        outputs_and_losses,
        dynamic=False,
        options={"fallback_random": True},
        # Otherwise the fits of a process share a limit of eight, and later ones are not compiled.
        isolate_recompiles=True,  # type: ignore[call-overload]
    )


@functools.cache
def check_compiler(device: str) -> None:
    """Compile something small, once for each kind of device.

    Args:
        device: The type of the device, such as `cpu`.

    Raises:
        UsageError: It cannot be compiled here.
    """
    try:
        torch.compile(lambda x: x.relu() + 1)(torch.zeros(2, device=device))
    except Exception as error:  # a missing compiler, and whatever else this machine lacks
        why = " ".join(str(error).split())[:200]
        allowed = f"false, for torch.compile fails here on {device} ({why})"
        raise UsageError("model.compile", True, allowed) from error
