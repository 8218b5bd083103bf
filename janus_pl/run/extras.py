"""What W&B gets of a run beside its record, if it is asked for: checkpoints, code, messages."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from janus_pl.errors import INTERRUPTED, DivergenceError, Exit, UsageError
from janus_pl.run.account import begun_run, job_type

ENTITY = r"[\w.-]+"
PACKAGE = Path(__file__).resolve().parents[1]
ELSEWHERE = ("site-packages", "dist-packages")  # the code of others


@dataclass(frozen=True)
class Extras:
    """The options of a run that W&B alone knows; they change no number, no id and no folder.

    Args:
        entity: The user or team of W&B that the run belongs to; W&B's own default if it is None.
        notes: A text about the run.
        job_type: W&B's job type; WANDB_JOB_TYPE, or else `train`, if it is None.
        log_model: Whether the checkpoints go to W&B at the end, as an artifact `model-ID` with the
            aliases `best` and `last`.
        save_code: Whether the code goes to W&B at the start, as an artifact `code-ID`: this package
            and the modules from the working directory.
        alerts: Whether W&B sends a message at the end of the run and if it diverges.

    Raises:
        UsageError: A value is of another kind, the job type is that of figures, or a run that
            `wandb.init()` or an agent has begun has another entity or job type.
    """

    entity: str | None = None
    notes: str | None = None
    job_type: str | None = None
    log_model: bool = False
    save_code: bool = False
    alerts: bool = False

    def __post_init__(self) -> None:
        for name in ("log_model", "save_code", "alerts"):
            if not isinstance(value := getattr(self, name), bool):
                raise UsageError(f"--{name}", value, "true, false")
        if self.entity is not None and not re.fullmatch(ENTITY, self.entity):
            raise UsageError("--entity", self.entity, "a user or team of W&B")
        job_type(self.job_type)
        _check_begun(self.entity, self.job_type)

    def check_unused(self, logger: object) -> None:
        """Refuse options of a run that W&B's own logger of it does not record.

        Raises:
            UsageError: One is given.
        """
        for each in fields(self):
            if (value := getattr(self, each.name)) != each.default:
                instead = type(logger).__name__ if logger else "none"
                allowed = f"nothing, for trainer.logger ({instead}) is in place of the run's own"
                raise UsageError(f"--{each.name}", value, allowed)

    def for_init(self) -> dict[str, Any]:
        """Return the arguments of `wandb.init`."""
        given = {"entity": self.entity, "notes": self.notes}
        if "WANDB_SWEEP_ID" in os.environ:
            del given["entity"]  # it is the sweep's; W&B would warn that it ignores this one
        return {"job_type": job_type(self.job_type), **{k: v for k, v in given.items() if v}}

    def begin(self, run: Any) -> None:
        """Send the code, and the notes to a run that somebody else has begun."""
        if self.notes:
            run.notes = self.notes
        if self.save_code:
            _send_files(run, "code", {str(name): file for name, file in code_files().items()})

    def end(self, run: Any, status: str, checkpoints: Iterable[Any]) -> None:
        """Send the checkpoints and the message at the end of a fit.

        Args:
            run: W&B's run.
            status: How Lightning says that the fit ended; `success` if no error ended it.
            checkpoints: The callbacks that have saved checkpoints.
        """
        if self.log_model:
            for alias, path in _newest(checkpoints).items():
                _send_files(run, "model", {"model.ckpt": Path(path)}, [alias])
        if self.alerts:
            title, text, level = message_of(status, sys.exc_info()[1])
            run.alert(title=title, text=f"{run.name} ({run.id}): {text}", level=level)


def message_of(status: str, error: BaseException | None) -> tuple[str, str, str]:
    """Return the title, the text and the level of the message at the end of a fit.

    >>> message_of("success", None)
    ('Run finished', 'the fit has ended', 'INFO')
    """
    if isinstance(error, DivergenceError):
        return "Run diverged", str(error), "ERROR"
    if status == "success":
        return "Run finished", "the fit has ended", "INFO"
    by_signal = getattr(error, "exit_code", Exit.DEFECT) in INTERRUPTED
    stopped = by_signal or isinstance(error, KeyboardInterrupt)
    said = " ".join(str(error).split()) or type(error).__name__
    return ("Run stopped", said, "WARN") if stopped else ("Run failed", said, "ERROR")


def code_files(package: Path = PACKAGE) -> dict[Path, Path]:
    """Return the files of code behind a run, by their paths: ours, and those of the user.

    Files of this package are by their paths in it; modules from the working directory by theirs.

    Args:
        package: The folder of this package.
    """
    # In a checkout the package has a link to its callbacks, in a wheel the files themselves. What
    # else is named callbacks beside the package is somebody else's.
    folders = (package, (package / "callbacks").resolve())
    found = {
        file.relative_to(package.parent): file
        for folder in folders
        for file in sorted(folder.rglob("*.py"))
    }
    here = Path.cwd()
    for module in [*sys.modules.values()]:
        file = Path(getattr(module, "__file__", None) or "/")
        if file.suffix == ".py" and file.is_file() and file.is_relative_to(here):
            place = file.relative_to(here)
            ours = any(folder in file.resolve().parents for folder in folders)
            if not ours and not any(part in ELSEWHERE or part[0] == "." for part in place.parts):
                found[place] = file
    return found


def _newest(checkpoints: Iterable[Any]) -> dict[str, str]:
    """Return the files of checkpoints by their aliases."""
    found: dict[str, str] = {}
    for callback in checkpoints:
        for alias in ("best", "last"):
            path = getattr(callback, f"{alias}_model_path", "")
            if path and Path(path).is_file():
                found[alias] = str(path)
    return found


def _send_files(run: Any, kind: str, files: Mapping[str, Path], aliases: Any = None) -> None:
    """Send files to W&B as a version of the artifact KIND-ID."""
    import wandb

    artifact = wandb.Artifact(f"{kind}-{run.id}", type=kind)
    for name, file in files.items():
        artifact.add_file(str(file), name=name)
    run.log_artifact(artifact, aliases=aliases)


def _check_begun(entity: str | None, kind: str | None) -> None:
    """Refuse an entity or a job type that a run which has begun does not have."""
    begun = begun_run()
    if begun is not None:
        who = f"that of the run that wandb.init() has begun ({begun.entity or 'none'})"
        if entity not in (None, begun.entity):
            raise UsageError("--entity", entity, who)
        if kind not in (None, begun.settings.run_job_type):
            what = f"{begun.settings.run_job_type}, that of the run that wandb.init() has begun"
            raise UsageError("--job_type", kind, what)
    elif "WANDB_SWEEP_ID" in os.environ and entity not in (None, os.environ.get("WANDB_ENTITY")):
        raise UsageError("--entity", entity, "that of the sweep, whose agent gives it")
