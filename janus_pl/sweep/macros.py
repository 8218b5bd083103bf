"""The command of a sweep file: W&B's macros, filled in for one run without a shell."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from janus_pl.errors import UsageError

MACRO = re.compile(r"\$\{([^}]*)\}")
VARIABLE = re.compile(r"\$\{envvar:([A-Z0-9_]*)\}")
FILE, WITH_EQUALS, WITHOUT = "args_json_file", "args", "args_no_equals"
FORM = 'python -m janus_pl fit ... --config "${args_json_file}"'
ALLOWED = f"a list as {FORM}; also ${{args}}, ${{args_no_equals}}, ${{envvar:NAME}}"


def check_command(given: Any) -> tuple[str, ...]:
    """Return the command's arguments from `fit` on.

    Raises:
        UsageError: It does not start `fit` of this program, or hands over no values, or has an
            unknown macro.
    """
    if not isinstance(given, list) or not given:
        raise UsageError("command", given, ALLOWED)
    words = [str(word) for word in given]
    program = words[1:] if words[0] in ("${env}", "/usr/bin/env") else words
    python = Path(program[0]).name if program else ""
    starts = python == "${interpreter}" or re.fullmatch(r"python[\d.]*", python)
    if not starts or program[1:4] != ["-m", "janus_pl", "fit"]:
        raise UsageError("command", " ".join(words), ALLOWED)
    args = program[3:]
    for word in args:
        unknown = [name for name in MACRO.findall(word) if not _is_known(word, name)]
        if unknown:
            raise UsageError("command", f"${{{unknown[0]}}}", ALLOWED)
    if not any(f"${{{name}}}" in args for name in (FILE, WITH_EQUALS, WITHOUT)):
        raise UsageError("command", " ".join(words), f"the values handed over; {ALLOWED}")
    return tuple(args)


def arguments(command: Sequence[str], values: Mapping[str, Any], file: Path) -> list[str]:
    """Return the arguments of one run.

    Args:
        command: The arguments from `check_command`.
        values: The values of the run's parameters.
        file: The file with the values as JSON, for `${args_json_file}`.

    Raises:
        UsageError: A value is null, and the command hands values over as text.
    """
    filled: list[str] = []
    for word in command:
        if word == f"${{{FILE}}}":
            filled.append(str(file))
        elif word in (f"${{{WITH_EQUALS}}}", f"${{{WITHOUT}}}"):
            filled += _options(values, equals=word == f"${{{WITH_EQUALS}}}")
        else:
            # As W&B's agent does: the variable's name if it is not set.
            filled.append(VARIABLE.sub(lambda m: os.environ.get(m[1], m[1]), word))
    return filled


def _options(values: Mapping[str, Any], equals: bool) -> list[str]:
    options: list[str] = []
    for name, value in values.items():
        if value is None:
            allowed = f"a value, for null goes through {FORM} alone"
            raise UsageError(f"parameters.{name}", None, allowed)
        options += [f"--{name}={value}"] if equals else [f"--{name}", str(value)]
    return options


def _is_known(word: str, name: str) -> bool:
    whole = word == f"${{{name}}}" and name in (FILE, WITH_EQUALS, WITHOUT)
    return whole or VARIABLE.fullmatch(f"${{{name}}}") is not None
