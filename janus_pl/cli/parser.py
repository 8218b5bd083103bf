"""The parser of the tools' command lines; a mistake is a UsageError of one line."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from janus_pl.errors import UsageError


class ToolParser(argparse.ArgumentParser):
    """The parser of `python -m janus_pl TOOL`.

    Args:
        tool: The tool's name, which is the field that an error names.
        allowed: The allowed arguments in one line, for errors.
        description: The tool's task, for the help.
        epilog: The text of the help below the options.
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
        if match := re.match(r"argument (\S+): expected .*", message):
            raise UsageError(match[1], None, f"a value; {self.allowed}")
        if match := re.match(r"argument (\S+): invalid \w+ value: '(.*)'", message):
            raise UsageError(match[1], match[2], "an integer")
        if match := re.match(
            r"argument (\S+): invalid choice: '(.*)' \(choose from (.*)\)", message
        ):
            raise UsageError(match[1], match[2], match[3])
        raise UsageError(self.tool, message, self.allowed)

    def read(self, args: Sequence[str], needed: str | None = None) -> Any:
        """Return the options of a command line.

        Args:
            args: The arguments.
            needed: An option that must be given.

        Raises:
            UsageError: An argument is wrong or unknown, or the needed option is missing.
        """
        options, unknown = self.parse_known_args(args)
        known = [*self._option_string_actions]
        for name in unknown:
            if name.startswith("-") and (
                close := difflib.get_close_matches(name.split("=")[0], known, n=1)
            ):
                raise UsageError(self.tool, name, f"a valid option, the nearest is {close[0]}")
        if unknown or (needed is not None and not getattr(options, needed)):
            self.error(" ".join(args))
        return options
