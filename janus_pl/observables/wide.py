"""The one way of device tensors to float64, also where the device has none."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

HOST = torch.device("cpu")


def wide(tensor: Tensor) -> Tensor:
    """Return a tensor in float64, on its own device if that has float64, else on the CPU.

    >>> wide(torch.ones(1)).dtype
    torch.float64
    """
    return at_home(tensor).double()


def at_home(tensor: Tensor) -> Tensor:
    """Return a tensor in its own dtype where `wide` has its results, to go together with them."""
    return tensor if has_float64(tensor.device.type) else tensor.cpu()


def home_of(device: torch.device) -> torch.device:
    """Return the device where `wide` has the results of a device's tensors."""
    return device if has_float64(device.type) else HOST


@cache
def has_float64(kind: str) -> bool:
    """Tell whether a type of device has float64, as Apple's GPUs do not; each is tried once."""
    if kind in ("cpu", "cuda"):
        return True
    try:
        torch.empty((), dtype=torch.float64, device=kind)
    except (TypeError, RuntimeError):
        return False
    return True
