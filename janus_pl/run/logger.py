"""A W&B run in one folder, `RUN_DIR/PROJECT/ID/`; online with an account, else offline."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only, rank_zero_warn

from janus_pl.errors import Exit, StorageError, UsageError
from janus_pl.run.account import (
    begun_run,
    check_names,
    given_id,
    has_account,
    new_id,
)
from janus_pl.run.columns import described
from janus_pl.run.description import Description
from janus_pl.run.extras import Extras
from janus_pl.run.files import check_folder, settle
from janus_pl.run.folder import ROWS, RunFolder, check_goes_on
from janus_pl.run.name import run_name, run_tags
from janus_pl.run.sender import Sender, flush_all
from janus_pl.run.service import (
    NoRun,
    check_folders,
    forget_service,
    hush_sockets,
    signs_of_death,
    wait_for_service,
    with_listed_packages,
    without_launch,
)

_folders: list[RunFolder] = []  # locked by this process, until `finish`

FLUSH_INTERVAL = 0.5  # seconds that a row may wait in W&B's memory, where a kill -9 loses it
_made: list[Path] = []  # the folders that this process has made, innermost first
FINISH_TIMEOUT = 120.0  # seconds that the end of a run waits for a network that may be gone


class RunLogger(WandbLogger):
    """A W&B logger whose run has a folder of its own.

    The folder holds the resolved config, the checkpoints and W&B's own directory. It is made when
    the run starts and not before. If WANDB_MODE is set, it decides about online and offline.
    Otherwise a run without an account (no WANDB_API_KEY, no entry in the netrc file) is offline and
    says so in one line.

    Of several processes only the first one has a run; checkpoints go to that run's folder.

    Args:
        project: The W&B project, also the name of the folder.
        name: The name of the run; if it is None, that of its description.
        group: The W&B group; a report reads it as one experiment.
        tags: W&B tags.
        run_dir: The folder of all runs.
        resumed: The folder of a run to go on with; the run keeps its id.
        run_id: The id of a new run; if it is None, that of a run that `wandb.init()` has begun in
            this process, or else WANDB_RUN_ID, or else a random one.
        extras: What W&B gets beside the record; nothing if it is None.

    Attributes:
        resumed: Whether this goes on with a run.
        run_id: The id of the run.
        named: Whether the run was given a name.
        extras: What W&B gets beside the record.
        sent_steps: The optimizer steps up to which W&B has the rows of a resumed online run.
        epoch_end: Takes Lightning's own metrics in place of W&B and returns whether it did; None
            if W&B gets them as they come.

    Raises:
        UsageError: W&B would refuse an option, the project or id is not the name of one folder, or
            `resumed` is no folder of a run that can go on.
    """

    def __init__(
        self,
        project: str = "janus_pl",
        name: str | None = None,
        group: str | None = None,
        tags: Sequence[str] | None = (),
        run_dir: str | Path = "runs",
        resumed: str | Path | None = None,
        run_id: str | None = None,
        extras: Extras | None = None,
    ) -> None:
        if resumed is not None:
            check_goes_on(resumed := Path(resumed))
        run_id = resumed.resolve().name if resumed else run_id or given_id() or new_id()
        tags = tags or ()
        check_names(project, run_id, name, group, tags)
        self.resumed = resumed is not None
        self.run_id = run_id
        self.sent_steps = -1
        self.epoch_end: Callable[[Mapping[str, float]], bool] | None = None
        self._sender, self._lacks_rows = Sender(), False
        self.named = name is not None
        self.folder = resumed or Path(run_dir) / project / run_id
        self.extras = extras or Extras()
        self._saved: dict[int, Any] = {}  # callbacks that have saved a checkpoint
        super().__init__(
            project=project,
            name=name,
            save_dir=str(run_dir),
            id=run_id,
            group=group,
            tags=list(tags),
            config={},
            **self.extras.for_init(),
        )
        # WandbLogger passes it on even if it is not set, and W&B then warns.
        del self._wandb_init["anonymous"]
        # Absolute, for W&B's service may have been started in another working directory.
        if given := os.environ.get("WANDB_DIR"):
            check_folder("WANDB_DIR", given)
        self._wandb_init["dir"] = str(Path(given or self.folder).absolute())

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        self.flush()
        return self._begun()

    def _begun(self) -> Any:
        """Return W&B's run, and start it if need be; rows may be on their way to it."""
        if self._experiment is None:
            if (begun := begun_run()) is not None and begun.id == self.run_id:
                take(self.folder, self.resumed)
                self.named = self.named or begun.name is not None
                self._experiment = begun
                self.extras.begin(begun)
                return begun
            if os.environ.get("WANDB_MODE") == "online" and not has_account():
                # W&B would ask for a key and wait.
                raise UsageError("WANDB_MODE", "online", "offline, until `wandb login` was run")
            take(self.folder, self.resumed)
            if "WANDB_MODE" not in os.environ and not has_account():
                self._wandb_init["mode"] = "offline"
                rank_zero_info(
                    "W&B: no account is configured, so this run is recorded offline; "
                    "`wandb login` and `wandb sync` bring it online later."
                )
            try:
                Path(place := self._wandb_init["dir"]).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StorageError(place, error) from error
            wait_for_service()
            check_folders()
            run = self._start()
            if getattr(run, "resumed", False):
                # Rows after the checkpoint were sent before the interruption, and are the same.
                self.sent_steps = int(run.summary.get("trainer/global_step", -1))
            with self.sending():
                self.extras.begin(run)
        return self._experiment

    def _start(self) -> Any:
        import wandb

        hush_sockets()
        self._wandb_init["settings"] = self._settings()
        try:
            with without_launch(), with_listed_packages():
                return WandbLogger.experiment.fget(self)  # type: ignore[attr-defined]
        except wandb.errors.CommError as error:
            place = self._wandb_init["dir"]
            rank_zero_warn(
                f"W&B: no connection ({_reason(error)}), so this run is recorded offline;"
                f" `wandb sync {place}/wandb/offline-run-*` brings it online later."
            )
            wandb.teardown()  # else W&B's service takes the run's id for in use
            self._wandb_init["mode"] = "offline"
            self._wandb_init["settings"] = self._settings()
            with without_launch(), with_listed_packages():
                return WandbLogger.experiment.fget(self)  # type: ignore[attr-defined]

    def _settings(self) -> Any:
        import wandb

        settings: dict[str, Any] = {"x_transaction_log_flush_interval": FLUSH_INTERVAL}
        if (self._wandb_init.get("mode") or os.environ.get("WANDB_MODE")) == "offline":
            # The end of `fit` says where the run lies; 60 sparklines beside it say less.
            settings["silent"] = True
        else:
            settings["finish_timeout_raises"] = True
            if "WANDB_FINISH_TIMEOUT" not in os.environ:
                settings["finish_timeout"] = FINISH_TIMEOUT
        return wandb.Settings(**settings)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if self.epoch_end is not None:
            if self.epoch_end(metrics):
                return
            # Without an epoch it is no row of the record.
            metrics = {key: value for key, value in metrics.items() if key != "epoch"}
        with self.sending():
            super().log_metrics(dict(metrics), step)

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        self._saved[id(checkpoint_callback)] = checkpoint_callback

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self._experiment is not None:
            with self.sending():
                self.extras.end(self._experiment, status, self._saved.values())

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Hand something to W&B's run; if its service has died, say so and go on without it.

        Rows that are on their way arrive first.
        """
        self.flush()
        try:
            yield
        except signs_of_death() as error:
            self._lose(error)

    def send(self, action: Callable[[Any], object]) -> None:
        """Hand something to W&B's run beside the training, after what was sent before.

        Args:
            action: Takes the run, in a thread of its own.
        """
        self._say_errors()
        self._sender.put(partial(action, self._begun()))

    def flush(self) -> None:
        """Wait until W&B's run has all that was sent."""
        self._sender.flush()
        self._say_errors()

    def _say_errors(self) -> None:
        """Say in one line what went wrong on the way to W&B; the run goes on."""
        for error in self._sender.errors():
            if isinstance(error, signs_of_death()):
                self._lose(error)
            elif not self._lacks_rows:
                self._lacks_rows = True
                rank_zero_warn(
                    f"W&B: its record lacks rows ({_reason(error)}). The run goes on; all rows are"
                    f" in {self.folder / ROWS}"
                )

    def _lose(self, error: Exception) -> None:
        """Say that W&B's service has died, once, and go on without it."""
        if isinstance(self._experiment, NoRun):
            return
        rank_zero_warn(
            f"W&B: its service has died ({_reason(error)}). The run goes on without it; its"
            f" rows are in {self.folder / ROWS}"
        )
        nobody: Any = NoRun(self._experiment)
        self._experiment = nobody
        forget_service()

    def describe(self, description: Description) -> None:
        """Put a description into W&B: config, name and tags."""
        run = self.experiment
        name = run.name if self.named else run_name(description)
        with self.sending():
            run.config.update(described(description, run.config), allow_val_change=True)
            if not self.named:
                run.name = name
            run.tags = tuple(dict.fromkeys([*(run.tags or ()), *run_tags(description)]))

    @property
    def wandb_folder(self) -> Path:
        """W&B's own directory of this run, which `wandb leet` opens and `wandb sync` uploads."""
        return Path(self.experiment.settings.sync_dir)


