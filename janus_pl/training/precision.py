"""Looks at the weights in float32 or better, whatever the training computes in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

IEEE = "ieee"


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Compute in the dtype of the weights within the block: no autocast, no TF32.

    Training goes on afterwards as before.

    Args:
        device: The device of the weights.
    """
    backends = torch.backends
    parts: list[Any] = [backends.cudnn.conv, backends.cuda.matmul]  # type: ignore[attr-defined]
    parts += [backends.mkldnn.conv, backends.mkldnn.matmul]  # type: ignore[attr-defined]
    before = [part.fp32_precision for part in parts]
    try:
        for part in parts:
            part.fp32_precision = IEEE
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for part, precision in zip(parts, before, strict=True):
            part.fp32_precision = precision
