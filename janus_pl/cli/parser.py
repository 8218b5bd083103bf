"""Command lines of the tools: a mistake in one is a UsageError, one line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from janus_pl.errors import UsageError


class ToolParser(argparse.ArgumentParser):
    """The parser of `python -m janus_pl TOOL`.

    Args:
        tool: its name, which a mistake is a mistake of.
        allowed: what is allowed, in one line.
        description: what it does.
        epilog: what is said below the options.
    """

    def __init__(
        self, tool: str, allowed: str, description: str, epilog: str | None = None
    ) -> None:
        super().__init__(
            prog=f"python -m janus_pl {tool}",
            description=description,
            epilog=epilog,
            allow_abbrev=False,
        )
        self.tool, self.allowed = tool, allowed

    def error(self, message: str) -> NoReturn:
        raise UsageError(self.tool, message, self.allowed)

    def read(self, args: Sequence[str], needed: str | None = None) -> Any:
        """The options of a command line.

        Args:
            args: the arguments.
            needed: an option that has to be there.

        Raises:
            UsageError: what is wrong with them.
        """
        options, unknown = self.parse_known_args(args)
        if unknown or (needed is not None and not getattr(options, needed)):
            self.error(" ".join(args))
        return options