def sending_by(logger: Logger) -> AbstractContextManager[None]:
    """Return a block in which something is handed to a logger's run, whose service may have died.

    The service of a logger that is not ours is watched by nobody.
    """
    return logger.sending() if isinstance(logger, RunLogger) else nullcontext()


@rank_zero_only
def finish(exit_code: int = Exit.DONE) -> None:
    """End the run of this process, if there is one; W&B reads every exit code but 0 as failed.

    The outcome is written first. If W&B then fails to close its record or to send it, one line says
    so, and the outcome stays what it is.

    Raises:
        StorageError: The outcome cannot be written.
    """
    ending, _folders[:] = _folders[:], []
    _made.clear()
    try:
        for folder in ending:
            folder.write_outcome(exit_code)
    finally:
        _finish_record(exit_code)
        for folder in ending:
            folder.let_go()


def _finish_record(exit_code: int) -> None:
    import wandb

    flush_all()
    wait_for_service()
    if wandb.run is None:
        return
    record = wandb.run.settings.sync_dir
    try:
        wandb.finish(exit_code=exit_code)
    except TimeoutError:
        print(
            "W&B: the network did not take the rest of this run, whose record is whole on disk;"
            f" `wandb sync --include-online {record}` brings it online later.",
            file=sys.stderr,
        )
    except Exception as error:  # its service has died, or its disk is full
        print(
            f"W&B: its record of this run could not be closed ({_reason(error)}); the rows are"
            f" whole in {ROWS}, and the outcome is written",
            file=sys.stderr,
        )
        forget_service()
    else:
        if Path(record).is_dir():  # a disabled run has none
            settle(Path(record))


