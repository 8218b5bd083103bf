"""LightningCLI with our defaults: base.yaml first, one folder a run, errors in one line."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from janus_pl.cli import help as texts
from janus_pl.cli.base_values import BaseValuesParser, plain
from janus_pl.cli.checks import (
    Sound,
    check_classes,
    check_device,
    check_flags,
    check_once,
    check_parts,
    check_restored,
    check_run_dir,
    check_seed,
    check_trainer,
    file_of,
    is_ours,
    sound_checkpoint,
)
from janus_pl.cli.config_files import adds_to, begun_config, complete
from janus_pl.cli.messages import trainer_mistake
from janus_pl.cli.option_texts import TEXTS, PlainHelp
from janus_pl.cli.packages import name_missing_packages
from janus_pl.cli.resume import Resumed, agree, find
from janus_pl.cli.run_config import SaveRunConfig
from janus_pl.cli.run_options import add_run_options, fill, logger_of
from janus_pl.cli.spelled import add_mode
from janus_pl.data import Images, LinearProblem
from janus_pl.data.fingerprint import DataFacts
from janus_pl.errors import DivergenceError, UsageError
from janus_pl.run import history
from janus_pl.run.description import KEY, read_description
from janus_pl.run.folder import check_new, check_outside
from janus_pl.run.logger import RunLogger
from janus_pl.run.record import RunRecord, record_of
from janus_pl.run.service import begin, may_begin
from janus_pl.run.shipped import base
from janus_pl.training.checkpoints import with_verified_io
from janus_pl.training.lightning import set_run_id
from janus_pl.training.precision import IEEE, Numerics, use_numerics
from janus_pl.training.resume import ExactResume
from janus_pl.training.room import check_room_for_checkpoint
from janus_pl.training.same_data import check_data
from janus_pl.training.signals import StopBetweenSteps, StopSignals
from janus_pl.training.subjects import Describes


class ConfigReader(LightningCLI):
    """The parser of the command line; reads and resolves configs, and starts nothing.

    Args:
        args: A command line; the parser is made for its subcommand.
    """

    def __init__(self, args: Sequence[str]) -> None:
        _quiet_lightning()
        args = complete(args)
        self._asked = args[0]
        self.resumed = Resumed()
        parser_kwargs = {"exit_on_error": False, "allow_abbrev": False, "parser_mode": add_mode()}
        described = {
            name: {
                **parser_kwargs,
                "default_config_files": [str(base())],
                "usage": f"{texts.PROGRAM} {name} {arguments}",
                "description": text,
                "epilog": texts.EXIT_CODES,
            }
            for name, (arguments, text) in texts.TRAINING.items()
            if name in self.subcommands()
        }
        super().__init__(
            model_class=LightningModule,
            datamodule_class=LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=SaveRunConfig,
            save_config_kwargs={"save_to_log_dir": False},
            seed_everything_default=0,
            auto_configure_optimizers=False,
            parser_class=BaseValuesParser,
            parser_kwargs={
                **parser_kwargs,
                "prog": texts.PROGRAM,
                "formatter_class": PlainHelp,  # of the subcommands, too
                **described,
            },
            args=args,
        )

    def resolve(self, args: Sequence[str]) -> dict[str, Any]:
        """Check all parts of a command line and return its resolved config.

        Its model, data and callbacks are made for the check and then thrown away.

        Raises:
            UsageError: A part is wrong. The parser's own errors pass through.
        """
        self.config = self.parser.parse_args(complete(args))
        self._fill()
        check_seed(self._get(self.config, "seed_everything"))
        self._seed_data()
        self.config_init = self.parser.instantiate_classes(self.config)
        options = self._get(self.config_init, "trainer")
        check_trainer(vars(options))
        check_once(options.callbacks if isinstance(options.callbacks, list) else [])
        self._logger()
        return self._resolved()

    def data_facts(self, fetch: bool) -> DataFacts | None:
        """Return the facts of the resolved data.

        It is None of somebody else's data, which are not touched.

        Args:
            fetch: Whether data that are missing are downloaded. If not, they are not known either.

        Raises:
            UsageError: The data cannot be read, and are to be fetched.
        """
        data = self._get(self.config_init, "data")
        if not isinstance(data, Images | LinearProblem):
            return None
        try:
            if fetch:
                data.prepare_data()
            data.setup()
        except UsageError:
            if fetch:
                raise
            return None
        return data.facts

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Return the subcommand asked for, if known: all four take a fifth of a second more."""
        known = super().subcommands()
        return {self._asked: known[self._asked]} if self._asked in known else known

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        name_missing_packages()
        add_run_options(parser)
        parser.add_argument("--numerics", type=Numerics, default=IEEE, help=TEXTS["numerics"])
        for name in ("allow_config_change", "allow_data_change"):
            parser.add_argument(f"--{name}", action="store_true", help=TEXTS[name])

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        # LightningCLI would warn that arguments are given here and to the process.
        self.config = parser.parse_args(args)

    def instantiate_classes(self) -> None:
        """Make nothing: `resolve` makes the parts of each command line."""

    def _set_seed(self) -> None:
        """Seed nothing: nothing is trained."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Run nothing."""

    def _parse_ckpt_path(self) -> None:
        """Leave the config as it is: a checkpoint's hyperparameters would silently win over it."""

    def _fill(self) -> None:
        """Take W&B's variables for options that are not given."""
        assert self.subcommand is not None
        config = self.config[self.subcommand]
        if not config.run_dir:
            raise UsageError("--run_dir", config.run_dir, "a folder")
        fill(config)

    def _seed_data(self) -> None:
        """Give `seed_everything` to a data module of ours, or a subclass, if its seed is null."""
        assert self.subcommand is not None
        data = self.config[self.subcommand].get("data")
        options = getattr(data, "init_args", None)
        ours = is_ours(getattr(data, "class_path", None))
        if ours and options is not None and "seed" in options and options["seed"] is None:
            options["seed"] = self._get(self.config, "seed_everything")

    def _resolved(self) -> dict[str, Any]:
        """Return the resolved config in plain values."""
        assert self.subcommand is not None
        parser = self._parser(self.subcommand)
        config = plain(parser.dump(self.config[self.subcommand], skip_none=False))
        assert isinstance(config, dict)
        return config

    def _dump_config(self) -> None:
        """Let the parts have the resolved config; LightningCLI would dump that of all options."""
        if not hasattr(self, "config_dump"):
            self.config_dump = self._resolved()

    def _logger(self, run_id: str | None = None) -> RunLogger:
        check_run_dir(self._get(self.config, "run_dir"))
        get = partial(self._get, self.config_init)
        return logger_of(get, self.resumed.folder, run_id)


