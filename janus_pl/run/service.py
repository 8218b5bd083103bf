"""W&B's service, the process that writes its record: what is done when it has died."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn

LAUNCH = "wandb.sdk.launch"  # W&B's queue of jobs


class NoRun:
    """A run whose service has died: it takes every call and does nothing.

    Args:
        run: W&B's run, whose settings stay readable.
    """

    def __init__(self, run: Any) -> None:
        self.settings, self.disabled = run.settings, run.disabled

    def __getattr__(self, name: str) -> Any:
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> NoRun:
        return self

    def __iter__(self) -> Iterator[Any]:
        return iter(())


def signs_of_death() -> tuple[type[Exception], ...]:
    """Return the errors by which W&B's run tells that its service does not answer any more."""
    from wandb.sdk.mailbox import HandleAbandonedError, MailboxClosedError

    return ConnectionError, HandleAbandonedError, MailboxClosedError


def check_folders() -> None:
    """Find W&B's own folders writable before a run starts, or say what becomes of them.

    Tables are staged in the user's data folder; if that cannot be written, `janus_pl.run.rows`
    records them as files of the run. The service's log goes to the user's cache folder, else to a
    temporary one.
    """
    import wandb

    if (error := _why_not_writable(wandb.env.get_data_dir())) is not None:
        rank_zero_warn(
            f"W&B: {wandb.env.get_data_dir()} cannot be written ({error.strerror}), so tables are"
            " recorded as files of the run; WANDB_DATA_DIR names another folder"
        )
    if _why_not_writable(wandb.env.get_cache_dir()) is not None:
        place = tempfile.mkdtemp(prefix="janus_pl-wandb-")
        atexit.register(shutil.rmtree, place, ignore_errors=True)
        os.environ[wandb.env.CACHE_DIR] = place


def _why_not_writable(folder: str | os.PathLike[str]) -> OSError | None:
    try:
        os.makedirs(folder, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        return error
    return None


def hush_sockets() -> None:
    """Keep asyncio from a warning at each message to a dead service; the logger says it once."""
    logging.getLogger("asyncio").addFilter(_says_something)


def _says_something(entry: logging.LogRecord) -> bool:
    return entry.getMessage() != "socket.send() raised exception."


def forget_service() -> None:
    """Leave a service that has died: neither the next run nor the end of the process asks it."""
    import wandb

    wandb.run = None
    with suppress(Exception, SystemExit):  # it says goodbye first, to nobody
        wandb.teardown()


@contextmanager
def without_launch() -> Iterator[None]:
    """Keep the start of a run from importing W&B's queue, which takes longer than all the rest.

    The start asks the queue for inputs that were staged for the run. If nobody has imported it, it
    has none, and a module that says so answers in its place.
    """
    name = f"{LAUNCH}.inputs.internal"
    if LAUNCH in sys.modules or name in sys.modules:
        yield
        return
    empty: Any = ModuleType(name)
    empty.StagedLaunchInputs = _NothingStaged
    sys.modules[name] = empty
    try:
        yield
    finally:
        del sys.modules[name]


_listed: list[Any] = []  # the installed packages


def list_packages() -> None:
    """List the installed packages once for all runs that are forked from this process.

    W&B reads the metadata of each package at the start of a run, a tenth of a second in all. The
    runs have the packages of this process.
    """
    import wandb

    _listed[:] = getattr(wandb.util, "working_set", tuple)()


@contextmanager
def with_listed_packages() -> Iterator[None]:
    """Hand the list of `list_packages`, if there is one, to a run of W&B that starts."""
    import wandb

    util: Any = wandb.util
    before = getattr(util, "working_set", None)
    if before is None or not _listed:
        yield
        return
    util.working_set = lambda: [*_listed]
    try:
        yield
    finally:
        util.working_set = before


class _NothingStaged:
    """The inputs of a job that has none."""

    def apply(self, run: Any) -> None:
        """Hand over nothing."""


@contextmanager
def without_pandas() -> Iterator[None]:
    """Keep W&B from importing pandas to ask whether what is logged is a data frame.

    For what we log: numbers, histograms and tables of lists.
    """
    import wandb

    util: Any = wandb.util
    before = getattr(util, "pd_available", None)
    if before is None or "pandas" in sys.modules:
        yield
        return
    util.pd_available = False
    try:
        yield
    finally:
        util.pd_available = before