def _reason(error: Exception) -> str:
    """Return the first line of an error, its class if it has none."""
    return str(error).partition("\n")[0] or type(error).__name__


def take(folder: Path, goes_on: bool = False) -> None:
    """Make the folder and lock it, unless this process has the lock; `finish` or `end` release it.

    Raises:
        StorageError: The folder cannot be made.
        UsageError: The folder has a run that this one does not go on with, or another process is
            at work in it.
    """
    if _held(folder) is not None:
        return
    _made.clear()
    absolute = folder.absolute()
    missing = [place for place in (absolute, *absolute.parents) if not place.exists()]
    try:
        _hold(folder, goes_on)
    except OSError as error:
        raise StorageError(folder, error) from error
    _made.extend(missing)


def end(folder: Path, exit_code: int) -> None:
    """End the run in one folder that this process has locked."""
    if (held := _held(folder)) is not None:
        _folders.remove(held)
        held.end(exit_code)


def _held(folder: Path) -> RunFolder | None:
    """Return the lock of this process on a folder, whatever the folder's spelling."""
    place = folder.resolve()
    return next((held for held in _folders if held.path.resolve() == place), None)


def _hold(folder: Path, goes_on: bool = True) -> None:
    """Make the folder and lock it, so that no other process goes on with its run."""
    if _held(folder) is None:
        _folders.append(RunFolder(folder, goes_on))


@rank_zero_only
def mark_preempting() -> None:
    """Mark the run as preempted in W&B, not failed: it was told to stop and may go on."""
    import wandb

    flush_all()
    if wandb.run is not None:
        with suppress(*signs_of_death()):  # `finish` says so
            wandb.run.mark_preempting()


@rank_zero_only
def discard() -> None:
    """Delete the run of this process, with the folders made for it, if nothing was recorded."""
    import wandb

    flush_all()
    if wandb.run is not None:
        if wandb.run.step > 0:
            return
        _finish_record(Exit.USAGE)
    if any((place / ROWS).exists() for place in _made[:1]):
        return
    for held in _folders:
        held.let_go()
    _folders.clear()
    for place in _made[:1]:
        shutil.rmtree(place, ignore_errors=True)
    for place in _made[1:]:
        with suppress(OSError):  # somebody else may have put something there
            place.rmdir()
