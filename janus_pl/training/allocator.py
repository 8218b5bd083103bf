"""Memory that the C library keeps for the next step, instead of asking the system again."""

from __future__ import annotations

import torch

LARGEST = 2**25 - 2**14  # bytes; glibc ignores blocks above 32 MiB, its own header included


def keep_freed_memory() -> None:
    """Let glibc keep freed blocks of up to 32 MB, and up to 64 MB of them at its heap's end.

    glibc gives larger blocks than a threshold back to the system at once. Every step then gets its
    activations page by page. A full batch in micro-batches took 11.3 s so, and 10.1 s with the
    memory kept (benchmarks/README.md). The threshold follows the largest block that was freed so
    far, so one block is freed here. Nobody writes to it, so it takes no memory. Other C libraries
    are not changed by it.
    """
    torch.empty(LARGEST, dtype=torch.uint8)