class JanusCLI(ConfigReader):
    """The command line of `fit`, `validate`, `test` and `predict`.

    Args:
        args: The command line.
        signals: The handler of signals that stop a run; None leaves them to Lightning.
    """

    def __init__(self, args: Sequence[str], signals: StopSignals | None = None) -> None:
        self._signals = signals
        self._given = complete(args)
        self._adds_logger = adds_to("trainer.logger", self._given)
        with begun_config() as more:
            super().__init__([*args, *more] if args[:1] == ["fit"] else args)

    def _set_seed(self) -> None:
        check_seed(self._get(self.config, "seed_everything"))
        LightningCLI._set_seed(self)

    def before_instantiate_classes(self) -> None:
        """Fill the options; for `--ckpt_path last` find the interrupted run, if any."""
        use_numerics(self._get(self.config, "numerics"))
        if self.subcommand == "fit":
            check_classes(self._get(self.config, "trainer.callbacks"))
        self._fill()
        self._seed_data()
        config = self.config[self.subcommand]
        check_flags(self._given, str(self.subcommand), config.ckpt_path)
        trainer = config.trainer
        if self.subcommand == "fit" and isinstance(trainer, Namespace) and may_begin(vars(trainer)):
            begin()
        self._takes_up = self.subcommand == "fit" and config.ckpt_path == "last"
        root = Path(self._get(self.config, "run_dir")) / self._get(self.config, "project")
        if config.ckpt_path is not None:
            config.ckpt_path = file_of(str(config.ckpt_path), root)
        if self._takes_up:
            config.ckpt_path = None
            may_differ = self._get(self.config, "allow_config_change")
            self.resumed = find(root, self._resolved(), may_differ)
            config.ckpt_path = self.resumed.checkpoint

    def instantiate_classes(self) -> None:
        LightningCLI.instantiate_classes(self)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        options = self._get(self.config_init, "trainer")
        if not isinstance(options, Namespace):
            raise UsageError("trainer", options, "the Trainer's options by name")
        check_trainer(vars(options))
        given = options.callbacks or []
        exact = ExactResume(self.resumed.folder is not None, self.resumed.goes_on)
        given = given if isinstance(given, list) else [given]
        describes = Describes(self._get(self.config, "allow_data_change"))
        options.callbacks = [*given, exact, describes]
        if self.subcommand == "fit":
            check_once(options.callbacks)
        if options.default_root_dir is not None:
            check_outside("trainer.default_root_dir", options.default_root_dir)
        record = self._set_loggers(options)
        if record is not None and record.folder is not None:
            # Under SLURM Lightning goes on from any hpc_ckpt_*.ckpt there.
            options.default_root_dir = options.default_root_dir or str(record.folder)
            options.callbacks.append(record)
        if options.enable_progress_bar is False and options.callbacks:
            bars = [c for c in options.callbacks if isinstance(c, ProgressBar)]
            options.callbacks = [c for c in options.callbacks if c not in bars]
        options.plugins = with_verified_io(options.plugins, options.strategy)
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, ImportError, TypeError, ValueError) as error:
            raise trainer_mistake(error, vars(options)) from error
        if self._signals is not None and self.subcommand == "fit":
            trainer.callbacks.append(StopBetweenSteps(self._signals))  # type: ignore[attr-defined]
        return trainer

    def _set_loggers(self, options: Namespace) -> RunRecord | None:
        """Complete the loggers of a fit; return the record of its folder, None without a fit."""
        given = options.logger
        listed = given if isinstance(given, list) else [given] if isinstance(given, Logger) else []
        for logger in listed:
            if place := logger.save_dir:
                check_outside("trainer.logger.save_dir", place)
        if self.subcommand != "fit":
            options.logger = listed
            return None
        others = [each for each in listed if isinstance(each, WandbLogger)]
        own = self._logger(next((each.version for each in others if each.version), None))
        for logger in others:
            set_run_id(logger, own.run_id)
        if given in (None, True) or self._adds_logger:
            options.logger = [own, *listed]
        else:
            own.extras.check_unused(listed[0] if listed else None)
        if not own.resumed:
            check_new(own.folder)
        return RunRecord(own.folder, own.resumed)

    def _check(self) -> None:
        """Check the parts before the trainer makes a run folder, so that a mistake leaves none."""
        options = self.config_init[self.subcommand]
        training = self.subcommand == "fit"
        if self._takes_up:
            self._agree(options)
        found = sound_checkpoint(
            *(self.trainer, self.model, options.ckpt_path, options.weights_only, training),
            goes_on=self.resumed.folder is not None,
        )
        options.ckpt_path = found.path
        strategy = self._get(self.config, "trainer.strategy")
        check_device(self.trainer, self.model, self._get(self.config, "numerics"))
        check_parts(self.trainer, self.model, self.datamodule, strategy, str(self.subcommand))
        if self.trainer.local_rank == 0:  # the process that has read the data
            if training and found.content is not None:
                seed = self._get(self.config, "seed_everything")
                check_restored(
                    *(self.trainer, self.model, self.datamodule, found.content),
                    *(seed, self.resumed.goes_on),
                )
            self._check_data(found, training)
        if training:
            check_room_for_checkpoint(self.trainer, self.model)
        if training and found.path is not None and found.content is not None:
            self._note_changes(Path(found.path), found.content)
        if not training and not self._get(self.config, "ckpt_path"):
            rank_zero_info("No --ckpt_path was given: these are the weights at initialization.")

    before_fit = before_validate = before_test = before_predict = _check

    def _check_data(self, found: Sound, training: bool) -> None:
        """Refuse other data than those of the checkpoint, or of the run that has none yet."""
        folder = self.resumed.folder
        described: Any = None
        if found.content is not None:
            described = found.content.get(KEY)
        elif folder is not None:
            described = read_description(folder)
        allowed = self._get(self.config, "allow_data_change")
        parts = self.model, self.datamodule, allowed, training
        check_data(described, found.path or folder, *parts)

    def _note_changes(self, path: Path, checkpoint: dict[str, Any]) -> None:
        """Say and note what changes at the checkpoint."""
        entry = history.entry_of(path, checkpoint, self._resolved(), self.resumed.goes_on)
        if (line := history.told(entry)) is not None:
            rank_zero_info(line)
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, SaveRunConfig):
                callback.entry = entry

    def _agree(self, options: Namespace) -> None:
        """Let every process go on with the run that the first one has found."""
        if self.trainer.world_size == 1:
            return
        self.resumed = agree(self.trainer, self.resumed)
        options.ckpt_path = self.resumed.checkpoint
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, ExactResume):
                callback.goes_on = self.resumed.folder is not None
                callback.own = self.resumed.goes_on

    def _run_subcommand(self, subcommand: str) -> None:
        try:
            LightningCLI._run_subcommand(self, subcommand)
        except MisconfigurationException as error:  # some options fail only at the start
            given = vars(self._get(self.config_init, "trainer"))
            raise trainer_mistake(error, given, self.model) from error
        except DivergenceError as error:
            if not error.recorded:
                raise
            rank_zero_info(f"The run diverged, as its record says: {error}")
            self.after_fit()

    def after_fit(self) -> None:
        if (record := record_of(self.trainer)) is None:
            return
        print(f"Run folder: {record.folder}")
        logger = self.trainer.logger
        if isinstance(logger, RunLogger) and not logger.experiment.disabled:
            print(f"Look at it: wandb leet {logger.wandb_folder}")
        print(f"Figures:    python -m janus_pl report {record.folder} --out report")


def _quiet_lightning() -> None:
    """Silence Lightning's tips, its line about TPUs, and warnings of its own deprecated calls."""
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    if not logger.filters:
        logger.addFilter(_is_no_advertisement)
    warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)


def _is_no_advertisement(entry: logging.LogRecord) -> bool:
    message = entry.getMessage()
    # The last asks for TF32 wherever `--numerics` says IEEE.
    no_news = ("Tip:", "TPU available: False", "that has Tensor Cores")
    return not any(text in message for text in no_news)
