"""W&B's service, the process that writes its record: what is done when it has died."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any

from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

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


_starters: list[threading.Thread] = []  # at most one: the start of the service under way


def may_begin(trainer: object) -> bool:
    """Tell whether a fit with these options of the trainer has a run of W&B, in this process alone.

    With several processes the first one may be a fork, and a service of its own belongs to it.

    Args:
        trainer: The options by name; of anything else the answer is no, and the fit refuses it.
    """
    if not isinstance(trainer, Mapping):
        return False
    single = trainer["devices"] in (1, "1") and trainer["strategy"] == "auto"
    return single and trainer["logger"] in (None, True) and not trainer["fast_dev_run"]


@rank_zero_only
def begin() -> None:
    """Let W&B's service start beside what comes before the run; the start of the run waits for it.

    The service takes a quarter of a second to answer. It is not started if W&B is disabled, or if
    it has no folder for its log. What goes wrong is left to the start of the run, which tries
    again.
    """
    import wandb

    folders = wandb.env.get_data_dir(), wandb.env.get_cache_dir()
    if not _starters and all(_why_not_writable(folder) is None for folder in folders):
        # No daemon: a process that ends early waits for it, and then takes the service down.
        starter = threading.Thread(target=_start_quietly, name="start of W&B's service")
        _starters.append(starter)
        starter.start()


def _start_quietly() -> None:
    import wandb

    with suppress(Exception):
        wandb.setup()


def wait_for_service() -> None:
    """Wait until a start of the service under way has come to its end."""
    for starter in [*_starters]:
        if starter is not threading.current_thread():
            starter.join()
            _starters.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=wait_for_service)  # else a fork would inherit W&B's locks


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
_places: list[object] = []  # the folders that they were in, and their names there


def list_packages() -> None:
    """List the installed packages, unless none has come or gone since that was done.

    W&B reads the metadata of each package at the start of a run, a tenth of a second in all. The
    list is kept for later runs of this process, and of those that are forked from it.
    """
    import wandb

    _list(getattr(wandb.util, "working_set", tuple))


def _list(ask: Callable[[], Iterable[Any]]) -> list[Any]:
    places = [*_installed()]
    if not _listed or _places != places:
        _listed[:], _places[:] = ask(), places
    return [*_listed]


def _installed() -> Iterator[tuple[str, list[str]]]:
    """Yield the folders of modules, and what is installed there; the names have the versions."""
    for folder in sys.path:
        with suppress(OSError):
            names = os.listdir(folder or ".")
            yield folder, sorted(each for each in names if each.endswith(("-info", ".egg")))


@contextmanager
def with_listed_packages() -> Iterator[None]:
    """Hand the list of `list_packages` to a run of W&B that starts and asks for it."""
    import wandb

    util: Any = wandb.util
    before = getattr(util, "working_set", None)
    if before is None:
        yield
        return
    util.working_set = lambda: _list(before)
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
