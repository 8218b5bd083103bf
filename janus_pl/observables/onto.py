"""The way of a tensor from the host to a device, for which the host does not wait."""

from __future__ import annotations

import torch
from torch import Tensor


def onto(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the host on a device; one that is there already is itself.

    Of Apple's devices the host does wait: they would read what it may have overwritten.

    >>> onto(torch.ones(1), torch.device("cpu"))
    tensor([1.])
    """
    return tensor.to(device, non_blocking=device.type != "mps")
