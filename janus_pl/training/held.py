"""A copy of a module's weights, by which a cached number knows the weights that it is of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

# By the bytes of an entry; bits are compared, so that a NaN equals itself.
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class HeldWeights:
    """The parameters and buffers of a module as they are now.

    The weights themselves are compared, and not a counter: a counter of steps is set back by
    tuners, and PyTorch's counter of versions does not see what is written through `.data`.

    Args:
        module: The module.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._held = [tensor.detach().clone() for tensor in _state(module)]

    def unchanged(self) -> bool:
        """Tell whether the module's weights are still these, bit for bit; the host waits."""
        now = [*_state(self._module)]
        pairs = zip(self._held, now, strict=True) if len(now) == len(self._held) else [(None, None)]
        return _all_same(pairs)


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    """Tell whether two modules of one class have the same weights and buffers, bit for bit."""
    return _all_same(zip(_state(one), _state(other), strict=True))


def _state(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def _all_same(pairs: Iterable[tuple[Tensor | None, Tensor | None]]) -> bool:
    """Tell whether the two of each pair are the same bits; the host waits once for a device."""
    differ = [_differ(held, now) for held, now in pairs]
    known = [found for found in differ if isinstance(found, bool)]
    there: dict[torch.device, list[Tensor]] = {}
    for found in differ:
        if isinstance(found, Tensor):
            there.setdefault(found.device, []).append(found)
    return not any(known) and not any(bool(torch.stack(each).any()) for each in there.values())


def _differ(held: Tensor | None, now: Tensor | None) -> Tensor | bool:
    """Tell whether two differ, as a tensor on their device where the host cannot know it."""
    if held is None or now is None or held.dtype != now.dtype or held.shape != now.shape:
        return True
    bits = BITS.get(held.element_size())
    if bits is None or held.is_complex() or held.device != now.device:
        return not torch.equal(held.to(now.device), now)
    return (held.view(bits) != now.detach().view(bits)).any()
