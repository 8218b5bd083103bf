"""The command line: `python -m janus_pl fit|validate|test|predict|sweep|verify|report|workspace`.

What it says of itself, exit codes included: `janus_pl/usage.py`.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from pydoc import locate
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only, rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.model_helpers import is_overridden

from janus_pl import tools, usage
from janus_pl.cli_errors import (
    check_trainer,
    explain,
    nearest,
    storage_message,
    trainer_mistake,
    usage_message,
)
from janus_pl.command_line import CONFIGS, complete
from janus_pl.data import ImagePair, LinearProblem
from janus_pl.errors import DivergenceError, TheoremError, UsageError
from janus_pl.runtime import wandb_run
from janus_pl.runtime.checkpoint_io import (
    VerifiedCheckpointIO,
    check_fits,
    check_weights_only,
    load_sound,
    with_verified_io,
)
from janus_pl.runtime.exact_resume import ExactResume
from janus_pl.runtime.files import write_atomically
from janus_pl.runtime.run_folder import (
    CONFIG,
    FINAL_CODES,
    checkpoint_of,
    config_of,
    differences,
    exit_code_of,
    interrupted,
)
from janus_pl.runtime.run_name import run_name, run_tags
from janus_pl.runtime.signals import Interrupted, StopBetweenSteps, StopSignals
from janus_pl.task import JanusTask

DONE, USAGE, DIVERGED, STORAGE, BROKEN_THEOREM = 0, 2, 3, 4, 5
TOLD = "JANUS_PL_GOES_ON"  # by the first process to those that it starts: what they go on with
RUN_OPTIONS = ("project", "name", "group", "tags", "run_dir")
OPTIONS = (
    *("model", "data", "trainer", "config", "seed_everything", "ckpt_path", "allow_config_change"),
    *RUN_OPTIONS,
)


def main(args: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code.

    Args:
        args: the arguments, without the program's name; None takes them from the command line.
    """
    args = list(sys.argv[1:] if args is None else args)
    with StopSignals() as signals:
        return _run(args, signals)


def _run(args: list[str], signals: StopSignals) -> int:
    code = 1
    format_before = warnings.formatwarning
    warnings.formatwarning = _one_line
    raising_before = logging.raiseExceptions
    logging.raiseExceptions = False  # of a full disk W&B's log would say so at its every line
    try:
        known = (*usage.TRAINING, *tools.TOOLS)
        if not args:
            raise UsageError("subcommand", None, f"{', '.join(known)}; --help says more")
        if usage.asked_for(args):
            print(usage.HELP)
            code = DONE
        elif args[0] in tools.TOOLS:
            code = tools.run(args)
        elif args[0] not in known and not args[0].startswith("-"):
            raise UsageError("subcommand", args[0], nearest(args[0], known))
        else:
            JanusCLI(complete(args), signals)
            code = DONE
    except (UsageError, argparse.ArgumentError) as error:
        code = _fail(USAGE, explain(error, OPTIONS))
    except ValueError as error:
        if usage_message(error) is None:
            raise
        code = _fail(USAGE, explain(error))
    except DivergenceError as error:
        code = _tell(DIVERGED, f"error: {error}")
    except TheoremError as error:
        code = _tell(BROKEN_THEOREM, f"error: {error}")
    except Interrupted as stop:
        code = _tell(stop.code, str(stop))
        wandb_run.mark_preempting()
    except OSError as error:
        if (line := storage_message(error)) is None:
            raise
        code = _fail(STORAGE, line)
    except SystemExit as stop:  # --help and --print_config end this way
        code = stop.code if isinstance(stop.code, int) else 1
    finally:
        signals.deferred = True  # nothing is left to stop
        if code == USAGE:
            wandb_run.discard()  # a mistake that only showed once the run was being set up
        code = _finish(code)
        logging.raiseExceptions = raising_before
        warnings.formatwarning = format_before
    return code


