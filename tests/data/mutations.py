"""Mutated files: the same ones every time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def mutated(data: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """Yield so many different copies of a file, each with damage of one of seven kinds."""
    rng = np.random.default_rng(seed)
    seen = {data}
    while len(seen) <= count:
        damaged = bytearray(data)
        start = int(rng.integers(len(data)))
        stop = start + 1 + int(rng.integers(40))
        kind = int(rng.integers(7))
        if kind == 0:
            damaged[start] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            damaged[start] = int(rng.integers(256))
        elif kind == 2:
            del damaged[start:]
        elif kind == 3:
            del damaged[start:stop]
        elif kind == 4:
            damaged[start:start] = rng.bytes(stop - start)
        elif kind == 5:
            damaged[start:stop] = bytes(len(damaged[start:stop]))
        else:
            damaged[start:stop] = rng.bytes(len(damaged[start:stop]))
        if (changed := bytes(damaged)) not in seen:
            seen.add(changed)
            yield changed
