"""Minibatches of a network of two classes: ours as they are, others as pairs (x, y)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from janus_pl.data.loader import DEFAULT_MICRO_BATCH, Batch
from janus_pl.errors import UsageError
from janus_pl.training.ranks import Ranks


class Pairs:
    """The pairs (x, y) of somebody else's loaders, made minibatches of ours.

    Labels are -1 and +1, or 0 and 1, of which 0 becomes -1; they are the same in all batches.

    Args:
        image_size: Height and width of the network's images.
        dtype: The dtype of its weights.
    """

    def __init__(self, image_size: int, dtype: torch.dtype) -> None:
        self._shape = (3, image_size, image_size)
        self._dtype = dtype
        self._seen: set[float] = set()

    def batch(self, given: Any, ranks: Ranks) -> Batch:
        """Return a minibatch of a pair that is on the device.

        Raises:
            UsageError: It is no such pair, or several processes would share it.
        """
        if ranks.size > 1:
            allowed = "1, for a DataLoader hands other samples to each process"
            raise UsageError("trainer.devices", ranks.size, f"{allowed}; InMemoryBatches does not")
        if not isinstance(given, tuple | list) or len(given) != 2:
            raise self._refused(_described(given))
        x, y = given
        if not (isinstance(x, Tensor) and isinstance(y, Tensor)):
            raise self._refused(_described(given))
        if x.shape[1:] != self._shape or x.dtype != self._dtype or y.shape != x.shape[:1]:
            raise self._refused(_described(given))
        y = y.to(x)
        values = set(y.unique().tolist())
        if not (both := self._seen | values) <= {-1, 1} and not both <= {0, 1}:
            raise self._refused(f"labels {', '.join(f'{each:g}' for each in sorted(both)[:5])}")
        self._seen = both
        y = torch.where(y > 0, 1.0, -1.0).to(x)
        x = x.contiguous(memory_format=torch.channels_last)  # as batches of ours
        return Batch(x, y, min(len(y), DEFAULT_MICRO_BATCH))

    def _refused(self, what: str) -> UsageError:
        dtype = str(self._dtype).removeprefix("torch.")
        allowed = f"pairs (x, y): x of shape (n, {', '.join(map(str, self._shape))}) in {dtype}"
        return UsageError("batch", what, f"{allowed}, y of shape (n,), all 0 and 1 or all -1 and 1")


def _described(given: Any) -> str:
    """Return the types of a batch in a few words."""
    if isinstance(given, Tensor):
        return f"{tuple(given.shape)} in {str(given.dtype).removeprefix('torch.')}"
    if isinstance(given, tuple | list):
        return f"({', '.join(map(_described, given[:4]))})"
    return type(given).__name__


def labelled(given: Any, classes: int, dtype: torch.dtype, ranks: Ranks) -> Batch:
    """Return a minibatch of a pair (x, y) of somebody else's loader, with labels of K classes.

    Labels are 0 to K - 1; of two classes they may be -1 and +1, too, in the dtype of x.

    Args:
        given: The pair, on the device.
        classes: K.
        dtype: The dtype of the network's weights.
        ranks: The processes of the run.

    Raises:
        UsageError: It is no such pair, or several processes would share it.
    """
    if ranks.size > 1:
        allowed = "1, for a DataLoader hands other samples to each process"
        raise UsageError("trainer.devices", ranks.size, f"{allowed}; InMemoryBatches does not")
    pair = isinstance(given, tuple | list) and len(given) == 2
    if not pair or not all(isinstance(part, Tensor) for part in given):
        raise _refused(_described(given), classes, dtype)
    x, y = given
    if x.dtype != dtype or y.shape != x.shape[:1]:
        raise _refused(_described(given), classes, dtype)
    if y.is_floating_point() or (y < 0).any():
        values = {*y.unique().tolist()}
        if classes != 2 or not values <= {-1, 1}:
            raise _refused(f"labels {_some(values)}", classes, dtype)
        y = (y > 0).long()
    if len(y) and int(y.max()) >= classes:
        raise _refused(f"labels {_some({*y.unique().tolist()})}", classes, dtype)
    if x.dim() == 4:
        x = x.contiguous(memory_format=torch.channels_last)  # as batches of ours
    return Batch(x, y.long(), len(y))


def _some(values: set[float]) -> str:
    return ", ".join(f"{each:g}" for each in sorted(values)[-5:])


def _refused(what: str, classes: int, dtype: torch.dtype) -> UsageError:
    shown = str(dtype).removeprefix("torch.")
    labels = f"integers from 0 to {classes - 1}" + (" or all -1 and 1" if classes == 2 else "")
    return UsageError("batch", what, f"pairs (x, y): x in {shown}, y of shape (n,), {labels}")
