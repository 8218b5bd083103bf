"""What a machine cannot hold is refused before it is asked for."""

from __future__ import annotations

import os

from janus_pl.errors import UsageError


def check_memory(field: str, value: object, size: float) -> None:
    """Refuse arrays that the machine's memory cannot hold.

    Args:
        field: the option that decides their size.
        value: what it is.
        size: bytes.

    Raises:
        UsageError: more than the machine has.
    """
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if size > memory:
        allowed = (
            f"a size that fits into {memory / 2**30:.3g} GiB, where this takes {size / 2**30:.3g}"
        )
        raise UsageError(field, value, allowed)
