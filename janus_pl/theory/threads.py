"""One thread for small matrices, where several wait for each other longer than the work takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

SMALL = 256  # the largest dimension of a matrix that one thread is enough for


@contextmanager
def threads_for(size: int) -> Iterator[None]:
    """Let PyTorch use one thread if matrices are small, and as many as before if they are not.

    Args:
        size: The larger dimension of the matrices that are decomposed or multiplied.
    """
    before = torch.get_num_threads()
    if size > SMALL or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
