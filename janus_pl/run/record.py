"""The record of a run: one folder for its config, description, rows, spectra and checkpoints.

It is written whatever the loggers are. The command line gives it a folder, `RUN_DIR/PROJECT/ID`. In
a script the folder is the one in which Lightning keeps the checkpoints of the W&B logger, or else
of the first logger: `SAVE_DIR/NAME/VERSION`. A script without a logger has no record.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_info

from janus_pl.errors import Exit
from janus_pl.run.description import Description, seed_in_force, write_description
from janus_pl.run.files import write_atomically
from janus_pl.run.folder import CHECKPOINTS, CONFIG, check_outside
from janus_pl.run.journal import Journal
from janus_pl.run.lines import SPECTRA
from janus_pl.run.logger import RunLogger, end, sending_by, take
from janus_pl.run.rows import Value, log_to, spectra_line, split_row
from janus_pl.run.sent import sent

CLI_CONFIG = "cli.yaml"  # what `--config` of a LightningCLI takes
_ended: set[Path] = set()  # folders of this process's scripts; a later fit does not write there


class RunRecord(Callback):
    """The record of one fit; the first process alone writes it.

    Args:
        folder: The run's folder; if it is None, it is found from the loggers of a script, and the
            end of the fit is the end of the run.
        goes_on: Whether the fit goes on with the run in the folder.

    Attributes:
        folder: The run's folder; None if there is no record.
        goes_on: As the argument; a script's fit goes on if its checkpoint is of this folder.
        journal: The rows in the folder; None unless this process writes the record now.
        spectra: The singular values in the folder; None as the journal.

    Raises:
        UsageError: The folder has a run that this fit does not go on with.
    """

    def __init__(self, folder: Path | None = None, goes_on: bool = False) -> None:
        self.folder = folder
        self.goes_on = goes_on
        self.journal: Journal | None = None
        self.spectra: Journal | None = None
        self._of_script = folder is None
        self._closed = False
        self._clis: list[Any] = []  # callbacks by which a LightningCLI saves its config

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit" and self.journal is None:
            self.prepare(trainer)

    def prepare(self, trainer: Trainer) -> None:
        """Get ready before checkpoints are read; the command line's record is open then."""
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if self._of_script:
            own = [logger for logger in trainer.loggers if isinstance(logger, RunLogger)]
            self.folder, self.goes_on = folder_of(trainer), any(each.resumed for each in own)
            self._place_checkpoints(trainer, self.folder)
            self._take_over_configs(trainer)
        else:
            self.open(trainer)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self._of_script and self.folder is not None:
            self.goes_on = self.goes_on or is_in(trainer.ckpt_path, self.folder / CHECKPOINTS)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, RunLogger):
                logger.flush()  # W&B has the rows of the checkpoint, too

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.open(trainer)
        if self._of_script and self.journal is not None:
            self.write_config(trainer, script_config(trainer, pl_module))
            self._save_configs()
            rank_zero_info(f"Record of this run: {self.folder}")

    def open(self, trainer: Trainer) -> None:
        """Make and lock the folder, and let the checkpoints lie in it; twice is as once."""
        done = self.journal is not None or self.folder is None
        if done or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        assert self.folder is not None
        before = self.folder
        if self._of_script and not self.goes_on:
            self.folder = _unused(self.folder)
        self._place_checkpoints(trainer, before)
        if trainer.is_global_zero:
            take(self.folder, self.goes_on)
            self.journal, self._closed = Journal(self.folder), False
            self.spectra = Journal(self.folder, SPECTRA)

    def _place_checkpoints(self, trainer: Trainer, before: Path | None) -> None:
        """Let checkpoints lie in the folder, unless they were given another place."""
        if self.folder is None:
            return
        ours = {(folder / CHECKPOINTS).resolve() for folder in (before, *_ended) if folder}
        for callback in trainer.checkpoint_callbacks:
            if not isinstance(callback, ModelCheckpoint):
                continue
            given = callback.dirpath
            if given is None or Path(given).resolve() in ours:
                callback.dirpath = str(self.folder / CHECKPOINTS)
            elif not is_in(given, self.folder, below=True):
                check_outside("callbacks.ModelCheckpoint.dirpath", str(given))

    def _take_over_configs(self, trainer: Trainer) -> None:
        """Keep a LightningCLI from saving its config beside the folders of all runs.

        A second run would find it there and be refused, and `config.yaml` of a logger's folder is
        the record's.
        """
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if self.folder is not None and getattr(callback, "save_to_log_dir", False):
                callback.save_to_log_dir = False
                self._clis.append(callback)

    def _save_configs(self) -> None:
        """Save the config of a LightningCLI in the folder."""
        for each in self._clis:
            place = str(self.folder / CLI_CONFIG)  # type: ignore[operator]
            each.parser.save(each.config, place, skip_none=False, overwrite=True, multifile=False)

    def append(self, row: Mapping[str, Value], spectra: Mapping[str, Any] | None = None) -> None:
        """Append a row of finite values, and the line of its singular values, if it has some."""
        if self.journal is not None:
            self.journal.append(row)
        if self.spectra is not None and spectra is not None:
            self.spectra.append_plain(spectra)
        if self._closed:  # callbacks may write a held row after an error has come by here
            self._close_files()

    def counts(self) -> dict[str, int]:
        """Wait until all lines are on the disk, and return how many there are, for a checkpoint."""
        held = {"rows": self.journal, "spectra": self.spectra}
        files = {name: journal for name, journal in held.items() if journal is not None}
        for journal in files.values():
            journal.sync()
        return {name: journal.count for name, journal in files.items()}

    def keep(self, rows: int, spectra: int) -> list[dict[str, Value]]:
        """Return the first rows, those of a checkpoint, and remove later rows and spectra."""
        if self.spectra is not None:
            if spectra:
                self.spectra.keep_plain(spectra)
            else:  # a run without spectra has no such file
                self.spectra.path.unlink(missing_ok=True)
        return [] if self.journal is None else self.journal.keep(rows)

    def describe(self, description: Description, **known_as: str | None) -> None:
        """Write the description to the folder, with the run's id, name and group."""
        if self.journal is not None and self.folder is not None:
            write_description(self.folder, description, id=self.folder.name, **known_as)

    def write_config(self, trainer: Trainer, config: Mapping[str, Any]) -> None:
        """Write the config to the folder, and what W&B's config lacks of it to W&B."""
        self.write_config_text(yaml.safe_dump(dict(config), sort_keys=False))
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                with sending_by(logger):
                    known = logger.experiment.config
                    more = {k: v for k, v in sent(config, known).items() if k not in known}
                    logger.experiment.config.update(more)

    def write_config_text(self, text: str) -> None:
        """Write the text of a config to the folder."""
        if self.journal is not None and self.folder is not None:
            write_atomically(self.folder / CONFIG, lambda file: file.write(text.encode()))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            self._end(Exit.DONE)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        stopped = Exit.SIGINT if isinstance(exception, KeyboardInterrupt) else Exit.DEFECT
        self._end(getattr(exception, "exit_code", stopped))

    def _end(self, exit_code: int) -> None:
        """Close the rows; in a script the run ends, too."""
        if self.journal is None or self.folder is None:
            return
        self._close_files()
        self._closed = True
        if self._of_script:
            self.journal = self.spectra = None
            _ended.add(self.folder.resolve())
            end(self.folder, exit_code)

    def _close_files(self) -> None:
        for journal in (self.journal, self.spectra):
            if journal is not None:
                journal.close()


