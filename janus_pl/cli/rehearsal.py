"""The part of a run that is the same in all runs of a sweep, done once before they are forked.

A run reads its command line with a parser that looks up classes, signatures and docstrings, and
it loads compiled code. What is found stays in memory, so a fork has it too.
"""

from __future__ import annotations

import sys
import warnings
from functools import cache

from janus_pl.cli.lightning_cli import ConfigReader

KERNELS = "janus_pl.linear.epochs"  # imported by now if the runs are linear


def rehearse() -> None:
    """Read a command line and load what a run needs; train, seed and write nothing."""
    _read()
    if (linear := sys.modules.get(KERNELS)) is not None:
        linear.load_kernels()


@cache
def _read() -> None:
    with warnings.catch_warnings():  # at its end, a warning counts as not yet given
        ConfigReader(["fit"])
