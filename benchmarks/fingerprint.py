"""`python -m benchmarks.fingerprint`: the fingerprint of 10,000 images, and all facts of a pair."""

from __future__ import annotations

from functools import partial
from statistics import median

import numpy as np

from benchmarks.common import N, seconds_of
from janus_pl.data.splits import RawPair, Split, facts_of
from janus_pl.data.standard import from_bytes


def main() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (N, 32, 32, 3), dtype=np.uint8)
    labels = np.where(np.arange(N) < N // 2, -1, 1).astype(np.float32)
    images = from_bytes(pixels)
    statistics = np.zeros(3), np.ones(3)
    for name, split in (
        ("bytes", Split(images, labels, pixels)),
        ("float32", Split(images, labels)),
    ):
        test = Split(images[:2000], labels[:2000], pixels[:2000])
        raw = RawPair(("a", "b"), split, test, *statistics)
        keep = np.arange(N - 1)
        seconds = median(seconds_of(partial(facts_of, raw, keep)) for _ in range(7))
        print(f"facts of {N} + 2000 images, {name}: {seconds:.3f} s")


if __name__ == "__main__":
    main()
