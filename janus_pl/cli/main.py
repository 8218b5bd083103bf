"""The way from a command line to an exit code: `python -m janus_pl SUBCOMMAND ...`.

The texts of the help are in `janus_pl.cli.help`, the exit codes in `janus_pl.errors.Exit`.
"""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from janus_pl.cli import help as texts
from janus_pl.cli import subcommands
from janus_pl.cli.config_checks import OPTIONS
from janus_pl.cli.lightning_cli import JanusCLI
from janus_pl.cli.messages import explain, usage_message
from janus_pl.cli.streams import lasting_streams
from janus_pl.errors import (
    DivergenceError,
    Exit,
    TheoremError,
    UsageError,
    missing_extra,
    nearest,
    storage_message,
)
from janus_pl.run import logger
from janus_pl.training.precision import kept_numerics
from janus_pl.training.signals import Interrupted, StopSignals


def main(args: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code.

    Args:
        args: The arguments, without the program's name; None takes them from the command line.
    """
    given = list(sys.argv[1:] if args is None else args)
    return guarded(lambda signals: _dispatch(given, signals))


def guarded(command: Callable[[StopSignals], int]) -> int:
    """Run a command, say in one line why it ends early, and return its exit code.

    Args:
        command: Returns an exit code; it takes the signals that stop a run.
    """
    with lasting_streams(), StopSignals() as signals:
        return _run(command, signals)


def _run(command: Callable[[StopSignals], int], signals: StopSignals) -> int:
    code: int = Exit.DEFECT
    format_before = warnings.formatwarning
    warnings.formatwarning = _one_line
    raising_before = logging.raiseExceptions
    logging.raiseExceptions = False  # on a full disk each line of W&B's log would print an error
    try:
        code = command(signals)
    except SystemExit as stop:  # --help and --print_config end this way
        code = stop.code if isinstance(stop.code, int) else Exit.DEFECT
    except BaseException as error:
        ending = _ending(error)
        if ending is None:
            raise
        code = ending
    finally:
        signals.deferred = True  # nothing is left to stop
        if code == Exit.USAGE:
            logger.discard()  # a mistake that only showed once the run was being set up
        code = _finish(code)
        logging.raiseExceptions = raising_before
        warnings.formatwarning = format_before
    return code


def _dispatch(args: list[str], signals: StopSignals) -> int:
    """Hand a command line to a tool or to LightningCLI."""
    known = (*texts.TRAINING, *subcommands.TOOLS)
    if not args:
        raise UsageError("subcommand", None, f"{', '.join(known)}; --help says more")
    if (text := texts.asked_for(args)) is not None:
        print(text)
    elif args[0] in subcommands.TOOLS:
        return subcommands.run(args)
    elif args[0] not in known:
        raise UsageError("subcommand", args[0], nearest(args[0], known))
    else:
        with kept_numerics():
            JanusCLI(args, signals)
    return Exit.DONE


def _ending(error: BaseException) -> int | None:
    """Say in one line why a command ended, and return its exit code; None for a defect."""
    error = missing_extra(error) or error
    if isinstance(error, UsageError | argparse.ArgumentError):
        return _fail(Exit.USAGE, explain(error, OPTIONS))
    if isinstance(error, ValueError) and usage_message(error) is not None:
        return _fail(Exit.USAGE, explain(error))
    if isinstance(error, DivergenceError | TheoremError):
        return _tell(error.exit_code, f"error: {error}")
    if isinstance(error, Interrupted):
        code = _tell(error.exit_code, str(error))
        logger.mark_preempting()
        return code
    if isinstance(error, OSError) and (line := storage_message(error)) is not None:
        return _fail(Exit.STORAGE, line)
    return None


def _finish(code: int) -> int:
    """End the W&B run; return the exit code, STORAGE if the disk fails only now."""
    try:
        logger.finish(code)
    except OSError as error:
        if (line := storage_message(error)) is None:
            raise
        return code or _fail(Exit.STORAGE, line)
    return code


def _fail(code: int, message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


def _tell(code: int, line: str) -> int:
    """Say how a run ended and return its exit code, on the first process alone; else return 0.

    All processes end alike. If another process ended with a code other than 0, Lightning's launcher
    would kill the first one with SIGKILL.
    """
    if getattr(rank_zero_only, "rank", 0) != 0:
        return Exit.DONE
    print(line, file=sys.stderr)
    return code


def _one_line(message: Warning | str, *args: Any, **kwargs: Any) -> str:
    """Format a warning as its text alone, without the line of code that raised it."""
    return f"warning: {message}\n"