def record_of(trainer: Trainer) -> RunRecord | None:
    """Return the record of a trainer's fit, on the process that writes it; else None."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, RunRecord) and callback.journal is not None:
            return callback
    return None


def write_row(trainer: Trainer, row: Mapping[str, Value]) -> None:
    """Write one row to the record and to every logger of the trainer, on the first process alone.

    A number that is not finite is left out: it reads as missing, never as a measurement. Loggers
    other than W&B's get the numbers; W&B gets the histograms and tables too, with the epoch as
    the x axis. Singular values go to the record alone.
    """
    if not trainer.is_global_zero:
        return
    numbers, objects = split_row(row)
    if (record := record_of(trainer)) is not None:
        record.append({**numbers, **objects}, spectra_line(row))  # first: a logger may fail
    log_to(trainer.loggers, numbers, objects)


def folder_of(trainer: Trainer) -> Path | None:
    """Return the folder of a script's record (module docstring); None without a logger."""
    loggers = trainer.loggers
    if not loggers or not trainer.is_global_zero:
        return None
    first = next((each for each in loggers if isinstance(each, WandbLogger)), loggers[0])
    version = first.version if isinstance(first.version, str) else f"version_{first.version}"
    return Path(first.save_dir or trainer.default_root_dir) / str(first.name) / version


def script_config(trainer: Trainer, module: LightningModule) -> dict[str, Any]:
    """Return the config of a script's fit, as far as it has plain values."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    return {
        "seed_everything": seed_in_force(),
        "model": _options_of(module),
        "data": None if data is None else _options_of(data),
        "trainer": {"max_epochs": trainer.max_epochs, "max_steps": trainer.max_steps},
    }


def is_in(path: object, folder: Path, below: bool = False) -> bool:
    """Tell whether a path is directly in a folder, whatever the spelling of both.

    Args:
        path: A path, or None.
        folder: The folder.
        below: Whether the folder itself and what lies further below count, too.
    """
    if not isinstance(path, str | os.PathLike) or not str(path):
        return False
    here, there = Path(path).resolve(), folder.resolve()
    return here == there or there in here.parents if below else here.parent == there


def _options_of(part: Any) -> dict[str, Any]:
    """Return the class of a module or data module, and its hyperparameters that are plain."""
    plain = {str(key): value for key, value in _given(part).items() if _is_plain(value)}
    return {"class_path": _public_name(type(part)), "init_args": plain}


def _public_name(kind: type) -> str:
    """Return the shortest path by which a class is imported, as configs have it.

    >>> import json.decoder
    >>> _public_name(json.decoder.JSONDecoder)
    'json.JSONDecoder'
    """
    parts = kind.__module__.split(".")
    for size in range(1, len(parts)):
        package = ".".join(parts[:size])
        if getattr(sys.modules.get(package), kind.__qualname__, None) is kind:
            return f"{package}.{kind.__qualname__}"
    return f"{kind.__module__}.{kind.__qualname__}"


def _given(part: Any) -> dict[str, Any]:
    """Return what an object was made with: attributes named as options, and hyperparameters."""
    names = [
        name
        for kind in type(part).__mro__
        if (code := getattr(vars(kind).get("__init__"), "__code__", None)) is not None
        for name in code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]
    ]
    own = {str(k): v for k, v in part.hparams.items() if not str(k).startswith("_")}  # Lightning's
    return {name: vars(part)[name] for name in names if name in vars(part)} | own


def _is_plain(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(each) for key, each in value.items())
    return value is None or type(value) in (bool, int, float, str)


def _unused(folder: Path) -> Path:
    """Return a folder that no earlier fit of this process has ended in: ID, else ID-2, ID-3, ..."""
    found, number = folder, 1
    while found.resolve() in _ended:
        number += 1
        found = folder.with_name(f"{folder.name}-{number}")
    if found != folder:
        rank_zero_info(f"The run in {folder} has ended: the record of this fit is in {found}.")
    return found
