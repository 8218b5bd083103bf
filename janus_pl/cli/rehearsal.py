"""The part of a run that is the same in all runs of a sweep, done once before they are forked.

A run reads its command line with a parser that looks up classes, signatures and docstrings, it
loads compiled code, and it tells W&B which packages are installed. What is found stays in memory,
so a fork has it too.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from janus_pl.cli.lightning_cli import ConfigReader
from janus_pl.run.service import list_packages

KERNELS = "janus_pl.linear.epochs"  # imported by now if the runs are linear


def rehearse(config: Mapping[str, Any] | None = None) -> None:
    """Read a command line and load what a run needs; train, seed and make nothing.

    Args:
        config: The part of a run's config that names its classes, which all are ours; None if the
            runs are not known yet.
    """
    with warnings.catch_warnings():  # at its end, a warning counts as not yet given
        _read(config or {})
    list_packages()
    if (linear := sys.modules.get(KERNELS)) is not None:
        linear.load_kernels()


def _read(config: Mapping[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.json"
        file.write_text(json.dumps(config))
        ConfigReader(["fit", "--config", str(file)])
