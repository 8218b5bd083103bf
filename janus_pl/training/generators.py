"""The states of the random generators of a run: those of the host, and that of its own device.

Other devices are none of the run's business. To ask for their generators would start CUDA in a run
on the CPU, and a checkpoint with one state a GPU could not be read where fewer GPUs are visible.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

CPU = torch.device("cpu")


def generators(device: torch.device = CPU) -> dict[str, Any]:
    """Return the states of Python's, NumPy's and PyTorch's global generators, as plain values.

    Args:
        device: The run's own device. That of the CPU is PyTorch's.
    """
    kind, keys, *rest = cast(tuple[Any, ...], np.random.get_state())
    version, internal, gauss = random.getstate()
    own = _module(device)
    return {
        "python": [version, list(internal), gauss],
        "numpy": [kind, keys.tolist(), *rest],
        "torch": torch.get_rng_state(),
        "device": own and {"type": device.type, "state": own.get_rng_state(device)},
    }


def set_generators(states: Mapping[str, Any], device: torch.device = CPU) -> None:
    """Set the generators to the states that `generators` returned, perhaps on another machine.

    The state of a device of another type is left out.

    Args:
        states: The states; older checkpoints have one for each GPU that was visible.
        device: The run's own device.
    """
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    own, state = _module(device), _state_of(states, device)
    if own and state is not None:
        own.set_rng_state(state, device)


@contextmanager
def kept_generators(device: torch.device = CPU) -> Iterator[None]:
    """Put the generators back after the block, also if it is left early.

    Args:
        device: The run's own device.
    """
    before = generators(device)
    try:
        yield
    finally:
        set_generators(before, device)


def _module(device: torch.device) -> Any:
    """Return PyTorch's module of a device with a generator of its own; None for the CPU."""
    return None if device.type == CPU.type else torch.get_device_module(device)


def _state_of(states: Mapping[str, Any], device: torch.device) -> Tensor | None:
    """Return the state of a device; of an older checkpoint that of the GPU of its number."""
    if "device" in states:
        held = states["device"] or {}
        return held["state"] if held.get("type") == device.type else None
    visible = states.get("cuda") or []
    if device.type != "cuda" or not visible:
        return None
    number = device.index or 0
    return cast(Tensor, visible[number if number < len(visible) else 0])