class JanusCLI(LightningCLI):
    """LightningCLI with our defaults: base.yaml first, one folder a run, errors in one line."""

    def __init__(self, args: list[str], signals: StopSignals | None = None) -> None:
        _quiet_lightning()
        self._signals = signals
        self._asked = args[0]
        parser_kwargs = {"exit_on_error": False, "allow_abbrev": False}
        described = {
            name: {
                **parser_kwargs,
                "default_config_files": [str(CONFIGS / "base.yaml")],
                "usage": f"{usage.PROGRAM} {name} {arguments}",
                "description": text,
                "epilog": usage.EXIT_CODES,
            }
            for name, (arguments, text) in usage.TRAINING.items()
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
            parser_kwargs={**parser_kwargs, "prog": usage.PROGRAM, **described},
            args=args,
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The one that is asked for: setting up all four takes a fifth of a second more."""
        known = super().subcommands()
        return {self._asked: known[self._asked]} if self._asked in known else known

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--name", type=str | None, default=None, help="Name of the W&B run.")
        parser.add_argument("--project", type=str, default="janus_pl", help="W&B project.")
        parser.add_argument("--group", type=str | None, default=None, help="W&B group.")
        parser.add_argument("--tags", type=list[str], default=[], help="W&B tags.")
        parser.add_argument(
            "--run_dir", type=str, default="runs", help="Folder of runs: RUN_DIR/PROJECT/ID/."
        )
        parser.add_argument(
            "--allow_config_change",
            action="store_true",
            help="With --ckpt_path last: go on with the run though its config has changed.",
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        # LightningCLI would warn of arguments given here beside those of the process.
        self.config = parser.parse_args(args)

    def _set_seed(self) -> None:
        self._check_seed()
        super()._set_seed()

    def _check_seed(self) -> None:
        seed = self._get(self.config, "seed_everything")
        if not (isinstance(seed, int) and 0 <= seed < 2**32):
            raise UsageError("seed_everything", seed, "an integer from 0 to 4294967295")

    def _parse_ckpt_path(self) -> None:
        """Leave the config as it is: a checkpoint's hyperparameters would silently win over it."""

    def before_instantiate_classes(self) -> None:
        """One seed for all; `--ckpt_path last` goes on with an interrupted run, where one is."""
        self._seed_data()
        self.resumed: Path | None = None
        self._takes_up = self.subcommand == "fit" and self._get(self.config, "ckpt_path") == "last"
        if not self._takes_up:
            return
        config = self.config[self.subcommand]
        config.ckpt_path = None
        if getattr(rank_zero_only, "rank", 0) != 0:
            return  # the first process decides, for it alone holds a run's lock: `_agree`
        self.resumed = self._interrupted_run()
        checkpoint = None if self.resumed is None else checkpoint_of(self.resumed)
        config.ckpt_path = None if checkpoint is None else str(checkpoint)
        if self.resumed is None:
            rank_zero_info("No interrupted run to go on with: this is a new one.")
        else:
            start = "its newest checkpoint" if checkpoint else "its start, for it has no checkpoint"
            rank_zero_info(f"Going on with {self.resumed} from {start}.")

    def _seed_data(self) -> None:
        """A seed of our data, or of a class made from it, that is null is `seed_everything`."""
        assert self.subcommand is not None
        data = self.config[self.subcommand].get("data")
        options = getattr(data, "init_args", None)
        ours = is_ours(getattr(data, "class_path", None))
        if ours and options is not None and "seed" in options and options["seed"] is None:
            options["seed"] = self._get(self.config, "seed_everything")

    def _interrupted_run(self) -> Path | None:
        """The newest interrupted run of this config; of another config only if that is allowed.

        With WANDB_RUN_ID it is that run or none, and one that has ended is left as it is.
        """
        root = Path(self._get(self.config, "run_dir")) / self._get(self.config, "project")
        runs = interrupted(root)
        if run_id := os.environ.get("WANDB_RUN_ID"):
            if exit_code_of(root / run_id) in FINAL_CODES:
                raise UsageError("WANDB_RUN_ID", run_id, "a run to go on with; that one has ended")
            runs = [run for run in runs if run.name == run_id]
        now = yaml.safe_load(self._dump())
        changed = {}
        for run in runs:
            try:
                changed[run] = differences(config_of(run), now)
            except (OSError, ValueError, yaml.YAMLError):
                if run_id:
                    allowed = f"a run to go on with; {run / CONFIG} cannot be read"
                    raise UsageError("WANDB_RUN_ID", run_id, allowed) from None
                rank_zero_warn(f"{run} is left out: its {CONFIG} cannot be read")
        runs = [*changed]
        for run in runs:
            if not changed[run]:
                return run
        if not runs or self._get(self.config, "allow_config_change"):
            return runs[0] if runs else None
        listed = "; ".join(changed[runs[0]])
        allowed = f"the config of {runs[0]}, or --allow_config_change; changed: {listed}"
        raise UsageError("--ckpt_path", "last", allowed)

    def _agree(self) -> None:
        """All processes go on with the run that the first one has found."""
        strategy, options = self.trainer.strategy, self.config_init["fit"]
        found = [None if self.resumed is None else str(self.resumed), options.ckpt_path]
        if self.trainer.world_size == 1:
            return
        if not strategy.cluster_environment.creates_processes_externally:  # type: ignore[attr-defined]
            os.environ[TOLD] = json.dumps(found)
        elif TOLD in os.environ:
            found = json.loads(os.environ[TOLD])
        else:  # torchrun, SLURM: nobody has started the others
            strategy.setup_environment()
            found = strategy.broadcast(found)
        self.resumed = None if found[0] is None else Path(found[0])
        options.ckpt_path = found[1]
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, ExactResume):
                callback.goes_on = self.resumed is not None

    def _dump(self) -> str:
        """The resolved config as YAML."""
        assert self.subcommand is not None
        parser = self._parser(self.subcommand)
        return parser.dump(self.config[self.subcommand], skip_none=False)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        options = self._get(self.config_init, "trainer")
        if not isinstance(options, Namespace):
            raise UsageError("trainer", options, "the Trainer's options by name")
        check_trainer(vars(options))
        given = options.callbacks or []
        exact = ExactResume(goes_on=self.resumed is not None)
        options.callbacks = [*(given if isinstance(given, list) else [given]), exact]
        if self.subcommand == "fit":
            check_callbacks(options.callbacks)
        if options.logger in (None, True):
            options.logger = self._logger() if self.subcommand == "fit" else False
        if self.subcommand == "fit":
            # Checkpoints go to a folder of their own without a logger too, never over those of
            # another run; and under SLURM Lightning goes on from any hpc_ckpt_*.ckpt there.
            own = options.logger if isinstance(options.logger, wandb_run.RunLogger) else None
            folder = (own or self._logger()).folder
            options.default_root_dir = options.default_root_dir or str(folder)
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

    def _logger(self) -> wandb_run.RunLogger:
        check_run_dir(self._get(self.config, "run_dir"))
        options = {k: self._get(self.config_init, k) for k in RUN_OPTIONS}
        config = self.config[str(self.subcommand)].as_dict()
        options["name"] = options["name"] or run_name(config)
        options["tags"] = list(dict.fromkeys([*(options["tags"] or ()), *run_tags(config)]))
        return wandb_run.RunLogger(**options, resumed=self.resumed)

    def _check(self) -> None:
        """Look before the trainer makes a run folder, so that a mistake leaves none."""
        if self._takes_up:
            self._agree()
        self._check_checkpoint()
        if self.subcommand == "fit" and not is_overridden(
            "train_dataloader", self.datamodule or self.model, LightningDataModule
        ):
            given = f"{type(self.datamodule).__module__}.{type(self.datamodule).__name__}"
            raise UsageError("data", given, "a data module with a train_dataloader")
        if isinstance(self.trainer.strategy.launcher, _MultiProcessingLauncher):
            allowed = "auto or ddp: the record is of a process that was started as a command"
            raise UsageError(
                "trainer.strategy", self._get(self.config, "trainer.strategy"), allowed
            )
        # Lightning's own way with several processes of a node: the first one fetches and checks.
        if self.datamodule is not None and self.trainer.local_rank == 0:
            self.datamodule.prepare_data()
            self.datamodule.setup(self.subcommand)
        if isinstance(self.model, JanusTask):
            self.model.check_run(self.trainer, self.datamodule)
        if self.subcommand != "fit" and not self._get(self.config, "ckpt_path"):
            rank_zero_info("No --ckpt_path was given: these are the weights at initialization.")

    def _check_checkpoint(self) -> None:
        """Take the sound checkpoint beside a damaged one now, or refuse before a run is made."""
        options = self.config_init[self.subcommand]
        check_checkpoint(options.ckpt_path)
        verified = isinstance(self.trainer.strategy.checkpoint_io, VerifiedCheckpointIO)
        if verified:
            check_weights_only(options.weights_only)
        if verified and options.ckpt_path not in (None, "last"):
            path, checkpoint = load_sound(Path(options.ckpt_path))
            weights = self.model.state_dict() if isinstance(self.model, JanusTask) else {}
            check_fits(path, checkpoint, weights, training=self.subcommand == "fit")
            options.ckpt_path = str(path)

    before_fit = before_validate = before_test = before_predict = _check

    def _run_subcommand(self, subcommand: str) -> None:
        try:
            super()._run_subcommand(subcommand)
        except MisconfigurationException as error:  # of options that show their fault at the start
            raise trainer_mistake(error, vars(self._get(self.config_init, "trainer"))) from error
        except DivergenceError as error:
            if not error.recorded:
                raise
            rank_zero_info(f"The run diverged, as its record says: {error}")
            self.after_fit()

    def after_fit(self) -> None:
        logger = self.trainer.logger
        if isinstance(logger, wandb_run.RunLogger) and self.trainer.is_global_zero:
            print(f"Run folder: {logger.folder}")
            if not logger.experiment.disabled:
                print(f"Look at it: wandb leet {logger.record}")
                print(f"Figures:    python -m janus_pl report {logger.folder} --out report")


