"""Freed memory is there again for the next step: counted in page faults, in fresh processes."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
from environments import LIMIT

# Each block is larger than all that were freed before, so glibc by itself gives it back at once.
ROUNDS = """
import resource, torch
from janus_pl.training.allocator import keep_freed_memory
if {keeps}:
    keep_freed_memory()
for megabytes in range(4, 29):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(megabytes * 2**18)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(keeps: bool) -> int:
    """Return the page faults of the last round."""
    command = [sys.executable, "-c", ROUNDS.format(keeps=keeps)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps its own way")
def test_the_next_step_finds_the_memory_of_the_last_one() -> None:
    dropped, kept = faults(keeps=False), faults(keeps=True)
    assert kept < dropped / 2, "all of the block's 28 MB, or the megabyte that is new"
