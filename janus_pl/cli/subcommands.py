"""Subcommands beside those of the trainer; readers of records start without PyTorch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from janus_pl.cli.streams import lasting_streams
from janus_pl.errors import Exit, StorageError, UsageError, missing_extra

READERS = {
    "verify": "janus_pl.cli.verify",
    "report": "janus_pl.cli.report",
    "workspace": "janus_pl.cli.workspace",
}
TOOLS = {**READERS, "sweep": "janus_pl.cli.sweep"}


def run(args: Sequence[str]) -> int:
    """Run a tool and return its exit code; errors pass to the caller.

    Raises:
        UsageError: A package of an extra is missing.
    """
    try:
        return int(import_module(TOOLS[args[0]]).main(args[1:]))
    except ModuleNotFoundError as error:
        raise missing_extra(error) or error from error


@lasting_streams()
def main(args: Sequence[str]) -> int:
    """Run a tool, tell its errors in one line, and return the exit code."""
    try:
        return run(args)
    except (UsageError, StorageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return Exit.SIGINT
