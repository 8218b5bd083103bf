"""Subcommands beside those of the trainer. Those that read records start without PyTorch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from janus_pl.errors import StorageError, UsageError

READERS = {
    "verify": "janus_pl.report.verify",
    "report": "janus_pl.report.report",
    "workspace": "janus_pl.report.workspace",
}
TOOLS = {**READERS, "sweep": "janus_pl.sweep.command"}


def run(args: Sequence[str]) -> int:
    """The exit code of a tool; its errors are the caller's to tell."""
    return int(import_module(TOOLS[args[0]]).main(args[1:]))


def main(args: Sequence[str]) -> int:
    """The exit code of a tool, with its mistakes in one line: 2 usage, 4 storage, 130 SIGINT."""
    try:
        return run(args)
    except UsageError as error:
        code, line = 2, str(error)
    except StorageError as error:
        code, line = 4, str(error)
    except KeyboardInterrupt:
        return 130
    print(f"error: {line}", file=sys.stderr)
    return code
