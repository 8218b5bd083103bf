"""The part of a run that is the same in all runs of a sweep, done once before they are forked.

A run reads its command line with a parser that looks up classes, signatures and docstrings, it
loads compiled code, and it tells W&B which packages are installed. What is found stays in memory,
so a fork has it too.
"""

from __future__ import annotations

import sys
import warnings
from functools import cache

from janus_pl.cli.lightning_cli import ConfigReader
from janus_pl.run.service import list_packages

KERNELS = "janus_pl.linear.epochs"  # imported by now if the runs are linear


def rehearse() -> None:
    """Read a command line and load what a run needs; train, seed and write nothing."""
    _read()
    list_packages()
    if (linear := sys.modules.get(KERNELS)) is not None:
        linear.load_kernels()


@cache
def _read() -> None:
    with warnings.catch_warnings():  # at its end, a warning counts as not yet given
        ConfigReader(["fit"])