class ConfigReader(JanusCLI):
    """Reads what `fit` would be given, as often as asked; it starts and writes nothing.

    Args:
        args: a command line, for the parser is made with one.
    """

    def __init__(self, args: Sequence[str]) -> None:
        super().__init__(complete(args))

    def resolve(self, args: Sequence[str]) -> dict[str, Any]:
        """The resolved config of a command line, whose model, data and callbacks can be made.

        Raises:
            UsageError: what is wrong with it; the parser's errors too.
        """
        self.config = self.parser.parse_args(complete(args))
        self._check_seed()
        self._seed_data()
        self.instantiate_classes()
        config = yaml.safe_load(self._dump())
        assert isinstance(config, dict)
        return config

    def instantiate_classes(self) -> None:
        self.config_init = self.parser.instantiate_classes(self.config)
        options = self._get(self.config_init, "trainer")
        check_trainer(vars(options))
        check_callbacks(options.callbacks if isinstance(options.callbacks, list) else [])
        self._logger()

    def _set_seed(self) -> None:
        """Nothing is trained."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Nothing is run."""


class SaveRunConfig(SaveConfigCallback):
    """Writes the resolved config to the run's folder, and nested and once to W&B."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        logger = trainer.logger
        if isinstance(logger, wandb_run.RunLogger):
            config = self.config.clone()
            if logger.resumed:
                config.ckpt_path = None  # the config is that of the run, to be repeated from
            text = self.parser.dump(config, skip_none=False)
            run = logger.experiment  # makes the folder
            write_atomically(logger.folder / "config.yaml", lambda f: f.write(text.encode()))
            run.config.update(yaml.safe_load(text), allow_val_change=True)


def is_ours(class_path: str | None) -> bool:
    """Whether it names a data module of ours or one that was made from it.

    >>> is_ours("janus_pl.data.DigitsPair"), is_ours("lightning.LightningDataModule")
    (True, False)
    """
    named = locate(str(class_path))
    return isinstance(named, type) and issubclass(named, ImagePair | LinearProblem)


def check_callbacks(callbacks: Sequence[Callback]) -> None:
    """Two callbacks of a kind with the same options would have one state in a checkpoint."""
    stateful = [c for c in callbacks if is_overridden("state_dict", c, parent=Callback)]
    keys = [callback.state_key for callback in stateful]
    for callback, key in zip(stateful, keys, strict=True):
        if keys.count(key) > 1:
            twice = f"{type(callback).__name__} twice"
            raise UsageError("trainer.callbacks", twice, "each once, or with other options")


def check_checkpoint(path: str | None) -> None:
    """A checkpoint that is named has to be there."""
    if path == "best":  # Lightning's word for that of a fit in this very process
        folder = "RUN_DIR/PROJECT/ID/checkpoints/best.ckpt"
        raise UsageError("--ckpt_path", path, f"an existing checkpoint file, as {folder}")
    if path not in (None, "last") and not Path(path).is_file():
        raise UsageError("--ckpt_path", path, "an existing checkpoint file")


def check_run_dir(path: str | None) -> None:
    """The folder of runs has to be one, or there has to be room to make it."""
    if not path:
        raise UsageError("--run_dir", path, "a folder")
    folder = Path(path).absolute()
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise UsageError("--run_dir", path, f"a folder; {str(existing)!r} is none to write to")


def _finish(code: int) -> int:
    """End the W&B run; the exit code, which is STORAGE where W&B was the first to find no room."""
    try:
        wandb_run.finish(code)
    except OSError as error:
        if (line := storage_message(error)) is None:
            raise
        return code or _fail(STORAGE, line)
    return code


def _fail(code: int, message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


def _tell(code: int, line: str) -> int:
    """How a run ended, on all ranks alike: the first one tells, and ends with the exit code.

    Lightning's launcher kills it with SIGKILL when another process ends with a code other than 0.
    """
    if getattr(rank_zero_only, "rank", 0) != 0:
        return DONE
    print(line, file=sys.stderr)
    return code


def _one_line(message: Warning | str, *args: Any, **kwargs: Any) -> str:
    """A warning is for the user: what it says, and not the line of ours that says it."""
    return f"warning: {message}\n"


def _quiet_lightning() -> None:
    """Leave out what Lightning says of its services and of its own deprecated calls."""
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    if not logger.filters:
        logger.addFilter(_is_no_advertisement)
    warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)


def _is_no_advertisement(entry: logging.LogRecord) -> bool:
    return "Tip:" not in entry.getMessage()
