"""The options of a run that name it, and those that W&B alone knows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from janus_pl.cli.config_checks import EXTRA_FLAGS, EXTRA_TEXTS, RUN_OPTIONS
from janus_pl.cli.option_texts import TEXTS
from janus_pl.errors import UsageError, is_integer
from janus_pl.run.account import with_environment
from janus_pl.run.extras import Extras
from janus_pl.run.logger import RunLogger

NAME = str | int | None


def add_run_options(parser: ArgumentParser) -> None:
    """Add the options to the parser of a subcommand."""
    for name in ("name", "project", "group", "entity", "notes", "job_type"):
        parser.add_argument(f"--{name}", type=NAME, default=None, help=TEXTS[name])
    parser.add_argument("--tags", type=list[str | int], default=[], help=TEXTS["tags"])
    parser.add_argument("--run_dir", type=str, default="runs", help=TEXTS["run_dir"])
    for name in EXTRA_FLAGS:
        parser.add_argument(f"--{name}", action="store_true", help=TEXTS[name])


def fill(config: Any) -> None:
    """Take W&B's variables for options that are not given; names of digits become text.

    Raises:
        UsageError: A text is given and empty.
    """
    for name in ("name", "group", "notes", "job_type"):
        if config.get(name) == "":
            raise UsageError(f"--{name}", "", "a text, or null")
    config.tags = [str(tag) for tag in config.tags or []]
    for name in EXTRA_TEXTS:
        config[name] = _as_text(config.get(name))
    names = ("project", "name", "group", "tags")
    given = {key: _as_text(config.get(key)) for key in names}
    for name, value in with_environment(given).items():
        config[name] = value


def logger_of(get: Callable[[str], Any], resumed: Path | None, run_id: str | None) -> RunLogger:
    """Return the logger of a run.

    Args:
        get: Returns the value of an option.
        resumed: The folder of a run to go on with.
        run_id: The id of a new run, or None.

    Raises:
        UsageError: W&B would refuse an option.
    """
    extras = Extras(**{name: get(name) for name in (*EXTRA_TEXTS, *EXTRA_FLAGS)})
    options = {name: get(name) for name in RUN_OPTIONS}
    return RunLogger(**options, resumed=resumed, run_id=run_id, extras=extras)


def _as_text(value: Any) -> Any:
    """Return a name of digits, which YAML reads as a number, as text."""
    return str(value) if is_integer(value) else value
