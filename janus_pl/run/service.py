"""W&B's service, the process that writes its record: what is done when it has died."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn


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
